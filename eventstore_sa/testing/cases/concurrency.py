"""Cases: publishes that run at the same time.

Asynchronous adapters run them in tasks of one event loop, synchronous ones in threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

from eventstore_sa.conditions import position_is, stream_exists, stream_is_empty
from eventstore_sa.errors import DuplicateEventError, UnmetWriteConditionError
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, Scannable
from eventstore_sa.testing.cases.setting import (
    LOG,
    ORDERS,
    EventStorageSetting,
    Operation,
    Outcome,
    new_event,
    new_events,
    read,
    stored_in,
    stream,
)
from eventstore_sa.testing.cases.tables import in_turn

__all__ = ["ConcurrencyCases"]

WRITERS = 8

WIDEST: Mapping[EventSerialisationGuarantee, Scannable] = {
    EventSerialisationGuarantee.LOG: LOG,
    EventSerialisationGuarantee.CATEGORY: ORDERS,
    EventSerialisationGuarantee.STREAM: stream("shared"),
}


def failures(outcomes: list[Outcome]) -> list[BaseException]:
    """Return the exceptions among outcomes."""
    return [outcome for outcome in outcomes if isinstance(outcome, BaseException)]


def successes(outcomes: list[Outcome]) -> list[Any]:
    """Return the results among outcomes."""
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


class ConcurrencyCases(EventStorageSetting):
    """What publishes at the same time do to each other."""

    async def test_of_publishes_that_demand_the_same_position_exactly_one_wins(
        self, adapter: EventStorageAdapter
    ) -> None:
        known = await stored_in(adapter, stream())

        for position in range(4):
            outcomes = await self.run_concurrently(
                [
                    partial(adapter.save, target=stream(), events=new_events(1), condition=position_is(position))
                    for _ in range(WRITERS)
                ]
            )

            assert {type(error) for error in failures(outcomes)} == {UnmetWriteConditionError}
            (winner,) = successes(outcomes)
            known += winner
            assert await read(adapter, stream()) == known

    async def test_of_publishes_that_demand_an_empty_stream_exactly_one_wins(
        self, adapter: EventStorageAdapter
    ) -> None:
        for name in ("1", "2", "3"):
            outcomes = await self.run_concurrently(
                [
                    partial(adapter.save, target=stream(name), events=new_events(3), condition=stream_is_empty())
                    for _ in range(WRITERS)
                ]
            )

            (winner,) = successes(outcomes)
            assert {type(error) for error in failures(outcomes)} == {UnmetWriteConditionError}
            assert await read(adapter, stream(name)) == list(winner)

    async def test_the_losers_are_told_where_the_stream_is_now(self, adapter: EventStorageAdapter) -> None:
        outcomes = await self.run_concurrently(
            [
                partial(adapter.save, target=stream(), events=new_events(2), condition=position_is(None))
                for _ in range(WRITERS)
            ]
        )

        errors = [error for error in failures(outcomes) if isinstance(error, UnmetWriteConditionError)]
        assert [error.actual_position for error in errors] == [1] * (WRITERS - 1)

    async def test_publishes_without_a_condition_all_succeed_and_leave_no_gaps(
        self, adapter: EventStorageAdapter
    ) -> None:
        outcomes = await self.run_concurrently(
            [partial(adapter.save, target=stream(), events=new_events(5)) for _ in range(WRITERS)]
        )

        assert failures(outcomes) == []
        found = await read(adapter, stream())
        assert [event.position for event in found] == list(range(5 * WRITERS))
        assert all(one.sequence_number < following.sequence_number for one, following in pairwise(found))
        for stored in outcomes:
            first = stored[0].position
            assert found[first : first + 5] == list(stored)

    async def test_publishes_to_different_streams_all_succeed(self, adapter: EventStorageAdapter) -> None:
        operations: list[Operation] = [
            partial(adapter.save, target=stream(str(number)), events=new_events(5), condition=stream_is_empty())
            for number in range(WRITERS)
        ]

        outcomes = await self.run_concurrently(operations)

        assert failures(outcomes) == []
        for number, stored in enumerate(outcomes):
            assert await read(adapter, stream(str(number))) == list(stored)
        found = await read(adapter)
        assert sorted(event.id for event in found) == sorted(event.id for stored in outcomes for event in stored)
        assert all(one.sequence_number < following.sequence_number for one, following in pairwise(found))

    async def test_publishes_to_the_same_streams_in_opposite_orders_all_succeed(
        self, adapter: EventStorageAdapter
    ) -> None:
        names = ["a", "b", "c", "d"]
        await stored_in(adapter, *map(stream, names))
        operations: list[Operation] = [
            partial(
                adapter.save,
                target=ORDERS,
                streams={
                    name: {"events": new_events(2), "condition": stream_exists()}
                    for name in (names if number % 2 else names[::-1])
                },
            )
            for number in range(WRITERS)
        ]

        outcomes = await self.run_concurrently(operations)

        assert failures(outcomes) == []
        for name in names:
            found = await read(adapter, stream(name))
            assert [event.position for event in found] == list(range(1 + 2 * WRITERS))
            assert all(one.sequence_number < following.sequence_number for one, following in pairwise(found))

    async def test_a_publish_to_many_streams_loses_or_wins_as_a_whole(self, adapter: EventStorageAdapter) -> None:
        operations: list[Operation] = [
            partial(
                adapter.save,
                target=LOG,
                streams={
                    stream(str(number)): {"events": new_events(1)},
                    stream("shared", "locks"): {"events": new_events(1), "condition": stream_is_empty()},
                },
            )
            for number in range(WRITERS)
        ]

        outcomes = await self.run_concurrently(operations)

        (winner,) = successes(outcomes)
        assert {type(error) for error in failures(outcomes)} == {UnmetWriteConditionError}
        assert await read(adapter) == [event for events in winner.values() for event in events]

    @in_turn("name, condition", {"no condition": ("1", None), "empty": ("2", stream_is_empty())})
    async def test_the_same_publish_at_the_same_time_is_stored_once(
        self, adapter: EventStorageAdapter, name: str, condition: Any
    ) -> None:
        events = new_events(3)

        outcomes = await self.run_concurrently(
            [partial(adapter.save, target=stream(name), events=events, condition=condition) for _ in range(WRITERS)]
        )

        assert failures(outcomes) == []
        found = await read(adapter, stream(name))
        assert len(found) == 3
        assert [list(stored) for stored in outcomes] == [found] * WRITERS

    async def test_one_id_for_many_streams_at_the_same_time_goes_to_one_of_them(
        self, adapter: EventStorageAdapter
    ) -> None:
        event = new_event()

        outcomes = await self.run_concurrently(
            [partial(adapter.save, target=stream(str(number)), events=[event]) for number in range(WRITERS)]
        )

        (winner,) = successes(outcomes)
        assert {type(error) for error in failures(outcomes)} == {DuplicateEventError}
        assert await read(adapter) == list(winner)

    async def test_reads_beside_publishes_see_no_hole(self, adapter: EventStorageAdapter) -> None:
        widest = WIDEST[self.reads_are_complete_within]

        async def publish(number: int) -> None:
            for _ in range(5):
                targets = (stream(str(number)), stream("shared"))
                await adapter.save(target=LOG, streams={target: {"events": new_events(2)} for target in targets})

        async def watch() -> list[list[Any]]:
            return [await read(adapter, widest) for _ in range(10)]

        outcomes = await self.run_concurrently([*(partial(publish, number) for number in range(4)), watch, watch])

        assert failures(outcomes) == []
        final = await read(adapter, widest)
        assert len(final) == (40 if widest == stream("shared") else 80)
        for seen in (*outcomes[-1], *outcomes[-2]):
            assert seen == final[: len(seen)]

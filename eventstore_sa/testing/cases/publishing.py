"""Cases: what `save` stores and returns, for one stream, a category and the log.

Positions count from 0 within a stream without gaps; sequence numbers increase throughout the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest

from eventstore_sa.conditions import position_is, stream_exists, stream_is_empty
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.publishing import stream_publish_definition
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter
from eventstore_sa.testing.cases.setting import (
    LOG,
    ORDERS,
    EventStorageSetting,
    new_event,
    new_events,
    read,
    stored_in,
    stream,
)
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent, CategoryIdentifier

__all__ = ["PublishingCases"]

INVOICES = CategoryIdentifier("invoices")


def positions(events: Sequence[AnyStoredEvent]) -> list[int]:
    """Return the positions of events."""
    return [event.position for event in events]


def flat(results: Mapping[Any, Sequence[AnyStoredEvent]]) -> list[AnyStoredEvent]:
    """Return the events of all streams of a result, in its order."""
    return [event for events in results.values() for event in events]


class PublishingCases(EventStorageSetting):
    """What publishing stores and returns."""

    async def test_publishing_returns_the_events_with_their_place(self, adapter: EventStorageAdapter) -> None:
        events = new_events(3)

        stored = await adapter.save(target=stream("42"), events=events)

        assert [event.id for event in stored] == [event.id for event in events]
        assert {(event.category, event.stream) for event in stored} == {("orders", "42")}
        assert positions(stored) == [0, 1, 2]

    async def test_what_was_published_is_what_is_read(self, adapter: EventStorageAdapter) -> None:
        event = new_event("order-placed", payload={"total": 12}, metadata={"by": "someone"})

        stored = await adapter.save(target=stream(), events=[event])

        read_back = await read(adapter)
        assert read_back == list(stored)
        fields = ("id", "name", "payload", "metadata", "observed_at", "occurred_at")
        assert [getattr(read_back[0], field) for field in fields] == [getattr(event, field) for field in fields]

    async def test_events_go_to_the_end_of_their_stream(self, adapter: EventStorageAdapter) -> None:
        first = await adapter.save(target=stream(), events=new_events(2))
        second = await adapter.save(target=stream(), events=new_events(3))

        assert positions([*first, *second]) == [0, 1, 2, 3, 4]
        assert await read(adapter, stream()) == [*first, *second]

    async def test_every_stream_counts_its_own_positions(self, adapter: EventStorageAdapter) -> None:
        await stored_in(adapter, stream("1"), events=3)

        stored = await stored_in(adapter, stream("2"), stream("1", "invoices"), stream("1"))

        assert positions(stored) == [0, 0, 3]

    async def test_sequence_numbers_increase_throughout_the_store(self, adapter: EventStorageAdapter) -> None:
        stored = await stored_in(adapter, stream("1"), stream("2"), stream("1", "invoices"), stream("1"), events=2)

        assert stored[0].sequence_number >= 1
        assert all(one.sequence_number < next_one.sequence_number for one, next_one in pairwise(stored))

    async def test_a_stream_of_the_same_name_in_another_category_is_another_stream(
        self, adapter: EventStorageAdapter
    ) -> None:
        orders = await stored_in(adapter, stream("42", "orders"), events=2)
        invoices = await stored_in(adapter, stream("42", "invoices"))

        assert await read(adapter, stream("42", "orders")) == orders
        assert await read(adapter, stream("42", "invoices")) == invoices
        assert await read(adapter, ORDERS) == orders
        assert await read(adapter, INVOICES) == invoices

    async def test_ids_of_the_caller_are_kept(self, adapter: EventStorageAdapter) -> None:
        events = new_events(3)

        await adapter.save(target=stream(), events=events[::-1])

        assert [event.id for event in await read(adapter, stream())] == [event.id for event in events[::-1]]

    async def test_an_empty_publish_to_a_stream_stores_nothing(self, adapter: EventStorageAdapter) -> None:
        assert list(await adapter.save(target=stream(), events=[])) == []
        assert await read(adapter) == []

        await adapter.save(target=stream(), events=[], condition=stream_is_empty())

    async def test_an_empty_publish_takes_no_position(self, adapter: EventStorageAdapter) -> None:
        await stored_in(adapter, stream())
        await adapter.save(target=stream(), events=[], condition=position_is(0))

        assert positions(await adapter.save(target=stream(), events=new_events(1))) == [1]

    async def test_publishing_no_streams_at_all_stores_nothing(self, adapter: EventStorageAdapter) -> None:
        assert dict(await adapter.save(target=ORDERS, streams={})) == {}
        assert dict(await adapter.save(target=LOG, streams={})) == {}

    async def test_a_category_takes_events_for_many_streams(self, adapter: EventStorageAdapter) -> None:
        known = await stored_in(adapter, stream("b"), events=2)

        results = await adapter.save(
            target=ORDERS,
            streams={
                "b": {"events": new_events(1), "condition": position_is(1)},
                "a": stream_publish_definition(events=new_events(2), condition=stream_is_empty()),
            },
        )

        assert {name: positions(events) for name, events in results.items()} == {"b": [2], "a": [0, 1]}
        assert await read(adapter, stream("a")) == list(results["a"])
        assert await read(adapter, stream("b")) == [*known, *results["b"]]

    async def test_the_log_takes_events_for_streams_of_many_categories(self, adapter: EventStorageAdapter) -> None:
        targets = [stream("42", "orders"), stream("42", "invoices"), stream("7", "orders")]

        results = await adapter.save(target=LOG, streams={target: {"events": new_events(2)} for target in targets})

        assert list(results) == targets
        for target in targets:
            assert positions(results[target]) == [0, 1]
            assert await read(adapter, target) == list(results[target])
        assert await read(adapter, ORDERS) == [*results[targets[0]], *results[targets[2]]]

    @in_turn("names", [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]])
    async def test_results_and_sequence_numbers_are_in_the_order_of_the_publish(
        self, adapter: EventStorageAdapter, names: list[str]
    ) -> None:
        await stored_in(adapter, stream("b"))
        known = await read(adapter)

        results = await adapter.save(target=ORDERS, streams={name: {"events": new_events(2)} for name in names})

        assert list(results) == names
        assert await read(adapter) == [*known, *flat(results)]

    async def test_streams_without_events_are_in_the_result(self, adapter: EventStorageAdapter) -> None:
        results = await adapter.save(
            target=ORDERS, streams={"a": {"events": []}, "b": {"events": new_events(1)}, "c": {"events": []}}
        )

        assert [(name, len(events)) for name, events in results.items()] == [("a", 0), ("b", 1), ("c", 0)]
        assert len(await read(adapter)) == 1

    async def test_one_unmet_condition_undoes_a_publish_to_a_category(self, adapter: EventStorageAdapter) -> None:
        known = await stored_in(adapter, stream("b"))

        with pytest.raises(UnmetWriteConditionError) as caught:
            await adapter.save(
                target=ORDERS,
                streams={
                    "a": {"events": new_events(1), "condition": stream_is_empty()},
                    "b": {"events": new_events(1), "condition": stream_is_empty()},
                    "c": {"events": new_events(1)},
                },
            )

        assert caught.value.stream == stream("b")
        assert await read(adapter) == known

    async def test_one_unmet_condition_undoes_a_publish_to_the_log(self, adapter: EventStorageAdapter) -> None:
        known = await stored_in(adapter, stream("b"))

        with pytest.raises(UnmetWriteConditionError) as caught:
            await adapter.save(
                target=LOG,
                streams={
                    stream("b", "invoices"): {"events": new_events(1)},
                    stream("b"): {"events": new_events(1), "condition": position_is(1)},
                },
            )

        assert (caught.value.stream, caught.value.actual_position) == (stream("b"), 0)
        assert await read(adapter) == known

    async def test_a_stream_without_events_may_stand_guard_for_the_others(self, adapter: EventStorageAdapter) -> None:
        guarded: dict[str, Any] = {
            "guard": {"events": [], "condition": stream_exists()},
            "a": {"events": new_events(1)},
        }
        with pytest.raises(UnmetWriteConditionError):
            await adapter.save(target=ORDERS, streams=guarded)
        assert await read(adapter) == []

        await stored_in(adapter, stream("guard"))
        await adapter.save(target=ORDERS, streams=guarded)

        assert len(await read(adapter, stream("a"))) == 1

    async def test_after_a_failure_positions_go_on_without_a_gap(self, adapter: EventStorageAdapter) -> None:
        await stored_in(adapter, stream())
        with pytest.raises(UnmetWriteConditionError):
            await adapter.save(target=stream(), events=new_events(3), condition=stream_is_empty())

        assert positions(await adapter.save(target=stream(), events=new_events(1))) == [1]

    @in_turn("kind", [list, tuple])
    async def test_events_may_be_any_sequence(self, adapter: EventStorageAdapter, kind: type) -> None:
        events: Sequence[AnyNewEvent] = kind(new_events(2))
        known = await read(adapter)

        assert len(await adapter.save(target=stream(), events=events)) == 2
        assert len(await read(adapter)) == len(known) + 2

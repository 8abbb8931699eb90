"""Cases: which write conditions are met, and what an unmet one tells.

Every condition is tried on streams of 0, 1 and 3 events, with events to store and with none.
"""

from __future__ import annotations

from itertools import product

import pytest

from eventstore_sa.conditions import (
    NoCondition,
    WriteCondition,
    position_is,
    stream_exists,
    stream_is_empty,
)
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.store.adapters.event_contract import AnyStreamPublishDefinition, EventStorageAdapter
from eventstore_sa.testing.cases.setting import ORDERS, EventStorageSetting, new_events, read, stored_in, stream
from eventstore_sa.testing.cases.tables import case

__all__ = ["ConditionCases"]

LENGTHS = (0, 1, 3)

CONDITIONS: dict[str, tuple[WriteCondition, set[int]]] = {
    "none": (NoCondition(), {0, 1, 3}),
    "position is none": (position_is(None), {0}),
    "position is 0": (position_is(0), {1}),
    "position is 2": (position_is(2), {3}),
    "position is beyond": (position_is(3), set()),
    "position is huge": (position_is(2**63 - 1), set()),
    "position is beyond 64 bits": (position_is(2**64) | position_is(2), {3}),
    "empty": (stream_is_empty(), {0}),
    "exists": (stream_exists(), {1, 3}),
    "or": (position_is(0) | position_is(2), {1, 3}),
    "or none": (position_is(None) | position_is(2), {0, 3}),
    "or everything": (stream_is_empty() | stream_exists(), {0, 1, 3}),
    "or with no condition": (position_is(7) | NoCondition(), {0, 1, 3}),
    "or of three": (stream_is_empty() | position_is(0) | position_is(2), {0, 1, 3}),
    "or of the impossible": (position_is(7) | position_is(9), set()),
    "and": (stream_exists() & position_is(2), {3}),
    "and with no condition": (NoCondition() & stream_is_empty(), {0}),
    "and of equals": (position_is(None) & stream_is_empty(), {0}),
    "contradiction": (stream_is_empty() & stream_exists(), set()),
    "contradicting positions": (position_is(0) & position_is(2), set()),
    "or of ands": ((stream_exists() & position_is(0)) | (stream_is_empty() & position_is(None)), {0, 1}),
    "and of ors": ((position_is(0) | position_is(2)) & (stream_is_empty() | position_is(2)), {3}),
    "or of a contradiction": ((stream_is_empty() & stream_exists()) | position_is(2), {3}),
    "deep": (((position_is(2) | stream_is_empty()) & NoCondition() & stream_exists()) | position_is(7), {3}),
}


async def streams_of_all_lengths(adapter: EventStorageAdapter, *, category: str = ORDERS.category) -> None:
    """Store one stream of each length, named by it."""
    for length in LENGTHS:
        await adapter.save(target=stream(str(length), category), events=new_events(length))


def stream_of(events: int, condition: WriteCondition) -> AnyStreamPublishDefinition:
    """Define so many new events for a stream on a condition."""
    return {"events": new_events(events), "condition": condition}


class ConditionCases(EventStorageSetting):
    """What conditions let through."""

    async def test_events_are_stored_only_where_the_condition_is_met(self, adapter: EventStorageAdapter) -> None:
        for key, (condition, met_at) in CONDITIONS.items():
            await streams_of_all_lengths(adapter, category=key)
            for length in LENGTHS:
                target = stream(str(length), key)
                before = await read(adapter, target)
                with case((key, length)):
                    if length in met_at:
                        stored = await adapter.save(target=target, events=new_events(2), condition=condition)
                        assert await read(adapter, target) == [*before, *stored]
                    else:
                        with pytest.raises(UnmetWriteConditionError):
                            await adapter.save(target=target, events=new_events(2), condition=condition)
                        assert await read(adapter, target) == before

    async def test_an_empty_publish_checks_its_condition(self, adapter: EventStorageAdapter) -> None:
        await streams_of_all_lengths(adapter)

        for (key, (condition, met_at)), length in product(CONDITIONS.items(), LENGTHS):
            with case((key, length)):
                target = stream(str(length))
                if length in met_at:
                    assert list(await adapter.save(target=target, events=[], condition=condition)) == []
                else:
                    with pytest.raises(UnmetWriteConditionError):
                        await adapter.save(target=target, events=[], condition=condition)
                assert len(await read(adapter, target)) == length

    async def test_a_publish_to_many_checks_the_condition_of_each_stream(self, adapter: EventStorageAdapter) -> None:
        await streams_of_all_lengths(adapter)

        for (key, (condition, met_at)), length in product(CONDITIONS.items(), LENGTHS):
            with case((key, length)):
                guard = str(length)
                streams = {
                    "free": stream_of(1, NoCondition()),
                    guard: stream_of(0, condition),
                    "empty": stream_of(0, stream_is_empty()),
                }
                before = len(await read(adapter, stream("free")))
                if length in met_at:
                    await adapter.save(target=ORDERS, streams=streams)
                else:
                    with pytest.raises(UnmetWriteConditionError) as caught:
                        await adapter.save(target=ORDERS, streams=streams)
                    assert caught.value.stream == stream(guard)
                assert len(await read(adapter, stream("free"))) == before + (length in met_at)

    async def test_a_condition_holds_for_its_own_stream_only(self, adapter: EventStorageAdapter) -> None:
        await stored_in(adapter, stream("1"), stream("2", "invoices"), events=2)

        await adapter.save(target=stream("2"), events=new_events(1), condition=stream_is_empty())
        with pytest.raises(UnmetWriteConditionError):
            await adapter.save(target=stream("1"), events=new_events(1), condition=position_is(0))

    async def test_the_error_tells_stream_condition_and_position(self, adapter: EventStorageAdapter) -> None:
        await streams_of_all_lengths(adapter)
        condition = position_is(6)

        for length in LENGTHS:
            with case(length):
                with pytest.raises(UnmetWriteConditionError) as caught:
                    await adapter.save(target=stream(str(length)), events=new_events(1), condition=condition)

                assert caught.value.stream == stream(str(length))
                assert caught.value.condition == condition
                assert caught.value.actual_position == (length - 1 if length else None)

    async def test_the_message_says_where_the_stream_is_and_where_it_should_be(
        self, adapter: EventStorageAdapter
    ) -> None:
        await stored_in(adapter, stream("42"), events=3)

        with pytest.raises(UnmetWriteConditionError) as caught:
            await adapter.save(target=stream("42"), events=new_events(1), condition=position_is(5))

        assert "stream 'orders/42' is at position 2, expected position 5" in caught.value.message
        assert str(caught.value) == caught.value.message

    async def test_the_message_of_an_empty_stream_says_so(self, adapter: EventStorageAdapter) -> None:
        with pytest.raises(UnmetWriteConditionError, match="'orders/42' is empty, expected a stream with events"):
            await adapter.save(target=stream("42"), events=new_events(1), condition=stream_exists())

    async def test_a_failed_or_reports_all_of_its_members(self, adapter: EventStorageAdapter) -> None:
        condition = position_is(5) | (position_is(7) & stream_exists())

        with pytest.raises(UnmetWriteConditionError) as caught:
            await adapter.save(target=stream(), events=new_events(1), condition=condition)

        assert caught.value.condition == condition
        for member in ("position 5", "position 7", "a stream with events"):
            assert member in caught.value.message

    async def test_the_first_unmet_condition_of_a_publish_is_reported(self, adapter: EventStorageAdapter) -> None:
        with pytest.raises(UnmetWriteConditionError) as caught:
            await adapter.save(
                target=ORDERS,
                streams={
                    "c": stream_of(1, NoCondition()),
                    "b": stream_of(1, position_is(4)),
                    "a": stream_of(1, position_is(5)),
                },
            )

        assert (caught.value.stream, caught.value.condition) == (stream("b"), position_is(4))

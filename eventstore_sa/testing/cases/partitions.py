"""Cases: partitions of the log and of categories are read like the whole, and together they are the whole.

Which stream is in which partition is said by the identifiers' `covers`; every adapter must agree with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from eventstore_sa.sources.constraints import sequence_number_after
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter
from eventstore_sa.testing.cases.setting import (
    LOG,
    ORDERS,
    EventStorageSetting,
    belongs,
    new_events,
    read,
    scanned,
    stored_in,
    stream,
)
from eventstore_sa.testing.cases.tables import case, in_turn
from eventstore_sa.types import (
    AnyStoredEvent,
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    LogPartitionIdentifier,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
)

__all__ = ["PartitionCases"]

STREAMS = [
    StreamIdentifier(category, name)
    for category in ("orders", "naïve 🎉", "100% 'it' \\ :a")
    for name in ("1", "2", "eu-1", "eu-2", "EU-1", "eu", "e%", "e_", "éclair", "🎉🎉", "x" * 1000)
]

PARTS: Sequence[EventPartitionIdentifier] = (
    LogPartitionIdentifier(1, 3),
    CategoryPartitionIdentifier("orders", 1, 3),
    StreamNamePrefixPartitionIdentifier("orders", "e"),
)

PREFIXES = [
    "e",
    "eu",
    "eu-",
    "EU",
    "e%",
    "e_",
    "%",
    "_",
    "é",
    "🎉",
    "x" * 1000,
    "eu-1-and-more",
    "\\",
    "'",
    "\x7f",
    "\ud7ff",
    "\U0010ffff",
    "\U0010ffff\U0010ffff",
    "a\U0010ffff",
]


class PartitionCases(EventStorageSetting):
    """What partitions return."""

    async def test_partitions_hold_each_event_of_the_whole_once_and_in_order(
        self, adapter: EventStorageAdapter
    ) -> None:
        stored = await stored_in(adapter, *STREAMS, *STREAMS)
        for count in (1, 2, 5):
            parts: list[EventPartitionIdentifier] = [LogPartitionIdentifier(part, count) for part in range(count)]
            parts += [CategoryPartitionIdentifier("orders", part, count) for part in range(count)]

            for part in parts:
                expected = [event for event in stored if belongs(event, part)]
                assert await read(adapter, part) == expected
                assert await adapter.latest(target=part) == (expected[-1] if expected else None)
            together = [event for part in parts[:count] for event in await read(adapter, part)]
            assert sorted(together, key=lambda event: event.sequence_number) == stored

    @in_turn("part", PARTS)
    async def test_partitions_of_an_empty_store_are_empty(self, adapter: EventStorageAdapter, part: Any) -> None:
        assert await read(adapter, part) == []
        assert await adapter.latest(target=part) is None

    async def test_partitions_are_read_in_all_the_ways_of_the_whole(self, adapter: EventStorageAdapter) -> None:
        stored = await stored_in(adapter, *STREAMS, *STREAMS, *STREAMS)

        for part in PARTS:
            with case(part):
                own = [event for event in stored if belongs(event, part)]
                middle = own[len(own) // 2].sequence_number

                assert await read(adapter, part, backwards=True) == own[::-1]
                assert await read(adapter, part, limit=2) == own[:2]
                assert await read(adapter, part, limit=2, backwards=True) == own[: -2 - 1 : -1]
                assert await read(adapter, part, limit=0) == []
                later = [event for event in own if event.sequence_number > middle]
                after = {sequence_number_after(middle)}
                assert await scanned(adapter, part, after) == later
                assert await scanned(adapter, part, after, backwards=True, limit=1) == own[-1:]

    async def test_partitions_there_is_no_stream_for_are_empty(self, adapter: EventStorageAdapter) -> None:
        stored = await stored_in(adapter, stream())

        for count in (2**31, 2**32, 2**32 + 1, 2**64):
            last: list[EventPartitionIdentifier] = [
                LogPartitionIdentifier(count - 1, count),
                CategoryPartitionIdentifier("orders", count - 1, count),
            ]
            for part in last:
                assert await read(adapter, part) == [event for event in stored if belongs(event, part)]
        assert await read(adapter, CategoryPartitionIdentifier("unknown", 0, 1)) == []

    async def test_a_prefix_picks_the_streams_of_its_category_that_start_with_it(
        self, adapter: EventStorageAdapter
    ) -> None:
        extremes = [stream("\ud7ff1"), stream("\ue000"), stream("\U0010ffff"), stream("a\U0010ffff"), stream("b")]
        stored = await stored_in(adapter, *STREAMS, *extremes)

        for prefix in PREFIXES:
            part = StreamNamePrefixPartitionIdentifier("orders", prefix)
            expected = [event for event in stored if event.category == "orders" and event.stream.startswith(prefix)]
            assert await read(adapter, part) == expected, prefix
            assert await adapter.latest(target=part) == (expected[-1] if expected else None), prefix

    async def test_partitions_go_through_thousands_of_events(self, adapter: EventStorageAdapter) -> None:
        names = [f"{number % 3}-{number}" for number in range(26)]
        stored: list[AnyStoredEvent] = []
        for _ in range(2):
            definitions: Any = {name: {"events": new_events(65)} for name in names}
            for events in (await adapter.save(target=ORDERS, streams=definitions)).values():
                stored += events

        for part in (
            LogPartitionIdentifier(0, 2),
            CategoryPartitionIdentifier("orders", 0, 2),
            StreamNamePrefixPartitionIdentifier("orders", "1-"),
        ):
            own = [event for event in stored if belongs(event, part)]
            assert len(own) > 1000
            assert await read(adapter, part) == own
            assert await read(adapter, part, backwards=True, limit=1001) == own[:-1002:-1]

    @in_turn("target", [None, "orders", ("orders", "42"), object()])
    async def test_what_is_no_target_is_refused(self, adapter: EventStorageAdapter, target: Any) -> None:
        await stored_in(adapter, stream())

        with pytest.raises(ValueError, match="target"):
            await adapter.latest(target=target)
        with pytest.raises(ValueError, match="target"):
            await read(adapter, target)
        assert await read(adapter, LOG)

"""Cases: what is said of a store as a whole agrees with its events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.inspection import CategorySummary, Inspection, StreamSummary
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee
from eventstore_sa.store import EventStore
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter
from eventstore_sa.testing.cases.setting import EventStorageSetting, new_event, new_events, stored_in, stream
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import AnyStoredEvent

__all__ = ["InspectionCases"]

LONG_AGO = datetime(2001, 2, 3, tzinfo=UTC)


def last_of(events: list[AnyStoredEvent]) -> StreamSummary:
    """Return what is said of a stream with these events."""
    last = events[-1]
    return StreamSummary(last.category, last.stream, len(events), last.sequence_number, last.name, last.observed_at)


class InspectionCases(EventStorageSetting):
    """What can be asked of a store as a whole."""

    def inspection(self, adapter: EventStorageAdapter) -> Inspection:
        """Return the questions about an adapter, if it answers them."""
        if not self.can_be_inspected:
            pytest.skip("this storage cannot be inspected")
        return Inspection(EventStore(adapter))

    async def test_an_empty_store_has_nothing_to_tell(self, adapter: EventStorageAdapter) -> None:
        inspection = self.inspection(adapter)

        assert [*await inspection.categories()] == []
        assert [*await inspection.streams(category="orders")] == []
        assert await inspection.find(uuid4()) is None
        assert await inspection.first_since(LONG_AGO) is None
        statistics = await inspection.statistics()
        assert (statistics.events, statistics.last_sequence_number) == (0, 0)
        assert (statistics.first_observed_at, statistics.last_observed_at) == (None, None)
        assert [*statistics.streams, *statistics.categories] == []
        assert {name: growth.events for name, growth in statistics.growth.items()} == dict.fromkeys(
            ("minute", "hour", "day", "week", "month"), 0
        )

    async def test_categories_and_streams_come_in_pages_with_their_last_events(
        self, adapter: EventStorageAdapter
    ) -> None:
        inspection = self.inspection(adapter)
        streams = [stream(name, category) for category in ("b", "A", "日本") for name in ("2", "10", "🎉", "ä")]
        stored = [*await stored_in(adapter, *streams, events=2), *await stored_in(adapter, streams[5], streams[0])]
        of_category = [event for event in stored if event.category == "b"]
        categories: list[CategorySummary] = []
        while more := await inspection.categories(after=categories[-1].category if categories else None, limit=2):
            categories += more
        listed: list[StreamSummary] = []
        while page := await inspection.streams(category="b", after=listed[-1].stream if listed else None, limit=3):
            listed += page

        last = {event.category: (event.sequence_number, event.observed_at) for event in stored}
        assert [(each.category, (each.last_sequence_number, each.last_observed_at)) for each in categories] == [
            (category, last[category]) for category in ("A", "b", "日本")
        ]
        assert listed == [
            last_of([event for event in of_category if event.stream == name]) for name in ("10", "2", "ä", "🎉")
        ]
        assert [*await inspection.streams(category="unknown")] == []

    async def test_an_event_is_found_by_its_id(self, adapter: EventStorageAdapter) -> None:
        inspection = self.inspection(adapter)
        stored = await stored_in(adapter, stream("1"), stream("2"), events=2)

        assert await inspection.find(stored[2].id) == stored[2]

    async def test_a_trace_is_found_in_slices_last_to_first(self, adapter: EventStorageAdapter) -> None:
        inspection = self.inspection(adapter)
        for number in range(12):
            metadata = {"correlation_id": "c" if number % 3 else "other"}
            await adapter.save(target=stream(str(number % 2)), events=[new_event(metadata=metadata)])
        expected = [event async for event in adapter.scan(backwards=True) if event.metadata == {"correlation_id": "c"}]

        for limit, within in ((100, 100), (100, 5), (1, 100), (2, 5), (100, 1)):
            found: list[AnyStoredEvent] = []
            before: int | None = None
            while True:
                part = await inspection.trace("c", before=before, limit=limit, within=within)
                assert len(part.events) <= limit
                found += part.events
                before = part.next_before
                if before is None:
                    break
            assert found == expected, (limit, within)
        for nothing in ("unknown", "a\0b", "\ud800", ""):
            assert [*(await inspection.trace(nothing)).events] == []

    async def test_the_first_event_since_a_moment_is_that_of_the_lowest_number(
        self, adapter: EventStorageAdapter
    ) -> None:
        inspection = self.inspection(adapter)
        moments = [LONG_AGO + timedelta(days=day) for day in (5, 1, 3, 2)]
        events = [new_event(observed_at=moment) for moment in moments]
        stored = await adapter.save(target=stream(), events=events)

        assert await inspection.first_since(LONG_AGO + timedelta(days=2)) == stored[0].sequence_number
        assert await inspection.first_since(LONG_AGO + timedelta(days=6)) is None
        assert await inspection.first_since(datetime.min.replace(tzinfo=UTC)) == stored[0].sequence_number
        assert await inspection.first_since(datetime.max.replace(tzinfo=UTC)) is None

    async def test_statistics_of_few_events_are_exact(self, adapter: EventStorageAdapter) -> None:
        inspection = self.inspection(adapter)
        await adapter.save(target=stream("old"), events=[new_event(observed_at=LONG_AGO), *new_events(2)])
        await stored_in(adapter, stream("short"), stream("1", "invoices"))
        stored = [event async for event in adapter.scan()]

        for exact in (False, True):
            statistics = await inspection.statistics(exact=exact, top=2)

            assert (statistics.last_sequence_number, statistics.first_observed_at) == (
                stored[-1].sequence_number,
                LONG_AGO,
            )
            assert statistics.last_observed_at == stored[-1].observed_at
            assert [(count.category, count.events) for count in statistics.categories] == [
                ("orders", 4),
                ("invoices", 1),
            ]
            assert [(each.category, each.stream, each.events) for each in statistics.streams] == [
                ("orders", "old", 3),
                ("invoices", "1", 1),
            ]
            assert {growth.events for growth in statistics.growth.values()} == {4}
            assert statistics.events == 5

    async def test_the_watermark_is_where_the_log_ends_if_nobody_writes(self, adapter: EventStorageAdapter) -> None:
        inspection = self.inspection(adapter)
        (stored,) = await stored_in(adapter, stream())
        if self.reads_are_complete_within is not EventSerialisationGuarantee.LOG:
            with pytest.raises(ConfigurationError):
                await inspection.watermark()
            return

        report = await inspection.watermark()

        assert (report.sequence_number, report.last_number) == (stored.sequence_number, stored.sequence_number)
        assert [*report.holders] == []

    @in_turn(
        "arguments",
        [("categories", {"limit": 0}), ("streams", {"category": ""}), ("streams", {"category": "a", "limit": -1})],
    )
    async def test_nonsense_is_refused(self, adapter: EventStorageAdapter, arguments: tuple[str, Any]) -> None:
        inspection = self.inspection(adapter)
        method, options = arguments

        with pytest.raises(Exception, match=r"limit is an integer|empty"):
            await getattr(inspection, method)(**options)

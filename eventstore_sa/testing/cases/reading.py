"""Cases: what `latest`, `scan` and `watermark` return, and in which order.

Streams are read by position, categories and the log by sequence number, which increases but may have gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import pytest

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee
from eventstore_sa.sources.constraints import sequence_number_after
from eventstore_sa.store import EventStore
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, Scannable
from eventstore_sa.testing.cases.setting import (
    LOG,
    ORDERS,
    EventStorageSetting,
    belongs,
    new_events,
    read,
    stored_in,
    stream,
)
from eventstore_sa.testing.cases.tables import case, in_turn
from eventstore_sa.types import AnyStoredEvent, CategoryIdentifier, EventTypes
from eventstore_sa.types import event as event_type

__all__ = ["ReadingCases"]


@event_type("noted")
@dataclass(frozen=True)
class _Noted:
    text: str
    number: int
    half: float


TARGETS: Sequence[Scannable] = (LOG, ORDERS, stream())
EACH_TARGET = in_turn("target", TARGETS)


async def interleaved(adapter: EventStorageAdapter, *, rounds: int, batch: int = 1) -> list[AnyStoredEvent]:
    """Publish in turn to two streams of one category and one of another; return the events in log order."""
    stored: list[AnyStoredEvent] = []
    for _ in range(rounds):
        stored += await stored_in(adapter, stream("42"), stream("43"), stream("42", "invoices"), events=batch)
    return stored


class ReadingCases(EventStorageSetting):
    """What reads return."""

    async def watermark_is_refused(self, adapter: EventStorageAdapter) -> bool:
        """Tell whether the adapter has no watermark, having seen it say so."""
        if self.reads_are_complete_within is EventSerialisationGuarantee.LOG:
            return False
        with pytest.raises(ConfigurationError, match="serialisation_guarantee"):
            await adapter.watermark()
        return True

    async def test_a_store_with_types_reads_objects_that_hold_what_is_stored(
        self, adapter: EventStorageAdapter
    ) -> None:
        noted = [_Noted("\u00e5\u2028\U0001f600", 2**70, 1e300), _Noted("", -1, -0.5)]
        store = EventStore(adapter, types=EventTypes(_Noted))
        target = store.stream(category="notes", stream="1")

        await target.publish(events=[*noted, _Noted("", 0, 2.0)])

        assert [event.payload for event in await target.read(limit=2)] == noted
        assert [type(event.payload.half) for event in await store.log().read(backwards=True)] == [float] * 3

    @EACH_TARGET
    async def test_an_empty_store_has_no_events(self, adapter: EventStorageAdapter, target: Scannable) -> None:
        assert await read(adapter, target) == []
        assert await read(adapter, target, backwards=True, limit=3, after=0) == []
        assert await adapter.latest(target=target) is None

    async def test_unknown_streams_and_categories_are_empty(self, adapter: EventStorageAdapter) -> None:
        await stored_in(adapter, stream("42"))

        assert await read(adapter, stream("43")) == []
        assert await read(adapter, CategoryIdentifier("invoices")) == []
        assert await adapter.latest(target=stream("43")) is None
        assert await adapter.latest(target=CategoryIdentifier("invoices")) is None

    async def test_a_scan_returns_the_events_of_its_target_in_order(self, adapter: EventStorageAdapter) -> None:
        stored = await interleaved(adapter, rounds=3)

        for target in TARGETS:
            with case(target):
                assert await read(adapter, target) == [event for event in stored if belongs(event, target)]

    async def test_a_scan_without_a_target_reads_the_log(self, adapter: EventStorageAdapter) -> None:
        stored = await interleaved(adapter, rounds=1)

        assert [event async for event in adapter.scan()] == stored

    async def test_a_backwards_scan_returns_the_same_events_last_to_first(self, adapter: EventStorageAdapter) -> None:
        stored = await interleaved(adapter, rounds=3)

        for target in TARGETS:
            with case(target):
                backwards = await read(adapter, target, backwards=True)

                assert backwards == [event for event in reversed(stored) if belongs(event, target)]

    async def test_a_limit_cuts_a_scan_short(self, adapter: EventStorageAdapter) -> None:
        stored = await interleaved(adapter, rounds=3)

        for target, backwards in product(TARGETS, (False, True)):
            own = [event for event in stored if belongs(event, target)]
            for limit in (0, 1, 2, 3, 100, 2**63):
                with case((target, backwards, limit)):
                    events = await read(adapter, target, limit=limit, backwards=backwards)

                    assert events == (own[::-1] if backwards else own)[:limit]

    @EACH_TARGET
    async def test_a_negative_limit_is_refused(self, adapter: EventStorageAdapter, target: Scannable) -> None:
        await interleaved(adapter, rounds=1)

        with pytest.raises(ConfigurationError, match="limit"):
            await read(adapter, target, limit=-1)

    async def test_sequence_number_after_leaves_out_that_event_and_all_before(
        self, adapter: EventStorageAdapter
    ) -> None:
        stored = await interleaved(adapter, rounds=3)
        numbers = [0, *(event.sequence_number for event in stored), stored[-1].sequence_number + 100]

        for target, backwards, known in product(TARGETS, (False, True), numbers):
            with case((target, backwards, known)):
                events = await read(adapter, target, after=known, backwards=backwards)

                expected = [event for event in stored if belongs(event, target) and event.sequence_number > known]
                assert events == (expected[::-1] if backwards else expected)

    async def test_limit_counts_the_events_that_meet_the_constraints(self, adapter: EventStorageAdapter) -> None:
        stored = await interleaved(adapter, rounds=4)

        for target, backwards in product(TARGETS, (False, True)):
            with case((target, backwards)):
                own = [event for event in stored if belongs(event, target)]

                events = await read(adapter, target, after=own[0].sequence_number, limit=2, backwards=backwards)

                assert events == (own[:-3:-1] if backwards else own[1:3])

    async def test_all_constraints_of_a_scan_must_be_met(self, adapter: EventStorageAdapter) -> None:
        stored = await interleaved(adapter, rounds=4)

        for target in TARGETS:
            with case(target):
                own = [event for event in stored if belongs(event, target)]
                constraints = {sequence_number_after(own[number].sequence_number) for number in (0, 2, 1)}

                events = [event async for event in adapter.scan(target=target, constraints=constraints)]

                assert events == own[3:]

    async def test_sequence_number_after_takes_numbers_that_no_event_has(self, adapter: EventStorageAdapter) -> None:
        stored = await interleaved(adapter, rounds=1)

        for target, number in product(TARGETS, (-1, -(2**63), 2**63 - 1, -(2**64), 2**64)):
            with case((target, number)):
                own = [event for event in stored if belongs(event, target)]

                assert await read(adapter, target, after=number) == (own if number < 0 else [])

    @EACH_TARGET
    async def test_latest_is_the_last_event_of_its_target(
        self, adapter: EventStorageAdapter, target: Scannable
    ) -> None:
        for _ in range(3):
            stored = await interleaved(adapter, rounds=1)

            last = [event for event in stored if belongs(event, target)][-1]
            assert await adapter.latest(target=target) == last

    async def test_scans_go_through_thousands_of_events(self, adapter: EventStorageAdapter) -> None:
        stored = await interleaved(adapter, rounds=3, batch=1100 if self.thorough else 350)

        for target in TARGETS:
            with case(target):
                own = [event for event in stored if belongs(event, target)]

                assert await read(adapter, target) == own
                assert await read(adapter, target, backwards=True) == own[::-1]

    async def test_limits_and_starting_points_hold_across_thousands_of_events(
        self, adapter: EventStorageAdapter
    ) -> None:
        stored = await interleaved(adapter, rounds=2, batch=1250 if self.thorough else 600)
        skipped = 700 if self.thorough else 150

        for target, backwards in product(TARGETS, (False, True)):
            own = [event for event in stored if belongs(event, target)]
            start, later = own[skipped - 1].sequence_number, own[skipped:]
            ordered = later[::-1] if backwards else later
            for limit in (999, 1000, 1001, 1700, None) if self.thorough else (1001, None):
                with case((target, backwards, limit)):
                    events = await read(adapter, target, after=start, limit=limit, backwards=backwards)

                    assert events == ordered[:limit]

    async def test_what_is_published_during_a_scan_does_not_disturb_it(self, adapter: EventStorageAdapter) -> None:
        stored = await interleaved(adapter, rounds=2, batch=600)

        for target in TARGETS:
            with case(target):
                before = [event for event in stored if belongs(event, target)]

                seen: list[AnyStoredEvent] = []
                async for event in adapter.scan(target=target):
                    seen.append(event)
                    if len(seen) in (1, 2, len(before) - 1, len(before)):
                        stored += await interleaved(adapter, rounds=1)

                after = [event for event in stored if belongs(event, target)]
                expected = before if self.scans_are_snapshots else after
                assert seen == expected[: len(seen)]
                assert len(seen) >= len(before)

    async def test_a_backwards_scan_leaves_out_what_is_published_during_it(self, adapter: EventStorageAdapter) -> None:
        stored = await interleaved(adapter, rounds=2, batch=600)

        for target in TARGETS:
            with case(target):
                before = [event for event in stored if belongs(event, target)]

                seen: list[AnyStoredEvent] = []
                async for event in adapter.scan(target=target, backwards=True):
                    seen.append(event)
                    if len(seen) in (1, 1000):
                        stored += await interleaved(adapter, rounds=1)

                assert seen == before[::-1]

    async def test_scans_that_run_side_by_side_do_not_disturb_each_other(self, adapter: EventStorageAdapter) -> None:
        stored = await stored_in(adapter, stream(), events=3)
        scans = [adapter.scan(target=target) for target in (LOG, ORDERS, stream())]

        rows = [[await anext(scan) for scan in scans] for _ in stored]

        assert rows == [[event] * 3 for event in stored]
        for scan in scans:
            with pytest.raises(StopAsyncIteration):
                await anext(scan)

    async def test_the_watermark_of_an_empty_store_is_0(self, adapter: EventStorageAdapter) -> None:
        if await self.watermark_is_refused(adapter):
            return

        watermark = await adapter.watermark()

        assert (watermark.sequence_number, watermark.holder) == (0, None)

    async def test_the_watermark_rises_to_the_last_event(self, adapter: EventStorageAdapter) -> None:
        if await self.watermark_is_refused(adapter):
            return
        stored = await interleaved(adapter, rounds=2)

        watermark = await adapter.watermark()

        assert watermark.holder is None
        assert watermark.sequence_number >= stored[-1].sequence_number
        assert await read(adapter, after=watermark.sequence_number) == []

    async def test_creating_the_schema_again_keeps_what_is_stored(self, adapter: EventStorageAdapter) -> None:
        stored = await stored_in(adapter, stream())

        await adapter.create_schema()

        assert await read(adapter) == stored
        assert await adapter.save(target=stream(), events=new_events(1))

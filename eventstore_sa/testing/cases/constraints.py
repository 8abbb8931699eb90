"""Cases: constraints leave out of a scan the events that do not meet them, and nothing else.

What meets a built-in constraint is said by its `met_by`; these cases hold adapters to it, at every edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import Any

import pytest

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.sources.constraints import (
    QueryConstraint,
    category_in,
    correlation_is,
    metadata_contains,
    name_in,
    observed_between,
    occurred_between,
    payload_contains,
    position_after,
    position_before,
    sequence_number_after,
    sequence_number_before,
)
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, Scannable
from eventstore_sa.testing.cases.setting import (
    LOG,
    ORDERS,
    EventStorageSetting,
    belongs,
    new_event,
    scanned,
    stream,
)
from eventstore_sa.testing.cases.tables import case
from eventstore_sa.types import (
    EARLIEST_TIME,
    LATEST_TIME,
    AnyStoredEvent,
    LogPartitionIdentifier,
    StreamNamePrefixPartitionIdentifier,
)

__all__ = ["ConstraintCases"]

TARGETS: Sequence[Scannable] = (
    LOG,
    ORDERS,
    stream(),
    LogPartitionIdentifier(0, 2),
    StreamNamePrefixPartitionIdentifier("orders", "4"),
)

NAMES = ["placed", "paid", "Paid", "it's", 'the "best"', "100% %s", ":name", "naïve 🎉", "null"]

ENDS_OF_TIME = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
MOMENT = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=5, minutes=45)))
TICK = timedelta(microseconds=1)
MOMENTS = [
    EARLIEST_TIME,
    MOMENT - TICK,
    MOMENT,
    MOMENT + TICK,
    MOMENT.replace(microsecond=0),
    MOMENT.astimezone(UTC),
    LATEST_TIME,
]

EXTREMES = (-(2**64), -(2**63) - 1, -(2**63), -1, 2**63 - 2, 2**63 - 1, 2**63, 2**64)


# Of a scan: its target, whether it goes backwards, and its limit.
EVERY_WAY = tuple(product(TARGETS, (False, True), (None, 2)))


async def varied(adapter: EventStorageAdapter) -> list[AnyStoredEvent]:
    """Publish events of all names and times, in turn to two streams of one category and one of another."""
    stored: list[AnyStoredEvent] = []
    for number, moment in enumerate(MOMENTS):
        for target in (stream("42"), stream("5"), stream("42", "invoices")):
            name = NAMES[len(stored) % len(NAMES)]
            event = new_event(name, occurred_at=moment, observed_at=MOMENTS[-number])
            stored += await adapter.save(target=target, events=[event])
    return stored


NO_CONSTRAINTS: dict[str, Any] = {
    "a list": [sequence_number_after(0)],
    "a tuple": (name_in(["paid"]),),
    "a bare constraint": sequence_number_after(0),
    "a set of names": {"paid"},
    "a constraint among names": {name_in(["paid"]), "paid"},
    "a mapping": {"name": "paid"},
    "none": None,
}
NO_SET = r"constraints must be a set|must be QueryConstraints"


class ConstraintCases(EventStorageSetting):
    """Which events meet the constraints of a scan."""

    async def assert_returns_what_meets_them(
        self,
        adapter: EventStorageAdapter,
        stored: list[AnyStoredEvent],
        *constraints: QueryConstraint,
    ) -> None:
        """Read with constraints, if thorough in every way and else in two, and compare with what meets them."""
        meeting = [event for event in stored if all(constraint.met_by(event=event) for constraint in constraints)]

        for target, backwards, limit in EVERY_WAY if self.thorough else self.random.sample(EVERY_WAY, 2):
            expected = [event for event in meeting if belongs(event, target)]
            ordered = expected[::-1] if backwards else expected
            found = await scanned(adapter, target, set(constraints), limit=limit, backwards=backwards)
            assert found == ordered[:limit], (target, constraints, limit, backwards)

    async def test_sequence_number_constraints_leave_out_the_number_itself(self, adapter: EventStorageAdapter) -> None:
        stored = await varied(adapter)
        numbers = [event.sequence_number for event in stored]

        for number in (0, numbers[0], numbers[7], numbers[-1], *EXTREMES):
            await self.assert_returns_what_meets_them(adapter, stored, sequence_number_after(number))
            await self.assert_returns_what_meets_them(adapter, stored, sequence_number_before(number))
        both = (sequence_number_after(numbers[3]), sequence_number_before(numbers[-3]))
        await self.assert_returns_what_meets_them(adapter, stored, *both)
        none = (sequence_number_after(numbers[3]), sequence_number_before(numbers[3] + 1))
        await self.assert_returns_what_meets_them(adapter, stored, *none)

    async def test_position_constraints_leave_out_the_position_itself(self, adapter: EventStorageAdapter) -> None:
        stored = await varied(adapter)

        for position in (0, 3, len(MOMENTS) - 1, *EXTREMES):
            await self.assert_returns_what_meets_them(adapter, stored, position_after(position))
            await self.assert_returns_what_meets_them(adapter, stored, position_before(position))
        await self.assert_returns_what_meets_them(adapter, stored, position_after(1), position_before(5))
        await self.assert_returns_what_meets_them(adapter, stored, position_after(1), position_after(4))
        await self.assert_returns_what_meets_them(adapter, stored, position_after(4), position_before(5))

    async def test_names_are_compared_exactly(self, adapter: EventStorageAdapter) -> None:
        stored = await varied(adapter)

        for name in NAMES:
            await self.assert_returns_what_meets_them(adapter, stored, name_in([name]))
        for names in ([], NAMES, NAMES[::2], ["PLACED", "placed "], ["a\0b", "\ud800", ""], ["a\0b", "paid"]):
            await self.assert_returns_what_meets_them(adapter, stored, name_in(names))
        await self.assert_returns_what_meets_them(adapter, stored, name_in(NAMES[:3]), name_in(NAMES[2:]))
        for categories in ([], ["orders"], ["orders", "a\0b", "unknown"]):
            await self.assert_returns_what_meets_them(adapter, stored, category_in(categories))
        many = name_in([*(f"unknown-{number}" for number in range(2000)), "paid"])
        await self.assert_returns_what_meets_them(adapter, stored, many)

    async def test_correlation_ids_are_compared_exactly_and_only_as_text(self, adapter: EventStorageAdapter) -> None:
        texts = ["c", "C", "c ", "", "1", "null", 'it\'s %s "🎉"', "x" * 3000, "x" * 3001]
        no_texts: list[Any] = [None, 1, True, ["c"], {}]
        others: list[Any] = [None, "c", ["c"], {}, *({"correlation_id": value} for value in no_texts)]
        events = [new_event(metadata=metadata) for metadata in ({"correlation_id": text} for text in texts)]
        events += [new_event(metadata=metadata) for metadata in others]
        stored = [*await adapter.save(target=stream(), events=events)]

        for text in (*texts, "true", '["c"]', "unknown", "a\0b", "\ud800"):
            await self.assert_returns_what_meets_them(adapter, stored, correlation_is(text))

    async def test_time_ranges_hold_their_start_and_not_their_end(self, adapter: EventStorageAdapter) -> None:
        stored = await varied(adapter)

        for between in (occurred_between, observed_between):
            await self.assert_returns_what_meets_them(adapter, stored, between(None, None))
            for moment in (*MOMENTS, *ENDS_OF_TIME):
                await self.assert_returns_what_meets_them(adapter, stored, between(moment, None))
                await self.assert_returns_what_meets_them(adapter, stored, between(None, moment))
            await self.assert_returns_what_meets_them(adapter, stored, between(MOMENT, MOMENT + TICK))
            await self.assert_returns_what_meets_them(adapter, stored, between(MOMENT, MOMENT))
            await self.assert_returns_what_meets_them(adapter, stored, between(*ENDS_OF_TIME))
            await self.assert_returns_what_meets_them(adapter, stored, between(*ENDS_OF_TIME[::-1]))

    async def test_text_is_found_in_payloads_and_metadata(self, adapter: EventStorageAdapter) -> None:
        texts = ["a", "A", "%", "_", "*", "\\", '"', "it's", "naïve 🎉", "line\nbreak", "{", ":x", "\\u0061"]
        stored: list[AnyStoredEvent] = []
        for text in texts:
            events = [
                new_event("placed", payload={"text": f"<{text}>"}, metadata=None),
                new_event("placed", payload=[f"<{text}>"], metadata={f"<{text}>": [1]}),
                new_event("placed", payload=None, metadata="none"),
            ]
            stored += await adapter.save(target=stream(), events=events)

        for contains, text in product((payload_contains, metadata_contains), (*texts, "null", "1", "nowhere")):
            await self.assert_returns_what_meets_them(adapter, stored, contains(text))

    async def test_what_is_no_set_of_constraints_is_refused(self, adapter: EventStorageAdapter) -> None:
        stored = await varied(adapter)

        for target in TARGETS:
            for key, constraints in NO_CONSTRAINTS.items():
                with case((target, key)), pytest.raises(ConfigurationError, match=NO_SET):
                    await scanned(adapter, target, constraints)

        assert await scanned(adapter, LOG, frozenset()) == stored

    async def test_constraints_of_all_kinds_go_together(self, adapter: EventStorageAdapter) -> None:
        stored = await varied(adapter)
        constraints = (
            sequence_number_after(stored[2].sequence_number),
            sequence_number_before(stored[-1].sequence_number),
            position_after(0),
            position_before(6),
            name_in(NAMES[:6]),
            occurred_between(*ENDS_OF_TIME),
            observed_between(EARLIEST_TIME, None),
        )

        await self.assert_returns_what_meets_them(adapter, stored, *constraints)

    async def test_constraints_hold_across_thousands_of_events(self, adapter: EventStorageAdapter) -> None:
        amount = 4400 if self.thorough else 2600
        events = [new_event("even" if number % 2 == 0 else "odd") for number in range(amount)]
        stored = list(await adapter.save(target=stream(), events=events))
        expected = [event for event in stored[1:-1] if event.name == "odd"]
        constraints = {name_in(["odd"]), sequence_number_before(stored[-1].sequence_number)}

        targets: Sequence[Scannable] = (LOG, stream())
        limits = (1000, 1001, None) if self.thorough else (1001, None)
        for target, limit, backwards in product(targets, limits, (False, True)):
            with case((target, limit, backwards)):
                found = await scanned(adapter, target, constraints, limit=limit, backwards=backwards)

                assert found == (expected[::-1] if backwards else expected)[:limit]

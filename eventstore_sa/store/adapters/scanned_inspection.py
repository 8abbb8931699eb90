"""Looking at an event store by reading its events: for storage in memory, and adapters of third parties.

What a database looks up, this finds by going through what is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Protocol
from uuid import UUID

from eventstore_sa.contracts.inspection import (
    CategoryCount,
    CategorySummary,
    HeldBack,
    Statistics,
    StreamSummary,
    TraceSlice,
    WatermarkReport,
    growth_since,
)
from eventstore_sa.sources.constraints import (
    QueryConstraint,
    QueryConstraints,
    correlation_is,
    sequence_number_after,
    sequence_number_before,
)
from eventstore_sa.types import AnyStoredEvent, CategoryIdentifier, StreamIdentifier
from eventstore_sa.types.watermark import Watermark

__all__ = ["ScannedInspectionStorage"]


class _Adapter(Protocol):
    """What is needed of a synchronous adapter, whose contract builds on this module."""

    def scan(
        self,
        *,
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
    ) -> Iterator[AnyStoredEvent]: ...

    def latest(self, *, target: CategoryIdentifier | StreamIdentifier) -> AnyStoredEvent | None: ...

    def streams(self, *, target: CategoryIdentifier) -> Iterator[StreamIdentifier]: ...

    def categories(self) -> Iterator[CategoryIdentifier]: ...

    def watermark(self) -> Watermark: ...


class ScannedInspectionStorage:
    """What can be asked about the events of an adapter; see `InspectionStorage`.

    Args:
        adapter: The adapter.
    """

    def __init__(self, adapter: _Adapter) -> None:
        self._adapter = adapter

    def find_all(self, ids: Sequence[UUID]) -> Mapping[UUID, AnyStoredEvent]:
        wanted = frozenset(ids)
        return {event.id: event for event in self._adapter.scan() if event.id in wanted}

    def categories(self, *, after: str | None, limit: int) -> Sequence[CategorySummary]:
        found: list[CategorySummary] = []
        for identifier in self._adapter.categories():
            if after is not None and identifier.category <= after:
                continue
            last = self._adapter.latest(target=identifier)
            if last is not None:
                found.append(CategorySummary(identifier.category, last.sequence_number, last.observed_at))
            if len(found) == limit:
                break
        return found

    def streams(self, *, category: str, after: str | None, limit: int) -> Sequence[StreamSummary]:
        listed = self._adapter.streams(target=CategoryIdentifier(category))
        beyond = (identifier for identifier in listed if after is None or identifier.stream > after)
        return [self._summary(identifier) for identifier in islice(beyond, limit)]

    def trace(self, correlation_id: str, *, before: int | None, limit: int, within: int) -> TraceSlice:
        end = self.watermark().last_number + 1 if before is None else before
        start = max(0, end - 1 - within)
        constraints: set[QueryConstraint] = {
            correlation_is(correlation_id),
            sequence_number_after(start),
            sequence_number_before(end),
        }
        events = [*self._adapter.scan(constraints=constraints, limit=limit, backwards=True)]
        if len(events) == limit:
            return TraceSlice(events, events[-1].sequence_number)
        return TraceSlice(events, start + 1 if start > 0 else None)

    def first_since(self, moment: datetime) -> int | None:
        return next((event.sequence_number for event in self._adapter.scan() if event.observed_at >= moment), None)

    def watermark(self) -> WatermarkReport:
        found = self._adapter.watermark()
        holder = found.holder
        holders = (
            []
            if holder is None
            else [HeldBack(found.sequence_number, holder.pid, holder.application_name, None, None, holder.since)]
        )
        return WatermarkReport(found.sequence_number, found.sequence_number, holders)

    def statistics(self, *, exact: bool, top: int, moments: Mapping[str, datetime]) -> Statistics:
        now = datetime.now(UTC)
        categories: Counter[str] = Counter()
        streams: Counter[StreamIdentifier] = Counter()
        since: Counter[str] = Counter()
        first: AnyStoredEvent | None = None
        last: AnyStoredEvent | None = None
        for event in self._adapter.scan():
            categories[event.category] += 1
            streams[StreamIdentifier(event.category, event.stream)] += 1
            since.update(name for name, moment in moments.items() if event.observed_at >= moment)
            first, last = first or event, event
        largest = sorted(streams, key=lambda stream: (-streams[stream], stream))[:top]
        return Statistics(
            is_exact=True,
            events=categories.total(),
            last_sequence_number=0 if last is None else last.sequence_number,
            first_observed_at=None if first is None else first.observed_at,
            last_observed_at=None if last is None else last.observed_at,
            growth={name: growth_since(moment, since[name], now) for name, moment in moments.items()},
            categories=[
                CategoryCount(name, count)
                for name, count in sorted(categories.items(), key=lambda item: (-item[1], item[0]))[:top]
            ],
            streams=[self._summary(identifier) for identifier in largest],
            sizes=(),
            total_bytes=None,
        )

    def _summary(self, identifier: StreamIdentifier) -> StreamSummary:
        last = self._adapter.latest(target=identifier)
        assert last is not None  # noqa: S101 - streams that are listed have events, and events are never deleted
        return StreamSummary(
            identifier.category,
            identifier.stream,
            last.position + 1,
            last.sequence_number,
            last.name,
            last.observed_at,
        )

"""What the pages read of a store: a page at a time, within bounds of rows, bytes and seconds.

Synchronous, over the synchronous adapter; `Site.run` runs it with asyncio or without. Every call takes its connections for
its own statements, and keeps none. Payloads are read as text: a list of events decodes nothing that is large.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from eventstore_sa.errors import UnreadableEventError
from eventstore_sa.sources.constraints import (
    QueryConstraint,
    position_after,
    position_before,
    sequence_number_after,
    sequence_number_before,
)
from eventstore_sa.store.adapters.event_contract import SyncEventStorageAdapter
from eventstore_sa.store.adapters.runners import Paged
from eventstore_sa.types import (
    AnyStoredEvent,
    CategoryIdentifier,
    EventQuery,
    LogIdentifier,
    StreamIdentifier,
    encode_json,
)

__all__ = ["EventPage", "Keep", "Reads", "Slice", "Target", "place_of"]

Target: TypeAlias = LogIdentifier | CategoryIdentifier | StreamIdentifier | EventQuery
Keep: TypeAlias = Callable[[AnyStoredEvent], bool]

_ENOUGH_BYTES: Final = 1_000_000
_FIRST_SLICE: Final = 500
_GROWTH: Final = 4
_MOST_UNREADABLE: Final = 20
_NEAR: Final = 1_000


class EventPage(Struct, frozen=True):
    """Some events of a target, the newest first, with payloads as JSON text.

    Attributes:
        events: The events.
        unreadable: What is there too, but cannot be read.
        more: Whether there may be more in the direction of the read.
    """

    events: Sequence[AnyStoredEvent]
    unreadable: Sequence[UnreadableEventError]
    more: bool


class Slice(Struct, frozen=True):
    """What was found where no index leads: on the way from some place backwards.

    Attributes:
        events: The events, the newest first, with payloads as JSON text.
        unreadable: What is there too, but cannot be read.
        looked_from: The highest place that was looked at; a sequence number, or a position in a stream.
        looked_to: The lowest one; everything from `looked_from` to here was looked at.
        more: Whether there is more below.
    """

    events: Sequence[AnyStoredEvent]
    unreadable: Sequence[UnreadableEventError]
    looked_from: int
    looked_to: int
    more: bool


def place_of(target: Target, event: AnyStoredEvent) -> int:
    """Return the place of an event in the order of a target."""
    return event.position if isinstance(target, StreamIdentifier) else event.sequence_number


class Reads:
    """Reads of one store.

    Args:
        adapter: Where the events are.
        clock: Returns seconds.
    """

    def __init__(self, adapter: SyncEventStorageAdapter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.adapter: Final = adapter
        self.inspection: Final = adapter.inspection_storage()
        self._clock = clock

    def page(
        self,
        target: Target,
        *,
        before: int | None = None,
        after: int | None = None,
        size: int,
        constraints: Collection[QueryConstraint] = (),
    ) -> EventPage:
        """Read the events next to a place, up to so many, or fewer if they are large.

        Args:
            target: Of what.
            before: Those below this place, the nearest first; None, with no `after`: from the end.
            after: Those above this place instead, the nearest first.
            size: How many at most.
            constraints: Only those that meet all of them.
        """
        backwards = after is None
        low, high = after, before
        events: list[AnyStoredEvent] = []
        unreadable: list[UnreadableEventError] = []
        while True:
            constrained = {*constraints, *_bounds(target, low, high)}
            page, error = self._some(target, constrained, size - len(events), backwards=backwards)
            events += page
            large = sum(map(_size_of, events)) > _ENOUGH_BYTES
            more = len(events) == size or large
            if error is None:
                break
            place = error.position if isinstance(target, StreamIdentifier) else error.sequence_number
            unreadable.append(error)
            if more or place is None or len(unreadable) >= _MOST_UNREADABLE:
                more = place is not None
                break
            low, high = (low, place) if backwards else (place, high)
        return EventPage(events if backwards else events[::-1], unreadable, more)

    def search(
        self,
        target: Target,
        *,
        before: int | None,
        size: int,
        constraints: Collection[QueryConstraint],
        keep: Keep | None,
        budget_s: float,
        floor: int | None = None,
    ) -> Slice:
        """Look for events backwards, in slices that grow while they are fast, for about so many seconds.

        Args:
            target: Of what.
            before: Below this place; None: from the end.
            size: How many at most.
            constraints: Only those that meet all of them; the database looks.
            keep: Only those for which it returns True.
            budget_s: For how long.
            floor: The lowest place to look at; None: the first that there can be.
        """
        began = self._clock()
        floor = (0 if isinstance(target, StreamIdentifier) else 1) if floor is None else floor
        top = self._end_of(target) if before is None else before - 1
        low, width = top + 1, _FIRST_SLICE
        found: list[AnyStoredEvent] = []
        unreadable: list[UnreadableEventError] = []
        while low > floor and len(found) < size:
            started = self._clock()
            page = self.page(
                target,
                after=None,
                before=low,
                size=size - len(found),
                constraints={*constraints, *_bounds(target, max(floor, low - width) - 1, None)},
            )
            found += page.events if keep is None else filter(keep, page.events)
            unreadable += page.unreadable
            last = page.events[-1] if page.more and page.events else None
            low = max(floor, low - width) if last is None else place_of(target, last)
            now = self._clock()
            if now - began >= budget_s:
                break
            if (now - started) * _GROWTH < budget_s - (now - began):
                width *= _GROWTH
        return Slice(found, unreadable, top, low, low > floor)

    def number_near(self, moment: datetime) -> int:
        """Return a number a little above that of the last event that was observed before a moment.

        It is found by halves, as if times grew with numbers: clocks may differ by as much as a thousand events make up for,
        and events that were imported later than they were observed are not taken into account.
        """
        end = self.end()
        low, high = 0, end
        while high - low > _NEAR:
            middle = (low + high) // 2
            found = self.page(LogIdentifier(), after=middle, size=1).events
            if found and found[0].observed_at < moment:
                low = found[0].sequence_number
            else:
                high = middle
        return min(high + _NEAR, end) + 1

    def find(self, *, ids: Collection[UUID] = (), sequence_numbers: Collection[int] = ()) -> Sequence[AnyStoredEvent]:
        """Return the events that have one of some ids or numbers, payloads as JSON text."""
        return self.adapter.find_text(ids=ids, sequence_numbers=sequence_numbers)

    def end(self) -> int:
        """Return up to which number the log is complete."""
        return self.adapter.watermark().sequence_number

    def _end_of(self, target: Target) -> int:
        if not isinstance(target, StreamIdentifier):
            return self.end()
        last = self.adapter.latest(target=target)
        return -1 if last is None else last.position

    def _some(
        self, target: Target, constraints: Collection[QueryConstraint], limit: int, *, backwards: bool
    ) -> tuple[list[AnyStoredEvent], UnreadableEventError | None]:
        """Return the next events, fewer if they are large; or those before one that cannot be read, and its error."""
        wanted: Any = {"target": target, "constraints": frozenset(constraints), "limit": limit, "backwards": backwards}
        scan = self.adapter.scan_text(**wanted)
        pages: Iterator[Iterable[AnyStoredEvent]]
        if isinstance(scan, Paged):
            pages = scan.pages
        else:
            events = map(_as_text, self.adapter.scan(**wanted)) if scan is None else scan
            pages = ([event] for event in events)
        found: list[AnyStoredEvent] = []
        size = 0
        try:
            # A page ends early if its events are large; then there is no need of another.
            while len(found) < limit and size <= _ENOUGH_BYTES and (page := next(pages, None)) is not None:
                start = len(found)
                found += page
                size += sum(map(_size_of, found[start:]))
        except UnreadableEventError as error:
            return found, error
        return found, None


def _as_text(event: AnyStoredEvent) -> AnyStoredEvent:
    return replace(event, payload=encode_json(event.payload))


def _size_of(event: AnyStoredEvent) -> int:
    return len(event.payload)


def _bounds(target: Target, low: int | None, high: int | None) -> Iterator[QueryConstraint]:
    by_position = isinstance(target, StreamIdentifier)
    if low is not None:
        yield position_after(low) if by_position else sequence_number_after(low)
    if high is not None:
        yield position_before(high) if by_position else sequence_number_before(high)

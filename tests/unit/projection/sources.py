"""Event sources of given events, for tests that need no store, and the events for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from eventstore_sa.sources import EventSource, SyncEventSource
from eventstore_sa.types import StoredEvent, StreamIdentifier

AnyEvent = StoredEvent[Any, Any, Any]
ORDER = StreamIdentifier("orders", "42")
MOMENT = datetime(2024, 2, 29, 12, tzinfo=UTC)


def stored(name: Any, payload: Any = None, *, position: int = 0, id: UUID | None = None) -> AnyEvent:
    return StoredEvent(
        id or uuid4(), name, ORDER.stream, ORDER.category, position, position + 1, payload, None, MOMENT, MOMENT
    )


class GivenEvents(EventSource[StreamIdentifier]):
    """Yields the given events; `ended` tells whether the last iteration was brought to its end."""

    def __init__(self, *events: AnyEvent) -> None:
        self.events = events
        self.ended = False

    @property
    def identifier(self) -> StreamIdentifier:
        return ORDER

    async def latest(self) -> AnyEvent | None:
        return self.events[-1] if self.events else None

    async def iterate(self, **_: Any) -> AsyncIterator[AnyEvent]:
        try:
            for event in self.events:
                yield event
        finally:
            self.ended = True


class SyncGivenEvents(SyncEventSource[StreamIdentifier]):
    """Yields the given events; `ended` tells whether the last iteration was brought to its end."""

    def __init__(self, *events: AnyEvent) -> None:
        self.events: Sequence[AnyEvent] = events
        self.ended = False

    @property
    def identifier(self) -> StreamIdentifier:
        return ORDER

    def latest(self) -> AnyEvent | None:
        return self.events[-1] if self.events else None

    def iterate(self, **_: Any) -> Iterator[AnyEvent]:
        try:
            yield from self.events
        finally:
            self.ended = True

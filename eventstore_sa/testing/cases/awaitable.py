"""A synchronous storage adapter behind the awaitable contract, so that each case is written once.

For tests only: every call blocks the event loop until it is done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from eventstore_sa.conditions import WriteCondition
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.store.adapters.base import (
    AnyStreamPublishDefinition,
    EventStorageAdapter,
    Latestable,
    Listable,
    Scannable,
    SyncEventStorageAdapter,
)
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent, CategoryIdentifier, LogIdentifier, StreamIdentifier
from eventstore_sa.types.watermark import Watermark

__all__ = ["AwaitableEventStorageAdapter"]


class AwaitableEventStorageAdapter(EventStorageAdapter):
    """Pass every call on to a synchronous adapter, in the thread that awaits it."""

    def __init__(self, adapter: SyncEventStorageAdapter) -> None:
        self._adapter = adapter

    async def save(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> Any:
        """Pass on what was given, and only that: the adapter's own defaults are part of the contract."""
        given = {"events": events, "condition": condition, "streams": streams}
        arguments: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return self._adapter.save(target=target, **arguments)

    async def latest(self, *, target: Latestable) -> AnyStoredEvent | None:
        """Return the last event of the target."""
        return self._adapter.latest(target=target)

    async def scan(
        self,
        *,
        target: Scannable = LogIdentifier(),  # noqa: B008 - an immutable value
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
    ) -> AsyncIterator[AnyStoredEvent]:
        """Iterate over the events of the target."""
        events = self._adapter.scan(target=target, constraints=constraints, limit=limit, backwards=backwards)
        for event in events:
            yield event

    async def streams(
        self,
        *,
        target: Listable = LogIdentifier(),  # noqa: B008 - an immutable value
    ) -> AsyncIterator[StreamIdentifier]:
        """Iterate over the streams of the target."""
        for stream in self._adapter.streams(target=target):
            yield stream

    async def categories(self) -> AsyncIterator[CategoryIdentifier]:
        """Iterate over the categories."""
        for category in self._adapter.categories():
            yield category

    async def watermark(self) -> Watermark:
        """Tell how far the log can be read."""
        return self._adapter.watermark()

    async def create_schema(self) -> None:
        """Create what the storage needs."""
        self._adapter.create_schema()

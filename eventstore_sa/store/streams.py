"""The streams, categories, partitions and the log of an `EventStore`: what is published to, and read from, with asyncio.

They are light values over a storage adapter: making one does no I/O, and a stream without events is simply empty.
`sync_streams.py` holds their synchronous twins.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Generic, overload

from typing_extensions import TypeVar

from eventstore_sa.conditions import NoCondition, WriteCondition
from eventstore_sa.publishing import StreamPublishDefinition, TypedPublishDefinition
from eventstore_sa.session import StagedPublish
from eventstore_sa.sources import EventSource
from eventstore_sa.sources.base import AnySource
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, SyncEventStorageAdapter
from eventstore_sa.store.updating import DecideAsync, StreamProjector, StreamUpdate, update
from eventstore_sa.store.waiting import wait_until_complete
from eventstore_sa.types import (
    AnyNewEvent,
    AnyStoredEvent,
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    EventQuery,
    EventSequenceIdentifier,
    EventTypes,
    LogIdentifier,
    LogPartitionIdentifier,
    NewEvent,
    QueryIdentifier,
    QueryPartitionIdentifier,
    Snapshots,
    StoredEvent,
    StreamIdentifier,
    is_complete_as_it_stands,
    query_of,
)

__all__ = ["EventCategory", "EventLog", "EventPartition", "EventSelection", "EventStream", "OfAdapter"]

I = TypeVar("I", bound=EventSequenceIdentifier | EventPartitionIdentifier | QueryIdentifier)  # noqa: E741
Adapter = TypeVar("Adapter", bound=EventStorageAdapter | SyncEventStorageAdapter)
State = TypeVar("State")
Name = TypeVar("Name")
Payload = TypeVar("Payload")
Metadata = TypeVar("Metadata")
P = TypeVar("P", default=Any)


class OfAdapter(AnySource[I], Generic[I, Adapter]):
    """What an adapter can scan; equal to another of the same kind with the same identifier, on the same adapter."""

    def __init__(self, adapter: Adapter, identifier: I) -> None:
        self._adapter = adapter
        self._identifier = identifier

    @property
    def adapter(self) -> Adapter:
        """Where the events are kept."""
        return self._adapter

    @property
    def identifier(self) -> I:
        return self._identifier

    @property
    def is_complete(self) -> bool:
        return self.types is None or not self.types.skips

    @property
    def types(self) -> EventTypes[Any] | None:
        """The types of the events; None: their payloads are JSON."""
        return self._adapter.types

    @property
    def in_transaction(self) -> bool:
        return self._adapter.in_transaction

    def tags_epoch(self) -> Any:
        """Return the epoch of tags, on which the events of a query depend; with asyncio, an awaitable of it."""
        return "" if query_of(self._identifier) is None else self._adapter.tags_epoch(current=True)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._adapter is other._adapter and self._identifier == other._identifier

    def __hash__(self) -> int:
        return hash((id(self._adapter), self._identifier))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._identifier!r})"


class _StoredSource(OfAdapter[I, EventStorageAdapter], EventSource[I, StoredEvent[Any, P, Any]], Generic[I, P]):
    """Reads of whatever an adapter can scan."""

    async def latest(self) -> StoredEvent[Any, P, Any] | None:
        return await self._adapter.latest(target=self._identifier)

    def iterate(
        self,
        *,
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
        wait_for: AnyStoredEvent | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[StoredEvent[Any, P, Any]]:
        events = self._adapter.scan(target=self._identifier, constraints=constraints, limit=limit, backwards=backwards)
        if wait_for is None or is_complete_as_it_stands(self._identifier):
            return events
        return self._after(wait_for, timeout_s, events)

    async def _after(
        self, event: AnyStoredEvent, timeout_s: float | None, events: AsyncIterator[StoredEvent[Any, P, Any]]
    ) -> AsyncIterator[StoredEvent[Any, P, Any]]:
        await wait_until_complete(self._adapter, event, timeout_s)
        async for stored in events:
            yield stored


class EventStream(_StoredSource[StreamIdentifier, P]):
    """The events of one entity, in order of their positions: 0, 1, 2 and so on."""

    @overload
    async def publish(
        self, *, events: Sequence[NewEvent[Name, Payload, Metadata]], condition: WriteCondition = ...
    ) -> Sequence[StoredEvent[Name, Payload, Metadata]]: ...

    @overload
    async def publish(
        self, *, events: Sequence[P | AnyNewEvent], condition: WriteCondition = ...
    ) -> Sequence[StoredEvent[Any, P, Any]]: ...

    async def publish(
        self,
        *,
        events: Sequence[Any],
        condition: WriteCondition = NoCondition(),  # noqa: B008
    ) -> Sequence[StoredEvent[Any, Any, Any]]:
        """Store events at the end of the stream: all or none, in one statement.

        On an engine this is a transaction of its own; within a session it is part of the session's, which it never
        commits. Publishing the same events again, by their ids, stores nothing and returns what is stored.

        Args:
            events: The events, in order; may be empty: the condition is still checked. NewEvents, or objects of the store's
                event types.
            condition: What must be true of the stream, such as `position_is(3)`.

        Returns:
            The stored events in the order given, with the caller's own payload objects.

        Raises:
            UnmetWriteConditionError: If the condition is not met.
            DuplicateEventError: If another event has one of the ids.
            SerialisationError: If a value cannot be stored exactly.
            TransactionError: If the transaction cannot continue; see `retryable`.

        In each case nothing is stored, and a session stays usable unless the TransactionError says otherwise.
        """
        return await self._adapter.save(target=self._identifier, events=events, condition=condition)

    @overload
    def stage(
        self, *, events: Sequence[NewEvent[Name, Payload, Metadata]], condition: WriteCondition = ...
    ) -> StagedPublish[Sequence[StoredEvent[Name, Payload, Metadata]]]: ...

    @overload
    def stage(
        self, *, events: Sequence[P | AnyNewEvent], condition: WriteCondition = ...
    ) -> StagedPublish[Sequence[StoredEvent[Any, P, Any]]]: ...

    def stage(
        self,
        *,
        events: Sequence[Any],
        condition: WriteCondition = NoCondition(),  # noqa: B008
    ) -> StagedPublish[Sequence[StoredEvent[Any, Any, Any]]]:
        """Stage events, to be stored at the end of the stream when the session commits; no I/O. Only within a session.

        When the session's outermost transaction commits, it is flushed, and everything that is staged in it is stored by
        one statement: locks are taken last, in a fixed order, and held only while it commits. What is staged in a
        savepoint is dropped with it when it is rolled back. Publishes to one stream keep their order, and a condition sees
        what was staged before it. An unmet condition makes `commit()` raise. Payloads and metadata are stored as they are
        when `stage` is called, even if they change before the commit.

        Args:
            events: The events, in order.
            condition: What must be true of the stream at the commit.

        Returns:
            A handle: its `events` are the stored events, after the commit.

        Raises:
            TransactionError: If the store is not within a session.
            SerialisationError: If a value cannot be stored exactly.
        """
        return self._adapter.stage(target=self._identifier, events=events, condition=condition)

    async def update(
        self,
        projector: StreamProjector[State],
        decide: DecideAsync[State],
        *,
        retries: int = 3,
        snapshots: Snapshots | None = None,
    ) -> StreamUpdate[State]:
        """Load the stream's state, decide on events, and publish them; retry if another writer was faster.

        Updates of one stream in one process wait for each other in memory, for a second at most, instead of racing. On
        PostgreSQL, the fourth try and those after it load, decide and publish in one transaction in which the stream is
        locked, so that no other writer can be faster; while `decide` works, that transaction is open. An update within the
        `decide` of another one does neither.

        Within a session a lost race raises at once, because the session's whole transaction has to be retried: see
        `retry_transaction`.

        Args:
            projector: Makes the state from the events of the stream.
            decide: Takes a copy of the state and returns the events to publish; none to leave the stream as it is. It may
                be an `async def`. It is called again for each attempt.
            retries: How often to retry, after a short random pause, when the stream has changed in the meantime.
            snapshots: A `SnapshotStore`: load the state from its snapshot and the events since, as `project` does.

        Returns:
            The state, the new events included, and the stored events.

        Raises:
            UnmetWriteConditionError: If another writer was faster in every attempt.
            ConfigurationError: If the state cannot be copied.
        """
        tries = 0 if self._adapter.in_transaction else retries
        return await update(self, projector, decide, retries=tries, snapshots=snapshots)


class EventCategory(_StoredSource[CategoryIdentifier, P]):
    """The events of all streams of one kind, in order of their sequence numbers."""

    def stream(self, *, stream: str) -> EventStream[P]:
        """Return a stream of the category; no I/O."""
        return EventStream(self._adapter, StreamIdentifier(self._identifier.category, stream))

    def partitions(self, count: int) -> Sequence[EventPartition[P]]:
        """Return the category in `count` parts, for as many readers; no I/O. Each stream is in exactly one part."""
        category = self._identifier.category
        return [
            EventPartition(self._adapter, CategoryPartitionIdentifier(category, part, count)) for part in range(count)
        ]

    @overload
    async def publish(
        self, *, streams: Mapping[str, StreamPublishDefinition[Name, Payload, Metadata]]
    ) -> Mapping[str, Sequence[StoredEvent[Name, Payload, Metadata]]]: ...

    # Also for mypy, which cannot tell the parameters of definitions that are literals within a literal.
    @overload
    async def publish(
        self, *, streams: Mapping[str, TypedPublishDefinition[P]]
    ) -> Mapping[str, Sequence[StoredEvent[Any, P, Any]]]: ...

    async def publish(self, *, streams: Mapping[str, Any]) -> Mapping[str, Sequence[StoredEvent[Any, Any, Any]]]:
        """Store events at the end of several streams: all or none, in one statement.

        Args:
            streams: For each stream name `{"events": [...]}`, and optionally its `"condition"`.

        Returns:
            The stored events of each stream, in the order given.

        Raises:
            UnmetWriteConditionError: If a condition is not met; the error names the stream.
            EventStoreError: As for `EventStream.publish`. Nothing is stored then, in any of the streams.
        """
        results: Mapping[str, Sequence[Any]] = await self._adapter.save(target=self._identifier, streams=streams)
        return results

    @overload
    def stage(
        self, *, streams: Mapping[str, StreamPublishDefinition[Name, Payload, Metadata]]
    ) -> StagedPublish[Mapping[str, Sequence[StoredEvent[Name, Payload, Metadata]]]]: ...

    @overload
    def stage(
        self, *, streams: Mapping[str, TypedPublishDefinition[P]]
    ) -> StagedPublish[Mapping[str, Sequence[StoredEvent[Any, P, Any]]]]: ...

    def stage(self, *, streams: Mapping[str, Any]) -> StagedPublish[Mapping[str, Sequence[StoredEvent[Any, Any, Any]]]]:
        """Stage events for several streams, to be stored when the session commits; see `EventStream.stage`."""
        return self._adapter.stage(target=self._identifier, streams=streams)


class EventLog(_StoredSource[LogIdentifier, P]):
    """All events of the store, in order of their sequence numbers."""

    def __init__(
        self,
        adapter: EventStorageAdapter,
        identifier: LogIdentifier = LogIdentifier(),  # noqa: B008 - an immutable value
    ) -> None:
        super().__init__(adapter, identifier)

    def partitions(self, count: int) -> Sequence[EventPartition[P]]:
        """Return the log in `count` parts, for as many readers; no I/O. Each stream is in exactly one part."""
        return [EventPartition(self._adapter, LogPartitionIdentifier(part, count)) for part in range(count)]


class EventSelection(_StoredSource[EventQuery, P]):
    """The events that match a query, of any streams, in order of their sequence numbers."""

    def partitions(self, count: int) -> Sequence[EventPartition[P]]:
        """Return the selection in `count` parts, for as many readers; no I/O. Each stream is in exactly one part."""
        return [
            EventPartition(self._adapter, QueryPartitionIdentifier(self._identifier, part, count))
            for part in range(count)
        ]


class EventPartition(_StoredSource[EventPartitionIdentifier | QueryPartitionIdentifier, P]):
    """The events of some of the streams of the log, of a category or of a query, in order of their sequence numbers.

    Read like the whole that it is a part of: complete up to the watermark.
    """

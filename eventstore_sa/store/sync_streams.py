"""The streams, categories and the log of a `SyncEventStore`: the twins of those in `streams.py`, without asyncio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, overload

from typing_extensions import TypeVar

from eventstore_sa.conditions import NoCondition, WriteCondition
from eventstore_sa.publishing import StreamPublishDefinition, TypedPublishDefinition
from eventstore_sa.session import StagedPublish
from eventstore_sa.sources import SyncEventSource
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.store.adapters.event_contract import SyncEventStorageAdapter
from eventstore_sa.store.streams import OfAdapter
from eventstore_sa.store.updating import Decide, StreamUpdate, SyncStreamProjector, update_sync
from eventstore_sa.store.waiting import wait_until_complete_sync
from eventstore_sa.types import (
    AnyNewEvent,
    AnyStoredEvent,
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    EventQuery,
    EventSequenceIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    NewEvent,
    QueryIdentifier,
    QueryPartitionIdentifier,
    StoredEvent,
    StreamIdentifier,
    SyncSnapshots,
    is_complete_as_it_stands,
)

__all__ = ["SyncEventCategory", "SyncEventLog", "SyncEventPartition", "SyncEventSelection", "SyncEventStream"]

I = TypeVar("I", bound=EventSequenceIdentifier | EventPartitionIdentifier | QueryIdentifier)  # noqa: E741
State = TypeVar("State")
Name = TypeVar("Name")
Payload = TypeVar("Payload")
Metadata = TypeVar("Metadata")
P = TypeVar("P", default=Any)


class _StoredSource(OfAdapter[I, SyncEventStorageAdapter], SyncEventSource[I, StoredEvent[Any, P, Any]], Generic[I, P]):
    """Reads of whatever an adapter can scan."""

    def latest(self) -> StoredEvent[Any, P, Any] | None:
        return self._adapter.latest(target=self._identifier)

    def iterate(
        self,
        *,
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
        wait_for: AnyStoredEvent | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[StoredEvent[Any, P, Any]]:
        events = self._adapter.scan(target=self._identifier, constraints=constraints, limit=limit, backwards=backwards)
        if wait_for is None or is_complete_as_it_stands(self._identifier):
            return events
        return self._after(wait_for, timeout_s, events)

    def _after(
        self, event: AnyStoredEvent, timeout_s: float | None, events: Iterator[StoredEvent[Any, P, Any]]
    ) -> Iterator[StoredEvent[Any, P, Any]]:
        wait_until_complete_sync(self._adapter, event, timeout_s)
        yield from events


class SyncEventStream(_StoredSource[StreamIdentifier, P]):
    """The events of one entity, in order of their positions: 0, 1, 2 and so on."""

    @overload
    def publish(
        self, *, events: Sequence[NewEvent[Name, Payload, Metadata]], condition: WriteCondition = ...
    ) -> Sequence[StoredEvent[Name, Payload, Metadata]]: ...

    @overload
    def publish(
        self, *, events: Sequence[P | AnyNewEvent], condition: WriteCondition = ...
    ) -> Sequence[StoredEvent[Any, P, Any]]: ...

    def publish(
        self,
        *,
        events: Sequence[Any],
        condition: WriteCondition = NoCondition(),  # noqa: B008
    ) -> Sequence[StoredEvent[Any, Any, Any]]:
        """Store events at the end of the stream: all or none, in one statement; see `EventStream.publish`."""
        return self._adapter.save(target=self._identifier, events=events, condition=condition)

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
        """Stage events, to be stored at the end of the stream when the session commits; see `EventStream.stage`."""
        return self._adapter.stage(target=self._identifier, events=events, condition=condition)

    def update(
        self,
        projector: SyncStreamProjector[State],
        decide: Decide[State],
        *,
        retries: int = 3,
        snapshots: SyncSnapshots | None = None,
    ) -> StreamUpdate[State]:
        """Load the stream's state, decide on events, and publish them; see `EventStream.update`."""
        tries = 0 if self._adapter.in_transaction else retries
        return update_sync(self, projector, decide, retries=tries, snapshots=snapshots)


class SyncEventCategory(_StoredSource[CategoryIdentifier, P]):
    """The events of all streams of one kind, in order of their sequence numbers."""

    def stream(self, *, stream: str) -> SyncEventStream[P]:
        """Return a stream of the category; no I/O."""
        return SyncEventStream(self._adapter, StreamIdentifier(self._identifier.category, stream))

    def partitions(self, count: int) -> Sequence[SyncEventPartition[P]]:
        """Return the category in `count` parts, for as many readers; see `EventCategory.partitions`."""
        category = self._identifier.category
        return [
            SyncEventPartition(self._adapter, CategoryPartitionIdentifier(category, part, count))
            for part in range(count)
        ]

    @overload
    def publish(
        self, *, streams: Mapping[str, StreamPublishDefinition[Name, Payload, Metadata]]
    ) -> Mapping[str, Sequence[StoredEvent[Name, Payload, Metadata]]]: ...

    # Also for mypy, which cannot tell the parameters of definitions that are literals within a literal.
    @overload
    def publish(
        self, *, streams: Mapping[str, TypedPublishDefinition[P]]
    ) -> Mapping[str, Sequence[StoredEvent[Any, P, Any]]]: ...

    def publish(self, *, streams: Mapping[str, Any]) -> Mapping[str, Sequence[StoredEvent[Any, Any, Any]]]:
        """Store events at the end of several streams: all or none, in one statement; see `EventCategory.publish`."""
        results: Mapping[str, Sequence[Any]] = self._adapter.save(target=self._identifier, streams=streams)
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


class SyncEventLog(_StoredSource[LogIdentifier, P]):
    """All events of the store, in order of their sequence numbers."""

    def __init__(
        self,
        adapter: SyncEventStorageAdapter,
        identifier: LogIdentifier = LogIdentifier(),  # noqa: B008 - an immutable value
    ) -> None:
        super().__init__(adapter, identifier)

    def partitions(self, count: int) -> Sequence[SyncEventPartition[P]]:
        """Return the log in `count` parts, for as many readers; see `EventLog.partitions`."""
        return [SyncEventPartition(self._adapter, LogPartitionIdentifier(part, count)) for part in range(count)]


class SyncEventSelection(_StoredSource[EventQuery, P]):
    """The events that match a query, of any streams, in order of their sequence numbers; see `EventSelection`."""

    def partitions(self, count: int) -> Sequence[SyncEventPartition[P]]:
        """Return the selection in `count` parts, for as many readers; no I/O. Each stream is in exactly one part."""
        return [
            SyncEventPartition(self._adapter, QueryPartitionIdentifier(self._identifier, part, count))
            for part in range(count)
        ]


class SyncEventPartition(_StoredSource[EventPartitionIdentifier | QueryPartitionIdentifier, P]):
    """The events of some of the streams of the log or of a category, in order of their sequence numbers."""

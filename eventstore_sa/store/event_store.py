"""`EventStore` and `SyncEventStore`: they give access to streams, categories and the log.

Both have the same methods and parameters. A store is a light face over a storage adapter, which it makes itself when it is
given a SQLAlchemy bind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Self, overload

from typing_extensions import TypeVar

from eventstore_sa.conditions import WriteCondition
from eventstore_sa.contracts.inline_projections import InlineProjection, typed_projections
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee, Locking
from eventstore_sa.publishing import StreamPublishDefinition, TypedPublishDefinition
from eventstore_sa.session import CommitCallback, StagedPublish
from eventstore_sa.steps import drive, drive_async
from eventstore_sa.store.adapters.bindables import AsyncBindable, SyncBindable
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, Listable, SyncEventStorageAdapter
from eventstore_sa.store.adapters.event_memory import InMemoryEventStorageAdapter
from eventstore_sa.store.adapters.event_sqlalchemy import (
    SQLAlchemyEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)
from eventstore_sa.store.adapters.event_typed import typed, typed_sync
from eventstore_sa.store.backfilling import TagBackfill, TagsOf, backfill_tags
from eventstore_sa.store.deciding import (
    Decision,
    DecisionUpdate,
    Models,
    Publishes,
    SyncModels,
    decide,
    decide_sync,
    update_decision,
    update_decision_sync,
)
from eventstore_sa.store.declared_streams import by_stream
from eventstore_sa.store.lifecycle import Store, SyncStore, adapter_of
from eventstore_sa.store.streams import EventCategory, EventLog, EventPartition, EventSelection, EventStream
from eventstore_sa.store.sync_streams import (
    SyncEventCategory,
    SyncEventLog,
    SyncEventPartition,
    SyncEventSelection,
    SyncEventStream,
)
from eventstore_sa.store.updating import StreamProjector, SyncStreamProjector
from eventstore_sa.types import (
    CategoryIdentifier,
    EventPartitionIdentifier,
    EventQuery,
    EventTypes,
    LogIdentifier,
    QueryPartitionIdentifier,
    Snapshots,
    StoredEvent,
    StreamIdentifier,
    SyncSnapshots,
)
from eventstore_sa.types.event_types import checked_types
from eventstore_sa.types.watermark import Watermark

__all__ = ["EventStore", "SyncEventStore"]

Name = TypeVar("Name")
Payload = TypeVar("Payload")
Metadata = TypeVar("Metadata")
P = TypeVar("P", default=Any)
State = TypeVar("State")


class EventStore(Store[EventStorageAdapter], Generic[P]):
    """Events in streams, streams in categories, all of them in one log; used with asyncio.

    Args:
        adapter: An AsyncEngine, async_sessionmaker or URL: every publish is a transaction of its own, and the
            engine of a URL belongs to the store. An AsyncConnection or AsyncSession: everything happens in its
            transaction, as with `within`. Or a storage adapter.
        schema: The tables; by default those of an `EventStoreSchema` with the next two options.
        locking: How writers exclude each other; must agree with `schema` if that is given. See `EventStoreSchema`.
        serialisation_guarantee: At which level they do; must agree with `schema` likewise.
        types: The types of its events: objects of their classes are published and read. None: payloads are JSON.
        coalesce: Whether publishes that are made at the same time travel together: while one is under way, others gather,
            and are stored by the next statement, each with its own condition, result and error. For many writers in one
            process, on PostgreSQL; a publish that is alone goes straight. It changes nothing within sessions, with inline
            projections, row locks or conditions of your own, or in storage that writes one publish after the other: SQLite
            and memory. See docs/performance.md.

    Raises:
        ConfigurationError: If the bind cannot be used, its driver is not installed, the schema has another locking mode,
            or options are given together with an adapter.

    Examples:
        >>> import asyncio
        >>> from eventstore_sa import EventStore, NewEvent
        >>> async def main() -> None:
        ...     async with EventStore("sqlite+aiosqlite://") as store:
        ...         await store.create_schema()
        ...         order = store.stream(category="orders", stream="1")
        ...         await order.publish(events=[NewEvent(name="order-placed", payload={"total": 12})])
        ...         print([event.name async for event in order])
        >>> asyncio.run(main())
        ['order-placed']
    """

    def __init__(
        self,
        adapter: AsyncBindable | EventStorageAdapter,
        *,
        schema: EventStoreSchema | None = None,
        locking: Locking | None = None,
        serialisation_guarantee: EventSerialisationGuarantee | None = None,
        types: EventTypes[P] | None = None,
        coalesce: bool = False,
    ) -> None:
        self.adapter: EventStorageAdapter = adapter_of(
            self,
            adapter,
            EventStorageAdapter,
            SQLAlchemyEventStorageAdapter,
            schema=schema,
            locking=locking,
            serialisation_guarantee=serialisation_guarantee,
            coalesce=_coalesce(coalesce, adapter),
        )
        self.types: EventTypes[P] | None = checked_types(types)
        self._face = self._face_of(self.adapter)

    def stream(self, *, category: str, stream: str) -> EventStream[P]:
        """Return a stream; no I/O. A stream without events is simply empty.

        Raises:
            SerialisationError: If a name is empty or cannot be stored.
        """
        return EventStream(self._face, StreamIdentifier(category, stream))

    def category(self, *, category: str) -> EventCategory[P]:
        """Return a category; no I/O.

        Raises:
            SerialisationError: If the name is empty or cannot be stored.
        """
        return EventCategory(self._face, CategoryIdentifier(category))

    def log(self) -> EventLog[P]:
        """Return the log of all events; no I/O."""
        return EventLog(self._face)

    def query(self, query: EventQuery) -> EventSelection[P]:
        """Return the events that match a query, whatever streams they are in, in order of their sequence numbers; no I/O.

        A query is found by an index of tags. Items of names alone go through the log.
        """
        return EventSelection(self._face, query)

    def tag(self, tag: str) -> EventSelection[P]:
        """Return the events that have a tag: `query(EventQuery.tagged(tag))`; no I/O.

        Raises:
            SerialisationError: If the tag is empty or cannot be stored.
        """
        return EventSelection(self._face, EventQuery.tagged(tag))

    def partition(self, identifier: EventPartitionIdentifier | QueryPartitionIdentifier) -> EventPartition[P]:
        """Return a part of the log, of a category or of a query; no I/O. See also their `partitions(count)`."""
        return EventPartition(self._face, identifier)

    def streams(self, *, category: str | None = None) -> AsyncIterator[StreamIdentifier]:
        """Iterate over the streams that have events, by category and name, in code-point order.

        An index serves it: its cost grows with the number of streams, not of events. It is a plain read of what is committed
        (within a session: of what its transaction sees). Streams that are created meanwhile may be included or not, so
        it cannot serve as a cursor: to learn of new streams, read the log.

        Args:
            category: Only those of this category.

        Raises:
            SerialisationError: If the name is empty or cannot be stored.
        """
        return self.adapter.streams(target=_listable(category))

    def categories(self) -> AsyncIterator[CategoryIdentifier]:
        """Iterate over the categories that have events, in code-point order; see `streams`."""
        return self.adapter.categories()

    @overload
    async def publish(
        self, *, streams: Mapping[StreamIdentifier, StreamPublishDefinition[Name, Payload, Metadata]]
    ) -> Mapping[StreamIdentifier, Sequence[StoredEvent[Name, Payload, Metadata]]]: ...

    # Also for mypy, which cannot tell the parameters of definitions that are literals within a literal.
    @overload
    async def publish(
        self, *, streams: Mapping[StreamIdentifier, TypedPublishDefinition[P]]
    ) -> Mapping[StreamIdentifier, Sequence[StoredEvent[Any, P, Any]]]: ...

    @overload
    async def publish(
        self, *, events: Sequence[P], condition: WriteCondition | None = None
    ) -> Mapping[StreamIdentifier, Sequence[StoredEvent[Any, P, Any]]]: ...

    async def publish(
        self,
        *,
        streams: Mapping[StreamIdentifier, Any] | None = None,
        events: Sequence[Any] | None = None,
        condition: WriteCondition | None = None,
    ) -> Mapping[StreamIdentifier, Sequence[StoredEvent[Any, Any, Any]]]:
        """Store events at the end of several streams of any categories: all or none; see `EventCategory.publish`.

        Args:
            streams: The events for each stream, and its condition.
            events: Instead, on a store with event types: objects whose types declare their streams, in order.
            condition: A condition for `events`, of the stream of the first: for `decision.unchanged()` and the like, which
                are about any streams.

        Raises:
            ConfigurationError: If both are given, or the type of an event declares no stream.
            EventStoreError: As for `EventCategory.publish`.
        """
        results: Mapping[StreamIdentifier, Sequence[Any]] = await self._face.save(
            target=LogIdentifier(), streams=by_stream(self.types, streams, events, condition)
        )
        return results

    @overload
    def stage(
        self, *, streams: Mapping[StreamIdentifier, StreamPublishDefinition[Name, Payload, Metadata]]
    ) -> StagedPublish[Mapping[StreamIdentifier, Sequence[StoredEvent[Name, Payload, Metadata]]]]: ...

    @overload
    def stage(
        self, *, streams: Mapping[StreamIdentifier, TypedPublishDefinition[P]]
    ) -> StagedPublish[Mapping[StreamIdentifier, Sequence[StoredEvent[Any, P, Any]]]]: ...

    @overload
    def stage(
        self, *, events: Sequence[P], condition: WriteCondition | None = None
    ) -> StagedPublish[Mapping[StreamIdentifier, Sequence[StoredEvent[Any, P, Any]]]]: ...

    def stage(
        self,
        *,
        streams: Mapping[StreamIdentifier, Any] | None = None,
        events: Sequence[Any] | None = None,
        condition: WriteCondition | None = None,
    ) -> StagedPublish[Mapping[StreamIdentifier, Sequence[StoredEvent[Any, Any, Any]]]]:
        """Stage events for streams of any categories, to be stored when the session commits; see `EventStream.stage`."""
        return self._face.stage(target=LogIdentifier(), streams=by_stream(self.types, streams, events, condition))

    @overload
    async def decide(
        self, query: EventQuery, projector: StreamProjector[State], *, snapshots: Snapshots | None = None
    ) -> Decision[State]: ...

    @overload
    async def decide(self, query: Models, *, snapshots: Snapshots | None = None) -> Decision[dict[str, Any]]: ...

    async def decide(
        self,
        query: EventQuery | Models,
        projector: StreamProjector[Any] | None = None,
        *,
        snapshots: Snapshots | None = None,
    ) -> Decision[Any]:
        """Project the events that a query chooses, and remember which they were; no lock is taken.

        Publish what is decided with the condition `decision.unchanged()`: it is stored only if no other event has been
        stored since that would have been part of the decision.

        Args:
            query: The events; or several models by name, `{"course": (query, projector), ...}`, each with events of its
                own. All events of the queries are read, so choose them by tags. An item without tags is read up to the
                watermark, and makes the publish wait for all other writers of the log.
            projector: Makes the state from the events, in the order of their sequence numbers.
            snapshots: A `SnapshotStore`: projectors that set `snapshot_every` begin with their snapshot of the query, and
                only later events are read. Their `id_factory`, if they have one, is called with the query.

        Returns:
            The decision, whose state is that of the projector, or a dict of the states of all models.

        Raises:
            ConfigurationError: If it is not a query and a projector, or a dict of these.
        """
        return await decide(self, query, projector, snapshots)

    @overload
    async def update_decision(
        self,
        query: EventQuery,
        projector: StreamProjector[State],
        *,
        decide: Callable[[State], Publishes | Awaitable[Publishes]],
        retries: int = 3,
        snapshots: Snapshots | None = None,
    ) -> DecisionUpdate[State]: ...

    @overload
    async def update_decision(
        self,
        query: Models,
        *,
        decide: Callable[[dict[str, Any]], Publishes | Awaitable[Publishes]],
        retries: int = 3,
        snapshots: Snapshots | None = None,
    ) -> DecisionUpdate[dict[str, Any]]: ...

    async def update_decision(
        self,
        query: EventQuery | Models,
        projector: StreamProjector[Any] | None = None,
        *,
        decide: Callable[[Any], Publishes | Awaitable[Publishes]],
        retries: int = 3,
        snapshots: Snapshots | None = None,
    ) -> DecisionUpdate[Any]:
        """Read, decide and publish, and do it again if other events that matter were stored in the meantime.

        Within a session a lost race raises at once, because the session's whole transaction has to be retried: see
        `retry_transaction`.

        Args:
            query: As for `decide`.
            projector: As for `decide`.
            decide: Takes a copy of the state and returns the events for each stream, as `publish` takes them, or `{}` to
                publish nothing; or a list of events whose types declare their streams. It may be an `async def`. It is
                called again for each attempt.
            retries: How often to retry, after a short random pause.
            snapshots: As for `decide`.

        Returns:
            The state, the new events included, and the stored events of each stream.

        Raises:
            UnmetWriteConditionError: If another writer was faster in every attempt, or a condition that `decide` returned
                was not met.
            ConfigurationError: If the state cannot be copied.
        """
        return await update_decision(self, query, projector, decide, retries=retries, snapshots=snapshots)

    async def backfill_tags(
        self,
        tags_of: TagsOf | None = None,
        *,
        after: int = 0,
        batch_size: int = 1000,
        on_progress: Callable[[TagBackfill], object] | None = None,
    ) -> TagBackfill:
        """Add tags to events that were stored without them, in batches; the only change that a stored event ever undergoes.

        Rules on tags hold for all events that have them, so before decisions rely on new tags, give them to old events
        too: first deploy the code that publishes them everywhere, then run this. Each batch is a transaction, which
        other publishes with tags wait for. Decisions that were made before it are refused, because what they remember of an
        item says nothing about earlier events that belong to it now; `update_decision` decides again. Tags are only
        added: an event keeps those that it has, and one that has all of them is left alone, so an interrupted call can be
        repeated. Subscriptions to tags and queries do not see events again that they have passed: reset them. Change the
        `version` of projectors whose handlers look at tags, if there are snapshots of streams, categories or the log.

        Only the owner of the tables can do this; on PostgreSQL, run VACUUM afterwards. Not on MariaDB.

        Args:
            tags_of: Called with each stored event of the log; returns the tags that it should have. None, on a store with
                event types: those that the types declare.
            after: Begin after this sequence number: `up_to` of a call that did not come to its end.
            batch_size: How many events to read and change at a time.
            on_progress: Called after each batch.

        Returns:
            How far it went, and how many events were looked at and changed.

        Raises:
            SerialisationError: If what `tags_of` returns are no tags, or an event would have too many.
            TransactionError: If the store is within a session.
            LockTimeoutError: If others used tags for too long; go on from the last progress.
            ConfigurationError: If this storage cannot do it, or an argument is not as described.
        """
        return await drive_async(
            backfill_tags(self, tags_of, after=after, batch_size=batch_size, on_progress=on_progress)
        )

    async def flush(self) -> None:
        """Flush the session and store now what is staged in it, instead of at the commit. Only within a session.

        Raises:
            TransactionError: If the store is not within a session.
            EventStoreError: As for a publish; what could not be stored stays staged.
        """
        await self.adapter.flush()

    def after_commit(self, callback: CommitCallback) -> None:
        """Register a function to be called with the stored events once the transaction is durable. Only within a session.

        It gets what was staged in the transaction, and what is published at once from now on. It is not called when the
        transaction is rolled back, when nothing was stored, or at the release of a savepoint; if the session has joined a
        transaction of its connection, it is called after the commit of that one. An `async def` is awaited before
        `commit()` returns. The session's own transaction is over by then: use another session. What the function raises is
        logged, and undoes nothing.

        This is best effort: if the process ends between the commit and the call, the function is never called. For what
        must not be missed, read the log.

        Raises:
            TransactionError: If the store is not within a session.
        """
        self._face.after_commit(callback)

    async def watermark(self) -> Watermark:
        """Tell up to which sequence number the log is complete, and who holds it back."""
        return await self.adapter.watermark()

    def with_projections(self, *projections: InlineProjection) -> Self:
        """Return the same store, whose every publish updates these projections in its transaction.

        Whether events are published at once or staged, within a session or not: their changes to the projections are
        committed with them, or not at all. Loading costs at most one statement for each projection, however many streams are
        published to; what is stored of all of them is saved together. A publish that repeats what is already stored changes
        nothing. The projections are kept in the projection store beside the events, see `ProjectionStore(store)`. An error
        that a handler raises comes out of the publish, with a note that names the event, and nothing is stored.

        Args:
            projections: Projectors, or other inline projections; they are added to those that this store has already.

        Raises:
            ConfigurationError: If a handler is a coroutine function, two projections have the same name, or one needs a
                database and this store has none.
        """
        return self._over(self.adapter.with_projections(typed_projections(projections, self.types)))

    def _over(self, adapter: EventStorageAdapter) -> Self:
        store = super()._over(adapter)
        store._face = self._face_of(adapter)  # noqa: SLF001 - a copy of this one
        return store

    def _face_of(self, adapter: EventStorageAdapter) -> EventStorageAdapter:
        """Return what is published to and read from: the adapter itself, or its face for event types."""
        return adapter if self.types is None else typed(adapter, self.types)


class SyncEventStore(SyncStore[SyncEventStorageAdapter], Generic[P]):
    """Events in streams, streams in categories, all of them in one log; the twin of `EventStore` without asyncio.

    Args:
        adapter: An Engine, sessionmaker or URL: every publish is a transaction of its own, and the engine of a
            URL belongs to the store. A Connection or Session: everything happens in its transaction, as with `within`.
            Or a storage adapter; the in-memory one serves both stores.
        schema: The tables; by default those of an `EventStoreSchema` with the next two options.
        locking: How writers exclude each other; must agree with `schema` if that is given. See `EventStoreSchema`.
        serialisation_guarantee: At which level they do; must agree with `schema` likewise.
        types: The types of its events: objects of their classes are published and read. None: payloads are JSON.
        coalesce: Whether publishes of several threads that are made at the same time travel together; see `EventStore`.

    Raises:
        ConfigurationError: If the bind cannot be used, its driver is not installed, the schema has another locking mode,
            or options are given together with an adapter.
    """

    def __init__(
        self,
        adapter: SyncBindable | SyncEventStorageAdapter | InMemoryEventStorageAdapter,
        *,
        schema: EventStoreSchema | None = None,
        locking: Locking | None = None,
        serialisation_guarantee: EventSerialisationGuarantee | None = None,
        types: EventTypes[P] | None = None,
        coalesce: bool = False,
    ) -> None:
        if isinstance(adapter, InMemoryEventStorageAdapter):
            adapter = adapter.sync_adapter
        self.adapter: SyncEventStorageAdapter = adapter_of(
            self,
            adapter,
            SyncEventStorageAdapter,
            SyncSQLAlchemyEventStorageAdapter,
            schema=schema,
            locking=locking,
            serialisation_guarantee=serialisation_guarantee,
            coalesce=_coalesce(coalesce, adapter),
        )
        self.types: EventTypes[P] | None = checked_types(types)
        self._face = self._face_of(self.adapter)

    def stream(self, *, category: str, stream: str) -> SyncEventStream[P]:
        """Return a stream; see `EventStore.stream`."""
        return SyncEventStream(self._face, StreamIdentifier(category, stream))

    def category(self, *, category: str) -> SyncEventCategory[P]:
        """Return a category; see `EventStore.category`."""
        return SyncEventCategory(self._face, CategoryIdentifier(category))

    def log(self) -> SyncEventLog[P]:
        """Return the log of all events; no I/O."""
        return SyncEventLog(self._face)

    def query(self, query: EventQuery) -> SyncEventSelection[P]:
        """Return the events that match a query; see `EventStore.query`."""
        return SyncEventSelection(self._face, query)

    def tag(self, tag: str) -> SyncEventSelection[P]:
        """Return the events that have a tag; see `EventStore.tag`."""
        return SyncEventSelection(self._face, EventQuery.tagged(tag))

    def partition(self, identifier: EventPartitionIdentifier | QueryPartitionIdentifier) -> SyncEventPartition[P]:
        """Return a part of the log, of a category or of a query; no I/O. See also their `partitions(count)`."""
        return SyncEventPartition(self._face, identifier)

    def streams(self, *, category: str | None = None) -> Iterator[StreamIdentifier]:
        """Iterate over the streams that have events, in code-point order; see `EventStore.streams`."""
        return self.adapter.streams(target=_listable(category))

    def categories(self) -> Iterator[CategoryIdentifier]:
        """Iterate over the categories that have events, in code-point order; see `EventStore.streams`."""
        return self.adapter.categories()

    @overload
    def publish(
        self, *, streams: Mapping[StreamIdentifier, StreamPublishDefinition[Name, Payload, Metadata]]
    ) -> Mapping[StreamIdentifier, Sequence[StoredEvent[Name, Payload, Metadata]]]: ...

    # Also for mypy, which cannot tell the parameters of definitions that are literals within a literal.
    @overload
    def publish(
        self, *, streams: Mapping[StreamIdentifier, TypedPublishDefinition[P]]
    ) -> Mapping[StreamIdentifier, Sequence[StoredEvent[Any, P, Any]]]: ...

    @overload
    def publish(
        self, *, events: Sequence[P], condition: WriteCondition | None = None
    ) -> Mapping[StreamIdentifier, Sequence[StoredEvent[Any, P, Any]]]: ...

    def publish(
        self,
        *,
        streams: Mapping[StreamIdentifier, Any] | None = None,
        events: Sequence[Any] | None = None,
        condition: WriteCondition | None = None,
    ) -> Mapping[StreamIdentifier, Sequence[StoredEvent[Any, Any, Any]]]:
        """Store events at the end of several streams of any categories: all or none; see `EventStore.publish`."""
        results: Mapping[StreamIdentifier, Sequence[Any]] = self._face.save(
            target=LogIdentifier(), streams=by_stream(self.types, streams, events, condition)
        )
        return results

    @overload
    def stage(
        self, *, streams: Mapping[StreamIdentifier, StreamPublishDefinition[Name, Payload, Metadata]]
    ) -> StagedPublish[Mapping[StreamIdentifier, Sequence[StoredEvent[Name, Payload, Metadata]]]]: ...

    @overload
    def stage(
        self, *, streams: Mapping[StreamIdentifier, TypedPublishDefinition[P]]
    ) -> StagedPublish[Mapping[StreamIdentifier, Sequence[StoredEvent[Any, P, Any]]]]: ...

    @overload
    def stage(
        self, *, events: Sequence[P], condition: WriteCondition | None = None
    ) -> StagedPublish[Mapping[StreamIdentifier, Sequence[StoredEvent[Any, P, Any]]]]: ...

    def stage(
        self,
        *,
        streams: Mapping[StreamIdentifier, Any] | None = None,
        events: Sequence[Any] | None = None,
        condition: WriteCondition | None = None,
    ) -> StagedPublish[Mapping[StreamIdentifier, Sequence[StoredEvent[Any, Any, Any]]]]:
        """Stage events for streams of any categories, to be stored when the session commits; see `EventStream.stage`."""
        return self._face.stage(target=LogIdentifier(), streams=by_stream(self.types, streams, events, condition))

    @overload
    def decide(
        self, query: EventQuery, projector: SyncStreamProjector[State], *, snapshots: SyncSnapshots | None = None
    ) -> Decision[State]: ...

    @overload
    def decide(self, query: SyncModels, *, snapshots: SyncSnapshots | None = None) -> Decision[dict[str, Any]]: ...

    def decide(
        self,
        query: EventQuery | SyncModels,
        projector: SyncStreamProjector[Any] | None = None,
        *,
        snapshots: SyncSnapshots | None = None,
    ) -> Decision[Any]:
        """Project the events that a query chooses, and remember which they were; see `EventStore.decide`."""
        return decide_sync(self, query, projector, snapshots)

    @overload
    def update_decision(
        self,
        query: EventQuery,
        projector: SyncStreamProjector[State],
        *,
        decide: Callable[[State], Publishes],
        retries: int = 3,
        snapshots: SyncSnapshots | None = None,
    ) -> DecisionUpdate[State]: ...

    @overload
    def update_decision(
        self,
        query: SyncModels,
        *,
        decide: Callable[[dict[str, Any]], Publishes],
        retries: int = 3,
        snapshots: SyncSnapshots | None = None,
    ) -> DecisionUpdate[dict[str, Any]]: ...

    def update_decision(
        self,
        query: EventQuery | SyncModels,
        projector: SyncStreamProjector[Any] | None = None,
        *,
        decide: Callable[[Any], Publishes],
        retries: int = 3,
        snapshots: SyncSnapshots | None = None,
    ) -> DecisionUpdate[Any]:
        """Read, decide and publish, and do it again after a lost race; see `EventStore.update_decision`."""
        return update_decision_sync(self, query, projector, decide, retries=retries, snapshots=snapshots)

    def backfill_tags(
        self,
        tags_of: TagsOf | None = None,
        *,
        after: int = 0,
        batch_size: int = 1000,
        on_progress: Callable[[TagBackfill], object] | None = None,
    ) -> TagBackfill:
        """Add tags to events that were stored without them, in batches; see `EventStore.backfill_tags`."""
        return drive(backfill_tags(self, tags_of, after=after, batch_size=batch_size, on_progress=on_progress))

    def flush(self) -> None:
        """Flush the session and store now what is staged in it; see `EventStore.flush`."""
        self.adapter.flush()

    def after_commit(self, callback: CommitCallback) -> None:
        """Register a function to be called with the stored events after the commit; see `EventStore.after_commit`."""
        self._face.after_commit(callback)

    def watermark(self) -> Watermark:
        """Tell up to which sequence number the log is complete, and who holds it back."""
        return self.adapter.watermark()

    def with_projections(self, *projections: InlineProjection) -> Self:
        """Return the same store, whose every publish updates these projections; see `EventStore.with_projections`."""
        return self._over(self.adapter.with_projections(typed_projections(projections, self.types)))

    def _over(self, adapter: SyncEventStorageAdapter) -> Self:
        store = super()._over(adapter)
        store._face = self._face_of(adapter)  # noqa: SLF001 - a copy of this one
        return store

    def _face_of(self, adapter: SyncEventStorageAdapter) -> SyncEventStorageAdapter:
        return adapter if self.types is None else typed_sync(adapter, self.types)


def _coalesce(coalesce: bool, given: object) -> bool | None:
    """Return the option for an adapter that is made; None if not given, or of no meaning to the one given."""
    of_database = SQLAlchemyEventStorageAdapter | SyncSQLAlchemyEventStorageAdapter
    if isinstance(given, EventStorageAdapter | SyncEventStorageAdapter) and not isinstance(given, of_database):
        return None
    return coalesce or None


def _listable(category: str | None) -> Listable:
    return LogIdentifier() if category is None else CategoryIdentifier(category)

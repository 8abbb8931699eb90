"""`ProjectionStore` and its twin without asyncio: saving projections, and finding them again.

They convert states and metadata to JSON and back; everything else is done by the storage adapters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from typing import Any

from typing_extensions import TypeVar

from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.projection.adapters import (
    InMemoryProjectionStorageAdapter,
    ProjectionStorageAdapter,
    SQLAlchemyProjectionStorageAdapter,
    SyncInMemoryProjectionStorageAdapter,
    SyncProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)
from eventstore_sa.projection.adapters.projection_contract import typed_projections
from eventstore_sa.projection.batches import apply_batch, apply_batch_sync
from eventstore_sa.projection.projector import Projector
from eventstore_sa.query import FilterClause, FilterExpression, Lookup, Operator, PagingClause, Path, Search, SortClause
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.store.adapters.bindables import AsyncBindable, SyncBindable
from eventstore_sa.store.lifecycle import Store, SyncStore, adapter_of
from eventstore_sa.types import (
    AnyStoredEvent,
    EventSourceIdentifier,
    JsonValue,
    JsonValueType,
    Projection,
)

__all__ = ["ProjectionStore", "SyncProjectionStore"]

State = TypeVar("State", default=JsonValue)
Metadata = TypeVar("Metadata", default=JsonValue)


class ProjectionStore(Store[ProjectionStorageAdapter]):
    """Projections in memory or in a SQL database, found by key, by source, or by their content.

    Args:
        adapter: What an `EventStore` may be bound to, with the same meaning; or a storage adapter; or an
            `EventStore`: then these are the projections that are kept beside its events.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: If the bind cannot be used, or a schema is given together with an adapter.
    """

    def __init__(
        self,
        adapter: AsyncBindable | ProjectionStorageAdapter | EventStore,
        *,
        schema: EventStoreSchema | None = None,
    ) -> None:
        if isinstance(adapter, EventStore):
            in_memory = isinstance(adapter.adapter, InMemoryEventStorageAdapter)
            kind = InMemoryProjectionStorageAdapter if in_memory else SQLAlchemyProjectionStorageAdapter
            adapter = kind.of_store(adapter)
        self.adapter: ProjectionStorageAdapter = adapter_of(
            self, adapter, ProjectionStorageAdapter, SQLAlchemyProjectionStorageAdapter, schema=schema
        )

    async def save(self, *, projection: Projection[Any, Any], expected_version: int | None = None) -> int:
        """Save a projection; return its new version, which is 1 for a new one and then counts up.

        Saving a key again replaces state and metadata; the source stays, and so does the position among unsorted results.

        Args:
            projection: What to save; name and id are its key.
            expected_version: Save only over this version, the `projection.version` of what was loaded; 0: only if none is
                stored; None: in any case.

        Raises:
            ProjectionVersionError: If another version is stored. Nothing is saved then.
            SerialisationError: If a value cannot be stored exactly. Nothing is saved then.
        """
        return await self.adapter.save(projection=projection, expected_version=expected_version)

    async def save_all(self, *, projections: Sequence[Projection[Any, Any]]) -> Sequence[int]:
        """Save projections, all or none, in one statement; return their new versions in the same order.

        Raises:
            ConfigurationError: If a key is given twice. Nothing is saved then.
            SerialisationError: If a value cannot be stored exactly. Nothing is saved then.
        """
        return await self.adapter.save_all(projections=projections)

    async def delete(self, *, id: str, name: str) -> bool:
        """Delete a projection; return whether there was one."""
        return await self.adapter.delete(name=name, id=id)

    async def project(self, projector: Projector[Any, Any, Any], *, events: Iterable[AnyStoredEvent]) -> int:
        """Apply events to the stored projections of a projector, with one statement to load them and one to save them.

        The events may be of any streams; each counts once, in the order of their sequence numbers, and those that the
        projector does not handle are skipped. The number of the last event that was applied is stored with each
        projection, and events up to it are left out: applying a batch again changes nothing. So the events must come from
        complete reads, such as those of a category or the log, and a projection that is updated this way must not be
        updated inline as well. No transaction is open while handlers run; if another process has saved one of the
        projections meanwhile, the events it lacks are applied on top of that.

        Args:
            projector: Whose projections; its handlers may be coroutine functions.
            events: The events.

        Returns:
            How many projections were saved.

        Raises:
            MissingProjectionHandlerError: If an event has no handler, and the projector does not ignore that.
            ConcurrencyError: If other writers were faster in every attempt.
            ConfigurationError: If the events are not a batch of stored events, but a source, for example.
        """
        return await apply_batch(self.adapter, projector, events)

    async def locate(
        self,
        *,
        source: EventSourceIdentifier,
        name: str,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Projection[State, Metadata] | None:
        """Return the projection of a source by its name; None if there is none.

        Args:
            source: What was projected.
            name: The name of the projector.
            state_type: The type to convert the state to; JSON by default.
            metadata_type: The type to convert the metadata to; JSON by default.

        Raises:
            QueryError: If there are several.
            SerialisationError: If state or metadata are not of these types.
        """
        lookup = Lookup(filters=[_equal("name", name), _equal("source", source)])
        return await self.adapter.find_one(lookup=lookup, state_type=state_type, metadata_type=metadata_type)

    async def load(
        self,
        *,
        id: str,
        name: str,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Projection[State, Metadata] | None:
        """Return the projection with a key; None if there is none. For the types see `locate`.

        Raises:
            SerialisationError: If state or metadata are not of these types.
        """
        lookup = Lookup(filters=[_equal("name", name), _equal("id", id)])
        return await self.adapter.find_one(lookup=lookup, state_type=state_type, metadata_type=metadata_type)

    async def search(
        self,
        *,
        filters: Collection[FilterExpression] = (),
        sort: SortClause | None = None,
        paging: PagingClause | None = None,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Sequence[Projection[State, Metadata]]:
        """Return projections of any name: filtered, then sorted, then one page of them. For the types see `locate`.

        Args:
            filters: The filters; all of them must be met.
            sort: The order; None: in which they were first saved.
            paging: Which page; None: all.
            state_type: The type to convert the states to.
            metadata_type: The type to convert the metadata to.

        Raises:
            QueryError: If the search cannot be answered.
            SerialisationError: If a state or metadata are not of these types.
        """
        search = Search(filters=filters, sort=sort, paging=paging)
        return await self.adapter.find_many(search=search, state_type=state_type, metadata_type=metadata_type)

    async def iterate(
        self,
        *,
        filters: Collection[FilterExpression] = (),
        sort: SortClause | None = None,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> AsyncIterator[Projection[State, Metadata]]:
        """Iterate over all that `search` finds without paging, however many: they are fetched in pages.

        No connection is held between pages, unless it is the caller's. Each page shows what is committed when it is read,
        and begins where the previous one ended: a projection that does not change meanwhile is returned exactly once, and
        one that moves within the sort order may be returned twice or not at all. Without a sort, none ever moves.

        Args:
            filters: The filters; all of them must be met.
            sort: The order; None: in which they were first saved.
            state_type: The type to convert the states to.
            metadata_type: The type to convert the metadata to.

        Raises:
            QueryError: If the search cannot be answered.
            SerialisationError: If a state or metadata are not of these types.
        """
        async for projection in self.adapter.scan(filters=filters, sort=sort):
            yield typed_projections([projection], state_type, metadata_type)[0]

    async def count(self, *, filters: Collection[FilterExpression] = ()) -> int:
        """Count the projections that meet all filters.

        Raises:
            QueryError: If a filter cannot be evaluated.
        """
        return await self.adapter.count(search=Search(filters=filters))


class SyncProjectionStore(SyncStore[SyncProjectionStorageAdapter]):
    """Projections, found by key, by source, or by their content; `ProjectionStore` without asyncio.

    Args:
        adapter: What a `SyncEventStore` may be bound to, with the same meaning; or a storage adapter, of which
            the in-memory one serves both stores; or a `SyncEventStore`, for the projections beside its events.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: If the bind cannot be used, or a schema is given together with an adapter.
    """

    def __init__(
        self,
        adapter: SyncBindable | SyncProjectionStorageAdapter | InMemoryProjectionStorageAdapter | SyncEventStore,
        *,
        schema: EventStoreSchema | None = None,
    ) -> None:
        if isinstance(adapter, SyncEventStore):
            in_memory = isinstance(adapter.adapter, SyncInMemoryEventStorageAdapter)
            kind = SyncInMemoryProjectionStorageAdapter if in_memory else SyncSQLAlchemyProjectionStorageAdapter
            adapter = kind.of_store(adapter)
        if isinstance(adapter, InMemoryProjectionStorageAdapter):
            adapter = adapter.sync_adapter
        self.adapter: SyncProjectionStorageAdapter = adapter_of(
            self, adapter, SyncProjectionStorageAdapter, SyncSQLAlchemyProjectionStorageAdapter, schema=schema
        )

    def save(self, *, projection: Projection[Any, Any], expected_version: int | None = None) -> int:
        """Save a projection; see `ProjectionStore.save`."""
        return self.adapter.save(projection=projection, expected_version=expected_version)

    def save_all(self, *, projections: Sequence[Projection[Any, Any]]) -> Sequence[int]:
        """Save projections, all or none, in one statement; see `ProjectionStore.save_all`."""
        return self.adapter.save_all(projections=projections)

    def delete(self, *, id: str, name: str) -> bool:
        """Delete a projection; return whether there was one."""
        return self.adapter.delete(name=name, id=id)

    def project(self, projector: Projector[Any, Any, Any], *, events: Iterable[AnyStoredEvent]) -> int:
        """Apply events to the stored projections of a projector; see `ProjectionStore.project`."""
        return apply_batch_sync(self.adapter, projector, events)

    def locate(
        self,
        *,
        source: EventSourceIdentifier,
        name: str,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Projection[State, Metadata] | None:
        """Return the projection of a source by its name; see `ProjectionStore.locate`."""
        lookup = Lookup(filters=[_equal("name", name), _equal("source", source)])
        return self.adapter.find_one(lookup=lookup, state_type=state_type, metadata_type=metadata_type)

    def load(
        self,
        *,
        id: str,
        name: str,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Projection[State, Metadata] | None:
        """Return the projection with a key; see `ProjectionStore.load`."""
        lookup = Lookup(filters=[_equal("name", name), _equal("id", id)])
        return self.adapter.find_one(lookup=lookup, state_type=state_type, metadata_type=metadata_type)

    def search(
        self,
        *,
        filters: Collection[FilterExpression] = (),
        sort: SortClause | None = None,
        paging: PagingClause | None = None,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Sequence[Projection[State, Metadata]]:
        """Return projections of any name: filtered, then sorted, then one page of them; see `ProjectionStore.search`."""
        search = Search(filters=filters, sort=sort, paging=paging)
        return self.adapter.find_many(search=search, state_type=state_type, metadata_type=metadata_type)

    def iterate(
        self,
        *,
        filters: Collection[FilterExpression] = (),
        sort: SortClause | None = None,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Iterator[Projection[State, Metadata]]:
        """Iterate over all that `search` finds without paging; see `ProjectionStore.iterate`."""
        for projection in self.adapter.scan(filters=filters, sort=sort):
            yield typed_projections([projection], state_type, metadata_type)[0]

    def count(self, *, filters: Collection[FilterExpression] = ()) -> int:
        """Count the projections that meet all filters; see `ProjectionStore.count`."""
        return self.adapter.count(search=Search(filters=filters))


def _equal(field: str, value: object) -> FilterClause:
    return FilterClause(Operator.EQUAL, Path(field), value)

"""Storage of projections in a SQL database: two thin faces over `persistence/projections.py`.

The asyncio face runs the same synchronous code in a greenlet. What a bind may be is told in `store/adapters/binding.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Final, Self

from msgspec import Struct

from eventstore_sa.contracts.projection_records import ProjectionRecord, record_of
from eventstore_sa.persistence.projections.queries import (
    FilterConverter,
    FunctionConverter,
    OperatorConverter,
    ProjectionConverters,
)
from eventstore_sa.persistence.projections.storage import ProjectionStorage
from eventstore_sa.persistence.schema import EventStoreSchema, default_schema
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.projection.adapters.base import (
    AnyProjection,
    JsonProjection,
    ProjectionStorageAdapter,
    SyncProjectionStorageAdapter,
    checked_expectation,
    distinct_records,
    one_at_most,
    search_for_two,
)
from eventstore_sa.query import (
    CustomFilter,
    CustomFunction,
    CustomOperator,
    FilterExpression,
    Lookup,
    Search,
    SortClause,
)
from eventstore_sa.query.converters import QueryConverters
from eventstore_sa.store.adapters.binding import AsyncBindable, BoundTo, SyncBindable, async_bind, sync_bind
from eventstore_sa.store.adapters.bound import AsyncBoundAdapter, BoundAdapter, SyncBoundAdapter
from eventstore_sa.types.numbers import checked_count

__all__ = ["SQLAlchemyProjectionStorageAdapter", "SyncSQLAlchemyProjectionStorageAdapter"]

_PAGE_SIZE: Final = 1000


class _Options(Struct, frozen=True):
    """What an adapter shares with those that it makes for sessions."""

    schema: EventStoreSchema
    page_size: int
    converters: ProjectionConverters

    @classmethod
    def of(cls, schema: EventStoreSchema | None, page_size: int) -> _Options:
        size = checked_count("page_size", page_size)
        return cls(default_schema() if schema is None else schema, size, QueryConverters())


class _ProjectionAdapter(BoundAdapter[_Options, ProjectionStorage]):
    """Storage of projections on one bind."""

    store_kind = "projection store"

    @classmethod
    def on(cls, bind: Bind, schema: EventStoreSchema) -> Self:
        """Make an adapter on the bind of an event store, whose engine belongs to that."""
        return cls._opened(BoundTo(bind), _Options.of(schema, _PAGE_SIZE))

    def _make_storage(self, bind: Bind, options: _Options) -> ProjectionStorage:
        return ProjectionStorage(bind, options.schema, converters=options.converters, page_size=options.page_size)

    def register_filter(self, kind: type[CustomFilter], converter: FilterConverter) -> None:
        """Say how filters of a type of your own, and of its subclasses, are translated to SQL.

        The same holds in the stores that `within` returns, for this and the other registrations.

        Args:
            kind: A subclass of `CustomFilter`.
            converter: Called with a filter and the `ProjectionColumns`; returns a condition. NULL counts as not met.

        Raises:
            ConfigurationError: It is no such type.
        """
        self._options.converters.register_filter(kind, converter)

    def register_operator(self, operator: CustomOperator, converter: OperatorConverter) -> None:
        """Say how clauses with an operator of your own are translated to SQL.

        Args:
            operator: The operator.
            converter: Called with the `JsonPlace` and the value of a clause; returns a condition. NULL counts as not met.

        Raises:
            ConfigurationError: It is no CustomOperator.
        """
        self._options.converters.register_operator(operator, converter)

    def register_function(self, kind: type[CustomFunction], converter: FunctionConverter) -> None:
        """Say how functions of a type of your own, and of its subclasses, are translated to SQL.

        Args:
            kind: A subclass of `CustomFunction`.
            converter: Called with a function and the `ProjectionColumns`; returns a number or text, NULL for null.

        Raises:
            ConfigurationError: It is no such type.
        """
        self._options.converters.register_function(kind, converter)


class SyncSQLAlchemyProjectionStorageAdapter(
    _ProjectionAdapter, SyncBoundAdapter[_Options, ProjectionStorage], SyncProjectionStorageAdapter
):
    """Keeps projections in a SQL database.

    Args:
        bind: An Engine, sessionmaker or URL: every save is a transaction of its own. A Connection or Session: all is done
            in its transaction, which is never begun, committed or rolled back here.
        schema: The tables; those of `EventStoreSchema()` by default.
        page_size: How many projections a scan fetches at a time.

    Raises:
        ConfigurationError: The bind cannot be used, or its driver is not installed.
    """

    def __init__(
        self, bind: SyncBindable, *, schema: EventStoreSchema | None = None, page_size: int = _PAGE_SIZE
    ) -> None:
        options = _Options.of(schema, page_size)
        self._open(sync_bind(bind, options.schema), options)

    def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        record = record_of(projection)
        if expected_version is None:
            return self._storage.save([record])[0]
        return self._storage.save_expecting(record, checked_expectation(expected_version))

    def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        return self._storage.save(distinct_records(projections))

    def delete(self, *, name: str, id: str) -> bool:
        return self._storage.delete(name, id)

    def find_one(self, *, lookup: Lookup) -> JsonProjection | None:
        return one_at_most(self._storage.search(search_for_two(lookup)))

    def find_many(self, *, search: Search) -> Sequence[JsonProjection]:
        return [record.projection() for record in self._storage.search(search)]

    def scan(
        self, *, filters: Collection[FilterExpression] = (), sort: SortClause | None = None
    ) -> Iterator[JsonProjection]:
        return (record.projection() for page in self._storage.pages(filters, sort) for record in page)

    def count(self, *, search: Search) -> int:
        return self._storage.count(search.filters)

    def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return self._storage.load_batch(name, ids)

    def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        return self._storage.save_batch(records)


class SQLAlchemyProjectionStorageAdapter(
    _ProjectionAdapter, AsyncBoundAdapter[_Options, ProjectionStorage], ProjectionStorageAdapter
):
    """Keeps projections in a SQL database; used with asyncio.

    Args:
        bind: An AsyncEngine, async_sessionmaker or URL: every save is a transaction of its own. An AsyncConnection or
            AsyncSession: all is done in its transaction, which is never begun, committed or rolled back here.
        schema: The tables; those of `EventStoreSchema()` by default.
        page_size: How many projections a scan fetches at a time.

    Raises:
        ConfigurationError: The bind cannot be used, or its driver is not installed.
    """

    def __init__(
        self, bind: AsyncBindable, *, schema: EventStoreSchema | None = None, page_size: int = _PAGE_SIZE
    ) -> None:
        options = _Options.of(schema, page_size)
        self._open(async_bind(bind, options.schema), options)

    async def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        record = record_of(projection)
        if expected_version is None:
            return (await self._run(self._storage.save, [record]))[0]
        return await self._run(self._storage.save_expecting, record, checked_expectation(expected_version))

    async def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        return await self._run(self._storage.save, distinct_records(projections))

    async def delete(self, *, name: str, id: str) -> bool:
        return await self._run(self._storage.delete, name, id)

    async def find_one(self, *, lookup: Lookup) -> JsonProjection | None:
        return one_at_most(await self._run(self._storage.search, search_for_two(lookup)))

    async def find_many(self, *, search: Search) -> Sequence[JsonProjection]:
        return [record.projection() for record in await self._run(self._storage.search, search)]

    async def scan(
        self, *, filters: Collection[FilterExpression] = (), sort: SortClause | None = None
    ) -> AsyncIterator[JsonProjection]:
        async for record in self._items(self._storage.pages(filters, sort)):
            yield record.projection()

    async def count(self, *, search: Search) -> int:
        return await self._run(self._storage.count, search.filters)

    async def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return await self._run(self._storage.load_batch, name, ids)

    async def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        return await self._run(self._storage.save_batch, records)

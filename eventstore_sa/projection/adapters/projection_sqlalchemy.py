"""Storage adapters for projections in a SQL database, over `persistence/projections/storage.py`.

The asyncio adapter owns the synchronous one and runs it in greenlets. For what a bind may be, see
`store/adapters/bindables.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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
from eventstore_sa.persistence.schema import EventStoreSchema, schema_or_default
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.projection.adapters.projection_contract import (
    AnyProjection,
    AwaitableProjectionStorageAdapter,
    JsonProjection,
    Metadata,
    State,
    SyncProjectionStorageAdapter,
    checked_expectation,
    distinct_records,
    nothing_beside,
    one_at_most,
    search_for_two,
    typed_projection,
    typed_projections,
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
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters.bindables import AsyncBindable, SyncBindable, async_bind
from eventstore_sa.store.adapters.event_sqlalchemy import (
    SQLAlchemyEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)
from eventstore_sa.store.adapters.runners import paged
from eventstore_sa.store.adapters.sqlalchemy_adapter import AwaitableSQLAlchemyAdapter, SyncSQLAlchemyAdapter
from eventstore_sa.types import JsonValueType, Projection
from eventstore_sa.types.numbers import checked_count

__all__ = ["SQLAlchemyProjectionStorageAdapter", "SyncSQLAlchemyProjectionStorageAdapter"]

_PAGE_SIZE: Final = 1000


class _Options(Struct, frozen=True):
    """What an adapter shares with those that it makes for sessions."""

    schema: EventStoreSchema
    page_size: int


class _Registering:
    """Registers how the application's own filters, operators and functions are translated to SQL."""

    converters: ProjectionConverters

    def register_filter(self, kind: type[CustomFilter], converter: FilterConverter) -> None:
        """Register how filters of a type of your own, and of its subclasses, are translated to SQL.

        This and the other registrations apply to the stores that `within` returns as well.

        Args:
            kind: A subclass of `CustomFilter`.
            converter: Called with a filter and the `ProjectionColumns`; returns a condition. NULL counts as not met.

        Raises:
            ConfigurationError: If it is not such a type.
        """
        self.converters.register_filter(kind, converter)

    def register_operator(self, operator: CustomOperator, converter: OperatorConverter) -> None:
        """Register how clauses with an operator of your own are translated to SQL.

        Args:
            operator: The operator.
            converter: Called with the `JsonPlace` and the value of a clause; returns a condition. NULL counts as not met.

        Raises:
            ConfigurationError: If it is not a CustomOperator.
        """
        self.converters.register_operator(operator, converter)

    def register_function(self, kind: type[CustomFunction], converter: FunctionConverter) -> None:
        """Register how functions of a type of your own, and of its subclasses, are translated to SQL.

        Args:
            kind: A subclass of `CustomFunction`.
            converter: Called with a function and the `ProjectionColumns`; returns a number or text, NULL for null.

        Raises:
            ConfigurationError: If it is not such a type.
        """
        self.converters.register_function(kind, converter)


class SyncSQLAlchemyProjectionStorageAdapter(
    _Registering, SyncSQLAlchemyAdapter[_Options, ProjectionStorage], SyncProjectionStorageAdapter
):
    """Keeps projections in a SQL database.

    Args:
        bind: An Engine, sessionmaker or URL: every save is a transaction of its own. A Connection or Session: everything
            is part of its transaction, which the adapter never begins, commits or rolls back.
        schema: The tables; those of `EventStoreSchema()` by default.
        page_size: How many projections a scan fetches at a time.

    Raises:
        ConfigurationError: If the bind cannot be used, or its driver is not installed.
    """

    _store_kind = "projection store"

    def __init__(
        self, bind: SyncBindable | Bind, *, schema: EventStoreSchema | None = None, page_size: int = _PAGE_SIZE
    ) -> None:
        self.converters: ProjectionConverters = QueryConverters()
        tables = schema_or_default(schema)
        super().__init__(bind, _Options(tables, checked_count("page_size", page_size)))

    @classmethod
    def of_store(cls, store: SyncEventStore) -> Self:
        """Return an adapter for the projections beside the events of a store, on its bind and schema.

        Raises:
            ConfigurationError: If the store is not on a SQLAlchemy bind, or is closed.
        """
        if not isinstance(store.adapter, SyncSQLAlchemyEventStorageAdapter):
            raise nothing_beside(store.adapter)
        return cls(store.adapter.bind, schema=store.adapter.schema)

    def _make_storage(self, bind: Bind, options: _Options) -> ProjectionStorage:
        return ProjectionStorage(bind, options.schema, converters=self.converters, page_size=options.page_size)

    def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        record = record_of(projection)
        if expected_version is None:
            return self._storage.save([record])[0]
        return self._storage.save_expecting(record, checked_expectation(expected_version))

    def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        return self._storage.save(distinct_records(projections))

    def delete(self, *, name: str, id: str) -> bool:
        return self._storage.delete(name, id)

    def find_one(
        self,
        *,
        lookup: Lookup,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Projection[State, Metadata] | None:
        return typed_projection(one_at_most(self._storage.search(search_for_two(lookup))), state_type, metadata_type)

    def find_many(
        self,
        *,
        search: Search,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Sequence[Projection[State, Metadata]]:
        found = [record.projection() for record in self._storage.search(search)]
        return typed_projections(found, state_type, metadata_type)

    def scan(
        self, *, filters: Collection[FilterExpression] = (), sort: SortClause | None = None
    ) -> Iterator[JsonProjection]:
        return paged(map(ProjectionRecord.projection, page) for page in self._storage.pages(filters, sort))

    def count(self, *, search: Search) -> int:
        return self._storage.count(search.filters)

    def name_page(self, *, after: str | None = None, size: int) -> Sequence[str]:
        return self._storage.names(after, size)

    def record_page(self, *, name: str, after: str | None = None, size: int) -> tuple[Sequence[ProjectionRecord], bool]:
        return self._storage.by_id(name, after, size)

    def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return self._storage.load_batch(name, ids)

    def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        return self._storage.save_batch(records)


class SQLAlchemyProjectionStorageAdapter(
    _Registering,
    AwaitableSQLAlchemyAdapter[SyncSQLAlchemyProjectionStorageAdapter],
    AwaitableProjectionStorageAdapter[SyncSQLAlchemyProjectionStorageAdapter],
):
    """Keeps projections in a SQL database; used with asyncio.

    Args:
        bind: An AsyncEngine, async_sessionmaker or URL: every save is a transaction of its own. An AsyncConnection or
            AsyncSession: everything is part of its transaction, which the adapter never begins, commits or rolls back.
        schema: The tables; those of `EventStoreSchema()` by default.
        page_size: How many projections a scan fetches at a time.

    Raises:
        ConfigurationError: If the bind cannot be used, or its driver is not installed.
    """

    def __init__(
        self, bind: AsyncBindable | Bind, *, schema: EventStoreSchema | None = None, page_size: int = _PAGE_SIZE
    ) -> None:
        tables = schema_or_default(schema)
        sync_adapter = SyncSQLAlchemyProjectionStorageAdapter(
            async_bind(bind, tables), schema=tables, page_size=page_size
        )
        super().__init__(sync_adapter, bind)
        self.converters: ProjectionConverters = sync_adapter.converters

    @classmethod
    def of_store(cls, store: EventStore) -> Self:
        """Return an adapter for the projections beside the events of a store, on its bind and schema.

        Raises:
            ConfigurationError: If the store is not on a SQLAlchemy bind, or is closed.
        """
        if not isinstance(store.adapter, SQLAlchemyEventStorageAdapter):
            raise nothing_beside(store.adapter)
        return cls(store.adapter.bind, schema=store.adapter.schema)

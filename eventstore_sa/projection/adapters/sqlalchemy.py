"""Storage of projections in a SQL database: two thin faces over `persistence/projections.py`.

The asyncio face runs the same synchronous code in a greenlet. What a bind may be is told in `store/adapters/binding.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Self

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.binds import Bind
from eventstore_sa.persistence.projections import ProjectionStorage
from eventstore_sa.persistence.schema import EventStoreSchema, default_schema
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
from eventstore_sa.query import Lookup, Search
from eventstore_sa.query.records import ProjectionRecord, record_of
from eventstore_sa.store.adapters.binding import AsyncBindable, BoundTo, SyncBindable, async_bind, sync_bind
from eventstore_sa.store.adapters.greenlets import GreenletRunner

__all__ = ["SQLAlchemyProjectionStorageAdapter", "SyncSQLAlchemyProjectionStorageAdapter"]

_CLOSED: Final = "this projection store is closed: make a new one"


class _Bound:
    """Storage on one bind, until it is closed."""

    def _open(self, bound: BoundTo, schema: EventStoreSchema) -> None:
        self.schema: EventStoreSchema = schema
        self._bound = bound
        self._open_storage: ProjectionStorage | None = ProjectionStorage(bound.bind, schema)

    @classmethod
    def on(cls, bind: Bind, schema: EventStoreSchema) -> Self:
        """Make an adapter on the bind of an event store, whose engine belongs to that."""
        adapter = object.__new__(cls)
        adapter._open(BoundTo(bind), schema)
        return adapter

    def _bound_to(self, bound: BoundTo) -> Self:
        _ = self._storage
        adapter = object.__new__(type(self))
        adapter._open(bound, self.schema)
        return adapter

    @property
    def _storage(self) -> ProjectionStorage:
        if self._open_storage is None:
            raise ConfigurationError(_CLOSED)
        return self._open_storage


class SyncSQLAlchemyProjectionStorageAdapter(_Bound, SyncProjectionStorageAdapter):
    """Keeps projections in a SQL database.

    Args:
        bind: An Engine, sessionmaker or URL: every save is a transaction of its own. A Connection or Session: all is done
            in its transaction, which is never begun, committed or rolled back here.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: The bind cannot be used, or its driver is not installed.
    """

    def __init__(self, bind: SyncBindable, *, schema: EventStoreSchema | None = None) -> None:
        tables = default_schema() if schema is None else schema
        self._open(sync_bind(bind, tables), tables)

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

    def count(self, *, search: Search) -> int:
        return self._storage.count(search.filters)

    def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return self._storage.load_batch(name, ids)

    def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        return self._storage.save_batch(records)

    def within(self, session: Any) -> Self:
        checked: object = session
        if not isinstance(checked, Session | scoped_session):
            raise ConfigurationError(
                f"within() of a SyncProjectionStore takes a Session or scoped_session; got a {type(checked).__name__}"
            )
        return self._bound_to(sync_bind(session, self.schema))

    def create_schema(self) -> None:
        self._storage.create_schema()

    def drop_schema(self) -> None:
        self._storage.drop_schema()

    def close(self) -> None:
        self._open_storage = None
        if self._bound.owned is not None:
            self._bound.owned.dispose()


class SQLAlchemyProjectionStorageAdapter(_Bound, ProjectionStorageAdapter):
    """Keeps projections in a SQL database; used with asyncio.

    Args:
        bind: An AsyncEngine, async_sessionmaker or URL: every save is a transaction of its own. An AsyncConnection or
            AsyncSession: all is done in its transaction, which is never begun, committed or rolled back here.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: The bind cannot be used, or its driver is not installed.
    """

    def __init__(self, bind: AsyncBindable, *, schema: EventStoreSchema | None = None) -> None:
        tables = default_schema() if schema is None else schema
        self._open(async_bind(bind, tables), tables)

    def _open(self, bound: BoundTo, schema: EventStoreSchema) -> None:
        super()._open(bound, schema)
        self._run = GreenletRunner(bound.bind).run

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

    async def count(self, *, search: Search) -> int:
        return await self._run(self._storage.count, search.filters)

    async def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return await self._run(self._storage.load_batch, name, ids)

    async def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        return await self._run(self._storage.save_batch, records)

    def within(self, session: Any) -> Self:
        checked: object = session
        if not isinstance(checked, AsyncSession | async_scoped_session):
            raise ConfigurationError(
                "within() of a ProjectionStore takes an AsyncSession or async_scoped_session; got a "
                f"{type(checked).__name__}"
            )
        return self._bound_to(async_bind(session, self.schema))

    async def create_schema(self) -> None:
        await self._run(self._storage.create_schema)

    async def drop_schema(self) -> None:
        await self._run(self._storage.drop_schema)

    async def aclose(self) -> None:
        self._open_storage = None
        if isinstance(self._bound.owned, AsyncEngine):
            await self._bound.owned.dispose()

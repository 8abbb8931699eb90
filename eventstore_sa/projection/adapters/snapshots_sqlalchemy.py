"""Storage of snapshots in a SQL database: two thin faces over `persistence/snapshots.py`.

The asyncio face runs the same synchronous code in a greenlet. What a bind may be is told in `store/adapters/binding.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Self

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import EventStoreSchema, default_schema
from eventstore_sa.persistence.snapshots import SnapshotStorage
from eventstore_sa.projection.adapters.snapshots_base import SnapshotStorageAdapter, SyncSnapshotStorageAdapter
from eventstore_sa.store.adapters.binding import AsyncBindable, BoundTo, SyncBindable, async_bind, sync_bind
from eventstore_sa.store.adapters.greenlets import GreenletRunner
from eventstore_sa.types import Snapshot, SnapshotKey

__all__ = ["SQLAlchemySnapshotStorageAdapter", "SyncSQLAlchemySnapshotStorageAdapter"]

_CLOSED: Final = "this snapshot store is closed: make a new one"


class _Bound:
    """Storage on one bind, until it is closed."""

    def _open(self, bound: BoundTo, schema: EventStoreSchema) -> None:
        self.schema: EventStoreSchema = schema
        self._bound = bound
        self._open_storage: SnapshotStorage | None = SnapshotStorage(bound.bind, schema)

    def _bound_to(self, bound: BoundTo) -> Self:
        _ = self._storage
        adapter = object.__new__(type(self))
        adapter._open(bound, self.schema)
        return adapter

    @property
    def hosted(self) -> bool:
        """Whether everything is part of a transaction of the caller's."""
        return self._bound.bind.hosted

    @property
    def _storage(self) -> SnapshotStorage:
        if self._open_storage is None:
            raise ConfigurationError(_CLOSED)
        return self._open_storage


class SyncSQLAlchemySnapshotStorageAdapter(_Bound, SyncSnapshotStorageAdapter):
    """Keeps snapshots in a SQL database.

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

    def find(self, *, key: SnapshotKey) -> Snapshot | None:
        return self._storage.find(key)

    def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        return self._storage.save(snapshot, replacing)

    def prune(
        self,
        *,
        projector: str | None = None,
        keep_version: str | None = None,
        taken_before: datetime | None = None,
    ) -> int:
        return self._storage.prune(projector, keep_version, taken_before)

    def within(self, session: Any) -> Self:
        checked: object = session
        if not isinstance(checked, Session | scoped_session):
            raise ConfigurationError(
                f"within() of a SyncSnapshotStore takes a Session or scoped_session; got a {type(checked).__name__}"
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


class SQLAlchemySnapshotStorageAdapter(_Bound, SnapshotStorageAdapter):
    """Keeps snapshots in a SQL database; used with asyncio.

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

    async def find(self, *, key: SnapshotKey) -> Snapshot | None:
        return await self._run(self._storage.find, key)

    async def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        return await self._run(self._storage.save, snapshot, replacing)

    async def prune(
        self,
        *,
        projector: str | None = None,
        keep_version: str | None = None,
        taken_before: datetime | None = None,
    ) -> int:
        return await self._run(self._storage.prune, projector, keep_version, taken_before)

    def within(self, session: Any) -> Self:
        checked: object = session
        if not isinstance(checked, AsyncSession | async_scoped_session):
            raise ConfigurationError(
                "within() of a SnapshotStore takes an AsyncSession or async_scoped_session; got a "
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

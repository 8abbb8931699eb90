"""Storage of snapshots in a SQL database: two thin faces over `persistence/snapshots.py`.

The asyncio face runs the same synchronous code in a greenlet. What a bind may be is told in `store/adapters/binding.py`.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from eventstore_sa.persistence.schema import EventStoreSchema, default_schema
from eventstore_sa.persistence.snapshots.storage import SnapshotStorage
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.projection.adapters.snapshots_base import SnapshotStorageAdapter, SyncSnapshotStorageAdapter
from eventstore_sa.store.adapters.binding import AsyncBindable, SyncBindable, async_bind, sync_bind
from eventstore_sa.store.adapters.bound import AsyncBoundAdapter, BoundAdapter, SyncBoundAdapter
from eventstore_sa.types import Snapshot, SnapshotKey

__all__ = ["SQLAlchemySnapshotStorageAdapter", "SyncSQLAlchemySnapshotStorageAdapter"]


class _Options(Struct, frozen=True):
    """What an adapter shares with those that it makes for sessions."""

    schema: EventStoreSchema

    @classmethod
    def of(cls, schema: EventStoreSchema | None) -> _Options:
        return cls(default_schema() if schema is None else schema)


class _SnapshotAdapter(BoundAdapter[_Options, SnapshotStorage]):
    """Storage of snapshots on one bind."""

    store_kind = "snapshot store"

    def _make_storage(self, bind: Bind, options: _Options) -> SnapshotStorage:
        return SnapshotStorage(bind, options.schema)


class SyncSQLAlchemySnapshotStorageAdapter(
    _SnapshotAdapter, SyncBoundAdapter[_Options, SnapshotStorage], SyncSnapshotStorageAdapter
):
    """Keeps snapshots in a SQL database.

    Args:
        bind: An Engine, sessionmaker or URL: every save is a transaction of its own. A Connection or Session: all is done
            in its transaction, which is never begun, committed or rolled back here.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: The bind cannot be used, or its driver is not installed.
    """

    def __init__(self, bind: SyncBindable, *, schema: EventStoreSchema | None = None) -> None:
        options = _Options.of(schema)
        self._open(sync_bind(bind, options.schema), options)

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


class SQLAlchemySnapshotStorageAdapter(
    _SnapshotAdapter, AsyncBoundAdapter[_Options, SnapshotStorage], SnapshotStorageAdapter
):
    """Keeps snapshots in a SQL database; used with asyncio.

    Args:
        bind: An AsyncEngine, async_sessionmaker or URL: every save is a transaction of its own. An AsyncConnection or
            AsyncSession: all is done in its transaction, which is never begun, committed or rolled back here.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: The bind cannot be used, or its driver is not installed.
    """

    def __init__(self, bind: AsyncBindable, *, schema: EventStoreSchema | None = None) -> None:
        options = _Options.of(schema)
        self._open(async_bind(bind, options.schema), options)

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

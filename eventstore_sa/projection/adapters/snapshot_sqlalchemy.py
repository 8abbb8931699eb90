"""Storage adapters for snapshots in a SQL database, over `persistence/snapshots/storage.py`.

The asyncio adapter owns the synchronous one and runs it in greenlets. For what a bind may be, see
`store/adapters/bindables.py`.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from eventstore_sa.persistence.schema import EventStoreSchema, schema_or_default
from eventstore_sa.persistence.snapshots.storage import SnapshotStorage
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.projection.adapters.snapshot_contract import (
    AwaitableSnapshotStorageAdapter,
    SyncSnapshotStorageAdapter,
)
from eventstore_sa.store.adapters.bindables import AsyncBindable, SyncBindable, async_bind
from eventstore_sa.store.adapters.sqlalchemy_adapter import AwaitableSQLAlchemyAdapter, SyncSQLAlchemyAdapter
from eventstore_sa.types import Snapshot, SnapshotKey

__all__ = ["SQLAlchemySnapshotStorageAdapter", "SyncSQLAlchemySnapshotStorageAdapter"]


class _Options(Struct, frozen=True):
    """What an adapter shares with those that it makes for sessions."""

    schema: EventStoreSchema


class SyncSQLAlchemySnapshotStorageAdapter(
    SyncSQLAlchemyAdapter[_Options, SnapshotStorage], SyncSnapshotStorageAdapter
):
    """Keeps snapshots in a SQL database.

    Args:
        bind: An Engine, sessionmaker or URL: every save is a transaction of its own. A Connection or Session: everything
            is part of its transaction, which the adapter never begins, commits or rolls back.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: If the bind cannot be used, or its driver is not installed.
    """

    _store_kind = "snapshot store"

    def __init__(self, bind: SyncBindable | Bind, *, schema: EventStoreSchema | None = None) -> None:
        super().__init__(bind, _Options(schema_or_default(schema)))

    def _make_storage(self, bind: Bind, options: _Options) -> SnapshotStorage:
        return SnapshotStorage(bind, options.schema)

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
    AwaitableSQLAlchemyAdapter[SyncSQLAlchemySnapshotStorageAdapter],
    AwaitableSnapshotStorageAdapter[SyncSQLAlchemySnapshotStorageAdapter],
):
    """Keeps snapshots in a SQL database; used with asyncio.

    Args:
        bind: An AsyncEngine, async_sessionmaker or URL: every save is a transaction of its own. An AsyncConnection or
            AsyncSession: everything is part of its transaction, which the adapter never begins, commits or rolls back.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: If the bind cannot be used, or its driver is not installed.
    """

    def __init__(self, bind: AsyncBindable | Bind, *, schema: EventStoreSchema | None = None) -> None:
        tables = schema_or_default(schema)
        super().__init__(SyncSQLAlchemySnapshotStorageAdapter(async_bind(bind, tables), schema=tables), bind)

"""Where projections and snapshots are kept: in memory, or in a SQL database."""

from typing import TYPE_CHECKING

from eventstore_sa.projection.adapters.projection_contract import ProjectionStorageAdapter, SyncProjectionStorageAdapter
from eventstore_sa.projection.adapters.projection_memory import (
    InMemoryProjectionStorageAdapter,
    SyncInMemoryProjectionStorageAdapter,
)
from eventstore_sa.projection.adapters.projection_sqlalchemy import (
    SQLAlchemyProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)
from eventstore_sa.projection.adapters.snapshot_contract import SnapshotStorageAdapter, SyncSnapshotStorageAdapter
from eventstore_sa.projection.adapters.snapshot_memory import (
    InMemorySnapshotStorageAdapter,
    SyncInMemorySnapshotStorageAdapter,
)
from eventstore_sa.projection.adapters.snapshot_sqlalchemy import (
    SQLAlchemySnapshotStorageAdapter,
    SyncSQLAlchemySnapshotStorageAdapter,
)
from eventstore_sa.replacements import POSTGRES_PROJECTIONS, replaced

__all__ = [
    "InMemoryProjectionStorageAdapter",
    "InMemorySnapshotStorageAdapter",
    "ProjectionStorageAdapter",
    "SQLAlchemyProjectionStorageAdapter",
    "SQLAlchemySnapshotStorageAdapter",
    "SnapshotStorageAdapter",
    "SyncInMemoryProjectionStorageAdapter",
    "SyncInMemorySnapshotStorageAdapter",
    "SyncProjectionStorageAdapter",
    "SyncSQLAlchemyProjectionStorageAdapter",
    "SyncSQLAlchemySnapshotStorageAdapter",
    "SyncSnapshotStorageAdapter",
]

if not TYPE_CHECKING:
    __getattr__ = replaced(__name__, {"PostgresProjectionStorageAdapter": POSTGRES_PROJECTIONS})

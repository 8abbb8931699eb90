"""Where projections and snapshots are kept: in memory, or in a SQL database."""

from eventstore_sa.projection.adapters.base import ProjectionStorageAdapter, SyncProjectionStorageAdapter
from eventstore_sa.projection.adapters.memory import (
    InMemoryProjectionStorageAdapter,
    SyncInMemoryProjectionStorageAdapter,
)
from eventstore_sa.projection.adapters.snapshots_base import SnapshotStorageAdapter, SyncSnapshotStorageAdapter
from eventstore_sa.projection.adapters.snapshots_memory import (
    InMemorySnapshotStorageAdapter,
    SyncInMemorySnapshotStorageAdapter,
)
from eventstore_sa.projection.adapters.snapshots_sqlalchemy import (
    SQLAlchemySnapshotStorageAdapter,
    SyncSQLAlchemySnapshotStorageAdapter,
)
from eventstore_sa.projection.adapters.sqlalchemy import (
    SQLAlchemyProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)

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

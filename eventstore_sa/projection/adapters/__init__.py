"""Where projections are kept: in memory, or in a SQL database."""

from eventstore_sa.projection.adapters.base import ProjectionStorageAdapter, SyncProjectionStorageAdapter
from eventstore_sa.projection.adapters.memory import (
    InMemoryProjectionStorageAdapter,
    SyncInMemoryProjectionStorageAdapter,
)
from eventstore_sa.projection.adapters.sqlalchemy import (
    SQLAlchemyProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)

__all__ = [
    "InMemoryProjectionStorageAdapter",
    "ProjectionStorageAdapter",
    "SQLAlchemyProjectionStorageAdapter",
    "SyncInMemoryProjectionStorageAdapter",
    "SyncProjectionStorageAdapter",
    "SyncSQLAlchemyProjectionStorageAdapter",
]

"""Adapters for projections, under the path that `logicblocks.event.store` has: see `eventstore_sa.projection.adapters`."""

from typing import TYPE_CHECKING

from eventstore_sa.projection.adapters import (
    InMemoryProjectionStorageAdapter,
    ProjectionStorageAdapter,
    SQLAlchemyProjectionStorageAdapter,
    SyncProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)
from eventstore_sa.replacements import POSTGRES_PROJECTIONS, replaced

__all__ = [
    "InMemoryProjectionStorageAdapter",
    "ProjectionStorageAdapter",
    "SQLAlchemyProjectionStorageAdapter",
    "SyncProjectionStorageAdapter",
    "SyncSQLAlchemyProjectionStorageAdapter",
]

if not TYPE_CHECKING:
    __getattr__ = replaced(__name__, {"PostgresProjectionStorageAdapter": POSTGRES_PROJECTIONS})

"""Where projections are kept, under the path that `logicblocks.event.store` has: see `eventstore_sa.projection`."""

from typing import TYPE_CHECKING

from eventstore_sa.projection.adapters import InMemoryProjectionStorageAdapter, ProjectionStorageAdapter
from eventstore_sa.projection.projection_store import ProjectionStore, SyncProjectionStore
from eventstore_sa.projection.store import adapters
from eventstore_sa.replacements import POSTGRES_PROJECTIONS, replaced

__all__ = [
    "InMemoryProjectionStorageAdapter",
    "ProjectionStorageAdapter",
    "ProjectionStore",
    "SyncProjectionStore",
    "adapters",
]

if not TYPE_CHECKING:
    __getattr__ = replaced(__name__, {"PostgresProjectionStorageAdapter": POSTGRES_PROJECTIONS})

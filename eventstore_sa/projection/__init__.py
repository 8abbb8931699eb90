"""Projections: state built from events.

What is built by whom: `Projector` reduces the events of a source to a `Projection`; `ProjectionStore` keeps projections,
and finds them again by what is in them; `rebuild` rebuilds them; `SnapshotStore` keeps snapshots, with which projecting a
long source begins. `project` makes classes that keep the host's own tables up to date.
"""

from typing import TYPE_CHECKING

from eventstore_sa.contracts.inline_projections import InlineProjection, PublishPlace
from eventstore_sa.errors import MissingProjectionHandlerError
from eventstore_sa.persistence.projections.dialects.base import JsonPlace, ProjectionColumns
from eventstore_sa.persistence.projections.indexes import projection_index
from eventstore_sa.projection import adapters
from eventstore_sa.projection.adapters import (
    InMemoryProjectionStorageAdapter,
    ProjectionStorageAdapter,
    SQLAlchemyProjectionStorageAdapter,
    SyncProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)
from eventstore_sa.projection.handlers import handles
from eventstore_sa.projection.projection_store import ProjectionStore, SyncProjectionStore
from eventstore_sa.projection.projector import (
    MissingHandlerBehaviour,
    ProjectableSource,
    Projector,
    SyncProjectableSource,
)
from eventstore_sa.projection.rebuilding import RebuildProgress, is_rebuilding, rebuild, rebuild_sync
from eventstore_sa.projection.row_batch import DELETE, RowDeletion
from eventstore_sa.projection.snapshot_store import SnapshotStore, SyncSnapshotStore
from eventstore_sa.projection.table import TableProjection, project
from eventstore_sa.replacements import POSTGRES_PROJECTIONS, replaced
from eventstore_sa.types import Projection

__all__ = [
    "DELETE",
    "InMemoryProjectionStorageAdapter",
    "InlineProjection",
    "JsonPlace",
    "MissingHandlerBehaviour",
    "MissingProjectionHandlerError",
    "ProjectableSource",
    "Projection",
    "ProjectionColumns",
    "ProjectionStorageAdapter",
    "ProjectionStore",
    "Projector",
    "PublishPlace",
    "RebuildProgress",
    "RowDeletion",
    "SQLAlchemyProjectionStorageAdapter",
    "SnapshotStore",
    "SyncProjectableSource",
    "SyncProjectionStorageAdapter",
    "SyncProjectionStore",
    "SyncSQLAlchemyProjectionStorageAdapter",
    "SyncSnapshotStore",
    "TableProjection",
    "adapters",
    "handles",
    "is_rebuilding",
    "project",
    "projection_index",
    "rebuild",
    "rebuild_sync",
]

if not TYPE_CHECKING:
    __getattr__ = replaced(__name__, {"PostgresProjectionStorageAdapter": POSTGRES_PROJECTIONS})

"""All cases of storage for projections, for asynchronous and for synchronous adapters: what third parties subclass."""

from __future__ import annotations

from typing import Any, ClassVar

from eventstore_sa.projection.adapters import ProjectionStorageAdapter, SyncProjectionStorageAdapter
from eventstore_sa.projection.adapters.projection_contract import AwaitableProjectionStorageAdapter
from eventstore_sa.store.adapters.storage_adapter import AwaitableStorageAdapter
from eventstore_sa.testing.cases.fixtures import AsyncFixtures, SyncFixtures
from eventstore_sa.testing.cases.projection_batches import ProjectionBatchCases
from eventstore_sa.testing.cases.projection_filters import ProjectionFilterCases
from eventstore_sa.testing.cases.projection_order import ProjectionOrderCases
from eventstore_sa.testing.cases.projection_saving import ProjectionSavingCases

__all__ = ["ProjectionStorageAdapterCases", "SyncProjectionStorageAdapterCases"]


class _AllCases(ProjectionSavingCases, ProjectionBatchCases, ProjectionFilterCases, ProjectionOrderCases):
    """Every case, of all groups."""


class ProjectionStorageAdapterCases(AsyncFixtures[ProjectionStorageAdapter], _AllCases):
    """The behaviour that every `ProjectionStorageAdapter` must have. Subclass it as `Test...`.

    Either override `construct_storage_adapter`; the schema is then created before each case and dropped after it. Or
    override the fixture `storage_adapter`. Each case needs empty storage.
    """


class SyncProjectionStorageAdapterCases(SyncFixtures[SyncProjectionStorageAdapter], _AllCases):
    """The behaviour that every `SyncProjectionStorageAdapter` must have: the same cases."""

    awaitable: ClassVar[type[AwaitableStorageAdapter[Any]]] = AwaitableProjectionStorageAdapter

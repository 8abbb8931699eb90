"""All cases of storage for snapshots, for asynchronous and for synchronous adapters: what third parties subclass."""

from __future__ import annotations

from typing import Any, ClassVar

from eventstore_sa.projection.adapters import SnapshotStorageAdapter, SyncSnapshotStorageAdapter
from eventstore_sa.projection.adapters.snapshot_contract import AwaitableSnapshotStorageAdapter
from eventstore_sa.store.adapters.storage_adapter import AwaitableStorageAdapter
from eventstore_sa.testing.cases.fixtures import AsyncFixtures, SyncFixtures
from eventstore_sa.testing.cases.snapshot_saving import SnapshotSavingCases

__all__ = ["SnapshotStorageAdapterCases", "SyncSnapshotStorageAdapterCases"]


class SnapshotStorageAdapterCases(AsyncFixtures[SnapshotStorageAdapter], SnapshotSavingCases):
    """The behaviour that every `SnapshotStorageAdapter` must have. Subclass it as `Test...`.

    Either override `construct_storage_adapter`; the schema is then created before each case and dropped after it. Or
    override the fixture `storage_adapter`. Each case needs empty storage.
    """


class SyncSnapshotStorageAdapterCases(SyncFixtures[SyncSnapshotStorageAdapter], SnapshotSavingCases):
    """The behaviour that every `SyncSnapshotStorageAdapter` must have: the same cases."""

    awaitable: ClassVar[type[AwaitableStorageAdapter[Any]]] = AwaitableSnapshotStorageAdapter

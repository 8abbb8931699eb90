"""The contract of storage adapters for snapshots, with asyncio and without.

The asyncio adapter over a synchronous one is here too. Third parties implement the contract and run the shipped cases over
their adapter. Whether a snapshot can be trusted is not checked here: see `projection/resuming.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime

from typing_extensions import TypeVar

from eventstore_sa.store.adapters.storage_adapter import AwaitableStorageAdapter, StorageAdapter, SyncStorageAdapter
from eventstore_sa.types import Snapshot, SnapshotKey

__all__ = ["AwaitableSnapshotStorageAdapter", "SnapshotStorageAdapter", "SyncSnapshotStorageAdapter"]


class SnapshotStorageAdapter(StorageAdapter):
    """Keeps one snapshot for each key, as it was given; used with asyncio."""

    @abstractmethod
    async def find(self, *, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key; None if there is none."""

    @abstractmethod
    async def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        """Store a snapshot, replacing an earlier one with its key; return whether it is stored now.

        Args:
            snapshot: The snapshot. If one of the same place or later is stored already, nothing changes.
            replacing: A snapshot that was found and cannot be used: it is replaced even if it claims to be later.
        """

    @abstractmethod
    async def prune(
        self,
        *,
        projector: str | None = None,
        keep_version: str | None = None,
        taken_before: datetime | None = None,
    ) -> int:
        """Delete the snapshots that meet all that is given; return how many.

        Args:
            projector: Those of the projector of this name.
            keep_version: Those of any other version of the projector.
            taken_before: Those that were taken earlier.
        """


class SyncSnapshotStorageAdapter(SyncStorageAdapter):
    """Keeps one snapshot for each key; the twin of `SnapshotStorageAdapter` without asyncio."""

    @abstractmethod
    def find(self, *, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key; None if there is none."""

    @abstractmethod
    def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        """Store a snapshot, replacing an earlier one; see `SnapshotStorageAdapter.save`."""

    @abstractmethod
    def prune(
        self,
        *,
        projector: str | None = None,
        keep_version: str | None = None,
        taken_before: datetime | None = None,
    ) -> int:
        """Delete the snapshots that meet all that is given; see `SnapshotStorageAdapter.prune`."""


S = TypeVar("S", bound=SyncSnapshotStorageAdapter, default=SyncSnapshotStorageAdapter)


class AwaitableSnapshotStorageAdapter(AwaitableStorageAdapter[S], SnapshotStorageAdapter):
    """Storage of snapshots, used with asyncio, over a synchronous adapter that it owns."""

    async def find(self, *, key: SnapshotKey) -> Snapshot | None:
        return await self._runner.run(self.sync_adapter.find, key=key)

    async def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        return await self._runner.run(self.sync_adapter.save, snapshot=snapshot, replacing=replacing)

    async def prune(
        self,
        *,
        projector: str | None = None,
        keep_version: str | None = None,
        taken_before: datetime | None = None,
    ) -> int:
        return await self._runner.run(
            self.sync_adapter.prune, projector=projector, keep_version=keep_version, taken_before=taken_before
        )

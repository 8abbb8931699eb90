"""Storage adapters for snapshots in memory: for tests, and for processes that load the same streams again and again."""

from __future__ import annotations

from datetime import datetime
from threading import Lock

from eventstore_sa.projection.adapters.snapshot_contract import (
    AwaitableSnapshotStorageAdapter,
    SyncSnapshotStorageAdapter,
)
from eventstore_sa.types import Snapshot, SnapshotKey

__all__ = ["InMemorySnapshotStorageAdapter", "SyncInMemorySnapshotStorageAdapter"]


class SyncInMemorySnapshotStorageAdapter(SyncSnapshotStorageAdapter):
    """Keeps snapshots in memory, for stores without asyncio; safe from several threads."""

    def __init__(self) -> None:
        self._snapshots: dict[SnapshotKey, Snapshot] = {}
        self._lock = Lock()

    def find(self, *, key: SnapshotKey) -> Snapshot | None:
        return self._snapshots.get(key)

    def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        with self._lock:
            kept = self._snapshots.get(snapshot.key)
            if kept is not None and kept.place >= snapshot.place and not _is_same(kept, replacing):
                return False
            self._snapshots[snapshot.key] = snapshot
            return True

    def prune(
        self,
        *,
        projector: str | None = None,
        keep_version: str | None = None,
        taken_before: datetime | None = None,
    ) -> int:
        with self._lock:
            pruned = [
                key
                for key, snapshot in self._snapshots.items()
                if (projector is None or key.projector == projector)
                and (keep_version is None or key.version != keep_version)
                and (taken_before is None or snapshot.taken_at < taken_before)
            ]
            for key in pruned:
                del self._snapshots[key]
        return len(pruned)

    def drop_schema(self) -> None:
        with self._lock:
            self._snapshots.clear()


class InMemorySnapshotStorageAdapter(AwaitableSnapshotStorageAdapter[SyncInMemorySnapshotStorageAdapter]):
    """Keeps snapshots in memory; serves both kinds of stores, see `sync_adapter`."""

    def __init__(self) -> None:
        super().__init__(SyncInMemorySnapshotStorageAdapter())


def _is_same(kept: Snapshot, other: Snapshot | None) -> bool:
    return other is not None and (kept.place, kept.checksum) == (other.place, other.checksum)

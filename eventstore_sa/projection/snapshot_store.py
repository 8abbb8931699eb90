"""`SnapshotStore` and its twin without asyncio: where projectors find the snapshots that they start from.

The adapters store them; what is in a snapshot, and whether it can be used, is up to the projector that is given the store
(`projection/resuming.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.projection.adapters import (
    InMemorySnapshotStorageAdapter,
    SnapshotStorageAdapter,
    SQLAlchemySnapshotStorageAdapter,
    SyncSnapshotStorageAdapter,
    SyncSQLAlchemySnapshotStorageAdapter,
)
from eventstore_sa.store.adapters.bindables import AsyncBindable, SyncBindable
from eventstore_sa.store.lifecycle import Store, SyncStore, adapter_of
from eventstore_sa.types import Snapshot, SnapshotKey
from eventstore_sa.types.snapshot import version_text

__all__ = ["SnapshotStore", "SyncSnapshotStore"]


class SnapshotStore(Store[SnapshotStorageAdapter]):
    """Snapshots in memory or in a SQL database, for `projector.project(source=..., snapshots=store)`.

    One snapshot, the newest, is kept for each projector, version of it, and source.

    Args:
        adapter: What an `EventStore` may be bound to, with the same meaning; or a storage adapter.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: If the bind cannot be used, or a schema is given together with an adapter.
    """

    def __init__(
        self, adapter: AsyncBindable | SnapshotStorageAdapter, *, schema: EventStoreSchema | None = None
    ) -> None:
        self.adapter: SnapshotStorageAdapter = adapter_of(
            self, adapter, SnapshotStorageAdapter, SQLAlchemySnapshotStorageAdapter, schema=schema
        )

    async def find(self, *, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key, usable or not; None if there is none. Called by projectors."""
        return await self.adapter.find(key=key)

    async def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        """Store a snapshot unless a later one is stored; return whether it is stored now. Called by projectors.

        Args:
            snapshot: The snapshot.
            replacing: A snapshot that was found and cannot be used: it is replaced even if it claims to be later.
        """
        return await self.adapter.save(snapshot=snapshot, replacing=replacing)

    async def prune(
        self,
        *,
        projector: str | None = None,
        keep_version: int | str | None = None,
        older_than: timedelta | None = None,
    ) -> int:
        """Delete the snapshots that meet all that is given; return how many. A snapshot that is needed again is taken again.

        Args:
            projector: Those of the projector of this name; None: of all projectors.
            keep_version: Those of any other version than this one, once no process works with them any more.
            older_than: Those that were taken longer ago: their sources have hardly changed since, or are not loaded.

        Raises:
            ConfigurationError: If nothing is given, or a version without its projector.
        """
        version, before = _pruned(projector, keep_version, older_than)
        return await self.adapter.prune(projector=projector, keep_version=version, taken_before=before)


class SyncSnapshotStore(SyncStore[SyncSnapshotStorageAdapter]):
    """Snapshots for `projector.project_sync(source=..., snapshots=store)`; `SnapshotStore` without asyncio.

    Args:
        adapter: What a `SyncEventStore` may be bound to, with the same meaning; or a storage adapter, of which
            the in-memory one serves both stores.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: If the bind cannot be used, or a schema is given together with an adapter.
    """

    def __init__(
        self,
        adapter: SyncBindable | SyncSnapshotStorageAdapter | InMemorySnapshotStorageAdapter,
        *,
        schema: EventStoreSchema | None = None,
    ) -> None:
        if isinstance(adapter, InMemorySnapshotStorageAdapter):
            adapter = adapter.sync_adapter
        self.adapter: SyncSnapshotStorageAdapter = adapter_of(
            self, adapter, SyncSnapshotStorageAdapter, SyncSQLAlchemySnapshotStorageAdapter, schema=schema
        )

    def find(self, *, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key, usable or not; None if there is none. Called by projectors."""
        return self.adapter.find(key=key)

    def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        """Store a snapshot unless a later one is stored; see `SnapshotStore.save`."""
        return self.adapter.save(snapshot=snapshot, replacing=replacing)

    def prune(
        self,
        *,
        projector: str | None = None,
        keep_version: int | str | None = None,
        older_than: timedelta | None = None,
    ) -> int:
        """Delete the snapshots that meet all that is given; see `SnapshotStore.prune`."""
        version, before = _pruned(projector, keep_version, older_than)
        return self.adapter.prune(projector=projector, keep_version=version, taken_before=before)


def _pruned(
    projector: str | None, keep_version: int | str | None, older_than: timedelta | None
) -> tuple[str | None, datetime | None]:
    """Check the arguments of a prune; return the version as it is stored, and the moment."""
    if projector is None and older_than is None:
        what = "without its projector" if keep_version is not None else "without saying which snapshots"
        raise ConfigurationError(
            f"prune was called {what}: pass projector=, with keep_version= to spare one version, or older_than="
        )
    version = None if keep_version is None else version_text(keep_version)
    return version, None if older_than is None else datetime.now(UTC) - older_than

"""`SnapshotStore` and its twin without asyncio: where projectors find the snapshots that they start from.

Adapters store the snapshots; `projection/resuming.py` decides what is in one, and whether it can be used.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.projection.adapters import (
    InMemorySnapshotStorageAdapter,
    SnapshotStorageAdapter,
    SQLAlchemySnapshotStorageAdapter,
    SyncSnapshotStorageAdapter,
    SyncSQLAlchemySnapshotStorageAdapter,
)
from eventstore_sa.store.adapters.binding import AsyncBindable, SyncBindable
from eventstore_sa.types import Snapshot, SnapshotKey
from eventstore_sa.types.snapshot import version_text

__all__ = ["SnapshotStore", "SyncSnapshotStore"]

_SCHEMA_BESIDE_ADAPTER = "an adapter has its schema already: give the schema to the adapter, or a bind to the store"


class SnapshotStore:
    """Snapshots in memory or in a SQL database, for `projector.project(source=..., snapshots=store)`.

    One snapshot, the newest, is kept for each projector, version of it, and source.

    Args:
        bind_or_adapter: What an `EventStore` may be bound to, with the same meaning; or a storage adapter.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: The bind cannot be used, or a schema goes with a ready adapter.
    """

    def __init__(
        self, bind_or_adapter: AsyncBindable | SnapshotStorageAdapter, *, schema: EventStoreSchema | None = None
    ) -> None:
        if isinstance(bind_or_adapter, SyncSnapshotStorageAdapter):
            raise ConfigurationError("a synchronous adapter does not fit a SnapshotStore: use SyncSnapshotStore")
        if isinstance(bind_or_adapter, SnapshotStorageAdapter):
            if schema is not None:
                raise ConfigurationError(_SCHEMA_BESIDE_ADAPTER)
            self.adapter: SnapshotStorageAdapter = bind_or_adapter
        else:
            self.adapter = SQLAlchemySnapshotStorageAdapter(bind_or_adapter, schema=schema)

    @property
    def hosted(self) -> bool:
        """Whether snapshots are part of a transaction of the caller's."""
        return self.adapter.hosted

    async def find(self, *, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key, usable or not; None if there is none. Projectors call this."""
        return await self.adapter.find(key=key)

    async def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        """Save a snapshot unless a later one is stored; return whether it was saved. Projectors call this.

        Args:
            snapshot: What to save.
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
        """Delete the snapshots that meet all arguments; return how many. Snapshots that are still needed are taken again.

        Args:
            projector: Only those of the projector of this name; None: of all projectors.
            keep_version: Only those of versions other than this one, once no process uses the others any more.
            older_than: Only those taken longer ago than this.

        Raises:
            ConfigurationError: If no argument is given, or a version without its projector.
        """
        version, before = _pruned(projector, keep_version, older_than)
        return await self.adapter.prune(projector=projector, keep_version=version, taken_before=before)

    def within(self, session: AsyncSession | async_scoped_session[Any]) -> SnapshotStore:
        """Return the same store inside the transaction of a session, which it never begins, commits or rolls back.

        Raises:
            ConfigurationError: If this is not a session of this kind, or the store is not on a SQLAlchemy bind.
        """
        return SnapshotStore(self.adapter.within(session))

    async def create_schema(self) -> None:
        """Create the missing tables of the library: for development and tests; in production migrate."""
        await self.adapter.create_schema()

    async def drop_schema(self) -> None:
        """Drop all tables of the library, events included: for development and tests."""
        await self.adapter.drop_schema()

    async def aclose(self) -> None:
        """Close the store; the engine is disposed of only when the store made it from a URL."""
        await self.adapter.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class SyncSnapshotStore:
    """Snapshots for `projector.project_sync(source=..., snapshots=store)`; `SnapshotStore` without asyncio.

    Args:
        bind_or_adapter: What a `SyncEventStore` may be bound to, with the same meaning; or a storage adapter, of which
            the in-memory one serves both stores.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: The bind cannot be used, or a schema goes with a ready adapter.
    """

    def __init__(
        self,
        bind_or_adapter: SyncBindable | SyncSnapshotStorageAdapter | InMemorySnapshotStorageAdapter,
        *,
        schema: EventStoreSchema | None = None,
    ) -> None:
        if isinstance(bind_or_adapter, InMemorySnapshotStorageAdapter):
            bind_or_adapter = bind_or_adapter.sync_adapter
        if isinstance(bind_or_adapter, SnapshotStorageAdapter):
            raise ConfigurationError("an asyncio adapter does not fit a SyncSnapshotStore: use SnapshotStore")
        if isinstance(bind_or_adapter, SyncSnapshotStorageAdapter):
            if schema is not None:
                raise ConfigurationError(_SCHEMA_BESIDE_ADAPTER)
            self.adapter: SyncSnapshotStorageAdapter = bind_or_adapter
        else:
            self.adapter = SyncSQLAlchemySnapshotStorageAdapter(bind_or_adapter, schema=schema)

    @property
    def hosted(self) -> bool:
        """Whether snapshots are part of a transaction of the caller's."""
        return self.adapter.hosted

    def find(self, *, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key, usable or not; None if there is none. Projectors call this."""
        return self.adapter.find(key=key)

    def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        """Save a snapshot unless a later one is stored; see `SnapshotStore.save`."""
        return self.adapter.save(snapshot=snapshot, replacing=replacing)

    def prune(
        self,
        *,
        projector: str | None = None,
        keep_version: int | str | None = None,
        older_than: timedelta | None = None,
    ) -> int:
        """Delete the snapshots that meet all arguments; see `SnapshotStore.prune`."""
        version, before = _pruned(projector, keep_version, older_than)
        return self.adapter.prune(projector=projector, keep_version=version, taken_before=before)

    def within(self, session: Session | scoped_session[Any]) -> SyncSnapshotStore:
        """Return the same store inside the transaction of a session; see `SnapshotStore.within`."""
        return SyncSnapshotStore(self.adapter.within(session))

    def create_schema(self) -> None:
        """Create the missing tables of the library: for development and tests; in production migrate."""
        self.adapter.create_schema()

    def drop_schema(self) -> None:
        """Drop all tables of the library, events included: for development and tests."""
        self.adapter.drop_schema()

    def close(self) -> None:
        """Close the store; the engine is disposed of only when the store made it from a URL."""
        self.adapter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _pruned(
    projector: str | None, keep_version: int | str | None, older_than: timedelta | None
) -> tuple[str | None, datetime | None]:
    """Check the arguments of a prune; return the version as it is stored, and the moment."""
    if projector is None and older_than is None:
        what = "without its projector" if keep_version is not None else "without anything to tell which snapshots"
        raise ConfigurationError(
            f"prune was called {what}: give projector=, with keep_version= to spare one version, or older_than="
        )
    version = None if keep_version is None else version_text(keep_version)
    return version, None if older_than is None else datetime.now(UTC) - older_than

"""The projections that are kept beside the events of a store: where its inline projections go."""

from __future__ import annotations

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection.adapters.base import ProjectionStorageAdapter, SyncProjectionStorageAdapter
from eventstore_sa.projection.adapters.memory import (
    InMemoryProjectionStorageAdapter,
    SyncInMemoryProjectionStorageAdapter,
)
from eventstore_sa.projection.adapters.sqlalchemy import (
    SQLAlchemyProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters import (
    InMemoryEventStorageAdapter,
    SQLAlchemyEventStorageAdapter,
    SyncInMemoryEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)

__all__ = ["adapter_beside", "sync_adapter_beside"]


def adapter_beside(store: EventStore) -> ProjectionStorageAdapter:
    """Return storage of projections on the bind and schema of a store, or in its memory.

    Raises:
        ConfigurationError: The store's adapter is not one of the library's.
    """
    match store.adapter:
        case InMemoryEventStorageAdapter() as adapter:
            return InMemoryProjectionStorageAdapter(adapter.projections)
        case SQLAlchemyEventStorageAdapter() as adapter:
            return SQLAlchemyProjectionStorageAdapter.on(adapter.bind, adapter.schema)
        case adapter:
            raise _nothing_beside(adapter)


def sync_adapter_beside(store: SyncEventStore) -> SyncProjectionStorageAdapter:
    """Return storage of projections without asyncio; see `adapter_beside`.

    Raises:
        ConfigurationError: The store's adapter is not one of the library's.
    """
    match store.adapter:
        case SyncInMemoryEventStorageAdapter() as adapter:
            return SyncInMemoryProjectionStorageAdapter(adapter.projections)
        case SyncSQLAlchemyEventStorageAdapter() as adapter:
            return SyncSQLAlchemyProjectionStorageAdapter.on(adapter.bind, adapter.schema)
        case adapter:
            raise _nothing_beside(adapter)


def _nothing_beside(adapter: object) -> ConfigurationError:
    return ConfigurationError(
        f"no projections are kept beside the events of a {type(adapter).__name__}: give the projection store a bind or an "
        "adapter of its own"
    )

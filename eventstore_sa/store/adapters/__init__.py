"""Where a store keeps its events."""

from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee
from eventstore_sa.store.adapters.base import EventStorageAdapter, SyncEventStorageAdapter
from eventstore_sa.store.adapters.memory import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.store.adapters.sqlalchemy import SQLAlchemyEventStorageAdapter, SyncSQLAlchemyEventStorageAdapter

__all__ = [
    "EventSerialisationGuarantee",
    "EventStorageAdapter",
    "InMemoryEventStorageAdapter",
    "SQLAlchemyEventStorageAdapter",
    "SyncEventStorageAdapter",
    "SyncInMemoryEventStorageAdapter",
    "SyncSQLAlchemyEventStorageAdapter",
]

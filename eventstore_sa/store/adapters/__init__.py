"""Where a store keeps its events."""

from eventstore_sa.store.adapters.base import EventStorageAdapter, SyncEventStorageAdapter
from eventstore_sa.store.adapters.memory import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.store.adapters.sqlalchemy import SQLAlchemyEventStorageAdapter, SyncSQLAlchemyEventStorageAdapter
from eventstore_sa.store.guarantee import EventSerialisationGuarantee

__all__ = [
    "EventSerialisationGuarantee",
    "EventStorageAdapter",
    "InMemoryEventStorageAdapter",
    "SQLAlchemyEventStorageAdapter",
    "SyncEventStorageAdapter",
    "SyncInMemoryEventStorageAdapter",
    "SyncSQLAlchemyEventStorageAdapter",
]

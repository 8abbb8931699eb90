"""Where a store keeps its events."""

from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, SyncEventStorageAdapter
from eventstore_sa.store.adapters.event_memory import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.store.adapters.event_sqlalchemy import (
    SQLAlchemyEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)

__all__ = [
    "EventSerialisationGuarantee",
    "EventStorageAdapter",
    "InMemoryEventStorageAdapter",
    "SQLAlchemyEventStorageAdapter",
    "SyncEventStorageAdapter",
    "SyncInMemoryEventStorageAdapter",
    "SyncSQLAlchemyEventStorageAdapter",
]

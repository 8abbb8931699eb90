"""An event store that lives inside your SQLAlchemy application: events and business rows in one transaction.

This is the public API; modules behind it may move.
"""

from eventstore_sa import conditions, errors
from eventstore_sa.persistence.schema import EventStoreSchema, verify_schema
from eventstore_sa.persistence.transactions.databases import configure_sqlite
from eventstore_sa.projection import Projection, ProjectionStore, Projector, SyncProjectionStore
from eventstore_sa.session import RecordsEvents, exists_row
from eventstore_sa.sources import constraints
from eventstore_sa.store import (
    EventSerialisationGuarantee,
    EventStore,
    SyncEventStore,
    retry_transaction,
    retry_transaction_sync,
)
from eventstore_sa.types import (
    CategoryIdentifier,
    EventQuery,
    EventTypes,
    LogIdentifier,
    NewEvent,
    QueryItem,
    StoredEvent,
    StreamIdentifier,
    event,
    event_metadata,
)

__all__ = [
    "CategoryIdentifier",
    "EventQuery",
    "EventSerialisationGuarantee",
    "EventStore",
    "EventStoreSchema",
    "EventTypes",
    "LogIdentifier",
    "NewEvent",
    "Projection",
    "ProjectionStore",
    "Projector",
    "QueryItem",
    "RecordsEvents",
    "StoredEvent",
    "StreamIdentifier",
    "SyncEventStore",
    "SyncProjectionStore",
    "conditions",
    "configure_sqlite",
    "constraints",
    "errors",
    "event",
    "event_metadata",
    "exists_row",
    "retry_transaction",
    "retry_transaction_sync",
    "verify_schema",
]

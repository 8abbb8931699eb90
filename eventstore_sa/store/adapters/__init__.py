"""Where a store keeps its events, and what adapters for other storage are made of."""

from typing import TYPE_CHECKING

from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee
from eventstore_sa.publishing import (
    PreparedEvent,
    StreamPublication,
    check_conditions,
    keyed_results,
    publications,
    replayed,
    stored_events,
)
from eventstore_sa.replacements import POSTGRES_EVENTS, replaced
from eventstore_sa.sources.base import checked_limit
from eventstore_sa.sources.constraints import checked_constraints
from eventstore_sa.store.adapters.event_contract import (
    EventStorageAdapter,
    SyncEventStorageAdapter,
    belongs_to,
    checked_target,
)
from eventstore_sa.store.adapters.event_memory import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.store.adapters.event_sqlalchemy import (
    SQLAlchemyEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)

__all__ = [
    "EventSerialisationGuarantee",
    "EventStorageAdapter",
    "InMemoryEventStorageAdapter",
    "PreparedEvent",
    "SQLAlchemyEventStorageAdapter",
    "StreamPublication",
    "SyncEventStorageAdapter",
    "SyncInMemoryEventStorageAdapter",
    "SyncSQLAlchemyEventStorageAdapter",
    "belongs_to",
    "check_conditions",
    "checked_constraints",
    "checked_limit",
    "checked_target",
    "keyed_results",
    "publications",
    "replayed",
    "stored_events",
]

if not TYPE_CHECKING:
    __getattr__ = replaced(
        __name__,
        {
            "AnyEventSerialisationGuarantee": "EventSerialisationGuarantee, which is an enum",
            "PostgresEventStorageAdapter": POSTGRES_EVENTS,
            "PostgresQuerySettings": "EventStoreSchema(prefix=..., schema=...) to name the tables; reads page by themselves",
        },
    )

"""The event store: streams, categories and the log, and the adapters that keep their events."""

from typing import TYPE_CHECKING

from eventstore_sa.attempts import Backoff
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee
from eventstore_sa.publishing import StreamPublishDefinition, stream_publish_definition
from eventstore_sa.replacements import POSTGRES_EVENTS, replaced
from eventstore_sa.sources import (
    ConstrainedEventSource,
    EventSource,
    EventSourceFactory,
    InMemoryEventSource,
    InMemoryStoredEventSource,
    SyncConstrainedEventSource,
    SyncEventSource,
    SyncEventSourceFactory,
    SyncInMemoryEventSource,
    SyncInMemoryStoredEventSource,
    constraints,
)
from eventstore_sa.store import adapters, conditions, exceptions
from eventstore_sa.store.adapters import EventStorageAdapter, InMemoryEventStorageAdapter
from eventstore_sa.store.backfilling import TagBackfill
from eventstore_sa.store.deciding import Decision, DecisionUpdate
from eventstore_sa.store.decorators import (
    event_store_transaction,
    ignore_on_error,
    ignore_on_unmet_condition_error,
    retry_on_error,
    retry_on_unmet_condition_error,
)
from eventstore_sa.store.event_store import EventStore, SyncEventStore
from eventstore_sa.store.source_factory import EventStoreEventSourceFactory, SyncEventStoreEventSourceFactory
from eventstore_sa.store.streams import EventCategory, EventLog, EventPartition, EventSelection, EventStream
from eventstore_sa.store.sync_streams import (
    SyncEventCategory,
    SyncEventLog,
    SyncEventPartition,
    SyncEventSelection,
    SyncEventStream,
)
from eventstore_sa.store.transactions import retry_transaction, retry_transaction_sync
from eventstore_sa.store.updating import StreamUpdate
from eventstore_sa.types import Watermark

__all__ = [
    "Backoff",
    "ConstrainedEventSource",
    "Decision",
    "DecisionUpdate",
    "EventCategory",
    "EventLog",
    "EventPartition",
    "EventSelection",
    "EventSerialisationGuarantee",
    "EventSource",
    "EventSourceFactory",
    "EventStorageAdapter",
    "EventStore",
    "EventStoreEventSourceFactory",
    "EventStream",
    "InMemoryEventSource",
    "InMemoryEventStorageAdapter",
    "InMemoryStoredEventSource",
    "StreamPublishDefinition",
    "StreamUpdate",
    "SyncConstrainedEventSource",
    "SyncEventCategory",
    "SyncEventLog",
    "SyncEventPartition",
    "SyncEventSelection",
    "SyncEventSource",
    "SyncEventSourceFactory",
    "SyncEventStore",
    "SyncEventStoreEventSourceFactory",
    "SyncEventStream",
    "SyncInMemoryEventSource",
    "SyncInMemoryStoredEventSource",
    "TagBackfill",
    "UnmetWriteConditionError",
    "Watermark",
    "adapters",
    "conditions",
    "constraints",
    "event_store_transaction",
    "exceptions",
    "ignore_on_error",
    "ignore_on_unmet_condition_error",
    "retry_on_error",
    "retry_on_unmet_condition_error",
    "retry_transaction",
    "retry_transaction_sync",
    "stream_publish_definition",
]

if not TYPE_CHECKING:
    __getattr__ = replaced(__name__, {"PostgresEventStorageAdapter": POSTGRES_EVENTS})

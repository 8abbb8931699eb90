"""Event sources and the constraints that reads of them take."""

from eventstore_sa.sources import constraints
from eventstore_sa.sources.base import EventSource, SyncEventSource
from eventstore_sa.sources.constrained import ConstrainedEventSource, SyncConstrainedEventSource
from eventstore_sa.sources.factory import EventSourceFactory, SyncEventSourceFactory
from eventstore_sa.sources.memory import (
    InMemoryEventSource,
    InMemoryStoredEventSource,
    SyncInMemoryEventSource,
    SyncInMemoryStoredEventSource,
)

__all__ = [
    "ConstrainedEventSource",
    "EventSource",
    "EventSourceFactory",
    "InMemoryEventSource",
    "InMemoryStoredEventSource",
    "SyncConstrainedEventSource",
    "SyncEventSource",
    "SyncEventSourceFactory",
    "SyncInMemoryEventSource",
    "SyncInMemoryStoredEventSource",
    "constraints",
]

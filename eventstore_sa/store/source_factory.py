"""Event sources of a store by identifier: the log, streams, categories, selections and partitions.

Other identifiers get their sources by registering a constructor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Self, TypeAlias, TypeVar

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.sources import EventSource, EventSourceFactory, SyncEventSource, SyncEventSourceFactory
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, SyncEventStorageAdapter
from eventstore_sa.store.adapters.event_typed import typed, typed_sync
from eventstore_sa.store.streams import EventCategory, EventLog, EventPartition, EventSelection, EventStream
from eventstore_sa.store.sync_streams import (
    SyncEventCategory,
    SyncEventLog,
    SyncEventPartition,
    SyncEventSelection,
    SyncEventStream,
)
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventQuery,
    EventSourceIdentifier,
    EventTypes,
    LogIdentifier,
    LogPartitionIdentifier,
    QueryPartitionIdentifier,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
)

__all__ = ["EventStoreEventSourceFactory", "SyncEventStoreEventSourceFactory"]

I = TypeVar("I", bound=EventSourceIdentifier)  # noqa: E741

Constructor: TypeAlias = Callable[[I, EventStorageAdapter], EventSource[I]]
SyncConstructor: TypeAlias = Callable[[I, SyncEventStorageAdapter], SyncEventSource[I]]

_PARTITIONS: Final = (
    LogPartitionIdentifier,
    CategoryPartitionIdentifier,
    StreamNamePrefixPartitionIdentifier,
    QueryPartitionIdentifier,
)


class EventStoreEventSourceFactory(EventSourceFactory):
    """Makes the sources of a store, read with asyncio.

    Args:
        adapter: The storage adapter of the store.
        types: The types of its events, if it has any.

    Examples:
        >>> from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
        >>> factory = EventStoreEventSourceFactory(InMemoryEventStorageAdapter())
        >>> factory.construct(CategoryIdentifier("orders"))
        EventCategory(CategoryIdentifier(category='orders'))
    """

    def __init__(self, adapter: EventStorageAdapter, *, types: EventTypes[Any] | None = None) -> None:
        self._adapter = adapter if types is None else typed(adapter, types)
        self._constructors: dict[type[EventSourceIdentifier], Constructor[Any]] = {
            LogIdentifier: lambda identifier, adapter: EventLog(adapter, identifier),
            CategoryIdentifier: lambda identifier, adapter: EventCategory(adapter, identifier),
            StreamIdentifier: lambda identifier, adapter: EventStream(adapter, identifier),
            EventQuery: lambda identifier, adapter: EventSelection(adapter, identifier),
            **dict.fromkeys(_PARTITIONS, lambda identifier, adapter: EventPartition(adapter, identifier)),
        }

    def register_constructor(self, identifier_type: type[I], constructor: Constructor[I]) -> Self:
        """Register how sources are made for identifiers of a type, its subclasses included.

        Args:
            identifier_type: The type; a constructor that is registered for it already is replaced.
            constructor: Called with an identifier and the adapter; returns its source.

        Returns:
            This factory.
        """
        self._constructors[identifier_type] = constructor
        return self

    def construct(self, identifier: I) -> EventSource[I]:
        constructor: Constructor[I] = self._constructors[_known(type(identifier), self._constructors)]
        return constructor(identifier, self._adapter)


class SyncEventStoreEventSourceFactory(SyncEventSourceFactory):
    """Makes the sources of a store: the twin of `EventStoreEventSourceFactory` without asyncio.

    Args:
        adapter: The storage adapter of the store.
        types: The types of its events, if it has any.
    """

    def __init__(self, adapter: SyncEventStorageAdapter, *, types: EventTypes[Any] | None = None) -> None:
        self._adapter = adapter if types is None else typed_sync(adapter, types)
        self._constructors: dict[type[EventSourceIdentifier], SyncConstructor[Any]] = {
            LogIdentifier: lambda identifier, adapter: SyncEventLog(adapter, identifier),
            CategoryIdentifier: lambda identifier, adapter: SyncEventCategory(adapter, identifier),
            StreamIdentifier: lambda identifier, adapter: SyncEventStream(adapter, identifier),
            EventQuery: lambda identifier, adapter: SyncEventSelection(adapter, identifier),
            **dict.fromkeys(_PARTITIONS, lambda identifier, adapter: SyncEventPartition(adapter, identifier)),
        }

    def register_constructor(self, identifier_type: type[I], constructor: SyncConstructor[I]) -> Self:
        """Register how sources are made for identifiers of a type; see `EventStoreEventSourceFactory`."""
        self._constructors[identifier_type] = constructor
        return self

    def construct(self, identifier: I) -> SyncEventSource[I]:
        constructor: SyncConstructor[I] = self._constructors[_known(type(identifier), self._constructors)]
        return constructor(identifier, self._adapter)


def _known(kind: type[Any], known: Iterable[type[EventSourceIdentifier]]) -> type[EventSourceIdentifier]:
    """Return the type itself or its closest base that is known."""
    types = set(known)
    for base in kind.__mro__:
        if base in types:
            return base
    raise ConfigurationError(
        f"there is no event source for {kind.__name__}: register a constructor with "
        f"register_constructor({kind.__name__}, ...)"
    )

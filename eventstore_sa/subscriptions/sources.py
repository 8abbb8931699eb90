"""What a subscription reads: the log, categories, a stream or a query of a store, as they are or constrained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias, cast

from msgspec import Struct

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.sources import ConstrainedEventSource, SyncConstrainedEventSource
from eventstore_sa.sources.constraints import QueryConstraint, QueryConstraints, category_in
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, Scannable, SyncEventStorageAdapter
from eventstore_sa.store.adapters.event_typed import stored_constraints, stored_target
from eventstore_sa.store.streams import EventCategory, EventLog, EventSelection, EventStream
from eventstore_sa.store.sync_streams import SyncEventCategory, SyncEventLog, SyncEventSelection, SyncEventStream
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventQuery,
    EventSequenceIdentifier,
    EventTypes,
    LogIdentifier,
    LogPartitionIdentifier,
    QueryPartitionIdentifier,
)
from eventstore_sa.types.codec import encode_json

__all__ = ["Sourced", "SubscribableSource", "SyncSubscribableSource", "sourced"]

SubscribableSource: TypeAlias = (
    EventLog[Any]
    | EventCategory[Any]
    | EventStream[Any]
    | EventSelection[Any]
    | ConstrainedEventSource[Any]
    | Sequence[EventCategory[Any]]
)
"""What a Subscription reads; several categories are read in one order, that of their sequence numbers."""

SyncSubscribableSource: TypeAlias = (
    SyncEventLog[Any]
    | SyncEventCategory[Any]
    | SyncEventStream[Any]
    | SyncEventSelection[Any]
    | SyncConstrainedEventSource[Any]
    | Sequence[SyncEventCategory[Any]]
)
"""What a SyncSubscription reads."""


_WHOLE: Final = (
    EventLog,
    EventCategory,
    EventStream,
    EventSelection,
    SyncEventLog,
    SyncEventCategory,
    SyncEventStream,
    SyncEventSelection,
)


class Sourced(Struct, frozen=True):
    """A source that can be read in partitions.

    Attributes:
        adapter: Where the events are, with JSON as their payloads.
        target: What is read.
        constraints: What all of its events meet.
        types: The types of the events; None: handlers get JSON.
    """

    adapter: EventStorageAdapter | SyncEventStorageAdapter
    target: EventSequenceIdentifier | EventQuery
    constraints: QueryConstraints
    types: EventTypes[Any] | None = None

    def part(self, partition: int, partitions: int) -> tuple[Scannable, QueryConstraints]:
        """Return a partition, and what its events meet: as they are stored, under any name of their types."""
        target = self._part(partition, partitions)
        if self.types is None:
            return target, self.constraints
        return stored_target(self.types, target), stored_constraints(self.types, self.constraints)

    def _part(self, partition: int, partitions: int) -> Scannable:
        if partitions == 1:
            return self.target
        match self.target:
            case CategoryIdentifier(category):
                return CategoryPartitionIdentifier(category, partition, partitions)
            case EventQuery():
                return QueryPartitionIdentifier(self.target, partition, partitions)
            case _:
                return LogPartitionIdentifier(partition, partitions)

    @property
    def text(self) -> str:
        """What is stored of it: what is read, and its constraints, as they were given."""
        kinds = sorted(repr(_stable(each)) for each in self.constraints)
        described: dict[str, Any] = {"source": self.target.serialise()}
        if kinds:
            described["constraints"] = kinds
        return encode_json(described).decode()


def sourced(given: object, *, asynchronous: bool) -> Sourced:
    """Read what a subscription is given as its source.

    Raises:
        ConfigurationError: If it cannot be subscribed to.
    """
    source: Any = given
    constraints = frozenset[QueryConstraint]()
    while isinstance(source, ConstrainedEventSource | SyncConstrainedEventSource):
        layer = cast("ConstrainedEventSource[Any]", source)
        source, constraints = layer.delegate, constraints | layer.constraints
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        categories: list[Any] = [*cast("Any", source)]
        if not categories or not all(isinstance(each, EventCategory | SyncEventCategory) for each in categories):
            raise _refused(given, asynchronous=asynchronous)
        names = category_in(each.identifier.category for each in categories)
        first = categories[0]
        if any(each.adapter is not first.adapter for each in categories):
            raise ConfigurationError("the categories of a subscription must be of one and the same store")
        found = Sourced(first.adapter.untyped, LogIdentifier(), constraints | {names}, first.types)
    elif isinstance(source, _WHOLE):
        found = Sourced(source.adapter.untyped, source.identifier, constraints, source.types)
    else:
        raise _refused(given, asynchronous=asynchronous)
    wanted = EventStorageAdapter if asynchronous else SyncEventStorageAdapter
    if not isinstance(found.adapter, wanted):
        raise _refused(given, asynchronous=asynchronous)
    return found


def _refused(given: object, *, asynchronous: bool) -> ConfigurationError:
    kind, store = ("Subscription", "EventStore") if asynchronous else ("SyncSubscription", "SyncEventStore")
    return ConfigurationError(
        f"{kind} reads the log, a category, a list of categories, a stream or a query of one {store}, constrained or not; "
        f"got {type(given).__name__}"
    )


def _stable(constraint: QueryConstraint) -> Any:
    """Return what describes a constraint in the same way in every process: sets have no order of their own."""
    fields: list[Any] = [getattr(constraint, each) for each in constraint.__struct_fields__]
    plain = [sorted(cast("frozenset[str]", each)) if isinstance(each, frozenset) else each for each in fields]
    return type(constraint).__name__, plain

"""What a subscription reads: the log, categories or a stream of a store, as they are or constrained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias, cast

from msgspec import Struct

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.sources import ConstrainedEventSource, SyncConstrainedEventSource
from eventstore_sa.sources.constraints import QueryConstraint, QueryConstraints, category_in
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, SyncEventStorageAdapter
from eventstore_sa.store.streams import EventCategory, EventLog, EventStream
from eventstore_sa.store.sync_streams import SyncEventCategory, SyncEventLog, SyncEventStream
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    EventSequenceIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
)
from eventstore_sa.types.codec import encode_json

__all__ = ["Sourced", "SubscribableSource", "SyncSubscribableSource", "sourced"]

SubscribableSource: TypeAlias = (
    EventLog | EventCategory | EventStream | ConstrainedEventSource[Any] | Sequence[EventCategory]
)
"""What a Subscription reads; several categories are read in one order, that of their sequence numbers."""

SyncSubscribableSource: TypeAlias = (
    SyncEventLog | SyncEventCategory | SyncEventStream | SyncConstrainedEventSource[Any] | Sequence[SyncEventCategory]
)
"""What a SyncSubscription reads."""


_WHOLE: Final = (EventLog, EventCategory, EventStream, SyncEventLog, SyncEventCategory, SyncEventStream)


class Sourced(Struct, frozen=True):
    """A source that can be read in partitions.

    Attributes:
        adapter: Where the events are.
        target: What is read.
        constraints: What all of its events meet.
    """

    adapter: EventStorageAdapter | SyncEventStorageAdapter
    target: EventSequenceIdentifier
    constraints: QueryConstraints

    def part(self, partition: int, partitions: int) -> EventSequenceIdentifier | EventPartitionIdentifier:
        """Return a partition."""
        if partitions == 1:
            return self.target
        match self.target:
            case CategoryIdentifier(category):
                return CategoryPartitionIdentifier(category, partition, partitions)
            case _:
                return LogPartitionIdentifier(partition, partitions)

    @property
    def text(self) -> str:
        """What is stored of it: what is read, and the kinds of constraints that it has."""
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
        found = Sourced(first.adapter, LogIdentifier(), constraints | {names})
    elif isinstance(source, _WHOLE):
        found = Sourced(source.adapter, source.identifier, constraints)
    else:
        raise _refused(given, asynchronous=asynchronous)
    wanted = EventStorageAdapter if asynchronous else SyncEventStorageAdapter
    if not isinstance(found.adapter, wanted):
        raise _refused(given, asynchronous=asynchronous)
    return found


def _refused(given: object, *, asynchronous: bool) -> ConfigurationError:
    kind, store = ("Subscription", "EventStore") if asynchronous else ("SyncSubscription", "SyncEventStore")
    return ConfigurationError(
        f"a {kind} reads the log, a category, a list of categories or a stream of an {store}, constrained or not; got a "
        f"{type(given).__name__}"
    )


def _stable(constraint: QueryConstraint) -> Any:
    """Return what describes a constraint in the same way in every process: sets have no order of their own."""
    fields: list[Any] = [getattr(constraint, each) for each in constraint.__struct_fields__]
    plain = [sorted(cast("frozenset[str]", each)) if isinstance(each, frozenset) else each for each in fields]
    return type(constraint).__name__, plain

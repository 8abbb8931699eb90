"""Queries: which events of the log a decision or a reader is about, chosen by names and tags instead of by stream.

The meaning is that of the specification of dynamic consistency boundaries (dcb.events): an event matches a query if it
matches any of its items, and an item if its name is one of the item's names and it has all of the item's tags. Pure values;
a query is also the identifier of the source that yields its events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

from msgspec import Struct
from msgspec.structs import force_setattr

from eventstore_sa.errors import ConfigurationError, SerialisationError
from eventstore_sa.types.codec import SerialisationFallback, text_problem
from eventstore_sa.types.conversion import serialise_to_string
from eventstore_sa.types.event_declaration import names_of
from eventstore_sa.types.identifiers import (
    EventSequenceIdentifier,
    EventSourceIdentifier,
    IdentifierMeta,
    PartitionIdentifier,
    StreamIdentifier,
    check_partition,
    event_sequence_identifier,
    partition_of,
)
from eventstore_sa.types.json import JsonObject, is_mapping, is_sequence
from eventstore_sa.types.tags import checked_tags

__all__ = [
    "MAX_QUERY_ITEMS",
    "MAX_QUERY_NAMES",
    "EventQuery",
    "QueryIdentifier",
    "QueryItem",
    "QueryPartitionIdentifier",
    "TaggedEvent",
    "event_source_identifier",
    "is_complete_as_it_stands",
    "query_of",
]

MAX_QUERY_ITEMS: Final = 100
"""How many items a query may have: each is looked up by itself."""

MAX_QUERY_NAMES: Final = 1000
"""How many names an item of a query may have."""


class TaggedEvent(Protocol):
    """What a query looks at in an event."""

    @property
    def name(self) -> Any:
        """What happened."""
        ...

    @property
    def tags(self) -> Collection[str]:
        """What it concerns."""
        ...


class QueryItem(Struct, frozen=True, kw_only=True):
    """Events with one of these names and all of these tags.

    Args:
        names: Names of events: strings, or what may stand for the name of a `NewEvent`, such as members of an enum; or
            classes decorated with `event`, for all names of their events. None given: any name.
        tags: Tags that an event must have; it may have others, too. None given: any tags.

    An item with neither matches every event.

    Raises:
        SerialisationError: A name or a tag cannot be one of an event, or there are too many of them.
        ConfigurationError: The names are not a collection of names.
    """

    names: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()

    if TYPE_CHECKING:

        def __init__(self, *, names: Iterable[object] = (), tags: Iterable[str] = ()) -> None: ...

    def __post_init__(self) -> None:
        force_setattr(self, "names", _checked_names(self.names))
        force_setattr(self, "tags", checked_tags(self.tags))

    def met_by(self, *, event: TaggedEvent) -> bool:
        """Tell whether an event matches this item."""
        return self.tags.issubset(event.tags) and (not self.names or _text(event.name) in self.names)

    def describe(self) -> str:
        """Say which events it is about, to follow "no" or "an" in an error message."""
        names = " or ".join(map(repr, sorted(self.names)))
        tags = " and ".join(map(repr, sorted(self.tags)))
        return f"event{f' {names}' if names else ''}{f' tagged {tags}' if tags else ''}"

    def serialise(self, fallback: SerialisationFallback | None = None) -> JsonObject:
        """Return `{"names": [...], "tags": [...]}`, sorted."""
        return {"names": [*sorted(self.names)], "tags": [*sorted(self.tags)]}


class EventQuery(EventSourceIdentifier, Struct, metaclass=IdentifierMeta, frozen=True):
    """Events that match at least one of some items.

    Args:
        items: The items, at least one; their order is of no importance, and equal ones count once.

    To match every event, say so: `EventQuery.all()`. A query without items is refused, because it could be meant to match
    everything as well as nothing.

    Raises:
        ConfigurationError: There are no items, too many, or other objects among them.
    """

    items: tuple[QueryItem, ...]

    if TYPE_CHECKING:

        def __init__(self, items: Iterable[QueryItem]) -> None: ...

    def __post_init__(self) -> None:
        force_setattr(self, "items", _checked_items(self.items))

    @classmethod
    def all(cls) -> EventQuery:
        """Return the query that every event matches."""
        return cls([QueryItem()])

    @classmethod
    def tagged(cls, *tags: str) -> EventQuery:
        """Return the query for events of any name that have all of these tags."""
        if not tags:
            raise ConfigurationError("a query by tags needs a tag; EventQuery.all() matches every event")
        return cls([QueryItem(tags=tags)])

    def met_by(self, *, event: TaggedEvent) -> bool:
        """Tell whether an event matches one of the items."""
        return any(item.met_by(event=event) for item in self.items)

    def serialise(self, fallback: SerialisationFallback | None = None) -> JsonObject:
        """Return `{"type": "query", "items": [{"names": [...], "tags": [...]}, ...]}`; the same for equal queries."""
        return {"type": "query", "items": [item.serialise() for item in self.items]}

    @classmethod
    def deserialise(cls, serialised: Mapping[str, Any]) -> EventQuery:
        """Return the query that `serialised` came from.

        Raises:
            ValueError: It is no serialised query.
        """
        match serialised:
            case {"type": "query", "items": [*items], **others} if not others:
                return cls(map(_item, items))
            case _:
                raise ValueError('a serialised query is {"type": "query", "items": [{"names": [...], "tags": [...]}]}')


class QueryPartitionIdentifier(PartitionIdentifier, Struct, metaclass=IdentifierMeta, frozen=True):
    """Part `partition` of `partitions` of the events that match a query; streams are dealt out by `partition_of`.

    Args:
        query: The query.
        partition: Which part, from 0.
        partitions: How many parts there are.

    Raises:
        ValueError: There is no such part.
    """

    query: EventQuery
    partition: int
    partitions: int

    def __post_init__(self) -> None:
        check_partition(self.partition, self.partitions)

    def covers(self, stream: StreamIdentifier) -> bool:
        """Tell whether those events of `stream` that match the query are in this part."""
        return partition_of(stream.category, stream.stream, self.partitions) == self.partition

    def serialise(self, fallback: SerialisationFallback | None = None) -> JsonObject:
        """Return `{"type": "query-partition", "query": ..., "partition": ..., "partitions": ...}`."""
        return {
            "type": "query-partition",
            "query": self.query.serialise(),
            "partition": self.partition,
            "partitions": self.partitions,
        }


QueryIdentifier: TypeAlias = EventQuery | QueryPartitionIdentifier
"""What a store finds events by, wherever it keeps them."""


def query_of(identifier: EventSourceIdentifier) -> EventQuery | None:
    """Return the query that all events of an identifier match, if it is one of `QueryIdentifier`."""
    match identifier:
        case EventQuery():
            return identifier
        case QueryPartitionIdentifier(query):
            return query
        case _:
            return None


def is_complete_as_it_stands(identifier: EventSourceIdentifier) -> bool:
    """Whether the writers of what is read exclude each other until they commit, so that no read of it misses an event.

    Everything else is complete up to the watermark of the log.
    """
    return isinstance(identifier, StreamIdentifier)


def event_source_identifier(
    serialised: Mapping[str, Any],
) -> EventSequenceIdentifier | PartitionIdentifier | EventQuery:
    """Return the identifier that `serialised` came from: the inverse of `serialise()`.

    Raises:
        ValueError: It is no serialised identifier of the log, a category, a stream, a query or a partition.
    """
    match serialised:
        case {"type": "query"}:
            return EventQuery.deserialise(serialised)
        case {"type": "query-partition", "query": query, "partition": part, "partitions": parts, **others} if (
            not others
        ):
            return QueryPartitionIdentifier(EventQuery.deserialise(query), part, parts)
        case _:
            return event_sequence_identifier(serialised)


def _item(serialised: object) -> QueryItem:
    if is_mapping(serialised) and set(serialised) == {"names", "tags"}:
        names, tags = serialised["names"], serialised["tags"]
        if is_sequence(names) and is_sequence(tags):
            return QueryItem(names=names, tags=tags)
    raise ValueError('an item of a serialised query is {"names": [...], "tags": [...]}')


def _checked_names(names: object) -> frozenset[str]:
    if isinstance(names, str | bytes):
        raise ConfigurationError(f"an item of a query takes names, not one name: write names=[{names!r}]")
    if not isinstance(names, Iterable):
        raise ConfigurationError(f"names are passed as a list or a set; got {type(names).__name__}")
    texts = frozenset(text for name in cast("Iterable[object]", names) for text in names_of(name))
    if len(texts) > MAX_QUERY_NAMES:
        raise ConfigurationError(
            f"an item of a query takes at most {MAX_QUERY_NAMES} names, not {len(texts)}: leave the names out, and ignore "
            "the events of other names"
        )
    for text in texts:
        problem = "is empty, which no event's name is" if not text else text_problem(text)
        if problem is not None:
            raise SerialisationError(f"the event name {text[:60]!a} {problem}")
    return texts


def _checked_items(items: object) -> tuple[QueryItem, ...]:
    if isinstance(items, QueryItem) or not isinstance(items, Iterable):
        raise ConfigurationError(
            f"the items of a query are passed as a list, even a single one: EventQuery([item]); got {type(items).__name__}"
        )
    checked: set[QueryItem] = set()
    for item in cast("Iterable[object]", items):
        if not isinstance(item, QueryItem):
            raise ConfigurationError(f"the items of a query are QueryItems; got {type(item).__name__}")
        checked.add(item)
    if not checked:
        raise ConfigurationError("a query needs at least one item; EventQuery.all() matches every event")
    if len(checked) > MAX_QUERY_ITEMS:
        raise ConfigurationError(
            f"a query takes at most {MAX_QUERY_ITEMS} items, not {len(checked)}: decide on less at a time, or give its "
            "events a tag in common"
        )
    return tuple(sorted(checked, key=_order))


def _order(item: QueryItem) -> tuple[list[str], list[str]]:
    return sorted(item.tags), sorted(item.names)


def _text(name: object) -> str:
    return name if type(name) is str else serialise_to_string(name)

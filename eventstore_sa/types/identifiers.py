"""What events belong to and are read from: the log, categories, streams, and partitions of those.

Identifiers are values: immutable, compared and hashed by content, and valid once they exist. They read nothing; event
sources and stores take them. Names are opaque: any text that a database can index.
"""

from __future__ import annotations

import json
from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal, TypeAlias, TypedDict

from msgspec import Struct, StructMeta
from msgspec.structs import force_setattr

from eventstore_sa.errors import SerialisationError
from eventstore_sa.types.codec import SerialisationFallback, text_problem
from eventstore_sa.types.json import JsonObject

__all__ = [
    "MAX_NAME_BYTES",
    "CategoryIdentifier",
    "CategoryIdentifierDict",
    "CategoryPartitionIdentifier",
    "EventPartitionIdentifier",
    "EventSequenceIdentifier",
    "EventSequenceIdentifierDict",
    "EventSourceIdentifier",
    "Identifier",
    "LogIdentifier",
    "LogIdentifierDict",
    "LogPartitionIdentifier",
    "PartitionIdentifier",
    "StreamIdentifier",
    "StreamIdentifierDict",
    "StreamNamePrefixPartitionIdentifier",
    "check_name",
    "check_partition",
    "event_sequence_identifier",
    "partition_of",
    "stream_hash",
    "target",
]

MAX_NAME_BYTES = 1000
"""How long a category or stream name may be in UTF-8: both together must fit the 2700 bytes of a b-tree entry."""


def check_name(what: str, name: object) -> str:
    """Refuse a name that cannot be stored and indexed on every database.

    Args:
        what: What is named, for the message: "stream".
        name: The name.

    Returns:
        The name as a plain `str`: of an enum member or of another subclass only the text is kept.

    Raises:
        SerialisationError: The name is no string, empty, longer than `MAX_NAME_BYTES` in UTF-8, or no valid text.
    """
    # ASCII of printable length is nearly every name there is.
    if type(name) is str and name and len(name) <= MAX_NAME_BYTES and name.isascii() and "\0" not in name:
        return name
    if not isinstance(name, str):
        raise SerialisationError(f"the {what} name must be a str, not {type(name).__name__}: convert it first")
    name = str.__str__(name)
    if not name:
        remedy = ": to read across names, take a wider identifier" if what in {"category", "stream"} else ""
        raise SerialisationError(f"the {what} name must not be empty{remedy}")
    problem = text_problem(name)
    if problem is not None:
        raise SerialisationError(f"the {what} name {name[:40]!a} {problem}")
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        raise SerialisationError(
            f"the {what} name {name[:40]!a}... is {size} bytes long in UTF-8, more than {MAX_NAME_BYTES}: two "
            "names have to fit into an entry of an index, which holds about 2700 bytes; shorten it, or hash its tail"
        )
    return name


class Identifier(ABC):
    """The name of something; equal to others of its class with the same content."""

    __slots__ = ()

    @abstractmethod
    def serialise(self, fallback: SerialisationFallback | None = None) -> JsonObject:
        """Return this identifier as a JSON object with its kind under "type".

        Args:
            fallback: As for other values that serialise themselves; an identifier has nothing to call it for.
        """

    def json(self) -> str:
        """Return `serialise()` as JSON text with sorted keys: the same text for equal identifiers."""
        return json.dumps(self.serialise(), sort_keys=True)


class EventSourceIdentifier(Identifier, ABC):
    """The name of something that events are read from."""

    __slots__ = ()


class PartitionIdentifier(EventSourceIdentifier, ABC):
    """The name of a part of the log or of a category. A stream is in one part as a whole."""

    __slots__ = ()

    @abstractmethod
    def covers(self, stream: StreamIdentifier) -> bool:
        """Tell whether the events of `stream` are in this part."""


class IdentifierMeta(StructMeta, ABCMeta):
    """Structs that are also abstract base classes' subclasses."""


class LogIdentifier(EventSourceIdentifier, Struct, metaclass=IdentifierMeta, frozen=True, order=True):
    """All events of the store."""

    def serialise(self, fallback: SerialisationFallback | None = None) -> JsonObject:
        """Return `{"type": "log"}`."""
        return {"type": "log"}


class CategoryIdentifier(EventSourceIdentifier, Struct, metaclass=IdentifierMeta, frozen=True, order=True):
    """All events of one category.

    Args:
        category: Its name: not empty, at most `MAX_NAME_BYTES` long in UTF-8.

    Raises:
        SerialisationError: The name cannot be stored.
    """

    category: str

    def __post_init__(self) -> None:
        _check_field(self, "category", "category")

    def serialise(self, fallback: SerialisationFallback | None = None) -> JsonObject:
        """Return `{"type": "category", "category": ...}`."""
        return {"type": "category", "category": self.category}


class StreamIdentifier(EventSourceIdentifier, Struct, metaclass=IdentifierMeta, frozen=True, order=True):
    """The events of one stream. Ordered by category, then stream.

    Args:
        category: The name of its category: not empty, at most `MAX_NAME_BYTES` long in UTF-8.
        stream: Its name within the category; the same rules.

    Raises:
        SerialisationError: A name cannot be stored.
    """

    category: str
    stream: str

    def __post_init__(self) -> None:
        _check_field(self, "category", "category")
        _check_field(self, "stream", "stream")

    def serialise(self, fallback: SerialisationFallback | None = None) -> JsonObject:
        """Return `{"type": "stream", "category": ..., "stream": ...}`."""
        return {"type": "stream", "category": self.category, "stream": self.stream}


class LogPartitionIdentifier(PartitionIdentifier, Struct, metaclass=IdentifierMeta, frozen=True, order=True):
    """Part `partition` of `partitions` of the log; streams are dealt out by `partition_of`.

    Args:
        partition: Which part, from 0.
        partitions: How many parts there are.

    Raises:
        ValueError: There is no such part.
    """

    partition: int
    partitions: int

    def __post_init__(self) -> None:
        check_partition(self.partition, self.partitions)

    def covers(self, stream: StreamIdentifier) -> bool:
        """Tell whether the events of `stream` are in this part."""
        return partition_of(stream.category, stream.stream, self.partitions) == self.partition

    def serialise(self, fallback: SerialisationFallback | None = None) -> JsonObject:
        """Return `{"type": "log-partition", "partition": ..., "partitions": ...}`."""
        return {"type": "log-partition", "partition": self.partition, "partitions": self.partitions}


class CategoryPartitionIdentifier(PartitionIdentifier, Struct, metaclass=IdentifierMeta, frozen=True, order=True):
    """Part `partition` of `partitions` of one category; streams are dealt out by `partition_of`.

    Args:
        category: The name of the category.
        partition: Which part, from 0.
        partitions: How many parts there are.

    Raises:
        ValueError: There is no such part, or the name cannot be stored.
    """

    category: str
    partition: int
    partitions: int

    def __post_init__(self) -> None:
        _check_field(self, "category", "category")
        check_partition(self.partition, self.partitions)

    def covers(self, stream: StreamIdentifier) -> bool:
        """Tell whether the events of `stream` are in this part."""
        return (
            stream.category == self.category
            and partition_of(stream.category, stream.stream, self.partitions) == self.partition
        )

    def serialise(self, fallback: SerialisationFallback | None = None) -> JsonObject:
        """Return `{"type": "category-partition", "category": ..., "partition": ..., "partitions": ...}`."""
        return {
            "type": "category-partition",
            "category": self.category,
            "partition": self.partition,
            "partitions": self.partitions,
        }


class StreamNamePrefixPartitionIdentifier(
    PartitionIdentifier, Struct, metaclass=IdentifierMeta, frozen=True, order=True
):
    """The streams of a category whose names start with `prefix`.

    Args:
        category: The name of the category.
        prefix: How the stream names start, case-sensitive; not empty.

    Raises:
        SerialisationError: The name or prefix cannot be stored.
    """

    category: str
    prefix: str

    def __post_init__(self) -> None:
        _check_field(self, "category", "category")
        _check_field(self, "stream", "prefix")

    def covers(self, stream: StreamIdentifier) -> bool:
        """Tell whether the events of `stream` are in this part."""
        return stream.category == self.category and stream.stream.startswith(self.prefix)

    def serialise(self, fallback: SerialisationFallback | None = None) -> JsonObject:
        """Return `{"type": "stream-name-prefix", "category": ..., "prefix": ...}`."""
        return {"type": "stream-name-prefix", "category": self.category, "prefix": self.prefix}


EventSequenceIdentifier: TypeAlias = LogIdentifier | CategoryIdentifier | StreamIdentifier
"""What a store keeps events in: the log, its categories, their streams."""

EventPartitionIdentifier: TypeAlias = (
    LogPartitionIdentifier | CategoryPartitionIdentifier | StreamNamePrefixPartitionIdentifier
)
"""What a store can read in parts."""


class LogIdentifierDict(TypedDict):
    """A serialised `LogIdentifier`."""

    type: Literal["log"]


class CategoryIdentifierDict(TypedDict):
    """A serialised `CategoryIdentifier`."""

    type: Literal["category"]
    category: str


class StreamIdentifierDict(TypedDict):
    """A serialised `StreamIdentifier`."""

    type: Literal["stream"]
    category: str
    stream: str


EventSequenceIdentifierDict: TypeAlias = LogIdentifierDict | CategoryIdentifierDict | StreamIdentifierDict

_KINDS: dict[str, tuple[type[EventSequenceIdentifier | PartitionIdentifier], frozenset[str]]] = {
    "log": (LogIdentifier, frozenset()),
    "category": (CategoryIdentifier, frozenset({"category"})),
    "stream": (StreamIdentifier, frozenset({"category", "stream"})),
    "log-partition": (LogPartitionIdentifier, frozenset({"partition", "partitions"})),
    "category-partition": (CategoryPartitionIdentifier, frozenset({"category", "partition", "partitions"})),
    "stream-name-prefix": (StreamNamePrefixPartitionIdentifier, frozenset({"category", "prefix"})),
}


def event_sequence_identifier(serialised: Mapping[str, Any]) -> EventSequenceIdentifier | PartitionIdentifier:
    """Return the identifier that `serialised` came from: the inverse of `serialise()`.

    Raises:
        ValueError: It is no serialised identifier of the log, a category, a stream or a partition.
    """
    kind, fields = _KINDS.get(str(serialised.get("type")), (None, frozenset[str]()))
    if kind is None:
        raise ValueError(f"no identifier has the type {serialised.get('type')!r}: expected one of {', '.join(_KINDS)}")
    given = {key: value for key, value in serialised.items() if key != "type"}
    if given.keys() != fields:
        raise ValueError(
            f"an identifier of type {serialised['type']!r} has the fields {sorted(fields)}, but these were given: "
            f"{sorted(given)}"
        )
    return kind(**given)


def target(*, category: str | None = None, stream: str | None = None) -> EventSequenceIdentifier:
    """Return the identifier of the stream, the category or, with neither, the log.

    Raises:
        ValueError: There is a stream without its category, or a name cannot be stored.
    """
    if category is None:
        if stream is not None:
            raise ValueError(f"stream {stream!r} was given without its category: a stream is found only within one")
        return LogIdentifier()
    return CategoryIdentifier(category) if stream is None else StreamIdentifier(category, stream)


def partition_of(category: str, stream: str, partitions: int) -> int:
    """Return which of `partitions` parts, from 0, a stream belongs to: its `stream_hash` modulo `partitions`."""
    return stream_hash(category, stream) % partitions


def stream_hash(category: str, stream: str) -> int:
    """Return a number of 32 bits for a stream; the same in every process, on every database and in every release.

    It is the first four bytes, most significant first, of the SHA-256 of both names in UTF-8 with a NUL in between.
    """
    return int.from_bytes(sha256(f"{category}\0{stream}".encode()).digest()[:4])


def _check_field(identifier: Struct, what: str, field: str) -> None:
    """Check the name in a field of a new identifier, and keep it as a plain `str`."""
    given = getattr(identifier, field)
    name = check_name(what, given)
    if name is not given:
        force_setattr(identifier, field, name)


def check_partition(partition: object, partitions: object) -> None:
    """Refuse a part that there is not.

    Raises:
        ValueError: There is no such part.
    """
    if type(partition) is not int or type(partitions) is not int or not 0 <= partition < partitions:
        raise ValueError(f"there is no partition {partition!r} of {partitions!r}: count from 0 up to the last")

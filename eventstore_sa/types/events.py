"""Events, before and after they are stored.

`NewEvent` is what callers publish, `StoredEvent` what reads return. Both are immutable values that carry the caller's
own payload and metadata objects; turning those into JSON is the codec's business, storing them the store's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, overload
from uuid import UUID

from msgspec import Struct, StructMeta
from msgspec.structs import force_setattr
from typing_extensions import TypeVar

from eventstore_sa.errors import SerialisationError
from eventstore_sa.types.clock import Clock, SystemClock
from eventstore_sa.types.codec import text_problem
from eventstore_sa.types.conversion import default_serialisation_fallback, serialise_to_json_value, serialise_to_string
from eventstore_sa.types.identifiers import MAX_NAME_BYTES
from eventstore_sa.types.json import JsonValue
from eventstore_sa.types.tags import NO_TAGS, checked_tags
from eventstore_sa.types.uuid7 import uuid7  # pyright: ignore[reportUnusedImport] - see _NewEventMeta

__all__ = ["AnyNewEvent", "AnyStoredEvent", "NewEvent", "StoredEvent", "check_indexed_name"]

Name = TypeVar("Name", covariant=True, default=str)
# Not JsonValue: nothing could be done with it before it is narrowed.
Payload = TypeVar("Payload", covariant=True, default=Any)
Metadata = TypeVar("Metadata", covariant=True, default=Any)
N = TypeVar("N")
P = TypeVar("P")

_SYSTEM_CLOCK = SystemClock()
_MAX_VERSION: Final = 2**31 - 1


class _NewEventMeta(StructMeta):
    """Fills in what a caller of `NewEvent` leaves out; a Struct may have no `__init__`, and `clock` is no field."""

    if not TYPE_CHECKING:

        def __call__(
            cls,  # noqa: N805 - of a metaclass
            *,
            name,
            payload,
            metadata=None,
            id=None,
            observed_at=None,
            occurred_at=None,
            tags=NO_TAGS,
            version=1,
            clock=_SYSTEM_CLOCK,
        ):
            if observed_at is None:
                observed_at = clock.now(UTC)
            return super().__call__(
                id=uuid7() if id is None else id,
                name=name,
                payload=payload,
                metadata=metadata,
                observed_at=observed_at,
                occurred_at=observed_at if occurred_at is None else occurred_at,
                tags=tags,
                version=version,
            )

        __call__.__qualname__ = "NewEvent"  # what Python names when arguments are missing or positional


class NewEvent(Struct, Generic[Name, Payload, Metadata], metaclass=_NewEventMeta, frozen=True, kw_only=True):
    """An event that is to be published.

    Two events are equal when all their fields are; the hash is that of the id.

    Args:
        name: What happened: a string that is not empty, an enum member or object that stands for one.
        payload: What there is to know about it: JSON, or anything that `to_json` converts.
        metadata: What there is to know about its recording: the same.
        id: Its UUID; a new one of version 7 by default. Publishing an id again stores nothing and is no error, so an id
            made from the request makes the request idempotent.
        observed_at: When it was recorded: an aware datetime, by default what the clock says, in UTC.
        occurred_at: When it happened: an aware datetime, by default `observed_at`.
        tags: What it is about, across streams, such as "course:c1": at most 100, each like the name of a stream.
        version: The version of its type, that is of the form of its payload: 1 or more.
        clock: Where `observed_at` comes from.

    Raises:
        SerialisationError: The name is empty, the id no UUID, a datetime naive, a tag cannot be stored, or the version is
            no version.
    """

    id: UUID
    name: Name
    payload: Payload
    metadata: Metadata
    observed_at: datetime
    occurred_at: datetime
    tags: frozenset[str] = NO_TAGS
    version: int = 1

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: NewEvent[N, P, None],
            *,
            name: N,
            payload: P,
            metadata: None = None,
            id: UUID | None = None,
            observed_at: datetime | None = None,
            occurred_at: datetime | None = None,
            tags: Iterable[str] = ...,
            version: int = 1,
            clock: Clock = ...,
        ) -> None: ...
        @overload
        def __init__(
            self,
            *,
            name: Name,
            payload: Payload,
            metadata: Metadata,
            id: UUID | None = None,
            observed_at: datetime | None = None,
            occurred_at: datetime | None = None,
            tags: Iterable[str] = ...,
            version: int = 1,
            clock: Clock = ...,
        ) -> None: ...
        def __init__(self, **fields: Any) -> None: ...

    def __post_init__(self) -> None:
        _check_event_name(self.name)
        _check_id(self.id)
        _check_instant("observed_at", self.observed_at)
        if self.occurred_at is not self.observed_at:
            _check_instant("occurred_at", self.occurred_at)
        if self.tags is not NO_TAGS:
            force_setattr(self, "tags", checked_tags(self.tags))
            if self.tags:
                check_indexed_name(self.name)
        if type(self.version) is not int or not 1 <= self.version <= _MAX_VERSION:
            raise SerialisationError(
                f"the version of an event's type is an integer of 1 or more, below 2**31; got {self.version!r:.40}"
            )

    def __hash__(self) -> int:
        return hash(self.id)

    def serialise(self, fallback: Callable[[object], Any] = default_serialisation_fallback) -> dict[str, JsonValue]:
        """Return all fields as JSON: the id as a string, datetimes in ISO 8601, tags sorted.

        Args:
            fallback: Called with each part of name, payload or metadata that has no JSON form.
        """
        return self.summarise(fallback) | {
            "payload": serialise_to_json_value(self.payload, fallback),
            "metadata": serialise_to_json_value(self.metadata, fallback),
        }

    def summarise(self, fallback: Callable[[object], Any] = default_serialisation_fallback) -> dict[str, JsonValue]:
        """Return what `serialise` does without payload and metadata: what may be logged."""
        return {
            "id": str(self.id),
            "name": serialise_to_string(self.name, fallback),
            "observed_at": self.observed_at.isoformat(),
            "occurred_at": self.occurred_at.isoformat(),
            "tags": [*sorted(self.tags)],
            "version": self.version,
        }


class StoredEvent(Struct, Generic[Name, Payload, Metadata], frozen=True):
    """An event as it is stored.

    Two events are equal when all their fields are; the hash is that of the id. Nothing is checked here: reads make
    millions of these.

    Args:
        id: Its UUID, unique in the store.
        name: What happened.
        stream: The stream it belongs to.
        category: The category of that stream.
        position: Its place in the stream: 0, 1, 2 and so on.
        sequence_number: Its place in the log: increasing, possibly with gaps.
        payload: What there is to know about it.
        metadata: What there is to know about its recording.
        observed_at: When it was recorded.
        occurred_at: When it happened.
        tags: What it is about, across streams.
        version: The version of its type.
    """

    id: UUID
    name: Name
    stream: str
    category: str
    position: int
    sequence_number: int
    payload: Payload
    metadata: Metadata
    observed_at: datetime
    occurred_at: datetime
    tags: frozenset[str] = NO_TAGS
    version: int = 1

    def __hash__(self) -> int:
        return hash(self.id)

    def serialise(self, fallback: Callable[[object], Any] = default_serialisation_fallback) -> dict[str, JsonValue]:
        """Return all fields as JSON: the id as a string, datetimes in ISO 8601, tags sorted.

        Args:
            fallback: Called with each part of name, payload or metadata that has no JSON form.
        """
        return self.summarise(fallback) | {
            "payload": serialise_to_json_value(self.payload, fallback),
            "metadata": serialise_to_json_value(self.metadata, fallback),
        }

    def summarise(self, fallback: Callable[[object], Any] = default_serialisation_fallback) -> dict[str, JsonValue]:
        """Return what `serialise` does without payload and metadata: what may be logged."""
        return {
            "id": str(self.id),
            "name": serialise_to_string(self.name, fallback),
            "stream": self.stream,
            "category": self.category,
            "position": self.position,
            "sequence_number": self.sequence_number,
            "observed_at": self.observed_at.isoformat(),
            "occurred_at": self.occurred_at.isoformat(),
            "tags": [*sorted(self.tags)],
            "version": self.version,
        }


def _check_id(id: object) -> None:
    if not isinstance(id, UUID):
        raise SerialisationError(
            f"the id of an event must be a UUID, not {type(id).__name__}: pass UUID(...), or leave it out"
        )


def _check_event_name(name: object) -> None:
    if name is None:
        raise SerialisationError("the name of an event must not be None: say what happened, as in 'order-placed'")
    text = name if type(name) is str else serialise_to_string(name)
    if not text:
        raise SerialisationError("the name of an event must not be empty: say what happened, as in 'order-placed'")
    problem = text_problem(text)
    if problem is not None:
        raise SerialisationError(f"the event name {text[:60]!a} {problem}")


def check_indexed_name(name: object) -> None:
    """Refuse the name of an event with tags if it is too long for their index.

    Raises:
        SerialisationError: If it is.
    """
    text = name if type(name) is str else serialise_to_string(name)
    if len(text.encode()) > MAX_NAME_BYTES:
        raise SerialisationError(
            f"the name of an event with tags may be {MAX_NAME_BYTES} bytes long in UTF-8, because it is indexed with each "
            f"tag; {text[:40]!a}... is longer"
        )


def _check_instant(field: str, value: object) -> None:
    if not isinstance(value, datetime):
        raise SerialisationError(
            f"{field} must be a datetime, not {type(value).__name__}: pass datetime.now(UTC) or another"
        )
    if value.tzinfo is not UTC and value.utcoffset() is None:
        raise SerialisationError(
            f"{field} is the naive datetime {value.isoformat()}, which could mean any time zone: give it one, as in "
            "datetime.now(UTC) or value.replace(tzinfo=UTC)"
        )


AnyNewEvent: TypeAlias = NewEvent[Any, Any, Any]
"""A new event of any name, payload and metadata."""

AnyStoredEvent: TypeAlias = StoredEvent[Any, Any, Any]
"""A stored event of any name, payload and metadata."""

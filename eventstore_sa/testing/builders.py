"""Builders of events and projections: a test sets only the fields that matter to it, and the others are random.

A builder is immutable; each `with_*` method returns a new one. `build()` returns an equal value each time, so a test can
build once to publish and once to compare.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, Self, cast
from uuid import UUID

from msgspec import Struct, field
from msgspec.structs import replace
from typing_extensions import TypeVar

from eventstore_sa.testing import data
from eventstore_sa.types import (
    NO_TAGS,
    EventSourceIdentifier,
    JsonValue,
    NewEvent,
    Projection,
    StoredEvent,
    StreamIdentifier,
)

__all__ = ["BaseProjectionBuilder", "MappingProjectionBuilder", "NewEventBuilder", "StoredEventBuilder"]

Name = TypeVar("Name", default=str)
Payload = TypeVar("Payload", default=JsonValue)
Metadata = TypeVar("Metadata", default=JsonValue)
State = TypeVar("State", default=JsonValue)
N = TypeVar("N")
P = TypeVar("P")
M = TypeVar("M")


def _now() -> datetime:
    return datetime.now(UTC)


class NewEventBuilder(Struct, Generic[Name, Payload, Metadata], frozen=True, kw_only=True):
    """Builds a `NewEvent`."""

    id: UUID = field(default_factory=data.random_event_id)
    name: Name = field(default_factory=cast("Any", data.random_event_name))
    payload: Payload = field(default_factory=cast("Any", data.random_event_payload))
    metadata: Metadata = field(default_factory=cast("Any", data.random_event_metadata))
    observed_at: datetime = field(default_factory=_now)
    occurred_at: datetime | None = None
    tags: frozenset[str] = NO_TAGS
    version: int = 1

    def with_id(self, id: UUID) -> Self:
        """Return a builder with this event id."""
        return replace(self, id=id)

    def with_name(self, name: N) -> NewEventBuilder[N, Payload, Metadata]:
        """Return a builder with this event name."""
        return cast("NewEventBuilder[N, Payload, Metadata]", replace(self, name=name))

    def with_payload(self, payload: P) -> NewEventBuilder[Name, P, Metadata]:
        """Return a builder with this payload."""
        return cast("NewEventBuilder[Name, P, Metadata]", replace(self, payload=payload))

    def with_metadata(self, metadata: M) -> NewEventBuilder[Name, Payload, M]:
        """Return a builder with this metadata."""
        return cast("NewEventBuilder[Name, Payload, M]", replace(self, metadata=metadata))

    def with_observed_at(self, observed_at: datetime) -> Self:
        """Return a builder with this time of observation."""
        return replace(self, observed_at=observed_at)

    def with_occurred_at(self, occurred_at: datetime | None) -> Self:
        """Return a builder with this time of occurrence; None means the time of observation."""
        return replace(self, occurred_at=occurred_at)

    def with_tags(self, tags: Iterable[str]) -> Self:
        """Return a builder with these tags."""
        return replace(self, tags=frozenset(tags))

    def with_version(self, version: int) -> Self:
        """Return a builder with this version of the event's type."""
        return replace(self, version=version)

    def build(self) -> NewEvent[Name, Payload, Metadata]:
        """Return the event."""
        return NewEvent(
            id=self.id,
            name=self.name,
            payload=self.payload,
            metadata=self.metadata,
            observed_at=self.observed_at,
            occurred_at=self.occurred_at,
            tags=self.tags,
            version=self.version,
        )


class StoredEventBuilder(Struct, Generic[Name, Payload, Metadata], frozen=True, kw_only=True):
    """Builds a `StoredEvent`."""

    id: UUID = field(default_factory=data.random_event_id)
    name: Name = field(default_factory=cast("Any", data.random_event_name))
    stream: str = field(default_factory=data.random_event_stream_name)
    category: str = field(default_factory=data.random_event_category_name)
    position: int = field(default_factory=data.random_event_position)
    sequence_number: int = field(default_factory=data.random_event_sequence_number)
    payload: Payload = field(default_factory=cast("Any", data.random_event_payload))
    metadata: Metadata = field(default_factory=cast("Any", data.random_event_metadata))
    observed_at: datetime = field(default_factory=_now)
    occurred_at: datetime | None = None
    tags: frozenset[str] = NO_TAGS
    version: int = 1

    def from_new_event(self, event: NewEvent[N, P, M]) -> StoredEventBuilder[N, P, M]:
        """Return a builder with all that the new event has."""
        changed = replace(
            self,
            id=event.id,
            name=event.name,
            payload=event.payload,
            metadata=event.metadata,
            observed_at=event.observed_at,
            occurred_at=event.occurred_at,
            tags=event.tags,
            version=event.version,
        )
        return cast("StoredEventBuilder[N, P, M]", changed)

    def with_id(self, id: UUID) -> Self:
        """Return a builder with this event id."""
        return replace(self, id=id)

    def with_name(self, name: N) -> StoredEventBuilder[N, Payload, Metadata]:
        """Return a builder with this event name."""
        return cast("StoredEventBuilder[N, Payload, Metadata]", replace(self, name=name))

    def with_stream(self, stream: str) -> Self:
        """Return a builder with this stream name."""
        return replace(self, stream=stream)

    def with_category(self, category: str) -> Self:
        """Return a builder with this category name."""
        return replace(self, category=category)

    def with_position(self, position: int) -> Self:
        """Return a builder with this position in the stream."""
        return replace(self, position=position)

    def with_sequence_number(self, sequence_number: int) -> Self:
        """Return a builder with this sequence number in the log."""
        return replace(self, sequence_number=sequence_number)

    def with_payload(self, payload: P) -> StoredEventBuilder[Name, P, Metadata]:
        """Return a builder with this payload."""
        return cast("StoredEventBuilder[Name, P, Metadata]", replace(self, payload=payload))

    def with_metadata(self, metadata: M) -> StoredEventBuilder[Name, Payload, M]:
        """Return a builder with this metadata."""
        return cast("StoredEventBuilder[Name, Payload, M]", replace(self, metadata=metadata))

    def with_observed_at(self, observed_at: datetime) -> Self:
        """Return a builder with this time of observation."""
        return replace(self, observed_at=observed_at)

    def with_occurred_at(self, occurred_at: datetime | None) -> Self:
        """Return a builder with this time of occurrence; None means the time of observation."""
        return replace(self, occurred_at=occurred_at)

    def with_tags(self, tags: Iterable[str]) -> Self:
        """Return a builder with these tags."""
        return replace(self, tags=frozenset(tags))

    def with_version(self, version: int) -> Self:
        """Return a builder with this version of the event's type."""
        return replace(self, version=version)

    def build(self) -> StoredEvent[Name, Payload, Metadata]:
        """Return the event."""
        return StoredEvent(
            id=self.id,
            name=self.name,
            stream=self.stream,
            category=self.category,
            position=self.position,
            sequence_number=self.sequence_number,
            payload=self.payload,
            metadata=self.metadata,
            observed_at=self.observed_at,
            occurred_at=self.observed_at if self.occurred_at is None else self.occurred_at,
            tags=self.tags,
            version=self.version,
        )


def _random_source() -> EventSourceIdentifier:
    return StreamIdentifier(data.random_event_category_name(), data.random_event_stream_name())


class BaseProjectionBuilder(ABC, Generic[State, Metadata]):
    """Builds a `Projection`; subclasses provide a random state and random metadata.

    Examples:
        class OrderProjectionBuilder(BaseProjectionBuilder[Order, None]):
            def default_state_factory(self) -> Order:
                return Order(total=data.random_int())

            def default_metadata_factory(self) -> None:
                return None
    """

    __slots__ = ("id", "metadata", "name", "source", "state")

    id: str
    name: str
    source: EventSourceIdentifier
    state: State
    metadata: Metadata

    def __init__(self) -> None:
        self._set(
            id=data.random_projection_id(),
            name=data.random_projection_name(),
            source=_random_source(),
            state=self.default_state_factory(),
            metadata=self.default_metadata_factory(),
        )

    @abstractmethod
    def default_state_factory(self) -> State:
        """Return a random state."""

    @abstractmethod
    def default_metadata_factory(self) -> Metadata:
        """Return random metadata."""

    def with_id(self, id: str) -> Self:
        """Return a builder with this projection id."""
        return self._with(id=id)

    def with_name(self, name: str) -> Self:
        """Return a builder with this projection name."""
        return self._with(name=name)

    def with_source(self, source: EventSourceIdentifier) -> Self:
        """Return a builder with this source."""
        return self._with(source=source)

    def with_state(self, state: State) -> Self:
        """Return a builder with this state."""
        return self._with(state=state)

    def with_metadata(self, metadata: Metadata) -> Self:
        """Return a builder with this metadata."""
        return self._with(metadata=metadata)

    def build(self) -> Projection[State, Metadata]:
        """Return the projection."""
        return Projection(id=self.id, name=self.name, source=self.source, state=self.state, metadata=self.metadata)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"builders are immutable: use with_{name}(), which returns a new one")

    def _with(self, **changes: object) -> Self:
        other = object.__new__(type(self))
        other._set(**{name: getattr(self, name) for name in BaseProjectionBuilder.__slots__} | changes)
        return other

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


class MappingProjectionBuilder(BaseProjectionBuilder[Mapping[str, Any], Mapping[str, Any]]):
    """Builds a projection whose state and metadata are JSON objects."""

    __slots__ = ()

    def default_state_factory(self) -> Mapping[str, Any]:
        """Return an object of one to ten strings."""
        return data.random_projection_state()

    def default_metadata_factory(self) -> Mapping[str, Any]:
        """Return an object of one to ten strings."""
        return data.random_projection_metadata()

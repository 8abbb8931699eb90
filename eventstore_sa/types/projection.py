"""A projection: the state that a projector has built from the events of one source, as a value.

Building projections is the business of `eventstore_sa.projection`, storing them that of its stores: nothing here
does I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeAlias

from msgspec import Struct
from typing_extensions import TypeVar

from eventstore_sa.types.conversion import (
    DeserialisationFallback,
    default_deserialisation_fallback,
    default_serialisation_fallback,
    deserialise_from_json_value,
    serialise_to_json_value,
)
from eventstore_sa.types.identifiers import EventSourceIdentifier, check_name
from eventstore_sa.types.json import JsonValue, JsonValueType

__all__ = ["Projectable", "Projection", "deserialise_projection", "serialise_projection"]

Projectable: TypeAlias = EventSourceIdentifier
"""What can be projected: anything that events are read from."""

State = TypeVar("State", covariant=True, default=JsonValue)
Metadata = TypeVar("Metadata", covariant=True, default=JsonValue)
WantedState = TypeVar("WantedState", default=Any)
WantedMetadata = TypeVar("WantedMetadata", default=Any)


class Projection(Struct, Generic[State, Metadata], frozen=True, kw_only=True):
    """The state of a projection, and where it came from.

    Two projections are equal when all their fields but the version are; the hash is that of name and id, which are its
    key.

    Args:
        id: Which projection of that name; not empty, at most 1000 bytes in UTF-8.
        name: The name of the projector; the same rules.
        source: What was projected.
        state: What came out.
        metadata: What the projector noted about it.
        version: How often it had been saved when it was loaded; None if it was not loaded from a store.

    Raises:
        SerialisationError: The id or name cannot be stored.
    """

    id: str
    name: str
    source: Projectable
    state: State
    metadata: Metadata
    version: int | None = None

    def __post_init__(self) -> None:
        check_name("projection id's", self.id)
        check_name("projection", self.name)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        ours, theirs = ((it.id, it.name, it.source, it.state, it.metadata) for it in (self, other))
        return ours == theirs

    def __hash__(self) -> int:
        return hash((self.name, self.id))

    def serialise(self, fallback: Callable[[object], Any] = default_serialisation_fallback) -> dict[str, JsonValue]:
        """Return all fields as JSON.

        Args:
            fallback: Called with each part of state or metadata that has no JSON form.
        """
        return self.summarise(fallback) | {
            "state": serialise_to_json_value(self.state, fallback),
            "metadata": serialise_to_json_value(self.metadata, fallback),
        }

    def summarise(self, fallback: Callable[[object], Any] = default_serialisation_fallback) -> dict[str, JsonValue]:
        """Return what `serialise` does without state and metadata: what may be logged."""
        return {"id": self.id, "name": self.name, "source": self.source.serialise(fallback)}


def serialise_projection(
    projection: Projection[Any, Any], fallback: Callable[[object], Any] = default_serialisation_fallback
) -> Projection[JsonValue, JsonValue]:
    """Return the projection with its state and metadata as JSON.

    Raises:
        SerialisationError: Something has no JSON form and the fallback raises.
    """
    return Projection(
        id=projection.id,
        name=projection.name,
        source=projection.source,
        state=serialise_to_json_value(projection.state, fallback),
        metadata=serialise_to_json_value(projection.metadata, fallback),
        version=projection.version,
    )


def deserialise_projection(
    projection: Projection[JsonValue, JsonValue],
    state_type: type[WantedState] = JsonValueType,
    metadata_type: type[WantedMetadata] = JsonValueType,
    state_fallback: DeserialisationFallback = default_deserialisation_fallback,
    metadata_fallback: DeserialisationFallback = default_deserialisation_fallback,
) -> Projection[WantedState, WantedMetadata]:
    """Return the projection with its state and metadata made into the types that are wanted.

    Args:
        projection: One with state and metadata as JSON.
        state_type: The type of the state.
        metadata_type: The type of the metadata.
        state_fallback: Called with each type, and the value it cannot be made from, that occur in the state.
        metadata_fallback: The same for the metadata.

    Raises:
        SerialisationError: A conversion is impossible and the fallback raises.
    """
    return Projection(
        id=projection.id,
        name=projection.name,
        source=projection.source,
        state=deserialise_from_json_value(state_type, projection.state, state_fallback),
        metadata=deserialise_from_json_value(metadata_type, projection.metadata, metadata_fallback),
        version=projection.version,
    )

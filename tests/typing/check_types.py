"""What mypy --strict and pyright strict must infer about events, builders and projections. Never run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_type
from uuid import UUID

from eventstore_sa.testing.builders import MappingProjectionBuilder, NewEventBuilder, StoredEventBuilder
from eventstore_sa.types import (
    EventSequenceIdentifier,
    JsonValue,
    LogIdentifier,
    NewEvent,
    Projection,
    StoredEvent,
    deserialise_from_json_value,
    deserialise_projection,
    is_json_object,
    target,
)


class Total:
    cents: int


def new_events_infer_all_three_parameters(id: UUID) -> None:
    counts = {"a": 1}
    assert_type(NewEvent(name="placed", payload=counts), NewEvent[str, dict[str, int], None])
    assert_type(NewEvent(name="placed", payload=counts, id=id), NewEvent[str, dict[str, int], None])
    assert_type(NewEvent(name="placed", payload=counts, metadata=["m"]), NewEvent[str, dict[str, int], list[str]])
    assert_type(NewEvent(name="placed", payload=Total()).payload, Total)


def parameters_default_to_what_needs_no_narrowing(new: NewEvent, stored: StoredEvent, projection: Projection) -> None:
    assert_type(new, NewEvent[str, Any, Any])
    assert_type(stored, StoredEvent[str, Any, Any])
    assert_type(projection, Projection[JsonValue, JsonValue])


def specific_events_pass_for_general_ones(specific: NewEvent[str, dict[str, int], None]) -> Sequence[NewEvent]:
    return [specific]


def fields_cannot_be_set(event: NewEvent, stored: StoredEvent) -> None:
    event.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    stored.position = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def new_events_take_keywords_only() -> None:
    NewEvent("placed", {})  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def identifiers_have_their_own_types() -> None:
    assert_type(target(category="orders"), EventSequenceIdentifier)
    assert_type(LogIdentifier(), LogIdentifier)


def deserialising_gives_the_class_asked_for(stored: Projection, value: object) -> None:
    assert_type(deserialise_from_json_value(Total, value), Total)
    assert_type(deserialise_projection(stored, Total, Total), Projection[Total, Total])
    if is_json_object(value):
        item: JsonValue = value["a"]
        print(item)


def builders_follow_what_they_are_given() -> None:
    assert_type(NewEventBuilder().with_payload(Total()).build(), NewEvent[str, Total, JsonValue])
    assert_type(
        StoredEventBuilder().from_new_event(NewEvent(name="placed", payload=1)).build(), StoredEvent[str, int, None]
    )
    assert_type(MappingProjectionBuilder().build(), Projection[Mapping[str, Any], Mapping[str, Any]])

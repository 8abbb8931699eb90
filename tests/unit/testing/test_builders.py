"""Builders: random by default, immutable, repeatable."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from eventstore_sa.testing import data
from eventstore_sa.testing.builders import (
    BaseProjectionBuilder,
    MappingProjectionBuilder,
    NewEventBuilder,
    StoredEventBuilder,
)
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import LogIdentifier, NewEvent, Projection, StoredEvent, StreamIdentifier

WHEN = datetime(2024, 1, 2, tzinfo=UTC)
EVENT_CHANGES: dict[str, Any] = {
    "id": uuid4(),
    "name": "placed",
    "payload": {"a": 1},
    "metadata": None,
    "observed_at": WHEN,
    "occurred_at": WHEN,
    "tags": frozenset({"course:c1"}),
    "version": 2,
}
CHANGES: dict[Callable[[], Any], dict[str, Any]] = {
    NewEventBuilder: EVENT_CHANGES,
    StoredEventBuilder: EVENT_CHANGES | {"stream": "42", "category": "orders", "position": 3, "sequence_number": 17},
    MappingProjectionBuilder: {
        "id": "1",
        "name": "total",
        "source": LogIdentifier(),
        "state": {"a": 1},
        "metadata": {},
    },
}
BUILT = {NewEventBuilder: NewEvent, StoredEventBuilder: StoredEvent, MappingProjectionBuilder: Projection}
EACH = pytest.mark.parametrize("builder", list(CHANGES))


@EACH
def test_each_field_can_be_set_and_no_other_changes(builder: Any) -> None:
    start = builder()
    for field, value in CHANGES[builder].items():
        before, after = start.build(), getattr(start, f"with_{field}")(value).build()
        changed = {name for name in before.__struct_fields__ if getattr(before, name) != getattr(after, name)}
        assert getattr(after, field) == value
        # Events happen when they are recorded unless said otherwise.
        assert changed - {"occurred_at"} == {field} - {"occurred_at"}
        assert before == start.build()


@EACH
def test_every_field_of_what_is_built_can_be_set(builder: Any) -> None:
    # That of a stored projection is for stores to give.
    given_by_stores = {"version"} if builder is MappingProjectionBuilder else set()
    assert set(CHANGES[builder]) == set(BUILT[builder].__struct_fields__) - given_by_stores
    assert type(builder().build()) is BUILT[builder]


@EACH
def test_defaults_are_random_and_builds_repeat(builder: Any) -> None:
    one, other = builder(), builder()
    assert one.build() == one.build()
    for field in ("id", "name"):
        assert getattr(one.build(), field) != getattr(other.build(), field)


@EACH
def test_builders_are_immutable(builder: Any) -> None:
    with pytest.raises(AttributeError):
        builder().name = "other"


def test_times_of_events_agree_by_default() -> None:
    for event in (
        NewEventBuilder().with_observed_at(WHEN).build(),
        StoredEventBuilder().with_observed_at(WHEN).build(),
    ):
        assert event.observed_at == event.occurred_at == WHEN


def test_a_stored_event_follows_the_new_one() -> None:
    new = NewEventBuilder().with_occurred_at(WHEN).build()

    stored = StoredEventBuilder().with_position(3).from_new_event(new).build()

    assert stored.position == 3
    for field in NewEvent.__struct_fields__:
        assert getattr(stored, field) == getattr(new, field)


def test_projection_builders_are_made_for_own_states() -> None:
    class CountBuilder(BaseProjectionBuilder[int, None]):
        def default_state_factory(self) -> int:
            return 7

        def default_metadata_factory(self) -> None:
            return None

    built = CountBuilder().with_name("count").build()
    assert (built.name, built.state, built.metadata) == ("count", 7, None)
    assert isinstance(built.source, StreamIdentifier)
    with pytest.raises(TypeError):
        BaseProjectionBuilder()  # type: ignore[abstract]


@in_turn("name", data.__all__)
def test_every_random_function_gives_something_of_its_promised_type(name: str) -> None:
    function = getattr(data, name)
    arguments = ("ab",) if name == "random_string" else ()
    value = function(*arguments)
    promised = function.__annotations__["return"].split("[")[0]
    assert type(value).__name__ == promised


def test_strings_have_the_length_and_letters_asked_for() -> None:
    for length in (0, 1, 2, 3, 50):
        hyphenated = data.random_hyphenated_lowercase_ascii_alphabetics_string(length)
        assert len(hyphenated) == length
        assert hyphenated.strip("-") == hyphenated
        assert set(data.random_string("ab", length)) <= {"a", "b"}
        assert len(data.random_string("ab", length)) == length
    assert data.random_lowercase_ascii_alphabetics_string(30).islower()
    assert data.random_uppercase_ascii_alphabetics_string(30).isupper()
    assert data.random_ascii_alphanumerics_string(30).isalnum()


def test_integers_keep_to_their_bounds() -> None:
    assert {data.random_int(1, 3) for _ in range(200)} == {1, 2, 3}


def test_ids_stay_unique_when_random_is_seeded() -> None:
    ids = set()
    for _ in range(2):
        random.seed(1)
        ids.add(data.random_event_id())
    assert len(ids) == 2

"""Events are checked once they exist, immutable, and carry the caller's own objects."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from eventstore_sa.errors import SerialisationError
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import (
    NewEvent,
    StaticClock,
    StoredEvent,
    SystemClock,
    TimezoneRequiredStaticClock,
    str_serialisation_fallback,
)

NOW = datetime(2024, 5, 6, 7, 8, 9, 10, UTC)
LATER = NOW + timedelta(hours=1)
ID = UUID("01900000-0000-7000-8000-000000000001")


def new_event(**changes: Any) -> NewEvent[Any, Any, Any]:
    return NewEvent(**({"name": "placed", "payload": {"a": 1}, "id": ID, "observed_at": NOW} | changes))


def stored_event(**changes: Any) -> StoredEvent[Any, Any, Any]:
    event = StoredEvent(ID, "placed", "42", "orders", 3, 17, {"a": 1}, None, NOW, LATER)
    return replace(event, **changes)


def test_times_default_to_the_clock_in_utc() -> None:
    clock = TimezoneRequiredStaticClock(NOW.astimezone(timezone(timedelta(hours=5))))

    event = NewEvent(name="placed", payload=None, clock=clock)

    assert (event.observed_at, event.occurred_at) == (NOW, NOW)
    assert event.observed_at.tzinfo is UTC


def test_occurred_at_defaults_to_observed_at_and_never_the_other_way_round() -> None:
    clock = StaticClock(NOW)
    assert NewEvent(name="n", payload=None, observed_at=LATER, clock=clock).occurred_at == LATER
    assert NewEvent(name="n", payload=None, occurred_at=LATER, clock=clock).observed_at == NOW
    both = NewEvent(name="n", payload=None, observed_at=LATER, occurred_at=NOW)
    assert (both.observed_at, both.occurred_at) == (LATER, NOW)


def test_the_system_clock_is_the_default() -> None:
    before = SystemClock().now(UTC)
    assert before <= NewEvent(name="n", payload=None).observed_at <= SystemClock().now(UTC)


def test_ids_are_new_and_of_version_7_unless_given() -> None:
    first, second = NewEvent(name="n", payload=None), NewEvent(name="n", payload=None)
    assert first.id.version == second.id.version == 7
    assert first.id < second.id
    assert new_event().id is ID


def test_events_carry_the_very_objects_of_the_caller() -> None:
    payload, metadata = object(), [1]
    event = new_event(payload=payload, metadata=metadata)
    assert event.payload is payload
    assert event.metadata is metadata
    assert new_event().metadata is None


class Name(StrEnum):
    PLACED = "placed"


class Bad(Enum):
    NUMBER = 1
    EMPTY = ""


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "must not be empty"),
    ({"name": "a\0"}, "NUL"),
    ({"name": "a\ud800"}, "surrogate"),
    ({"name": 5}, "int"),
    ({"name": Bad.NUMBER}, "Bad"),
    ({"name": Bad.EMPTY}, "must not be empty"),
    ({"id": str(ID)}, r"UUID\(\.\.\.\)"),
    ({"id": 1}, r"UUID\(\.\.\.\)"),
    ({"observed_at": datetime(2024, 1, 1)}, r"observed_at is the naive.*datetime\.now\(UTC\)"),
    ({"occurred_at": datetime(2024, 1, 1)}, r"occurred_at is the naive.*datetime\.now\(UTC\)"),
    ({"observed_at": "2024-01-01T00:00:00Z"}, "observed_at must be a datetime, not str"),
    ({"occurred_at": date(2024, 1, 1)}, "occurred_at must be a datetime, not date"),
    ({"tags": "course:c1"}, r"tags=\{'course:c1'\}"),
    ({"tags": 5}, "got int"),
    ({"tags": {5}}, "tag name must be a str, not int"),
    ({"tags": {""}}, "a tag must not be empty"),
    ({"tags": {"a\0"}}, "NUL"),
    ({"tags": {"a\ud800"}}, "surrogate"),
    ({"tags": {"é" * 501}}, "1002 bytes"),
    ({"tags": {str(number) for number in range(101)}}, "101 tags, more than 100"),
    ({"tags": {"course:c1"}, "name": "é" * 501}, "name of an event with tags may be 1000 bytes"),
    ({"version": 0}, "1 or more.*got 0"),
    ({"version": 2**31}, "below"),
    ({"version": True}, "got True"),
    ({"version": "1"}, "got '1'"),
    ({"version": None}, "got None"),
]


@in_turn("fields, reason", WRONG)
def test_wrong_fields_are_refused_however_the_event_is_made(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(SerialisationError, match=reason):
        new_event(**fields)
    with pytest.raises(SerialisationError, match=reason):
        replace(new_event(), **fields)


class Tag(StrEnum):
    COURSE = "course:c1"


@in_turn("tags", [{"course:c1"}, ["course:c1", "course:c1"], iter(["course:c1"]), {"course:c1": 1}, {Tag.COURSE}])
def test_tags_are_any_collection_of_strings_and_become_a_set(tags: Any) -> None:
    event = new_event(tags=tags)
    assert event.tags == frozenset({"course:c1"})
    assert {type(tag) for tag in event.tags} == {str}


@in_turn("tags", [(), [], set(), frozenset(), {}])
def test_events_without_tags_share_the_empty_set(tags: Any) -> None:
    assert new_event(tags=tags).tags is new_event().tags is stored_event().tags


def test_a_clock_without_time_zone_is_refused() -> None:
    class Careless:
        def now(self, tz: Any = None) -> datetime:
            return datetime(2024, 1, 1)

    with pytest.raises(SerialisationError, match="naive"):
        NewEvent(name="n", payload=None, clock=Careless())


def test_names_may_be_enum_members_or_objects_that_stand_for_a_string() -> None:
    class Versioned:
        def serialise(self) -> str:
            return "placed-v2"

    assert new_event(name=Name.PLACED).summarise()["name"] == "placed"
    assert new_event(name=Versioned()).summarise()["name"] == "placed-v2"


def test_all_but_name_and_payload_are_optional_and_all_are_keywords() -> None:
    with pytest.raises(TypeError):
        NewEvent(name="n")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        NewEvent("n", {})  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        NewEvent(name="n", payload=1, other=2)  # type: ignore[call-overload]


@in_turn("make", [new_event, stored_event])
def test_events_are_values(make: Any) -> None:
    event = make()
    assert event == make()
    assert hash(event) == hash(make()) == hash(ID)
    assert event != make(payload={"a": 2})
    assert event != make(name="other")
    assert event != make(occurred_at=NOW + timedelta(days=1))
    assert len({event, make(), make(payload={"a": 2})}) == 2
    with pytest.raises(AttributeError):
        event.name = "other"
    for twin in (pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event), replace(event)):
        assert twin == event
        assert type(twin) is type(event)
    assert "name='placed'" in repr(event)


def test_events_of_different_classes_are_never_equal() -> None:
    class Special(StoredEvent[str, Any, Any], frozen=True):
        pass

    special = Special(ID, "placed", "42", "orders", 3, 17, {"a": 1}, None, NOW, LATER)
    assert special != stored_event()
    assert new_event() != stored_event()


def test_subclasses_of_new_event_keep_the_defaults() -> None:
    class Placed(NewEvent[str, Any, Any], frozen=True, kw_only=True):
        pass

    assert Placed(name="n", payload=1).id.version == 7


def test_stored_events_have_their_fields_in_the_agreed_order() -> None:
    assert StoredEvent.__struct_fields__ == (
        "id",
        "name",
        "stream",
        "category",
        "position",
        "sequence_number",
        "payload",
        "metadata",
        "observed_at",
        "occurred_at",
        "tags",
        "version",
    )


def test_serialised_events_are_json_of_all_fields() -> None:
    times = {"observed_at": "2024-05-06T07:08:09.000010+00:00", "occurred_at": "2024-05-06T08:08:09.000010+00:00"}
    new = new_event(occurred_at=LATER, metadata={"by": ID}, tags={"student:s1", "course:c1"}, version=2)
    assert new.serialise() == {
        "id": str(ID),
        "name": "placed",
        "payload": {"a": 1},
        "metadata": {"by": str(ID)},
        "tags": ["course:c1", "student:s1"],
        "version": 2,
        **times,
    }
    assert stored_event(payload=(1e300,)).serialise() == {
        "id": str(ID),
        "name": "placed",
        "stream": "42",
        "category": "orders",
        "position": 3,
        "sequence_number": 17,
        "payload": [1e300],
        "metadata": None,
        "tags": [],
        "version": 1,
        **times,
    }
    assert json.loads(json.dumps(new.serialise())) == new.serialise()


@in_turn("make", [new_event, stored_event])
def test_summaries_leave_out_payload_and_metadata(make: Any) -> None:
    event = make(payload=object(), metadata=object())
    full = make().serialise()
    assert event.summarise() == {key: full[key] for key in full if key not in ("payload", "metadata")}


@in_turn("make", [new_event, stored_event])
def test_serialising_the_unserialisable_raises_unless_a_fallback_is_given(make: Any) -> None:
    event = make(payload={"x": {1}})
    with pytest.raises(SerialisationError, match="set"):
        event.serialise()
    assert event.serialise(str_serialisation_fallback)["payload"] == {"x": "{1}"}


def test_mistaken_arguments_are_reported_in_terms_of_new_event() -> None:
    make: Any = NewEvent

    with pytest.raises(TypeError, match=r"^NewEvent\(\) takes 1 positional argument"):
        make("placed")
    with pytest.raises(SerialisationError, match="the name of an event must not be None"):
        make(name=None, payload=None)

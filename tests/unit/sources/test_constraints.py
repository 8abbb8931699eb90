"""Constraints are values, refuse what makes no sense, and say of each event whether it meets them."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from eventstore_sa import constraints as exported
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.sources.constraints import (
    NameInConstraint,
    QueryConstraint,
    correlation_is,
    name_in,
    observed_between,
    occurred_between,
    order_range,
    position_after,
    position_before,
    sequence_number_after,
    sequence_number_before,
)
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import StoredEvent

MOMENT = datetime(2024, 2, 29, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


class Name(Enum):
    PLACED = "placed"


def event(**fields: Any) -> StoredEvent[Any, Any, Any]:
    values: dict[str, Any] = {
        "id": UUID(int=1),
        "name": "placed",
        "stream": "42",
        "category": "orders",
        "position": 3,
        "sequence_number": 10,
        "payload": None,
        "metadata": {"correlation_id": "c"},
        "observed_at": MOMENT,
        "occurred_at": MOMENT,
    }
    return StoredEvent(**(values | fields))


@in_turn(
    "constraint, met",
    [
        (sequence_number_after(9), True),
        (sequence_number_after(10), False),
        (sequence_number_before(11), True),
        (sequence_number_before(10), False),
        (position_after(2), True),
        (position_after(3), False),
        (position_before(4), True),
        (position_before(3), False),
        (name_in(["placed"]), True),
        (name_in(["paid", Name.PLACED]), True),
        (name_in(["Placed"]), False),
        (name_in([]), False),
        (correlation_is("c"), True),
        (correlation_is("C"), False),
        (occurred_between(MOMENT, None), True),
        (occurred_between(MOMENT + TICK, None), False),
        (occurred_between(None, MOMENT), False),
        (occurred_between(None, MOMENT + TICK), True),
        (occurred_between(None, None), True),
        (observed_between(MOMENT, MOMENT + TICK), True),
        (observed_between(MOMENT, MOMENT), False),
        (observed_between(MOMENT.astimezone(timezone(timedelta(hours=14))), None), True),
    ],
)
def test_constraints_say_what_meets_them(constraint: QueryConstraint, met: bool) -> None:
    assert constraint.met_by(event=event()) is met


def test_the_two_times_of_an_event_are_told_apart() -> None:
    later = event(occurred_at=MOMENT + timedelta(days=1))

    assert observed_between(MOMENT, MOMENT + TICK).met_by(event=later)
    assert not occurred_between(MOMENT, MOMENT + TICK).met_by(event=later)


def test_correlation_ids_are_texts_in_a_mapping() -> None:
    for metadata in (None, "c", ["c"], {}, {"correlation_id": ["c"]}, {"correlation_id": None}):
        assert not correlation_is("c").met_by(event=event(metadata=metadata))
    with pytest.raises(ConfigurationError, match="correlation_is takes a str; got UUID"):
        correlation_is(UUID(int=1))  # type: ignore[arg-type]


def test_names_that_are_objects_are_compared_as_they_are_stored() -> None:
    assert name_in(["placed"]).met_by(event=event(name=Name.PLACED))


def test_constraints_are_immutable_values() -> None:
    for make in (
        lambda: sequence_number_after(1),
        lambda: position_before(1),
        lambda: name_in(["a", "b"]),
        lambda: occurred_between(MOMENT, None),
    ):
        constraint: Any = make()
        assert constraint == make()
        assert len({constraint, make(), pickle.loads(pickle.dumps(constraint))}) == 1
        with pytest.raises(AttributeError):
            constraint.anything = 1
    assert sequence_number_after(1) != position_after(1)
    assert occurred_between(MOMENT, None) != observed_between(MOMENT, None)
    assert name_in(iter(["a", "b", "a"])) == NameInConstraint(frozenset({"b", "a"}))


@in_turn("factory", [sequence_number_after, sequence_number_before, position_after, position_before])
@in_turn("number", [None, True, 1.0, "1"])
def test_numbers_that_are_none_are_refused(factory: Any, number: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{factory.__name__} takes an integer"):
        factory(number)


@in_turn("factory", [occurred_between, observed_between])
@in_turn(
    "moment, reason",
    [
        (datetime(2024, 1, 1), "naive"),
        ("2024-01-01", "got str"),
        (MOMENT.date(), "got date"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "years 1 to 9999"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "years 1 to 9999"),
    ],
)
def test_times_that_mean_no_moment_are_refused(factory: Any, moment: Any, reason: str) -> None:
    for arguments in ((moment, None), (None, moment)):
        with pytest.raises(ConfigurationError, match=f"{factory.__name__} .*{reason}"):
            factory(*arguments)


def test_a_single_name_and_too_many_names_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"name_in\(\['placed'\]\)"):
        name_in("placed")
    with pytest.raises(ConfigurationError, match="at most 10000 names, not 10001"):
        name_in(map(str, range(10_001)))
    assert name_in(map(str, range(10_000)))


def test_only_the_built_in_constraints_on_the_order_of_a_read_are_its_bounds() -> None:
    class Odd(type(sequence_number_after(1)), frozen=True):  # type: ignore[misc]
        pass

    numbers = [sequence_number_after(3), sequence_number_after(2), sequence_number_before(9), sequence_number_before(8)]
    positions = [position_after(3), position_after(2), position_before(9), position_before(8)]
    others = [name_in([]), Odd(3)]

    assert order_range([*numbers, *others, *positions], by_position=False) == (3, 7, [*others, *positions])
    assert order_range([*numbers, *others, *positions], by_position=True) == (3, 7, [*numbers, *others])
    assert order_range(others, by_position=True) == (None, None, others)


def test_all_factories_are_exported() -> None:
    for factory in (
        *(sequence_number_after, sequence_number_before, position_after, position_before),
        *(name_in, occurred_between, observed_between),
    ):
        assert getattr(exported, factory.__name__) is factory

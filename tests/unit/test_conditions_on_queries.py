"""Conditions on events of queries are values that combine with those on positions, and reduce to few alternatives."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from eventstore_sa.conditions import (
    ANY_POSITION,
    Alternative,
    AndCondition,
    NoCondition,
    NoEventMatchesCondition,
    WriteCondition,
    alternatives,
    no_event_matches,
    position_is,
    stream_exists,
    stream_is_empty,
)
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.store.adapters import check_conditions, publications
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import EventQuery, QueryItem, StreamIdentifier

A_ITEM, B_ITEM = QueryItem(tags=["a"]), QueryItem(tags=["b"])
A = NoEventMatchesCondition(A_ITEM)
B = NoEventMatchesCondition(B_ITEM, 7)


def ways(*expected: tuple[set[Any], Any]) -> set[Alternative]:
    return {Alternative(allowed, frozenset(absent)) for absent, allowed in expected}


@in_turn(
    "condition, expected",
    [
        (A, ways(({A}, ANY_POSITION))),
        (A & B, ways(({A, B}, ANY_POSITION))),
        (A | B, ways(({A}, ANY_POSITION), ({B}, ANY_POSITION))),
        (A & A, ways(({A}, ANY_POSITION))),
        (A & position_is(3), ways(({A}, ((3, 3),)))),
        (A & stream_is_empty() & stream_exists(), ways()),
        (A | position_is(3), ways(({A}, ANY_POSITION), (set(), ((3, 3),)))),
        ((A & position_is(3)) | (A & position_is(4)), ways(({A}, ((3, 4),)))),
        (
            (A | stream_is_empty()) & (B | stream_exists()),
            ways(({A, B}, ANY_POSITION), ({A}, ((0, None),)), ({B}, ((-1, -1),))),
        ),
        (A | NoCondition(), ways(({A}, ANY_POSITION), (set(), ANY_POSITION))),
        (position_is(3) | position_is(5), ways((set(), ((3, 3), (5, 5))))),
    ],
)
def test_combinations_reduce_to_alternatives(condition: WriteCondition, expected: set[Alternative]) -> None:
    assert set(alternatives(condition)) == expected


def test_one_number_serves_one_item() -> None:
    several = EventQuery([A_ITEM, B_ITEM])

    assert no_event_matches(EventQuery([A_ITEM])) == A
    assert no_event_matches(EventQuery([B_ITEM]), after=7) == B
    assert no_event_matches(several) == AndCondition.of(A, NoEventMatchesCondition(B_ITEM))
    with pytest.raises(ConfigurationError, match="one number cannot serve 2 items"):
        no_event_matches(several, after=7)


@in_turn("after", [-1, 1.0, True, "1"])
def test_what_is_no_number_is_refused(after: Any) -> None:
    with pytest.raises(ConfigurationError, match="sequence number"):
        no_event_matches(EventQuery([A_ITEM]), after=after)


def test_what_is_no_query_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="got QueryItem"):
        no_event_matches(A_ITEM)  # type: ignore[arg-type]


def test_too_many_alternatives_are_refused() -> None:
    condition: WriteCondition = NoCondition()
    for number in range(7):
        one, other = (NoEventMatchesCondition(A_ITEM, 2 * number + more) for more in (0, 1))
        condition = condition & (one | other)

    with pytest.raises(ConfigurationError, match="more than 64 ways"):
        alternatives(condition)


def test_storage_that_knows_positions_alone_refuses_conditions_on_queries() -> None:
    def publish_if(condition: WriteCondition) -> None:
        parts = publications(target=StreamIdentifier("orders", "42"), events=[], condition=condition)
        check_conditions(parts, lambda _: 3)

    publish_if(position_is(3))
    with pytest.raises(ConfigurationError, match="cannot check conditions on events of queries: no event tagged 'a'"):
        publish_if(A & position_is(3))


def test_conditions_on_queries_are_values_and_say_what_they_demand() -> None:
    assert pickle.loads(pickle.dumps(A & B)) == B & A
    assert A.describe() == "no event tagged 'a'"
    assert NoEventMatchesCondition(QueryItem(names=["x", "y"], tags=["a", "b"]), 5).describe() == (
        "no event 'x' or 'y' tagged 'a' and 'b' after number 5"
    )
    assert no_event_matches(EventQuery.all()).describe() == "no event"

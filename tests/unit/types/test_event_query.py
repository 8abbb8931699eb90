"""Queries mean what the specification says, are equal when their content is, and refuse what no event could have."""

from __future__ import annotations

import copy
import pickle
from enum import StrEnum
from typing import Any, NamedTuple

import pytest

from eventstore_sa.errors import ConfigurationError, SerialisationError
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import (
    MAX_QUERY_ITEMS,
    MAX_QUERY_NAMES,
    MAX_TAGS,
    EventQuery,
    LogIdentifier,
    QueryItem,
    QueryPartitionIdentifier,
    StreamIdentifier,
    event_source_identifier,
    partition_of,
    query_of,
)


class Event(NamedTuple):
    name: Any
    tags: frozenset[str]


class Name(StrEnum):
    ADDED = "course-added"


def event(name: object, *tags: str) -> Event:
    return Event(name, frozenset(tags))


COURSE = QueryItem(tags=["course:c1"])
SUBSCRIPTION = QueryItem(names=["subscribed", "left"], tags=["course:c1", "student:s1"])


@in_turn(
    "query, matching, other",
    [
        (
            EventQuery([COURSE]),
            [event("anything", "course:c1"), event("x", "course:c1", "student:s9")],
            [event("x"), event("x", "course:c2"), event("x", "course:C1"), event("course:c1")],
        ),
        (
            EventQuery([SUBSCRIPTION]),
            [event("left", "student:s1", "course:c1"), event("subscribed", "course:c1", "student:s1", "term:1")],
            [event("moved", "course:c1", "student:s1"), event("left", "course:c1"), event("left", "student:s1")],
        ),
        (
            EventQuery([SUBSCRIPTION, QueryItem(names=["closed"])]),
            [event("closed"), event("closed", "course:c1"), event("left", "course:c1", "student:s1")],
            [event("left"), event("Closed", "course:c1")],
        ),
        (EventQuery([QueryItem(names=[Name.ADDED])]), [event("course-added"), event(Name.ADDED)], [event("added")]),
        (EventQuery.tagged("a", "b"), [event("x", "a", "b", "c")], [event("x", "a"), event("x", "b")]),
        (EventQuery.all(), [event("x"), event("y", "course:c1")], []),
        (EventQuery([QueryItem()]), [event("x"), event("y", "course:c1")], []),
    ],
)
def test_names_are_alternatives_tags_are_all_needed_and_items_are_alternatives(
    query: EventQuery, matching: list[Event], other: list[Event]
) -> None:
    assert all(query.met_by(event=each) for each in matching)
    assert not any(query.met_by(event=each) for each in other)


def test_queries_are_values_whatever_order_their_parts_are_given_in() -> None:
    query = EventQuery([COURSE, SUBSCRIPTION])
    same = EventQuery(
        iter(
            [
                QueryItem(names=("left", "subscribed", "left"), tags={"student:s1", "course:c1"}),
                QueryItem(tags=frozenset(["course:c1"])),
                COURSE,
            ]
        )
    )

    assert query == same
    assert hash(query) == hash(same)
    assert query.items == same.items
    assert query.json() == same.json()
    assert query != EventQuery([COURSE])
    for twin in (pickle.loads(pickle.dumps(query)), copy.copy(query), copy.deepcopy(query)):
        assert twin == query
    with pytest.raises(AttributeError):
        query.items = ()  # type: ignore[misc]


def test_queries_serialise_and_read_back() -> None:
    query = EventQuery([SUBSCRIPTION, COURSE, QueryItem(names=["später"])])

    serialised = query.serialise()

    assert serialised == {
        "type": "query",
        "items": [
            {"names": ["später"], "tags": []},
            {"names": [], "tags": ["course:c1"]},
            {"names": ["left", "subscribed"], "tags": ["course:c1", "student:s1"]},
        ],
    }
    assert EventQuery.deserialise(serialised) == query


@in_turn(
    "serialised",
    [
        {},
        {"type": "log"},
        {"type": "query"},
        {"type": "query", "items": [], "more": 1},
        {"type": "query", "items": [{}]},
        {"type": "query", "items": [{"names": [], "tags": [], "more": []}]},
        {"type": "query", "items": [{"names": "left", "tags": []}]},
        {"type": "query", "items": "left"},
    ],
)
def test_what_is_no_serialised_query_is_refused(serialised: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="serialised query"):
        EventQuery.deserialise(serialised)


@in_turn(
    "names, tags, error, says",
    [
        ("left", (), ConfigurationError, r"names=\['left'\]"),
        (3, (), ConfigurationError, "got int"),
        ([""], (), SerialisationError, "empty"),
        (["a\0"], (), SerialisationError, "NUL"),
        ([object()], (), SerialisationError, "object"),
        (map(str, range(MAX_QUERY_NAMES + 1)), (), ConfigurationError, "at most 1000 names"),
        ((), "course:c1", SerialisationError, "tags={'course:c1'}"),
        ((), 3, SerialisationError, "got int"),
        ((), [3], SerialisationError, "must be a str"),
        ((), [""], SerialisationError, "empty"),
        ((), ["\ud800"], SerialisationError, "surrogate"),
        ((), ["é" * 501], SerialisationError, "1002 bytes"),
        ((), map(str, range(MAX_TAGS + 1)), SerialisationError, "more than 100"),
    ],
)
def test_items_refuse_what_no_event_could_have(names: Any, tags: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        QueryItem(names=names, tags=tags)


@in_turn(
    "items, says",
    [
        ([], r"EventQuery\.all\(\)"),
        (COURSE, "even a single one"),
        (None, "got NoneType"),
        (["course:c1"], "got str"),
        ([QueryItem(tags=[str(n)]) for n in range(MAX_QUERY_ITEMS + 1)], "at most 100 items"),
    ],
)
def test_queries_refuse_what_is_no_list_of_items(items: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        EventQuery(items)


def test_query_by_tags_needs_a_tag() -> None:
    with pytest.raises(ConfigurationError, match="needs a tag"):
        EventQuery.tagged()


def test_subclasses_of_str_become_plain_strings() -> None:
    item = QueryItem(names=[Name.ADDED], tags=[Name.ADDED])

    assert {type(text) for text in (*item.names, *item.tags)} == {str}


QUERY = EventQuery([COURSE, SUBSCRIPTION])
PART = QueryPartitionIdentifier(QUERY, 1, 3)


def test_a_part_of_a_query_is_a_value_that_covers_whole_streams() -> None:
    assert PART == copy.deepcopy(PART) == pickle.loads(pickle.dumps(PART))
    assert len({PART, QueryPartitionIdentifier(QUERY, 1, 3), QueryPartitionIdentifier(QUERY, 2, 3)}) == 2
    for name in map(str, range(20)):
        assert PART.covers(StreamIdentifier("orders", name)) == (partition_of("orders", name, 3) == 1)
    with pytest.raises(ValueError, match="no partition 3 of 3"):
        QueryPartitionIdentifier(QUERY, 3, 3)


@in_turn("identifier", [QUERY, PART, LogIdentifier(), StreamIdentifier("orders", "1")])
def test_identifiers_of_all_sources_are_read_back(identifier: Any) -> None:
    assert event_source_identifier(identifier.serialise()) == identifier


@in_turn(
    "serialised",
    [
        {"type": "query"},
        {"type": "query-partition", "query": QUERY.serialise(), "partition": 3, "partitions": 3},
        {"type": "query-partition", "query": QUERY.serialise(), "partition": 1},
        {"type": "query-partition", "query": {"type": "log"}, "partition": 1, "partitions": 3},
        {"type": "query-partition", "query": QUERY.serialise(), "partition": 1, "partitions": 3, "more": 1},
        {"type": "unknown"},
        {},
    ],
)
def test_what_is_no_identifier_is_not_read(serialised: Any) -> None:
    with pytest.raises(ValueError, match=r"query|partition|identifier"):
        event_source_identifier(serialised)


def test_a_query_is_told_by_its_identifiers() -> None:
    assert query_of(QUERY) is query_of(PART) is QUERY
    assert query_of(LogIdentifier()) is None

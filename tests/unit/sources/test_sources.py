"""Sources over given events, and sources seen through constraints; async and sync alike."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from inspect import isawaitable
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.sources import (
    ConstrainedEventSource,
    InMemoryEventSource,
    InMemoryStoredEventSource,
    SyncConstrainedEventSource,
    SyncInMemoryEventSource,
    SyncInMemoryStoredEventSource,
)
from eventstore_sa.sources.constraints import name_in, position_after, sequence_number_after, sequence_number_before
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import EventQuery, LogIdentifier, QueryItem, StoredEvent, StreamIdentifier

MOMENT = datetime(2024, 2, 29, 12, tzinfo=UTC)
STREAM = StreamIdentifier("orders", "42")
NAMES = ["placed", "paid", "packed", "paid", "sent"]
EVENTS: list[StoredEvent[Any, Any, Any]] = [
    StoredEvent(UUID(int=number + 1), name, "42", "orders", number, number + 1, None, None, MOMENT, MOMENT)
    for number, name in enumerate(NAMES)
]
FACES: Any = pytest.mark.parametrize(
    ("source_type", "constrained_type"),
    [
        pytest.param(InMemoryEventSource, ConstrainedEventSource, id="async"),
        pytest.param(SyncInMemoryEventSource, SyncConstrainedEventSource, id="sync"),
    ],
)


def outcome(result: Any) -> Any:
    async def awaited() -> Any:
        return await result

    return asyncio.run(awaited()) if isawaitable(result) else result


def read(source: Any, **arguments: Any) -> list[Any]:
    return list(outcome(source.read(**arguments)))


def iterated(source: Any) -> list[Any]:
    async def collected() -> list[Any]:
        return [event async for event in source]

    return asyncio.run(collected()) if hasattr(source, "__aiter__") else list(source)


@FACES
def test_given_events_are_read_in_the_order_given(source_type: Any, constrained_type: Any) -> None:
    source = source_type(EVENTS, STREAM)

    assert source.identifier == STREAM
    assert iterated(source) == read(source) == EVENTS
    assert read(source, backwards=True) == EVENTS[::-1]
    assert read(source, limit=2) == EVENTS[:2]
    assert read(source, limit=2, backwards=True) == [EVENTS[4], EVENTS[3]]
    assert [read(source, limit=limit) for limit in (0, 2**70)] == [[], EVENTS]
    assert read(source, constraints={name_in(["paid"]), position_after(1)}) == [EVENTS[3]]
    assert read(source, constraints={name_in(["paid"])}, limit=1) == [EVENTS[1]]
    assert read(source, wait_for=EVENTS[0], timeout_s=0) == EVENTS
    assert outcome(source.latest()) == EVENTS[-1]
    assert iterated(source) == EVENTS


@FACES
def test_no_events_are_a_source_too(source_type: Any, constrained_type: Any) -> None:
    source = source_type([], LogIdentifier())

    assert read(source) == []
    assert outcome(source.latest()) is None


@FACES
def test_a_limit_that_is_none_is_refused(source_type: Any, constrained_type: Any) -> None:
    with pytest.raises(ConfigurationError, match="limit"):
        read(source_type(EVENTS, STREAM), limit=-1)


@FACES
@in_turn("constraints", [[name_in(["paid"])], name_in(["paid"]), {"paid"}, None])
def test_what_is_no_set_of_constraints_is_refused(source_type: Any, constrained_type: Any, constraints: Any) -> None:
    source = source_type(EVENTS, STREAM)

    for refusing in (source, constrained_type(source, {name_in(["paid"])})):
        with pytest.raises(ConfigurationError, match=r"must be a set|must be QueryConstraints"):
            read(refusing, constraints=constraints)


@FACES
@in_turn("constraints", [name_in(["paid"]), ["paid"], None])
def test_a_source_is_constrained_by_constraints_only(source_type: Any, constrained_type: Any, constraints: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"must be a set|must be QueryConstraints"):
        constrained_type(source_type(EVENTS, STREAM), constraints)


@FACES
def test_later_changes_of_the_list_do_not_reach_the_source(source_type: Any, constrained_type: Any) -> None:
    events = EVENTS[:2]
    source = source_type(events, STREAM)

    events.append(EVENTS[2])

    assert read(source) == EVENTS[:2]


@FACES
def test_sources_are_equal_by_identifier_and_events(source_type: Any, constrained_type: Any) -> None:
    source = source_type(EVENTS, STREAM)

    assert source == source_type(tuple(EVENTS), STREAM)
    assert hash(source) == hash(source_type(EVENTS, STREAM))
    assert source != source_type(EVENTS[1:], STREAM)
    assert source != source_type(EVENTS, LogIdentifier())
    assert source != EVENTS
    assert repr(source) == f"{source_type.__name__}(5 events, {STREAM!r})"


@FACES
def test_a_constrained_source_has_only_what_meets_its_constraints(source_type: Any, constrained_type: Any) -> None:
    source = constrained_type(source_type(EVENTS, STREAM), [name_in(["paid", "packed"]), sequence_number_after(2)])

    assert source.identifier == STREAM
    assert source.constraints == {name_in(["paid", "packed"]), sequence_number_after(2)}
    assert iterated(source) == read(source) == EVENTS[2:4]
    assert read(source, backwards=True, limit=1) == [EVENTS[3]]
    assert read(source, constraints={sequence_number_before(4)}) == [EVENTS[2]]


@FACES
def test_the_latest_of_a_constrained_source_meets_its_constraints(source_type: Any, constrained_type: Any) -> None:
    delegate = source_type(EVENTS, STREAM)

    assert outcome(constrained_type(delegate, {name_in(["packed"])}).latest()) == EVENTS[2]
    assert outcome(constrained_type(delegate, {name_in(["lost"])}).latest()) is None
    assert outcome(constrained_type(delegate, ()).latest()) == EVENTS[-1]


@FACES
def test_constrained_sources_nest(source_type: Any, constrained_type: Any) -> None:
    inner = constrained_type(source_type(EVENTS, STREAM), {name_in(["paid"])})

    outer = constrained_type(inner, {sequence_number_after(2)})

    assert read(outer) == [EVENTS[3]]
    assert outcome(outer.latest()) == EVENTS[3]


@FACES
def test_constrained_sources_are_equal_by_delegate_and_constraints(source_type: Any, constrained_type: Any) -> None:
    source = constrained_type(source_type(EVENTS, STREAM), {name_in(["paid"]), position_after(1)})

    assert source == constrained_type(source_type(EVENTS, STREAM), [position_after(1), name_in(["paid"])])
    assert len({source, constrained_type(source_type(EVENTS, STREAM), [position_after(1), name_in(["paid"])])}) == 1
    assert source != constrained_type(source_type(EVENTS, STREAM), {name_in(["paid"])})
    assert source != constrained_type(source_type(EVENTS[1:], STREAM), {name_in(["paid"]), position_after(1)})
    assert source != source_type(EVENTS, STREAM)


@FACES
def test_a_constrained_source_passes_on_what_to_wait_for(source_type: Any, constrained_type: Any) -> None:
    asked: list[dict[str, Any]] = []

    class Recording(source_type):
        def iterate(self, **arguments: Any) -> Any:
            asked.append(arguments)
            return super().iterate(**arguments)

    read(constrained_type(Recording(EVENTS, STREAM), ()), wait_for=EVENTS[0], timeout_s=2.5)

    assert [(arguments["wait_for"], arguments["timeout_s"]) for arguments in asked] == [(EVENTS[0], 2.5)]


def test_all_events_of_a_source_are_stored_events() -> None:
    assert InMemoryStoredEventSource(EVENTS, STREAM) == InMemoryEventSource(EVENTS, STREAM)
    assert SyncInMemoryStoredEventSource(EVENTS, STREAM) == SyncInMemoryEventSource(EVENTS, STREAM)


@FACES
def test_a_source_in_memory_answers_a_query(source_type: Any, constrained_type: Any) -> None:
    query = EventQuery([QueryItem(tags=["a", "b"]), QueryItem(names=["sent"])])
    events = [replace(event, tags=frozenset("abc"[: event.position])) for event in EVENTS]

    source = source_type.matching(events, query)

    assert source.identifier == query
    assert read(source) == events[2:]
    assert read(source, constraints={name_in(["packed", "sent"])}, backwards=True) == [events[4], events[2]]
    assert outcome(source.latest()) == events[-1]

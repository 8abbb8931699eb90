"""Events whose types declare the streams that they belong to, published without saying where to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import pytest

from eventstore_sa import EventQuery, EventTypes, NewEvent, Projector, StreamIdentifier, event
from eventstore_sa.conditions import stream_exists
from eventstore_sa.errors import ConfigurationError, SerialisationError, UnmetWriteConditionError
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.testing.cases.tables import in_turn
from tests.awaiting import settled
from tests.hosts import Host, each_driver


@event("placed", tags=lambda placed: [f"order:{placed.order}"], stream=lambda placed: ("orders", placed.order))
@dataclass(frozen=True)
class Placed:
    order: str


@event("paid", stream=lambda paid: StreamIdentifier("payments", paid["order"]))
class Paid(TypedDict):
    order: str


@event("moved")
@dataclass(frozen=True)
class Moved:
    order: str


@event("lost", stream=lambda lost: lost.where)
@dataclass(frozen=True)
class Lost:
    where: Any


class Count(Projector[EventQuery, int, None]):
    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def placed(self, state: int, placed: Placed) -> int:
        return state + 1


TYPES: EventTypes[Any] = EventTypes(Placed, Paid, Moved, Lost)
ORDER, PAYMENT = StreamIdentifier("orders", "1"), StreamIdentifier("payments", "1")


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
async def test_events_go_to_the_streams_that_their_types_declare(asynchronous: bool) -> None:
    adapter = InMemoryEventStorageAdapter()
    store: Any = (EventStore if asynchronous else SyncEventStore)(adapter, types=TYPES)
    wrapped = NewEvent(name="placed", payload=Placed("1"), metadata={"by": "ada"})
    paid = NewEvent(name="paid", payload={"order": "1"})

    stored = await settled(store.publish(events=[Placed("1"), paid, Placed("2"), wrapped]))

    assert [(stream, [each.sequence_number for each in events]) for stream, events in stored.items()] == [
        (ORDER, [1, 2]),
        (PAYMENT, [3]),
        (StreamIdentifier("orders", "2"), [4]),
    ]
    assert [each.payload for each in await settled(store.log().read())] == [
        Placed("1"),
        Placed("1"),
        {"order": "1"},
        Placed("2"),
    ]
    assert await settled(store.publish(events=[])) == {}
    update = await settled(
        store.update_decision(EventQuery.tagged("order:1"), Count(), decide=lambda state: [Placed("1")] * (3 - state))
    )
    assert (update.state, [*update.events]) == (3, [ORDER])
    nothing = await settled(store.update_decision(EventQuery.tagged("order:1"), Count(), decide=lambda state: []))
    assert nothing == (3, {})


@each_driver("sqlite", "postgresql+asyncpg")
async def test_condition_holds_for_all_and_events_are_staged_too(host: Host) -> None:
    store: Any = type(host.store)(host.engine, types=TYPES)
    events = [Placed("1"), NewEvent(name="paid", payload={"order": "1"})]
    with pytest.raises(UnmetWriteConditionError):
        await settled(store.publish(events=events, condition=stream_exists()))
    decision = await settled(store.decide(EventQuery.tagged("order:1"), Count()))

    async with host.caller() as (session, _):
        staged = store.within(session).stage(events=events, condition=decision.unchanged())
        await settled(session.commit())

    assert [*staged.events] == [ORDER, PAYMENT]
    with pytest.raises(UnmetWriteConditionError):
        await settled(store.publish(events=[Placed("2")], condition=decision.unchanged()))
    assert len(await settled(store.log().read())) == 2


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, ConfigurationError, "publish takes streams"),
    ({"events": [], "streams": {}}, ConfigurationError, "publish takes streams"),
    ({"streams": {}, "condition": stream_exists()}, ConfigurationError, "publish takes streams"),
    ({"events": Placed("1")}, ConfigurationError, "passed as a list, even a single one; got Placed"),
    ({"events": [], "condition": stream_exists()}, ConfigurationError, "there is no stream"),
    ({"events": [Moved("1")]}, ConfigurationError, "the event 'moved' does not say which stream it belongs to"),
    ({"events": [12]}, ConfigurationError, "int does not say which stream it belongs to"),
    ({"events": [NewEvent(name="else", payload=1)]}, ConfigurationError, "int does not say"),
    ({"events": [Lost("orders/1")]}, ConfigurationError, "a category and a name; got str"),
    ({"events": [Lost(("orders", ""))]}, SerialisationError, "stream"),
]


@in_turn("arguments, kind, message", WRONG)
def test_what_belongs_nowhere_is_refused(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    store: Any = SyncEventStore(InMemoryEventStorageAdapter(), types=TYPES)

    with pytest.raises(kind, match=message):
        store.publish(**arguments)
    assert store.log().read() == []


def test_streams_are_declared_by_functions_and_only_types_declare_them() -> None:
    with pytest.raises(ConfigurationError, match="stream of the event 'placed' is a function of the payload"):
        event("placed", stream="orders")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="needs a store with event types"):
        SyncEventStore(InMemoryEventStorageAdapter()).publish(events=[Placed("1")])

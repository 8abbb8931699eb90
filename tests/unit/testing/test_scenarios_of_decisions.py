"""given/when/then of decisions, whose events queries choose, and of subscriptions, whose events come from a source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from eventstore_sa import EventQuery, EventTypes, NewEvent, Projector, QueryItem, StreamIdentifier, event
from eventstore_sa.errors import ConfigurationError, UnknownEventTypeError
from eventstore_sa.sources import SyncConstrainedEventSource
from eventstore_sa.sources.constraints import name_in
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.subscriptions import Subscription, SyncSubscription
from eventstore_sa.testing import given, matching

COURSE, STUDENT = EventQuery.tagged("course:c1"), EventQuery.tagged("student:s1")
ORDER = StreamIdentifier("orders", "1")


class Count(Projector[Any, int, None]):
    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def joined(self, state: int, event: Any) -> int:
        event.payload["seen"] = True
        return state + 1


@event("shipped", aliases=["sent"], stream=lambda shipped: ("orders", shipped.order))
@dataclass(frozen=True)
class Shipped:
    order: str


def joined(*tags: str) -> NewEvent[str, Any, None]:
    return NewEvent(name="joined", payload={"seen": False}, tags=tags)


HAPPENED = given([joined("course:c1", "student:s1"), joined("course:c1"), joined("course:c2")])
MODELS = {"course": (COURSE, Count()), "student": (STUDENT, Count())}


def test_decisions_are_made_of_the_events_that_their_queries_choose() -> None:
    HAPPENED.when_deciding(COURSE, Count()).then(2)
    HAPPENED.when_deciding(MODELS).then({"course": 2, "student": 1})


def test_decided_events_of_all_streams_are_compared_in_order() -> None:
    def subscribe(taken: dict[str, int]) -> dict[StreamIdentifier, Any]:
        if taken["course"] >= 3:
            return {}
        return {
            StreamIdentifier("subscriptions", "1"): {"events": [NewEvent(name="subscribed", payload=taken)]},
            StreamIdentifier("notes", "1"): {"events": [NewEvent(name="noted", payload=None)]},
        }

    expected: list[Any] = [matching("subscribed", payload={"course": 2, "student": 1}), "noted"]
    HAPPENED.when_deciding(MODELS, decide=subscribe).then(expected)
    HAPPENED.given([joined("course:c1")]).when_deciding(MODELS, decide=subscribe).then([])
    HAPPENED.when_deciding(COURSE, Count(), decide=lambda taken: [Shipped(str(taken))]).then([Shipped("2")])


async def test_decisions_may_await_something() -> None:
    async def decide(taken: int) -> list[Shipped]:
        return [Shipped(str(taken))]

    (await HAPPENED.when_deciding_async(COURSE, Count(), decide=decide)).then([Shipped("2")])
    with pytest.raises(ConfigurationError, match="a coroutine function cannot be run by `when`"):
        HAPPENED.when_deciding(COURSE, Count(), decide=decide)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [(COURSE,), (COURSE, 12), ({},), ({"a": COURSE},), (MODELS, Count()), (12, Count())])
def test_what_is_no_decision_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="a decision takes a query and a projector"):
        HAPPENED.when_deciding(*wrong)


def test_subscription_hands_over_what_its_source_yields() -> None:
    store = SyncEventStore(InMemoryEventStorageAdapter())
    orders = given([NewEvent(name=name, payload=None) for name in ("placed", "paid")], stream=ORDER)
    happened = orders.given([NewEvent(name="placed", payload=None, tags={"a"})], stream=StreamIdentifier("else", "1"))
    placed = SyncConstrainedEventSource(store.category(category="orders"), frozenset({name_in(["placed"])}))

    def name(event: Any) -> str:
        return f"{event.category}/{event.name}"

    for source, expected in (
        (store.log(), ["orders/placed", "orders/paid", "else/placed"]),
        (placed, ["orders/placed"]),
        (store.query(EventQuery([QueryItem(names=["placed"], tags=["a"])])), ["else/placed"]),
        (store.stream(category="orders", stream="2"), []),
    ):
        happened.when(SyncSubscription("names", source, name)).then(expected)
    happened.when(SyncSubscription("count", store.log(), len, per_batch=True)).then([3])


def test_subscription_of_a_typed_store_gets_objects() -> None:
    types = EventTypes(Shipped)
    store = SyncEventStore(InMemoryEventStorageAdapter(), types=types)
    subscription = SyncSubscription("orders", store.log(), lambda event: event.payload)
    old = NewEvent(name="sent", payload={"order": "1"})

    given([old], types=types).given([Shipped("2")], types=types).when(subscription).then([Shipped("1"), Shipped("2")])
    given([old]).when(subscription).then([Shipped("1")])
    with pytest.raises(UnknownEventTypeError):
        given([NewEvent(name="lost", payload=None)]).when(subscription)


async def test_subscription_gets_the_session_of_the_test() -> None:
    session = Session()

    def handle(event: Any, given_session: Session) -> bool:
        return given_session is session

    store = SyncEventStore("sqlite://")
    subscription = SyncSubscription("rows", store.log(), handle, sessions=sessionmaker())
    HAPPENED.when(subscription, session=session).then([True] * 3)
    with pytest.raises(ConfigurationError, match="needs a session: pass session="):
        HAPPENED.when(subscription)
    store.close()

    async def name(event: Any) -> str:
        return str(event.name)

    awaiting = Subscription("names", EventStore(InMemoryEventStorageAdapter()).log(), name)
    (await HAPPENED.when_async(awaiting)).then(["joined"] * 3)

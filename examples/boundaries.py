"""Rules across streams: `python examples/boundaries.py`, or with the URL of a PostgreSQL database behind it.

Five rules, and for each the race in which a careless program breaks it: two clerks, on connections of their own, look at
the same events before either has published. See docs/boundaries.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from eventstore_sa import (
    EventQuery,
    EventStoreSchema,
    NewEvent,
    Projector,
    QueryItem,
    StreamIdentifier,
    SyncEventStore,
)
from eventstore_sa.conditions import no_event_matches
from eventstore_sa.errors import UnmetWriteConditionError

SCHEMA = EventStoreSchema(prefix="boundaries_")
PLACES = 2
MOST_COURSES = 2

Publishes = Mapping[StreamIdentifier, Any]
Rule = Callable[[SyncEventStore], Publishes]


class RefusedError(Exception):
    """The rule does not allow it."""


class Model(Projector[EventQuery, Any, None]):
    """What a decision needs to know, made of the events of its query."""

    initially: Any = 0

    def initial_state_factory(self) -> Any:
        return self.initially

    def initial_metadata_factory(self) -> None:
        return None


class Participants(Model):
    """How many subscriptions there are to a course, or of a student."""

    def subscribed(self, count: int, event: Any) -> int:
        return count + 1

    def unsubscribed(self, count: int, event: Any) -> int:
        return count - 1


def subscribe(course: str, student: str) -> Rule:
    """A course has two places, and a student takes two courses: the rule spans two entities."""

    def rule(store: SyncEventStore) -> Publishes:
        tags = {f"course:{course}", f"student:{student}"}
        names = ["subscribed", "unsubscribed"]
        decision = store.decide(
            {tag: (EventQuery([QueryItem(names=names, tags=[tag])]), Participants()) for tag in tags}
        )
        if decision.state[f"course:{course}"] >= PLACES:
            raise RefusedError(f"course {course} is full")
        if decision.state[f"student:{student}"] >= MOST_COURSES:
            raise RefusedError(f"student {student} has enough courses")
        event = NewEvent(name="subscribed", payload={"course": course, "student": student}, tags=tags)
        stream = StreamIdentifier("subscriptions", f"{course}-{student}")
        return {stream: {"events": [event], "condition": decision.unchanged()}}

    return rule


class Owner(Model):
    """Whose a user name is."""

    initially = None

    def name_claimed(self, owner: Any, event: Any) -> Any:
        return event.payload["user"]

    def name_released(self, owner: Any, event: Any) -> Any:
        return None


def claim_name(name: str, user: str) -> Rule:
    """A user name is one user's, until it is released."""

    def rule(store: SyncEventStore) -> Publishes:
        decision = store.decide(EventQuery.tagged(f"user-name:{name}"), Owner())
        if decision.state not in (None, user):
            raise RefusedError(f"{name!r} is taken")
        event = NewEvent(name="name-claimed", payload={"user": user}, tags={f"user-name:{name}"})
        return {StreamIdentifier("users", user): {"events": [event], "condition": decision.unchanged()}}

    return rule


class LastNumber(Model):
    """The number of the last invoice of a year."""

    def invoice_issued(self, last: int, event: Any) -> Any:
        return event.payload["number"]


def issue_invoice(year: int, customer: str) -> Rule:
    """Invoices of a year are numbered without gaps, although each is a stream of its own."""

    def rule(store: SyncEventStore) -> Publishes:
        decision = store.decide(EventQuery.tagged(f"invoices:{year}"), LastNumber())
        number = decision.state + 1
        payload = {"number": number, "customer": customer}
        event = NewEvent(name="invoice-issued", payload=payload, tags={f"invoices:{year}"})
        return {
            StreamIdentifier("invoices", f"{year}-{number}"): {"events": [event], "condition": decision.unchanged()}
        }

    return rule


def place_order(request: str) -> Rule:
    """A request is carried out once, however often it arrives: its token is a tag. Nothing has to be read."""

    def rule(_: SyncEventStore) -> Publishes:
        event = NewEvent(name="order-placed", payload={"request": request}, tags={f"request:{request}"})
        condition = no_event_matches(EventQuery.tagged(f"request:{request}"))
        return {StreamIdentifier("orders", str(uuid4())): {"events": [event], "condition": condition}}

    return rule


class Price(Model):
    """The price of a product."""

    def price_changed(self, price: int, event: Any) -> Any:
        return event.payload["price"]


def change_price(product: str, price: int) -> Rule:
    """Prices change at any time."""

    def rule(_: SyncEventStore) -> Publishes:
        event = NewEvent(name="price-changed", payload={"price": price}, tags={f"product:{product}"})
        return {StreamIdentifier("products", product): {"events": [event]}}

    return rule


def order_at(product: str, shown: int) -> Rule:
    """An order is placed at the price that was shown. It depends on the price and writes other tags: orders do not wait."""

    def rule(store: SyncEventStore) -> Publishes:
        decision = store.decide(EventQuery([QueryItem(names=["price-changed"], tags=[f"product:{product}"])]), Price())
        if decision.state != shown:
            raise RefusedError(f"the price of {product} is {decision.state}, not {shown}")
        event = NewEvent(name="ordered", payload={"product": product, "price": shown})
        return {StreamIdentifier("orders", str(uuid4())): {"events": [event], "condition": decision.unchanged()}}

    return rule


def race(stores: tuple[SyncEventStore, SyncEventStore], first: Rule, second: Rule) -> str:
    """Have two clerks decide before either has published; the one that is late decides again."""
    one, other = stores
    early, late = first(one), second(other)
    one.publish(streams=early)
    try:
        other.publish(streams=late)
    except UnmetWriteConditionError:
        pass
    else:
        return "both were stored"
    try:
        other.publish(streams=second(other))
    except RefusedError as refusal:
        return f"the late one was refused: {refusal}"
    except UnmetWriteConditionError:
        return "the late one was not stored, because it is a repetition"
    return "the late one decided again, and was stored"


def tell(stores: tuple[SyncEventStore, SyncEventStore]) -> dict[str, str]:
    """Run all races."""
    stores[0].publish(streams=subscribe("history", "ada")(stores[0]))
    stores[0].publish(streams=change_price("tea", 4)(stores[0]))
    return {
        "the last place": race(stores, subscribe("history", "grace"), subscribe("history", "alan")),
        "places in two courses": race(stores, subscribe("logic", "edsger"), subscribe("music", "barbara")),
        "a user name": race(stores, claim_name("ada", "u1"), claim_name("ada", "u2")),
        "invoice numbers": race(stores, issue_invoice(2026, "c1"), issue_invoice(2026, "c2")),
        "a token": race(stores, place_order("r-7"), place_order("r-7")),
        "a price that changes": race(stores, change_price("tea", 5), order_at("tea", 4)),
        "a price that holds": race(stores, order_at("tea", 5), order_at("tea", 5)),
    }


def main(url: str) -> None:
    """Tell how the races end."""
    with SyncEventStore(url, schema=SCHEMA) as one, SyncEventStore(url, schema=SCHEMA) as other:
        one.create_schema()
        try:
            for about, outcome in tell((one, other)).items():
                print(f"{about}: {outcome}")
        finally:
            one.drop_schema()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with TemporaryDirectory() as directory:
            main(f"sqlite:///{directory}/boundaries.db")

"""Subscriptions to stores with event types, and to queries and tags: what handlers get, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventstore_sa import EventQuery, NewEvent, Projector, QueryItem, StreamIdentifier
from eventstore_sa.errors import ConfigurationError, SubscriptionError
from eventstore_sa.projection import ProjectionStore, SyncProjectionStore, TableProjection, project
from eventstore_sa.sources.constraints import name_in
from eventstore_sa.store import ConstrainedEventSource, SyncConstrainedEventSource
from eventstore_sa.testing.postgres import PostgresServer
from eventstore_sa.types import Encryption, EventTypes, event
from tests.awaiting import settled
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.patience import PATIENCE_S
from tests.subscribers import ALL, DATABASES, POSTGRES, Place, install_effects, numbers, open_place, policy


@event("order-placed", version=2, aliases=["placed"], upcast={1: lambda payload: {**payload, "currency": "EUR"}})
@dataclass(frozen=True)
class OrderPlaced:
    total: int
    currency: str


@event("order-paid", encrypted=["card"])
class OrderPaid(msgspec.Struct, frozen=True):
    card: str


@event("order-shipped")
@dataclass(frozen=True)
class OrderShipped:
    to: str


def encryption(key: str = "key") -> Encryption:
    return Encryption(lambda: {key: bytes(32)})


TYPES: EventTypes[Any] = EventTypes(OrderPlaced, OrderPaid, pipeline=[encryption()])
PAID = OrderPaid("4711")


class OrderProjector(Projector[StreamIdentifier, dict[str, Any], None]):
    name = "orders"

    def initial_state_factory(self) -> dict[str, Any]:
        return {"seen": []}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
        return getattr(source, "stream", "all")

    def place(self, state: dict[str, Any], placed: OrderPlaced) -> dict[str, Any]:
        return {"seen": [*state["seen"], f"{placed.total} {placed.currency}"]}

    def pay(self, state: dict[str, Any], paid: OrderPaid) -> dict[str, Any]:
        return {"seen": [*state["seen"], paid.card]}


class Count(OrderProjector):
    name = "count"

    def place(self, state: dict[str, Any], placed: OrderPlaced) -> dict[str, Any]:
        return {"seen": [*state["seen"], placed.total]}


class Base(DeclarativeBase):
    pass


class Total(Base):
    __tablename__ = "totals"
    id: Mapped[str] = mapped_column(primary_key=True)
    total: Mapped[int | None]


@project(Total)
class TotalProjection(TableProjection):
    ignored_events = ("order-paid",)

    def place(self, row: Total, placed: OrderPlaced) -> None:
        row.total = (row.total or 0) + placed.total


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[PostgresDatabase]:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_effects)) as database:
        yield database


@pytest_asyncio.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    postgres = request.getfixturevalue("database") if request.param in POSTGRES else None
    async with open_place(request.param, tmp_path, postgres) as place:
        yield place


everywhere = pytest.mark.parametrize("place", ALL, indirect=True)
on_databases = pytest.mark.parametrize("place", DATABASES, indirect=True)


def typed(place: Place, types: EventTypes[Any] = TYPES) -> Any:
    """Return the store of a place with event types."""
    return type(place.store)(place.store.adapter, types=types)


async def publish(store: Any, stream: str, *events: Any, category: str = "orders") -> list[Any]:
    return list(await settled(store.stream(category=category, stream=stream).publish(events=list(events))))


def old(total: int) -> NewEvent[Any, Any, Any]:
    """Return an event as it was published by code before: under another name, without a currency."""
    return NewEvent(name="placed", payload={"total": total})


def broken() -> NewEvent[Any, Any, Any]:
    return NewEvent(name="order-shipped", payload={"to": "Paris"})


def all_of(got: list[Any]) -> list[Any]:
    """Return what handlers of events, or of batches of them, were given: names and payloads."""
    events = [each for given in got for each in (given if isinstance(given, list) else [given])]
    return [(each.name, each.payload) for each in events]


def constrained(place: Place, source: Any, *names: object) -> Any:
    kind: Any = ConstrainedEventSource if place.asynchronous else SyncConstrainedEventSource
    return kind(source, {name_in(names)})


@everywhere
async def test_handlers_get_typed_events_of_whatever_version_and_name(place: Place) -> None:
    store = typed(place)
    await publish(place.store, "1", old(5))
    await publish(store, "1", OrderPlaced(6, "USD"), PAID)
    await publish(store, "2", OrderPlaced(7, "CHF"), category="others")
    placed = [("order-placed", OrderPlaced(5, "EUR")), ("order-placed", OrderPlaced(6, "USD"))]
    sources = {
        "category": (store.category(category="orders"), [*placed, ("order-paid", PAID)]),
        "categories": ([store.category(category="orders")], [*placed, ("order-paid", PAID)]),
        "stream": (store.stream(category="others", stream="2"), [("order-placed", OrderPlaced(7, "CHF"))]),
        "names": (constrained(place, store.category(category="orders"), "order-placed"), placed),
        "query": (
            store.query(EventQuery([QueryItem(names=["order-placed"])])),
            [*placed, ("order-placed", OrderPlaced(7, "CHF"))],
        ),
    }
    for (name, (source, expected)), per_batch in product(sources.items(), (False, True)):
        got: list[Any] = []
        subscription = place.subscription(
            got.append, source, name=f"{name} {per_batch}", sessions=None, per_batch=per_batch
        )
        await place.catch_up(subscription)

        assert all_of(got) == expected, (name, per_batch)
        assert await place.checkpoints(subscription) == [4]


@everywhere
async def test_an_event_that_is_not_of_its_type_is_a_failure_of_that_event(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    store = typed(place)
    await publish(store, "1", OrderPlaced(1, "EUR"))
    await publish(place.store, "1", NewEvent(name="order-placed", payload={"sum": "secret"}, version=2))
    await publish(store, "1", OrderPlaced(3, "EUR"))
    await publish(place.store, "2", broken())
    await publish(typed(place, EventTypes(OrderPaid, pipeline=[encryption("lost")])), "3", PAID)
    await publish(store, "4", OrderPlaced(4, "EUR"))
    log = store.log()
    errors = {2: "InvalidPayloadError", 4: "UnknownEventTypeError", 5: "PayloadKeyError"}
    for sessions, per_batch in product({None, place.sessions}, (False, True)):

        def handler(got: list[Any], *, in_session: bool = sessions is not None) -> Any:
            def handle(given: Any, session: Any) -> None:
                got.append(given)

            return handle if in_session else got.append

        case = f"{sessions is not None} {per_batch}"
        options: dict[str, Any] = {"sessions": sessions, "per_batch": per_batch}
        skipped: list[Any] = []
        skipping = place.subscription(
            handler(skipped), log, name=f"skip {case}", on_failure=policy("skip", retries=1), **options
        )
        await place.catch_up(skipping)
        assert [payload.total for _, payload in all_of(skipped)] == [1, 3, 4], case
        aside = await settled(skipping.parked())
        assert [(each.sequence_number, each.state, each.attempts) for each in aside] == [
            (number, "skipped", 2) for number in errors
        ]
        assert [each.error.partition(":")[0] for each in aside] == list(errors.values())

        stopped: list[Any] = []
        stopping = place.subscription(handler(stopped), log, name=f"stop {case}", on_failure=policy("stop"), **options)
        with pytest.raises(SubscriptionError, match="stopped at 1: InvalidPayloadError: event 2"):
            await place.catch_up(stopping)
        assert [payload.total for _, payload in all_of(stopped)] == [1], case

        parked: list[Any] = []
        parking = place.subscription(handler(parked), log, name=f"park {case}", on_failure=policy("park"), **options)
        await place.catch_up(parking)
        assert [payload.total for _, payload in all_of(parked)] == [1, 4], case
        assert [(each.sequence_number, each.state) for each in await settled(parking.parked())] == [
            (2, "parked"),
            (3, "held"),
            (4, "parked"),
            (5, "parked"),
        ]
        assert await settled(parking.replay()) == 0

        # The code of the next deployment knows what to do with them: nothing was changed that is stored.
        fixed = EventTypes(
            OrderPlaced,
            OrderPaid,
            OrderShipped,
            invalid="keep",
            pipeline=[Encryption(lambda: dict.fromkeys(["key", "lost"], bytes(32)))],
        )
        replayed: list[Any] = []
        again = place.subscription(handler(replayed), typed(place, fixed).log(), name=f"park {case}", **options)
        assert await settled(again.replay()) == 4
        assert [payload for _, payload in all_of(replayed)] == [
            {"sum": "secret"},
            OrderPlaced(3, "EUR"),
            OrderShipped("Paris"),
            PAID,
        ]
        assert await settled(again.parked()) == []
    assert "InvalidPayloadError" in caplog.text
    assert "secret" not in caplog.text


@everywhere
async def test_what_is_skipped_or_kept_is_no_failure(place: Place) -> None:
    await publish(place.store, "1", old(1), NewEvent(name="order-placed", payload=None), broken())
    (last,) = await publish(place.store, "1", broken())
    for policies, per_batch in product(("skip", "keep"), (False, True)):
        types: EventTypes[Any] = EventTypes(OrderPlaced, unknown=policies, invalid=policies)  # type: ignore[arg-type]
        got: list[Any] = []
        subscription = place.subscription(
            got.append,
            typed(place, types).log(),
            name=f"{policies} {per_batch}",
            sessions=None,
            per_batch=per_batch,
            batch_size=1,
        )
        await place.catch_up(subscription)

        kept = [("order-placed", None), ("order-shipped", {"to": "Paris"}), ("order-shipped", {"to": "Paris"})]
        assert all_of(got) == [("order-placed", OrderPlaced(1, "EUR")), *(kept if policies == "keep" else [])]
        assert all(got), "no empty batches"
        await settled(subscription.wait_for(last, timeout_s=PATIENCE_S))
        assert await place.checkpoints(subscription) == [last.sequence_number]


@everywhere
async def test_a_failure_policy_sees_what_the_handler_gets(place: Place) -> None:
    store = typed(place)
    await publish(store, "1", OrderPlaced(1, "EUR"))
    await publish(place.store, "2", broken())
    seen: list[Any] = []

    def then(error: Exception, event: Any) -> Any:
        seen.append(event)
        return "skip"

    def handle(event: Any) -> None:
        raise ValueError("no")

    await place.catch_up(place.subscription(handle, store.log(), sessions=None, on_failure=policy(then)))

    assert all_of(seen) == [("order-placed", OrderPlaced(1, "EUR")), ("order-shipped", {"to": "Paris"})]


@everywhere
async def test_projectors_get_typed_events(place: Place) -> None:
    store = typed(place)
    await publish(place.store, "1", old(5))
    await publish(store, "1", OrderPlaced(6, "USD"), PAID)

    await place.catch_up(place.subscription(OrderProjector(), store.log()))

    kind: Any = ProjectionStore if place.asynchronous else SyncProjectionStore
    projection = await settled(kind(store).load(name="orders", id="1"))
    assert projection.state == {"seen": ["5 EUR", "6 USD", "4711"]}


@on_databases
async def test_table_projections_get_typed_events(place: Place) -> None:
    place.execute("DROP TABLE IF EXISTS totals")
    place.execute("CREATE TABLE totals (id text PRIMARY KEY, total int)")
    store = typed(place)
    await publish(place.store, "1", old(5))
    await publish(store, "1", OrderPlaced(6, "USD"), PAID)

    await place.catch_up(place.subscription(TotalProjection(), store.log()))

    assert [tuple(row) for row in place.execute("SELECT id, total FROM totals")] == [("1", 11)]


@everywhere
async def test_queries_and_tags_are_sources(place: Place) -> None:
    def about(course: str, name: str = "subscribed") -> NewEvent[Any, Any, Any]:
        return NewEvent(name=name, payload=None, tags={course})

    stored = [
        (await publish(place.store, str(number % 5), about(f"course:{number % 2}"), category="students"))[0]
        for number in range(20)
    ]
    tagged = [each.sequence_number for each in stored if "course:1" in each.tags]
    query = EventQuery([QueryItem(tags=["course:1"], names=["subscribed", "left"]), QueryItem(names=["closed"])])
    for name, source in {"tag": place.store.tag("course:1"), "query": place.store.query(query)}.items():
        for partitions in (1, 3):
            place.done.clear()
            subscription = place.subscription(
                place.note, source, name=f"{name} {partitions}", sessions=None, partitions=partitions, batch_size=3
            )
            await place.catch_up(subscription)

            assert (place.done if partitions == 1 else sorted(place.done)) == tagged
            # Also beyond the last match.
            assert await place.checkpoints(subscription) == [20] * partitions
        later = place.subscription(place.note, source, name=f"{name} later", sessions=None, start=tagged[3])
        place.done.clear()
        await place.catch_up(later)
        assert place.done == tagged[4:]
    left = constrained(place, place.store.tag("course:1"), "left")
    place.done.clear()
    await publish(place.store, "9", about("course:1", "left"), about("course:0", "left"), category="students")
    await place.catch_up(place.subscription(place.note, left, name="left", sessions=None))
    assert place.done == [21]


@everywhere
async def test_an_equal_query_is_the_same_source_and_another_one_is_not(place: Place) -> None:
    def items(*, reverse: bool = False) -> EventQuery:
        chosen = [QueryItem(tags=["b", "a"], names=["y", "x"]), QueryItem(tags=["c"])]
        return EventQuery(reversed(chosen) if reverse else chosen)

    await settled(place.subscription(source=place.store.query(items())).register())
    await settled(place.subscription(source=place.store.query(items(reverse=True))).register())
    with pytest.raises(ConfigurationError, match="is stored with the source"):
        await settled(place.subscription(source=place.store.tag("c")).register())
    # What types a store has makes no other source of it.
    await settled(place.subscription(source=typed(place).query(items())).register())
    with pytest.raises(ConfigurationError, match="a stream or a query of one"):
        place.subscription(source=place.store.log().partitions(2)[0])


@everywhere
async def test_decisions_and_typed_publishes_wake_subscriptions(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is polled for: what is not woken is found too late."""
    monkeypatch.setattr("eventstore_sa.subscriptions.node._FIRST_POLL_S", 2 * PATIENCE_S)
    monkeypatch.setattr("eventstore_sa.subscriptions.node._LONGEST_POLL_S", 2 * PATIENCE_S)
    store = typed(place)
    got: list[Any] = []
    subscription = place.subscription(got.append, store.tag("course:1"), sessions=None)
    query = EventQuery.tagged("course:1")

    def decide(state: Any) -> Any:
        placed = NewEvent(name="order-placed", payload=OrderPlaced(len(state["seen"]), "EUR"), tags={"course:1"})
        return {StreamIdentifier("orders", "1"): {"events": [placed]}}

    async with place.running(subscription):
        update = await settled(store.update_decision(query, Count(), decide=decide))
        (first,) = update.events[StreamIdentifier("orders", "1")]
        await settled(subscription.wait_for(first, timeout_s=PATIENCE_S))
        decision = await settled(store.decide(query, Count()))
        second = NewEvent(name="order-placed", payload=OrderPlaced(7, "EUR"), tags={"course:1"})
        await settled(
            store.stream(category="orders", stream="2").publish(events=[second], condition=decision.unchanged())
        )
        last = await settled(store.log().latest())
        await settled(subscription.wait_for(last, timeout_s=PATIENCE_S))

    assert [payload.total for _, payload in all_of(got)] == [0, 7]


@on_databases
async def test_a_handler_publishes_objects_in_its_transaction(place: Place) -> None:
    store = typed(place)
    placed = await publish(store, "1", OrderPlaced(1, "EUR"))

    def react(event: Any, session: Any) -> Any:
        target = store.within(session).stream(category="bills", stream=event.stream)
        return target.publish(events=[OrderPaid(f"for {event.payload.total}")])

    await place.catch_up(place.subscription(react, store.category(category="orders")))

    (bill,) = await settled(store.category(category="bills").read())
    assert bill.payload == OrderPaid("for 1")
    assert numbers([*placed, bill]) == [1, 2]


class OfAllStreams(OrderProjector):
    name = "all"

    def ids(self, event: Any) -> list[str]:
        return ["all"]


@everywhere
async def test_projections_of_several_streams_need_one_order(place: Place) -> None:
    """The number of the last event is stored with each: what comes to it later with a lower number would be left out."""
    store = typed(place)
    projector = OfAllStreams()
    with pytest.raises(ConfigurationError, match="leave partitions out"):
        place.subscription(projector, store.log(), partitions=2)
    with pytest.raises(ConfigurationError, match='use "stop" or "skip"'):
        place.subscription(projector, store.log(), on_failure=policy("park"))
    place.subscription(OrderProjector(), store.log(), partitions=2, on_failure=policy("park"))

    await publish(place.store, "1", broken())
    await publish(store, "2", OrderPlaced(1, "EUR"))
    subscription = place.subscription(projector, store.log(), on_failure=policy(lambda *_: "park"))
    with pytest.raises(SubscriptionError, match="stopped at 0: UnknownEventTypeError"):
        await place.catch_up(subscription)

"""given/when/then: what is run, what is compared, and what the message of a failing test says."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import JSON, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import NewEvent, Projector, StoredEvent, StreamIdentifier
from eventstore_sa.errors import (
    ConfigurationError,
    InvalidPayloadError,
    MissingProjectionHandlerError,
    SerialisationError,
    UnknownEventTypeError,
)
from eventstore_sa.projection import DELETE, TableProjection, handles, project
from eventstore_sa.testing import StoredEventBuilder, given, matching
from eventstore_sa.types import EventTypes, event

PLACED = NewEvent(name="order-placed", payload={"total": 12, "lines": ["bolts"]})
PAID = NewEvent(name="order-paid", payload={"by": "card"})


@dataclass
class Order:
    total: int = 0
    paid: bool = False


class OrderProjector(Projector[StreamIdentifier, Order, int]):
    def initial_state_factory(self) -> Order:
        return Order()

    def initial_metadata_factory(self) -> int:
        return 0

    def id_factory(self, state: Order, source: StreamIdentifier) -> str:
        return source.stream

    def update_metadata(self, state: Order, metadata: int, event: Any) -> int:
        return metadata + 1

    def order_placed(self, state: Order, event: StoredEvent[str, dict[str, Any]]) -> Order:
        event.payload["lines"].append("changed by the handler")
        return Order(event.payload["total"])

    def order_paid(self, state: Order, event: StoredEvent) -> Order:
        return Order(state.total, paid=True)


class AsyncOrderProjector(OrderProjector):
    async def order_paid(self, state: Order, event: StoredEvent) -> Order:  # type: ignore[override]
        return Order(state.total, paid=True)


def ship(state: Order) -> list[NewEvent[Any, Any, Any]]:
    if not state.paid:
        raise ValueError("not paid")
    return [NewEvent(name="order-shipped", payload={"total": state.total}), NewEvent(name="told", payload=None)]


class Base(DeclarativeBase):
    pass


class OrderRow(Base):
    __tablename__ = "order_rows"
    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    notes: Mapped[Any] = mapped_column(JSON, default=list)


class Unrelated(Base):
    __tablename__ = "unrelated"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[Any] = mapped_column(JSONB)  # cannot be created on SQLite


@project(OrderRow)
class OrderRows(TableProjection):
    def order_placed(self, row: OrderRow, event: StoredEvent) -> None:
        row.state, row.notes = "placed", ["placed"]

    def order_paid(self, row: OrderRow, event: StoredEvent) -> None:
        row.state = "paid"

    @handles("order-cancelled")
    def forget(self, row: OrderRow, event: StoredEvent) -> Any:
        return DELETE


@project(Session)
class AnyRows(TableProjection):
    def order_placed(self, session: Session, event: StoredEvent) -> None:
        """Do nothing."""


def refusal_of(check: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        check()
    return str(caught.value)


def test_a_projector_gives_its_state() -> None:
    placed_and_paid = given([PLACED, PAID])

    placed_and_paid.when(OrderProjector()).then(Order(12, paid=True))
    given().when(OrderProjector()).then(Order())

    assert placed_and_paid.when(OrderProjector()).value == Order(12, paid=True)


def test_another_state_is_shown_line_by_line() -> None:
    message = refusal_of(lambda: given([PLACED]).when(OrderProjector()).then(Order(12, paid=True)))

    assert message.splitlines() == [
        "the result is not the expected one",
        "--- expected",
        "+++ actual",
        "@@ -1,4 +1,4 @@",
        " {",
        '-  "paid": true,',
        '+  "paid": false,',
        '   "total": 12',
        " }",
    ]


def test_what_differs_only_in_python_is_shown_in_python() -> None:
    message = refusal_of(lambda: given([PLACED]).when(lambda event: Decimal(1)).then(["1"]))  # type: ignore[list-item]

    assert message.endswith("both are the same as JSON, but not equal: expected ['1'], got [Decimal('1')]")


def test_what_has_no_json_is_shown_by_its_representation() -> None:
    message = refusal_of(lambda: given([PLACED]).when(lambda event: {1, 2}).then([{3}]))

    assert '-  "{3}"' in message
    assert '+  "{1, 2}"' in message


def test_what_is_given_is_not_changed_by_handlers() -> None:
    happened = given([PLACED])

    happened.when(OrderProjector())

    assert happened.events[0].payload == {"total": 12, "lines": ["bolts"]} == PLACED.payload


def test_new_events_become_those_that_a_read_returns() -> None:
    earlier = StoredEventBuilder().with_sequence_number(7).build()
    order, customer = StreamIdentifier("orders", "42"), StreamIdentifier("customers", "ada")

    happened = given([earlier, PLACED], stream=order).given([PAID], stream=customer).given([PAID], stream=order)

    assert happened.events[0] is earlier
    assert [(each.category, each.stream, each.position, each.sequence_number) for each in happened.events[1:]] == [
        ("orders", "42", 0, 8),
        ("customers", "ada", 0, 9),
        ("orders", "42", 1, 10),
    ]
    assert happened.events[1].id == PLACED.id
    assert len({each.id for each in happened.events}) == 4
    (read,) = given([NewEvent(name="x", payload=Order(3), metadata=(1,))]).events
    assert (read.payload, read.metadata) == ({"total": 3, "paid": False}, [1])


def test_events_that_could_not_be_stored_are_refused() -> None:
    with pytest.raises(SerialisationError):
        given([NewEvent(name="x", payload=float("nan"))])
    with pytest.raises(ConfigurationError, match="NewEvents or StoredEvents; got str"):
        given(["order-placed"])


def test_a_decider_gives_its_events() -> None:
    decided = given([PLACED, PAID]).when(OrderProjector(), ship)

    decided.then([NewEvent(name="order-shipped", payload={"total": 12}), "told"])
    decided.then([matching("order-shipped"), matching("told", payload=None)])
    given().when(OrderProjector(), lambda _: []).then([])
    with pytest.raises(ValueError, match="not paid"):
        given([PLACED]).when(OrderProjector(), ship)


def test_other_events_are_named_one_by_one() -> None:
    decided = given([PLACED, PAID]).when(OrderProjector(), ship)

    shipped = NewEvent(name="order-shipped", payload={"total": 13}, metadata={"by": 1})
    message = refusal_of(lambda: decided.then([shipped, "told", "archived"]))

    assert message.splitlines() == [
        "the events are not the expected ones:",
        "  1. payload.total is 12, expected 13",
        '  1. metadata is null, expected {"by": 1}',
        "  3. is missing: matching('archived')",
        "the events are:",
        '  1. order-shipped: {"total": 12}',
        "  2. told: null",
    ]
    assert "2. is not expected" in refusal_of(lambda: decided.then(["order-shipped"]))


def test_a_handler_is_called_with_each_event() -> None:
    given([PLACED, PAID]).when(lambda event: event.name).then(["order-placed", "order-paid"])


async def test_coroutine_functions_are_awaited() -> None:
    async def decide(state: Order) -> list[NewEvent[Any, Any, Any]]:
        return ship(state)

    async def handle(event: StoredEvent) -> int:
        return event.position

    (await given([PLACED, PAID]).when_async(AsyncOrderProjector())).then(Order(12, paid=True))
    (await given([PLACED, PAID]).when_async(AsyncOrderProjector(), decide)).then(["order-shipped", "told"])
    (await given([PLACED, PAID]).when_async(OrderProjector(), ship)).then(["order-shipped", "told"])
    (await given([PLACED, PAID]).when_async(handle)).then([0, 1])
    with pytest.raises(ConfigurationError, match="when_async"):
        given([PLACED]).when(handle)
    with pytest.raises(ConfigurationError, match="when_async"):
        given([PLACED]).when(OrderProjector(), decide)  # type: ignore[arg-type]


def test_errors_of_handlers_come_out_of_when() -> None:
    with pytest.raises(MissingProjectionHandlerError):
        given([NewEvent(name="unknown", payload=None)]).when(OrderProjector())


def test_a_table_projection_gives_its_rows() -> None:
    one, two = StreamIdentifier("orders", "1"), StreamIdentifier("orders", "2")
    rows = given([PLACED, PAID], stream=one).given([PLACED], stream=two).when(OrderRows())

    rows.then([OrderRow(id="1", state="paid", notes=["placed"]), {"id": "2", "state": "placed"}])
    given([PLACED, NewEvent(name="order-cancelled", payload=None)]).when(OrderRows()).then([])


def test_other_rows_are_shown_line_by_line() -> None:
    rows = given([PLACED], stream=StreamIdentifier("orders", "1")).when(OrderRows())

    message = refusal_of(lambda: rows.then([OrderRow(id="1", state="paid")]))

    assert '-    "state": "paid"' in message
    assert '+    "state": "placed"' in message
    assert "notes" not in message
    assert '+    "notes": [' in refusal_of(lambda: rows.then([]))
    assert '-    "id": "2"' in refusal_of(lambda: rows.then([{"id": "1"}, {"id": "2"}]))
    assert '-    "misspelt": 1' in refusal_of(lambda: rows.then([{"misspelt": 1}]))
    with pytest.raises(ConfigurationError, match="an object of the mapped class or a mapping; got 3"):
        rows.then([3])


def test_a_projection_on_the_whole_session_is_applied_by_hand() -> None:
    with pytest.raises(ConfigurationError, match="call its `apply`"):
        given([PLACED]).when(AnyRows())


@event("goods-moved", version=2, aliases=["goods-shipped"], upcast={1: lambda payload: {**payload, "unit": "kg"}})
@dataclass(frozen=True)
class GoodsMoved:
    weight: int
    unit: str
    seal: bytes = b""


@event("goods-lost")
@dataclass(frozen=True)
class GoodsLost:
    weight: int


TYPES = EventTypes(GoodsMoved, GoodsLost)


class WeightProjector(Projector[StreamIdentifier, int, None]):
    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: StreamIdentifier) -> str:
        return source.stream

    def move(self, state: int, moved: GoodsMoved) -> int:
        return state + moved.weight


def test_objects_of_event_types_are_given_and_expected() -> None:
    moved = given([GoodsMoved(3, "t", b"\xff"), NewEvent(name="goods-moved", payload=GoodsMoved(4, "t"))], types=TYPES)

    moved.when(WeightProjector()).then(7)
    moved.when(lambda event: event.payload).then([GoodsMoved(3, "t", b"\xff"), GoodsMoved(4, "t")])
    decided = moved.when(WeightProjector(), lambda state: [GoodsLost(state)])
    decided.then([GoodsLost(7)])
    decided.then([NewEvent(name="goods-lost", payload=GoodsLost(7))])
    decided.then([matching(GoodsLost, payload={"weight": 7})])
    assert "1. payload.weight is 7, expected 8" in refusal_of(lambda: decided.then([GoodsLost(8)]))
    assert moved.events[0] == matching(GoodsMoved, payload=GoodsMoved(3, "t", b"\xff"))


def test_old_events_are_brought_up_to_date() -> None:
    old = given([NewEvent(name="goods-shipped", version=1, payload={"weight": 3})], types=TYPES)

    old.when(lambda event: (event.name, event.payload)).then([("goods-moved", GoodsMoved(3, "kg"))])
    message = refusal_of(lambda: old.when(lambda event: event.payload).then([GoodsMoved(3, "t")]))
    assert '-    "unit": "t"' in message


def test_events_that_a_store_could_not_read_are_refused() -> None:
    with pytest.raises(InvalidPayloadError):
        given([NewEvent(name="goods-moved", payload={"weight": "heavy"}, version=2)], types=TYPES)
    with pytest.raises(UnknownEventTypeError):
        given([NewEvent(name="unknown", payload=None)], types=TYPES)
    with pytest.raises(ConfigurationError, match="got GoodsLost: pass types="):
        given([GoodsLost(3)])
    skipping = EventTypes(GoodsLost, unknown="skip")
    assert given([NewEvent(name="unknown", payload=None)], types=skipping).events == ()

"""Names and versions of event types, what is stored of their objects, and how old and unreadable events are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypedDict

import msgspec
import pytest

from eventstore_sa.errors import (
    ConfigurationError,
    InvalidPayloadError,
    SerialisationError,
    UnknownEventTypeError,
    UnreadableEventError,
)
from eventstore_sa.sources.constraints import name_in
from eventstore_sa.testing import StoredEventBuilder
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import AnyNewEvent, EventQuery, EventTypes, NewEvent, QueryItem, encode_json, event
from eventstore_sa.types.event_types import with_payload


def add_currency(payload: dict[str, Any]) -> dict[str, Any]:
    return {**payload, "currency": "EUR"}


def nest_total(payload: dict[str, Any]) -> dict[str, Any]:
    payload["price"] = {"amount": payload.pop("total"), "currency": payload.pop("currency")}
    return payload


def flatten_price(payload: dict[str, Any]) -> dict[str, Any]:
    return {"total": payload["price"]["amount"], "currency": payload["price"]["currency"]}


@dataclass(frozen=True)
class Money:
    amount: Decimal
    currency: str


@event(
    "order-placed",
    version=3,
    aliases=["placed", "order-made"],
    upcast={1: add_currency, 2: nest_total},
    downcast={3: flatten_price},
    tags=lambda placed: [f"currency:{placed.price.currency}"],
)
@dataclass(frozen=True, slots=True)
class OrderPlaced:
    price: Money


@event("order-noted")
class OrderNoted(TypedDict):
    note: str
    sizes: frozenset[int]


@event("order-paid")
class OrderPaid(msgspec.Struct, frozen=True):
    amount: int


TYPES = EventTypes(OrderPlaced, OrderNoted, OrderPaid)
PLACED = OrderPlaced(Money(Decimal("12.50"), "USD"))


def stored(name: str, payload: Any, *, version: int = 1) -> Any:
    built = StoredEventBuilder().with_name(name).with_payload(payload).with_stream("1").with_category("orders").build()
    return msgspec.structs.replace(built, version=version, position=4, sequence_number=7)


def as_stored(new: AnyNewEvent) -> Any:
    return stored(new.name, new.payload, version=new.version)


def both(types: EventTypes[Any]) -> list[Callable[[Any], Any]]:
    """Return the two ways of reading an event: from JSON, and from its text."""
    return [types.read, lambda event: types.read_text(with_payload(event, event.name, encode_json(event.payload)))]


def test_object_is_stored_under_the_name_and_version_of_its_class() -> None:
    new = TYPES.new_event(PLACED)

    assert (new.name, new.version, new.tags) == ("order-placed", 3, {"currency:USD"})
    assert [read(as_stored(TYPES.new_event(PLACED))).payload for read in both(TYPES)] == [PLACED, PLACED]


def test_wrapped_object_keeps_what_the_event_says() -> None:
    wrapped = NewEvent(name="order-placed", payload=PLACED, metadata={"by": "ada"}, tags={"own"})

    new = TYPES.new_event(wrapped)

    assert (new.id, new.metadata, new.occurred_at) == (wrapped.id, {"by": "ada"}, wrapped.occurred_at)
    assert new.tags == {"own", "currency:USD"}
    assert new.version == 3


def test_plain_payload_of_a_typed_event_is_checked_and_stored_in_its_version() -> None:
    noted = TYPES.new_event(NewEvent(name="order-noted", payload={"note": "fragile", "sizes": frozenset([3])}))
    placed = TYPES.new_event(
        NewEvent(name="order-placed", payload={"price": {"amount": "12.50", "currency": "USD"}}, metadata={"by": "ada"})
    )

    assert noted.payload == {"note": "fragile", "sizes": [3]}
    assert TYPES.read(as_stored(noted)).payload == {"note": "fragile", "sizes": {3}}  # type: ignore[union-attr]
    assert (placed.version, placed.tags) == (3, {"currency:USD"})
    assert TYPES.read(as_stored(placed)).payload == PLACED  # type: ignore[union-attr]


WRONG: list[tuple[Any, type[Exception], str]] = [
    (12, ConfigurationError, "got int: give the store types=EventTypes(...)"),
    (Money(Decimal(1), "EUR"), ConfigurationError, "got Money"),
    (
        NewEvent(name="order-paid", payload=PLACED),
        ConfigurationError,
        "payload of 'order-placed' events, not of 'order-paid'",
    ),
    (
        NewEvent(name="order-lost", payload=None),
        ConfigurationError,
        "'order-lost' is not among the store's event types",
    ),
    (NewEvent(name="order-paid", payload={"amount": 1}, version=2), ConfigurationError, "its type is of version 1"),
    (
        NewEvent(name="order-paid", payload={"amount": "x"}),
        SerialisationError,
        "payload of event 'order-paid' cannot be stored: Expected `int`, got `str` - at `$.amount`",
    ),
    (OrderPlaced(Money(object(), "EUR")), SerialisationError, "cannot be stored"),  # type: ignore[arg-type]
]


@in_turn("given, kind, message", WRONG)
def test_what_cannot_be_read_back_is_not_published(given: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as refused:
        encode_json(TYPES.new_event(given).payload)

    assert message in str(refused.value)


OLD = [
    ("order-placed", 1, {"total": "12.50"}, "EUR"),
    ("placed", 1, {"total": "12.50"}, "EUR"),
    ("order-made", 2, {"total": "12.50", "currency": "CHF"}, "CHF"),
    ("order-placed", 3, {"price": {"amount": "12.50", "currency": "USD"}}, "USD"),
]


@in_turn("name, version, payload, currency", OLD)
def test_every_version_and_name_is_read_as_the_newest(name: str, version: int, payload: Any, currency: str) -> None:
    for read in both(TYPES):
        old = stored(name, dict(payload), version=version)

        found = read(old)

        assert found.payload == OrderPlaced(Money(Decimal("12.50"), currency))
        assert found.name == "order-placed"
        assert (found.id, found.position, found.sequence_number, found.version) == (old.id, 4, 7, version)


def test_older_version_is_published_until_writers_are_switched() -> None:
    types = EventTypes(OrderPlaced, write={"order-placed": 2})

    new = types.new_event(PLACED)

    assert (new.name, new.version, new.payload) == ("order-placed", 2, {"total": "12.50", "currency": "USD"})
    assert types.read(as_stored(new)).payload == PLACED  # type: ignore[union-attr]


def test_old_name_is_published_until_writers_are_switched() -> None:
    types = EventTypes(OrderPlaced, write={"placed": 3})

    new = types.new_event(PLACED)

    assert new.name == "placed"
    assert types.read(as_stored(new)).name == "order-placed"  # type: ignore[union-attr]


UNREADABLE = [
    ("order-lost", 1, {}, UnknownEventTypeError, "its name is not among the store's event types", "unknown"),
    ("order-paid", 2, {}, UnknownEventTypeError, "OrderPaid is of version 1: deploy the code", "unknown"),
    ("order-paid", 1, {"amount": "hunter2"}, InvalidPayloadError, "Expected `int`, got `str`", "invalid"),
    ("order-placed", 1, "hunter2", InvalidPayloadError, "does not fit its type: TypeError", "invalid"),
]


@in_turn("name, version, payload, kind, message, policy", UNREADABLE)
def test_unreadable_event_is_named_kept_or_skipped(
    name: str, version: int, payload: Any, kind: type[UnreadableEventError], message: str, policy: str
) -> None:
    event = stored(name, payload, version=version)
    for read in both(TYPES):
        with pytest.raises(kind) as unreadable:
            read(event)
        error = unreadable.value
        assert f"event 7, {name!r} in version {version}, at position 4 of stream 'orders/1', cannot be read" in str(
            error
        )
        assert message in str(error)
        assert "hunter2" not in str(error)
        assert (error.sequence_number, error.position, error.name, error.version) == (7, 4, name, version)
    options: Any = {policy: "keep"}
    assert [read(event) for read in both(EventTypes(OrderPlaced, OrderPaid, **options))] == [event, event]
    options = {policy: "skip"}
    assert [read(event) for read in both(EventTypes(OrderPlaced, OrderPaid, **options))] == [None, None]


def test_upcast_that_returns_nothing_is_named() -> None:
    @event("changed", version=2, upcast={1: lambda payload: payload.clear()})
    @dataclass
    class Changed:
        pass

    with pytest.raises(InvalidPayloadError, match=r"upcast\[1\] returned None: return the payload"):
        EventTypes(Changed).read(stored("changed", {}))


def test_events_that_are_kept_are_as_they_are_stored() -> None:
    def emptied(payload: dict[str, Any]) -> dict[str, Any]:
        payload.clear()
        return payload

    @event("changed", version=3, upcast={1: emptied, 2: lambda payload: payload["total"]})
    @dataclass
    class Changed:
        pass

    old = stored("changed", {"total": 12})
    for read in both(EventTypes(Changed, invalid="keep")):
        assert read(old).payload == {"total": 12}
    with pytest.raises(InvalidPayloadError, match="KeyError") as failed:
        EventTypes(Changed).read(old)
    assert isinstance(failed.value.__cause__, KeyError)
    assert old.payload == {"total": 12}


def test_downcast_does_not_change_what_was_passed() -> None:
    payload = {"price": {"amount": "12.50", "currency": "USD"}}

    @event(
        "order-placed",
        version=2,
        upcast={1: add_currency},
        downcast={2: lambda payload: payload["price"].clear() or {}},
    )
    @dataclass
    class Placed:
        price: Money

    EventTypes(Placed, write={"order-placed": 1}).new_event(NewEvent(name="order-placed", payload=payload))

    assert payload == {"price": {"amount": "12.50", "currency": "USD"}}


def test_causes_show_no_payloads() -> None:
    with pytest.raises(InvalidPayloadError) as unreadable:
        TYPES.read(stored("order-paid", {"amount": "hunter2"}))

    assert unreadable.value.__cause__ is None
    assert unreadable.value.__suppress_context__


def test_tags_are_several() -> None:
    @event("tagged", tags=lambda _: "one")  # type: ignore[arg-type, return-value]
    @dataclass
    class Tagged:
        pass

    with pytest.raises(SerialisationError, match="tags are passed as a set, even a single one"):
        EventTypes(Tagged).new_event(Tagged())


def test_unknown_names_may_be_published_where_they_are_kept() -> None:
    event = NewEvent(name="order-lost", payload={"where": "at sea"})

    assert EventTypes(unknown="keep").new_event(event) is event


def make(**options: Any) -> Any:
    @event("made", **options)
    @dataclass
    class Made:
        total: int = 0

    return Made


def same(payload: Any) -> Any:
    return payload


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: EventTypes(OrderPaid, OrderPaid), "OrderPaid was given twice"),
    (lambda: EventTypes(make(), make()), "Made and Made are both called 'made'"),
    (lambda: EventTypes(make(), make(aliases=["made"])), "both called 'made'"),
    (lambda: EventTypes(Money), "Money is not an event type: decorate it"),
    (lambda: EventTypes(type("Sub", (OrderPaid,), {})), "Sub is not an event type"),
    (lambda: event("again")(OrderPaid), "OrderPaid is decorated with @event twice"),
    (lambda: event(""), "the name of an event is text"),
    (lambda: make(version=0), "the version of the event 'made' is an integer of 1 or more"),
    (lambda: make(version=3, upcast={2: same}), "'made' of version 3 has no upcast from version 1"),
    (lambda: make(upcast={1: same}), "has an upcast from version 1"),
    (lambda: make(downcast={1: same}), "has a downcast from version 1"),
    (lambda: make(version=2, upcast={1: "same"}), "hold functions of the payload"),
    (lambda: make(aliases="old"), "aliases of the event 'made' are several"),
    (lambda: make(encrypted="total"), "encrypted of the event 'made' are several"),
    (lambda: EventTypes(make(encrypted=["total"])), "which would be stored as they are"),
    (lambda: EventTypes(OrderPlaced, write={"order-lost": 1}), "write names ['order-lost']"),
    (lambda: EventTypes(OrderPlaced, write={"order-placed": 4}), "version 4 of 'order-placed' cannot be published"),
    (lambda: EventTypes(OrderPlaced, write={"order-placed": 1}), "has no downcast from version 2"),
    (lambda: EventTypes(unknown="ignore"), "unknown is"),  # type: ignore[arg-type]
    (lambda: EventTypes(pipeline=[same]), "the pipeline holds PayloadTransforms"),  # type: ignore[list-item]
]


@in_turn("mistake, message", MISTAKES)
def test_mistakes_surface_when_types_are_declared(mistake: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        mistake()

    assert message in refused.value.message


def test_queries_take_classes_for_all_their_names() -> None:
    by_class, by_name = QueryItem(names=[OrderPlaced], tags={"t"}), QueryItem(names=["placed"], tags={"t"})

    assert by_class.names == {"order-placed", "placed", "order-made"}
    assert TYPES.with_all_names(EventQuery([by_name, QueryItem(tags={"u"})])) == EventQuery(
        [by_class, QueryItem(tags={"u"})]
    )


def test_name_in_takes_classes_for_all_their_names() -> None:
    assert name_in([OrderPlaced, "order-lost"]) == name_in(["order-placed", "placed", "order-made", "order-lost"])

"""Handlers that are chosen by the event types in their annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Optional, TypedDict, Union

import pytest

from eventstore_sa.errors import ConfigurationError, MissingProjectionHandlerError
from eventstore_sa.projection import Projector, handles
from eventstore_sa.testing import StoredEventBuilder
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import StoredEvent, StreamIdentifier, event


@event("order-placed", aliases=["placed"])
@dataclass(frozen=True)
class OrderPlaced:
    total: int = 1


@event("order-paid")
class OrderPaid(TypedDict):
    amount: int


@event("order-closed")
@dataclass(frozen=True)
class OrderClosed:
    pass


class OrderReopened(OrderClosed):
    """Not decorated itself."""


Either = OrderPlaced | OrderClosed


class Base(Projector[StreamIdentifier, str, None]):
    def initial_state_factory(self) -> str:
        return ""

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: str, source: StreamIdentifier) -> str:
        return source.stream


def applied(projector: Base, name: str, payload: Any) -> str:
    return projector.apply(event=StoredEventBuilder().with_name(name).with_payload(payload).build(), state="")


class ByPayload(Base):
    def take(self, state: str, placed: OrderPlaced) -> str:
        return f"placed {placed.total}"

    def order_placed(self, state: str, paid: OrderPaid) -> str:
        return f"paid {paid['amount']}"

    async def close(self, state: str, event: OrderClosed) -> str:
        return "closed"


class ByEvent(Base):
    def take(self, state: str, event: StoredEvent[str, OrderPlaced, None]) -> str:
        return f"placed {event.payload.total}"

    def both(self, state: str, event: StoredEvent[Any, OrderPaid | OrderClosed]) -> str:
        return event.name


class ByUnion(Base):
    def take(self, state: str, payload: Either) -> str:
        return type(payload).__name__

    def paid(self, state: str, event: Annotated[Optional[StoredEvent[str, OrderPaid]], "noted"]) -> str:  # noqa: UP045
        return "paid"

    def refunded(self, state: str, event: StoredEvent[str, OrderPaid] | OrderPlaced) -> str:
        return "by name"


class ByOldUnion(Base):
    def take(self, state: str, payload: Union[OrderPlaced, OrderClosed]) -> str:  # noqa: UP007
        return type(payload).__name__


class Decorated(Base):
    @handles("order-imported", "order-placed")
    def take(self, state: str, placed: OrderPlaced) -> str:
        return f"taken {placed.total}"


class ByName(Base):
    def order_placed(self, state: str, event: StoredEvent) -> str:
        return "by name"

    def order_closed(self, state: str, event: NotThere) -> str:  # type: ignore[name-defined]  # noqa: F821
        return "by name"

    def order_reopened(self, state: str, event: OrderReopened) -> str:
        return "by name"

    def order_paid(self, state, event):  # type: ignore[no-untyped-def]
        return "by name"

    def order_moved(self, state: str, event: StoredEvent[str, int]) -> str:
        return "by name"


class Overridden(ByPayload):
    def take(self, state: str, placed: OrderPlaced) -> str:
        return "overridden"


CASES: list[tuple[Base, str, Any, str]] = [
    (ByPayload(), "order-placed", OrderPlaced(3), "placed 3"),
    (ByPayload(), "placed", OrderPlaced(3), "placed 3"),
    (ByPayload(), "order-paid", {"amount": 4}, "paid 4"),
    (ByEvent(), "order-placed", OrderPlaced(3), "placed 3"),
    (ByEvent(), "order-paid", {"amount": 4}, "order-paid"),
    (ByEvent(), "order-closed", OrderClosed(), "order-closed"),
    (ByUnion(), "placed", OrderPlaced(), "OrderPlaced"),
    (ByUnion(), "order-closed", OrderClosed(), "OrderClosed"),
    (ByUnion(), "order-paid", {"amount": 1}, "paid"),
    (ByUnion(), "refunded", None, "by name"),
    (ByOldUnion(), "order-closed", OrderClosed(), "OrderClosed"),
    (Decorated(), "order-imported", OrderPlaced(5), "taken 5"),
    (Decorated(), "order-placed", OrderPlaced(5), "taken 5"),
    (ByName(), "order-placed", {}, "by name"),
    (ByName(), "order-closed", {}, "by name"),
    (ByName(), "order-reopened", {}, "by name"),
    (ByName(), "order-paid", {}, "by name"),
    (ByName(), "order-moved", 3, "by name"),
    (Overridden(), "order-placed", OrderPlaced(3), "overridden"),
]


@in_turn("projector, name, payload, result", CASES)
def test_handler_is_chosen_by_its_annotation(projector: Base, name: str, payload: Any, result: str) -> None:
    assert applied(projector, name, payload) == result


def test_annotated_handler_handles_nothing_that_it_is_named_after() -> None:
    with pytest.raises(MissingProjectionHandlerError):
        applied(ByPayload(), "take", OrderPlaced())
    with pytest.raises(ConfigurationError, match="takes dict"):
        applied(ByPayload(), "order-paid", OrderPlaced())


def test_local_classes_are_found() -> None:
    @event("local")
    @dataclass(frozen=True)
    class Local:
        pass

    class OfLocal(Base):
        def take(self, state: str, local: Local) -> str:
            return "local"

    assert applied(OfLocal(), "local", Local()) == "local"


def test_payload_of_a_store_without_types_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"takes OrderPlaced, but the payload of 'order-placed' is of type dict: read"
    ):
        applied(ByPayload(), "order-placed", {"total": 3})


def test_two_handlers_of_one_type_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="both handle the event 'order-placed'"):

        class Twice(Base):
            def one(self, state: str, placed: OrderPlaced) -> str:
                return state

            def other(self, state: str, event: StoredEvent[str, OrderPlaced]) -> str:
                return state


async def test_annotated_handlers_may_be_coroutine_functions() -> None:
    closed = StoredEventBuilder().with_name("order-closed").with_payload(OrderClosed()).build()

    assert await ByPayload().reduce(events=[closed], state="", metadata=None) == ("closed", None)

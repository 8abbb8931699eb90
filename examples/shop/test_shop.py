from __future__ import annotations

import httpx
import pytest

from eventstore_sa import StreamIdentifier
from eventstore_sa.testing import FakeSession, assert_published, given, matching, staged_in
from shop.database import store
from shop.events import EVENTS, OrderPaid, OrderPlaced
from shop.orders import NotPossibleError, Order
from shop.reactions import CUSTOMERS, Customer, CustomerProjection

ORDER = StreamIdentifier(category="orders", stream="1")


def test_paid_order_cannot_be_cancelled() -> None:
    order = Order("ada", 12)
    order.pay("card")

    with pytest.raises(NotPossibleError):
        order.cancel("too late")


def test_payment_is_recorded() -> None:
    session = FakeSession()
    order = Order("ada", 12)
    order.id = 1
    session.add(order)

    order.pay("card")

    assert_published(staged_in(session), OrderPlaced("ada", 12), OrderPaid("ada", 12, "card"), only=True)


def test_customers_have_what_they_paid_for() -> None:
    events = [OrderPlaced("ada", 12), OrderPlaced("ada", 30), OrderPaid("ada", 30, "card")]

    given(events, stream=ORDER, types=EVENTS).when(CustomerProjection()).then(
        [Customer(name="ada", orders=2, spent=30)]
    )


async def test_order_is_placed_and_paid_over_http(client: httpx.AsyncClient) -> None:
    placed = await client.post("/orders", json={"customer": "ada", "total": 12}, headers={"x-request-id": "r1"})
    assert (placed.status_code, placed.json()) == (201, {"id": 1, "state": "placed"})
    assert (await client.post("/orders/1/payment")).json() == {"id": 1, "state": "paid"}
    assert (await client.post("/orders/1/payment")).status_code == 409

    await assert_published(
        store, matching(OrderPlaced, metadata={"correlation_id": "r1"}), OrderPaid("ada", 12, "card")
    )


async def test_customer_is_up_to_date_soon_after(client: httpx.AsyncClient) -> None:
    await client.post("/orders", json={"customer": "ada", "total": 12})
    await client.post("/orders/1/payment")

    paid = await store.stream(category="orders", stream="1").latest()
    assert paid is not None
    await CUSTOMERS.wait_for(paid, timeout_s=30)

    assert (await client.get("/customers/ada")).json() == {"orders": 1, "spent": 12}

"""The examples that are web applications, used over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask.testing import FlaskClient
from sqlalchemy import URL, text, update

from examples.fastapi_deliveries.app import create_app as create_deliveries
from examples.fastapi_orders.app import Order, create_app
from examples.flask_inventory.app import Article, db
from examples.flask_inventory.app import create_app as create_inventory
from tests.hosts import new_event
from tests.preloaded import run_preloaded
from tests.project import ROOT

PLACED = {"customer": "ada", "total": 12}


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://orders") as client,
    ):
        yield client


@pytest.fixture(params=["sqlite", "postgresql"])
def orders(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "sqlite":
        return create_app(f"sqlite+aiosqlite:///{tmp_path}/orders.db")
    postgres_url: Callable[[str], URL] = request.getfixturevalue("postgres_url")
    return create_app(postgres_url("asyncpg").render_as_string(hide_password=False))


async def test_order_is_placed_paid_and_shipped_with_its_history(orders: Any) -> None:
    async with client_of(orders) as client:
        placed = await client.post("/orders", json=PLACED, headers={"x-request-id": "r-1"})
        assert (placed.status_code, placed.json()) == (201, {"id": 1, "state": "placed"})
        assert (await client.post("/orders/1/shipment")).status_code == 409
        assert (await client.post("/orders/1/payment")).json() == {"id": 1, "state": "paid"}
        assert (await client.post("/orders/1/shipment")).json() == {"id": 1, "state": "shipped"}
        assert (await client.post("/orders/1/shipment")).status_code == 409

        history = (await client.get("/orders/1/history")).json()
        assert [event["name"] for event in history] == ["order-placed", "order-paid", "order-shipped"]
        assert history[0]["payload"] == PLACED
        assert history[0]["metadata"] == {"correlation_id": "r-1"}
        assert history[1]["metadata"]["correlation_id"] != "r-1"


async def test_order_that_is_not_there_is_not_found(orders: Any) -> None:
    async with client_of(orders) as client:
        assert (await client.post("/orders/7/payment")).status_code == 404
        assert (await client.get("/orders/7/history")).status_code == 404


async def test_of_two_requests_at_once_one_is_told_to_load_again(orders: Any) -> None:
    async with client_of(orders) as client:
        await client.post("/orders", json=PLACED)
        # As if another had counted an event between the load and the commit of this request.
        async with orders.state.sessions.begin() as session:
            await session.execute(update(Order).values(version=0))

        lost = await client.post("/orders/1/payment")

        assert (lost.status_code, lost.json()["detail"].split(":")[0]) == (
            409,
            "another request has changed this order",
        )
        async with orders.state.sessions() as session:
            assert (await session.get_one(Order, 1)).state == "placed"


async def test_row_and_event_are_rolled_back_together(orders: Any) -> None:
    async with client_of(orders) as client:
        async with orders.state.sessions() as session:
            session.add(Order.place("ada", 12))
            await session.flush()
            await orders.state.store.within(session).flush()
            await session.rollback()
        assert await orders.state.store.log().read() == []
        assert (await client.get("/orders/1/history")).status_code == 404


@pytest.fixture(params=["sqlite", "postgresql"])
def deliveries(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "sqlite":
        return create_deliveries(f"sqlite+aiosqlite:///{tmp_path}/deliveries.db")
    postgres_url: Callable[[str], URL] = request.getfixturevalue("postgres_url")
    return create_deliveries(postgres_url("asyncpg").render_as_string(hide_password=False))


async def test_a_subscription_runs_in_the_lifespan_of_an_application(deliveries: Any) -> None:
    for pieces, total in ((500, 500), (20, 520)):
        async with client_of(deliveries) as client:
            delivered = await client.post("/articles/bolts/deliveries", json={"pieces": pieces})
            assert (delivered.status_code, delivered.json()) == (201, {"sku": "bolts", "pieces": total})
            assert (await client.get("/articles/bolts")).json() == {"sku": "bolts", "pieces": total}
            assert (await client.get("/articles/nuts")).status_code == 404
            states = [(each["state"], each["last_error"]) for each in (await client.get("/health")).json()]
            assert states == [("running", None)] * 4


@contextmanager
def inventory_client(url: str) -> Iterator[FlaskClient]:
    app = create_inventory(url)
    with app.test_client() as client:
        yield client
    with app.app_context():
        db.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def inventory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FlaskClient]:
    url = f"sqlite:///{tmp_path}/inventory.db"
    if request.param == "postgresql":
        postgres_url: Callable[[str], URL] = request.getfixturevalue("postgres_url")
        url = postgres_url("psycopg").render_as_string(hide_password=False)
    with inventory_client(url) as client:
        yield client


def test_articles_are_delivered_and_shipped_with_their_history(inventory: FlaskClient) -> None:
    delivered = inventory.post("/articles/bolts/deliveries", json={"pieces": 500})
    assert (delivered.status_code, delivered.json) == (201, {"sku": "bolts", "stock": 500})
    shipped = inventory.post("/articles/bolts/shipments", json={"pieces": 120})
    assert (shipped.status_code, shipped.json) == (201, {"sku": "bolts", "stock": 380})
    assert inventory.post("/articles/bolts/shipments", json={"pieces": 400}).status_code == 409

    assert inventory.get("/articles/bolts").json == {
        "sku": "bolts",
        "stock": 380,
        "stock_by_events": 380,
        "history": [["delivered", 500], ["shipped", 120]],
    }
    assert inventory.get("/articles/nuts").status_code == 404


def test_what_a_request_has_staged_is_dropped_when_it_fails(inventory: FlaskClient) -> None:
    app = inventory.application
    with app.app_context():
        store = app.extensions["event-store"].within(db.session)
        db.session.add(Article(sku="bolts", stock=1))
        store.stream(category="articles", stream="bolts").stage(events=[new_event("dropped")])
    with app.app_context():
        db.session.execute(text("SELECT 1"))
        db.session.commit()
        assert app.extensions["event-store"].log().read() == []

    assert inventory.get("/articles/bolts").status_code == 404


@pytest.mark.parametrize("module", ["fastapi_deliveries.app", "fastapi_orders.app", "flask_inventory.app"])
def test_web_example_can_be_imported_as_its_text_says(module: str, tmp_path: Path) -> None:
    outcome = run_preloaded(
        "-c", f"import {module}", cwd=tmp_path, environment={"PYTHONPATH": f"{ROOT / 'examples'}:{ROOT}"}
    )

    assert (outcome.returncode, outcome.stderr) == (0, "")

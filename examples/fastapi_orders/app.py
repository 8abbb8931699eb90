"""Orders over HTTP, with FastAPI and an asyncio session: the row of an order and its events are stored in one transaction.

Run it from the folder `examples`, with a SQLite file there or with any PostgreSQL database:

    uvicorn fastapi_orders.app:app
    DATABASE_URL=postgresql+asyncpg://user@localhost/shop uvicorn fastapi_orders.app:app

    curl -X POST localhost:8000/orders -H 'content-type: application/json' -d '{"customer": "ada", "total": 12}'
    curl -X POST localhost:8000/orders/1/payment
    curl localhost:8000/orders/1/history
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventstore_sa import EventStore, EventStoreSchema, NewEvent, RecordsEvents, configure_sqlite, event_metadata
from eventstore_sa.errors import UnmetWriteConditionError


class Base(DeclarativeBase):
    """The base of the application's mapped classes."""


class Order(RecordsEvents, Base):
    """An order. Its events are recorded where they happen, and published when the session commits."""

    __tablename__ = "orders"
    __event_version__ = "version"  # if two requests change an order at the same time, one of them gets a 409

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    total: Mapped[int]
    state: Mapped[str] = mapped_column(default="placed")
    version: Mapped[int] = mapped_column(default=0)

    @classmethod
    def place(cls, customer: str, total: int) -> Order:
        order = cls(customer=customer, total=total)
        order.record(NewEvent(name="order-placed", payload={"customer": customer, "total": total}))
        return order

    def pay(self) -> None:
        self._move(from_state="placed", to_state="paid")
        self.record(NewEvent(name="order-paid", payload={"total": self.total}))

    def ship(self) -> None:
        self._move(from_state="paid", to_state="shipped")
        self.record(NewEvent(name="order-shipped", payload=None))

    def _move(self, *, from_state: str, to_state: str) -> None:
        if self.state != from_state:
            raise HTTPException(409, f"order {self.id} is {self.state}, not {from_state}")
        self.state = to_state


SCHEMA = EventStoreSchema(Base.metadata)


class NewOrder(BaseModel):
    customer: str
    total: int


async def session_of(request: Request) -> AsyncGenerator[AsyncSession]:
    async with request.app.state.sessions() as session:
        yield session


OpenSession = Annotated[AsyncSession, Depends(session_of)]


async def order_of(order_id: int, session: OpenSession) -> Order:
    order = await session.get(Order, order_id)
    if order is None:
        raise HTTPException(404, f"there is no order {order_id}")
    return order


KnownOrder = Annotated[Order, Depends(order_of)]


async def name_request(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Add the id of the request to the metadata of every event."""
    with event_metadata(correlation_id=request.headers.get("x-request-id", str(uuid4()))):
        return await call_next(request)


async def refuse_lost_race(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"another request has changed this order: {error}"}, 409)


async def place(new: NewOrder, session: OpenSession) -> dict[str, Any]:
    order = Order.place(new.customer, new.total)
    session.add(order)
    await session.commit()
    return {"id": order.id, "state": order.state}


async def pay(order: KnownOrder, session: OpenSession) -> dict[str, Any]:
    order.pay()
    await session.commit()
    return {"id": order.id, "state": order.state}


async def ship(order: KnownOrder, session: OpenSession) -> dict[str, Any]:
    order.ship()
    await session.commit()
    return {"id": order.id, "state": order.state}


async def history(order: KnownOrder, request: Request) -> list[dict[str, Any]]:
    store: EventStore = request.app.state.store
    return [
        {"name": event.name, "payload": event.payload, "metadata": event.metadata, "at": event.occurred_at}
        async for event in store.stream(category="orders", stream=str(order.id))
    ]


def create_app(url: str) -> FastAPI:
    """Create the application, connected to a database."""
    engine = create_async_engine(url)
    configure_sqlite(engine)  # gives SQLite real transactions; no effect on other databases

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    app.state.store = EventStore(engine, schema=SCHEMA)
    app.middleware("http")(name_request)
    app.add_exception_handler(UnmetWriteConditionError, refuse_lost_race)
    app.add_api_route("/orders", place, methods=["POST"], status_code=201)
    app.add_api_route("/orders/{order_id}/payment", pay, methods=["POST"])
    app.add_api_route("/orders/{order_id}/shipment", ship, methods=["POST"])
    app.add_api_route("/orders/{order_id}/history", history)
    return app


app = create_app(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///orders.db"))

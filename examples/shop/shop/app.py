"""The shop over HTTP: `uvicorn shop.app:app`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from eventstore_sa import event_metadata, verify_schema
from eventstore_sa.browser import event_browser
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.subscriptions import SubscriptionRunner
from eventstore_sa.telemetry import EventStoreInstrumentor, watch
from shop.database import engine, schema, sessions, store
from shop.orders import NotPossibleError, Order
from shop.reactions import SUBSCRIPTIONS, Customer


class NewOrder(BaseModel):
    customer: str
    total: int


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    async with engine.connect() as connection:
        await connection.run_sync(verify_schema, schema=schema)  # fails with a remedy, if `alembic upgrade head` is due
    EventStoreInstrumentor().instrument()  # for OpenTelemetry, where the process sends traces and metrics to it
    async with SubscriptionRunner(SUBSCRIPTIONS), watch(store, subscriptions=SUBSCRIPTIONS):
        yield
    EventStoreInstrumentor().uninstrument()
    await engine.dispose()


async def open_session() -> AsyncGenerator[AsyncSession]:
    async with sessions() as session:
        yield session


OpenSession = Annotated[AsyncSession, Depends(open_session)]


async def find_order(order_id: int, session: OpenSession) -> Order:
    order = await session.get(Order, order_id)
    if order is None:
        raise HTTPException(404, f"there is no order {order_id}")
    return order


KnownOrder = Annotated[Order, Depends(find_order)]
app = FastAPI(title="Shop", lifespan=lifespan)
app.mount("/events", event_browser(store, subscriptions=SUBSCRIPTIONS))  # to look at; not for everybody's eyes


@app.middleware("http")
async def name_request(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    with event_metadata(correlation_id=request.headers.get("x-request-id", str(uuid4()))):
        return await call_next(request)


@app.exception_handler(NotPossibleError)
@app.exception_handler(UnmetWriteConditionError)
async def answer_conflict(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 409)


@app.post("/orders", status_code=201)
async def place(new: NewOrder, session: OpenSession) -> dict[str, Any]:
    order = Order(new.customer, new.total)
    session.add(order)
    await session.commit()
    return {"id": order.id, "state": order.state}


@app.post("/orders/{order_id}/payment")
async def pay(order: KnownOrder, session: OpenSession, method: str = "card") -> dict[str, Any]:
    order.pay(method)
    await session.commit()
    return {"id": order.id, "state": order.state}


@app.post("/orders/{order_id}/cancellation")
async def cancel(order: KnownOrder, session: OpenSession, reason: str = "") -> dict[str, Any]:
    order.cancel(reason)
    await session.commit()
    return {"id": order.id, "state": order.state}


@app.get("/orders/{order_id}/history")
async def read_history(order_id: int) -> list[dict[str, Any]]:
    stream = store.stream(category="orders", stream=str(order_id))
    return [{"name": event.name, "payload": event.payload, "metadata": event.metadata} async for event in stream]


@app.get("/customers/{name}")
async def read_customer(name: str, session: OpenSession) -> dict[str, Any]:
    customer = await session.get(Customer, name)
    if customer is None:
        raise HTTPException(404, f"there is no customer {name}")
    return {"orders": customer.orders, "spent": customer.spent}

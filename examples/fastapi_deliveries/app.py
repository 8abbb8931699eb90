"""Deliveries over HTTP, with FastAPI: a subscription runs in the lifespan of the application and keeps what is in stock.

Run it from the folder `examples`, with a SQLite file there or, in as many processes as you like, with a PostgreSQL database:

    uvicorn fastapi_deliveries.app:app
    DATABASE_URL=postgresql+asyncpg://user@localhost/shop uvicorn fastapi_deliveries.app:app --workers 4

    curl -X POST localhost:8000/articles/bolts/deliveries -H 'content-type: application/json' -d '{"pieces": 500}'
    curl localhost:8000/articles/bolts
    curl localhost:8000/health
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventstore_sa import EventStore, EventStoreSchema, NewEvent, StoredEvent, configure_sqlite
from eventstore_sa.errors import WaitTimeoutError
from eventstore_sa.subscriptions import FailurePolicy, Subscription, SubscriptionRunner


class Base(DeclarativeBase):
    """The base of the application's mapped classes."""


class Article(Base):
    """What is in stock, as far as the subscription has come."""

    __tablename__ = "articles"

    sku: Mapped[str] = mapped_column(primary_key=True)
    pieces: Mapped[int] = mapped_column(default=0)


SCHEMA = EventStoreSchema(Base.metadata)


class Delivery(BaseModel):
    pieces: int


async def count(event: StoredEvent[str, Any, Any], session: AsyncSession) -> None:
    """Add a delivery to the stock; the session commits together with the checkpoint, so each is counted exactly once."""
    article = await session.get(Article, event.stream)
    if article is None:
        article = Article(sku=event.stream, pieces=0)
        session.add(article)
    article.pieces += event.payload["pieces"]


async def deliver(sku: str, delivery: Delivery, request: Request) -> Any:
    """Store a delivery, and answer once it is counted: whoever has delivered reads what they wrote."""
    stream = request.app.state.store.stream(category="deliveries", stream=sku)
    (event,) = await stream.publish(events=[NewEvent(name="delivered", payload=delivery.model_dump())])
    try:
        await request.app.state.stock.wait_for(event, timeout_s=10)
    except WaitTimeoutError:
        return JSONResponse({"detail": "stored, and not counted yet"}, 202)
    return await look(sku, request)


async def look(sku: str, request: Request) -> dict[str, Any]:
    async with request.app.state.sessions() as session:
        article = await session.get(Article, sku)
    if article is None:
        raise HTTPException(404, f"there are no {sku}")
    return {"sku": article.sku, "pieces": article.pieces}


async def health(request: Request) -> list[dict[str, Any]]:
    """Say how the subscription is getting on, for whoever watches the application."""
    return [
        {"partition": each.partition, "state": each.state, "lag_s": each.lag_s, "last_error": each.last_error}
        for each in await request.app.state.stock.status()
    ]


def create_app(url: str) -> FastAPI:
    """Create the application, connected to a database."""
    engine = create_async_engine(url)
    configure_sqlite(engine)  # gives SQLite real transactions; no effect on other databases
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    store = EventStore(engine, schema=SCHEMA)
    stock = Subscription(
        "stock",
        store.category(category="deliveries"),
        count,
        sessions=sessions,
        partitions=4,
        on_failure=FailurePolicy(then="park"),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        # Current events are handled to their end when the application ends, and other processes take over.
        async with SubscriptionRunner([stock]):
            yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.state.sessions = sessions
    app.state.store = store
    app.state.stock = stock
    app.add_api_route("/articles/{sku}/deliveries", deliver, methods=["POST"], status_code=201)
    app.add_api_route("/articles/{sku}", look)
    app.add_api_route("/health", health)
    return app


app = create_app(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///deliveries.db"))

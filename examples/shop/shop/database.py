"""The database: tables, sessions, and the store of events."""

from __future__ import annotations

import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from eventstore_sa import EventStore, EventStoreSchema, configure_sqlite
from shop.events import EVENTS


class Base(DeclarativeBase):
    """The base of the shop's mapped classes."""


schema = EventStoreSchema(Base.metadata)
engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///shop.db"))
configure_sqlite(engine)
sessions = async_sessionmaker(engine, expire_on_commit=False)
store = EventStore(engine, schema=schema, types=EVENTS)

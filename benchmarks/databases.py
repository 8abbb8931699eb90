"""What is measured on: databases with our tables, filled with events, and connections of the raw driver to them.

Both sides of a contest use the same database, on the same server, with the same `synchronous_commit`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
from msgspec import Struct
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from eventstore_sa import EventStore, EventStoreSchema
from eventstore_sa.testing.postgres import PostgresServer

__all__ = ["COLUMNS", "Database", "Setting", "database"]

COLUMNS = "id, name, stream, category, position, sequence_number, payload, metadata, observed_at, occurred_at"
"""What a reader selects who has no use for tags and versions, in the order of the fields of StoredEvent."""

EVENTS_PER_STREAM = 20

_FILL = f"""
INSERT INTO {{events}} (id, category, stream, position, name, payload, metadata, observed_at, occurred_at)
SELECT
  gen_random_uuid(), 'orders', 'order-' || i / {EVENTS_PER_STREAM}, i % {EVENTS_PER_STREAM}, 'order-placed',
  jsonb_build_object(
    'order_id', 'order-' || i / {EVENTS_PER_STREAM}, 'customer', 'customer-' || i % 997, 'total', i * 0.01,
    'currency', 'EUR', 'lines', jsonb_build_array(
      jsonb_build_object('sku', 'sku-' || i % 89, 'quantity', 1 + i % 5, 'price', 3.5),
      jsonb_build_object('sku', 'sku-' || i % 83, 'quantity', 1 + i % 3, 'price', 17.25)
    )
  ),
  jsonb_build_object('user', 'user-' || i % 31), now(), now() - interval '1 hour'
FROM generate_series(0, $1::bigint - 1) i
"""


class Setting(Struct, frozen=True, kw_only=True):
    """What all benchmarks of a run have in common.

    Attributes:
        server: Where databases are made.
        rounds: How often each side is measured.
        quick: Whether it is enough that everything runs.
        synchronous_commit: PostgreSQL's setting of that name, for both sides of every benchmark; None: as each declares.
    """

    server: PostgresServer
    rounds: int
    quick: bool
    synchronous_commit: str | None = None

    def sized(self, full: int, quick: int) -> int:
        """Return how much work to do."""
        return quick if self.quick else full


class Database(Struct, frozen=True):
    """A database of our own, for the length of one benchmark."""

    name: str
    server: PostgresServer
    resources: AsyncExitStack

    @property
    def url(self) -> URL:
        """Its address for asyncpg through SQLAlchemy."""
        return self.server.url_for(self.name, "asyncpg")

    @property
    def dsn(self) -> str:
        """Its address for drivers without SQLAlchemy."""
        return self.server.url_for(self.name, None).render_as_string(hide_password=False)

    async def engine(self, *, pool_size: int = 1) -> AsyncEngine:
        """Make an engine with a pool of that size; disposed of at the end of the benchmark."""
        engine = create_async_engine(self.url, pool_size=pool_size, max_overflow=0)
        self.resources.push_async_callback(engine.dispose)
        return engine

    async def store(self, *, prefix: str = "es_", pool_size: int = 1) -> EventStore:
        """Make a store on an engine of its own, with its tables."""
        store = EventStore(await self.engine(pool_size=pool_size), schema=EventStoreSchema(prefix=prefix))
        await store.create_schema()
        return store

    async def raw(self) -> asyncpg.Connection[Any]:
        """Open a connection of the raw driver; closed at the end of the benchmark."""
        connection = await asyncpg.connect(self.dsn)
        self.resources.push_async_callback(connection.close)
        return connection

    async def filled_store(self, size: int, *, prefix: str = "es_") -> EventStore:
        """Make a store with `size` events, in streams of `EVENTS_PER_STREAM`."""
        store = await self.store(prefix=prefix)
        connection = await self.raw()
        await connection.execute(_FILL.format(events=f"{prefix}events"), size)
        await connection.execute(f"VACUUM ANALYZE {prefix}events")
        return store


@asynccontextmanager
async def database(setting: Setting, *, synchronous_commit: str = "off") -> AsyncIterator[Database]:
    """Provide a new database without tables; dropped at the end.

    Waiting for the disk hides what the code costs, so commits of both sides do not, where they are not the point.
    """
    waiting = setting.synchronous_commit or synchronous_commit
    name = setting.server.create_database()
    try:
        async with AsyncExitStack() as resources:
            created = Database(name, setting.server, resources)
            connection = await created.raw()
            await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {waiting}')
            yield created
    finally:
        setting.server.drop_database(name)

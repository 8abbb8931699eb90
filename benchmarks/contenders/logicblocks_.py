"""The library `logicblocks.event.store` on PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from logicblocks.event.projection import ProjectionStore
from logicblocks.event.projection.store.adapters import PostgresProjectionStorageAdapter
from logicblocks.event.query import FilterClause, OffsetPagingClause, Operator, Path, SortClause, SortField, SortOrder
from logicblocks.event.store import EventStore, conditions
from logicblocks.event.store.adapters import PostgresEventStorageAdapter
from logicblocks.event.store.exceptions import UnmetWriteConditionError
from logicblocks.event.types import JsonValueType, NewEvent, Projection, StreamIdentifier
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from benchmarks.contenders.contender import ConflictError, Contender
from benchmarks.databases import Database
from benchmarks.samples import NAME, changed, order_placed, order_summary, stored_summaries

__all__ = ["Logicblocks"]

# The tables and indexes that its documentation asks for.
_TABLES = """
CREATE TABLE events (
  id text PRIMARY KEY, name text NOT NULL, stream text NOT NULL, category text NOT NULL, position int NOT NULL,
  payload jsonb NOT NULL, sequence_number bigserial NOT NULL,
  observed_at timestamptz NOT NULL, occurred_at timestamptz NOT NULL
);
CREATE INDEX ON events (sequence_number);
CREATE INDEX ON events (category, stream, position);
CREATE INDEX ON events (category, sequence_number);
CREATE INDEX ON events (category, stream, sequence_number DESC);
CREATE TABLE projections (
  id text NOT NULL, name text NOT NULL, source jsonb NOT NULL, state jsonb NOT NULL, metadata jsonb NOT NULL,
  PRIMARY KEY (name, id)
);
CREATE INDEX ON projections (name, source);
"""

# It logs each call on standard output unless the host says otherwise.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


class Logicblocks(Contender):
    """An `EventStore` on its adapter for PostgreSQL."""

    name = "logicblocks"
    setup = "`EventStore(PostgresEventStorageAdapter(...))` (psycopg), all settings by default, logging from errors on"
    gives_up = (
        "transactions of the host, several streams of several categories in one call; a writer locks the log until it "
        "commits, by default, so that the log reads complete"
    )

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        self.pool = pool
        self.store = EventStore(PostgresEventStorageAdapter(connection_source=pool))
        self.projections = ProjectionStore(PostgresProjectionStorageAdapter(connection_source=pool))

    @classmethod
    @asynccontextmanager
    async def opened(cls, db: Database, connections: int) -> AsyncIterator[Logicblocks]:
        await (await db.raw()).execute(_TABLES)
        pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            db.dsn, open=False, min_size=connections, max_size=connections
        )
        await pool.open(wait=True)
        try:
            yield cls(pool)
        finally:
            await pool.close()

    def new_events(self, category: str, stream: int, size: int, *, after: int) -> Any:
        return [NewEvent(name=NAME, payload=order_placed(number)) for number in range(size)]

    async def append(self, category: str, stream: int, events: Any, *, after: int) -> None:
        condition = conditions.stream_is_empty() if after == -1 else conditions.position_is(after)
        try:
            await self.store.stream(category=category, stream=str(stream)).publish(events=events, condition=condition)
        except UnmetWriteConditionError as error:
            raise ConflictError(str(error)) from error

    async def read_stream(self, category: str, stream: int) -> int:
        return len([event async for event in self.store.stream(category=category, stream=str(stream)).iterate()])

    async def read_category(self, category: str) -> int:
        return len([event async for event in self.store.category(category=category).iterate()])

    async def read_log(self) -> int:
        seen = 0
        async for _ in self.store.log().iterate():
            seen += 1
        return seen

    async def read_latest(self, category: str, stream: int) -> None:
        if await self.store.stream(category=category, stream=str(stream)).latest() is None:
            raise AssertionError(f"stream {stream} is empty")

    async def catch_up(self, run: str) -> int:
        seen = 0
        async for event in self.store.log().iterate():
            stored = await self.projections.load(
                id=event.stream, name=run, state_type=JsonValueType, metadata_type=JsonValueType
            )
            state: Any = stored.state if stored else {"changes": 0, "total": 0}
            source = StreamIdentifier(category=event.category, stream=event.stream)
            await self.projections.save(
                projection=Projection(
                    id=event.stream, name=run, source=source, state=changed(state, event.payload), metadata={}
                )
            )
            seen += 1
        return seen

    async def fill_projections(self, size: int) -> None:
        connection = await self.db.raw()
        await connection.execute(stored_summaries("projections"), size)
        await connection.execute("VACUUM ANALYZE projections")

    async def save_projection(self, number: int) -> None:
        source = StreamIdentifier(category="orders", stream=f"order-{number}")
        await self.projections.save(
            projection=Projection(
                id=source.stream, name="saved", source=source, state=order_summary(number), metadata={}
            )
        )

    async def search_projections(self, status: str, page: int) -> int:
        found = await self.projections.search(
            filters=[
                FilterClause(Operator.EQUAL, Path("name"), "orders"),
                FilterClause(Operator.EQUAL, Path("state", "status"), status),
            ],
            sort=SortClause([SortField(Path("state", "total"), SortOrder.DESC)]),
            paging=OffsetPagingClause(page_number=page + 1, item_count=10),
        )
        return len(found)

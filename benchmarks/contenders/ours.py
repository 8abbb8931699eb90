"""This library, with the settings that it has by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from benchmarks.contenders.contender import ConflictError, Contender
from benchmarks.databases import Database
from benchmarks.harness import OURS
from benchmarks.samples import INSERT_ORDER, changed, new_events, order_summary, stored_summaries
from eventstore_sa import (
    EventStore,
    EventStoreSchema,
    NewEvent,
    Projection,
    ProjectionStore,
    Projector,
    StoredEvent,
    StreamIdentifier,
)
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.query import FilterClause, OffsetPagingClause, Operator, Path, SortClause, SortField, SortOrder
from eventstore_sa.store.conditions import position_is, stream_is_empty

__all__ = ["Changes", "CoalescingOurs", "Ours"]

_BATCH = 500


class _Count(Projector[StreamIdentifier, int, None]):
    """How many orders were placed."""

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: StreamIdentifier) -> str:
        return source.stream

    def order_placed(self, state: int, event: StoredEvent) -> int:
        return state + 1


class Changes(Projector[StreamIdentifier, dict[str, Any], None]):
    """How often an order was changed, and what it costs."""

    def initial_state_factory(self) -> dict[str, Any]:
        return {"changes": 0, "total": 0}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
        return source.stream

    def order_placed(self, state: dict[str, Any], event: StoredEvent) -> dict[str, Any]:
        return changed(state, event.payload)


class Ours(Contender):
    """An `EventStore` on an engine of asyncpg."""

    name = OURS
    setup = "`EventStore` on asyncpg, all settings by default"
    gives_up = ""

    def __init__(self, store: EventStore, engine: AsyncEngine, schema: EventStoreSchema) -> None:
        self.engine = engine
        self.schema = schema
        self.store = store
        self.projections = ProjectionStore(store)

    @classmethod
    @asynccontextmanager
    async def opened(cls, db: Database, connections: int) -> AsyncIterator[Ours]:
        engine = db.engine(pool_size=connections)
        schema = EventStoreSchema()
        store = EventStore(engine, schema=schema)
        await store.create_schema()
        yield cls(store, engine, schema)

    def new_events(self, category: str, stream: int, size: int, *, after: int) -> Any:
        return new_events(size)

    async def append(self, category: str, stream: int, events: Any, *, after: int) -> None:
        condition = stream_is_empty() if after == -1 else position_is(after)
        try:
            await self.store.stream(category=category, stream=f"{category}-{stream}").publish(
                events=events, condition=condition
            )
        except UnmetWriteConditionError as error:
            raise ConflictError from error

    async def append_decided(self, category: str, stream: int) -> int:
        attempts = 0

        def decide(_placed: int) -> Sequence[NewEvent[str, Any, Any]]:
            nonlocal attempts
            attempts += 1
            return new_events(1)

        # Some of sixteen writers need more than the three retries that are the default.
        await self.store.stream(category=category, stream=f"{category}-{stream}").update(_COUNT, decide, retries=1000)
        return attempts

    async def read_stream(self, category: str, stream: int) -> int:
        return len(await self.store.stream(category=category, stream=f"{category}-{stream}").read())

    async def read_category(self, category: str) -> int:
        seen = 0
        async for _ in self.store.category(category=category).iterate():
            seen += 1
        return seen

    async def read_log(self) -> int:
        seen = 0
        async for _ in self.store.log().iterate():
            seen += 1
        return seen

    async def read_latest(self, category: str, stream: int) -> None:
        if await self.store.stream(category=category, stream=f"{category}-{stream}").latest() is None:
            raise AssertionError(f"stream {stream} is empty")

    async def catch_up(self, run: str) -> int:
        projector, seen = Changes(), 0
        projector.name = run
        batch: list[StoredEvent] = []
        async for event in self.store.log().iterate():
            batch.append(event)
            seen += 1
            if len(batch) == _BATCH:
                await self.projections.project(projector, events=batch)
                batch = []
        if batch:
            await self.projections.project(projector, events=batch)
        return seen

    async def transact(self, stream: int, events: Any, work_s: float) -> None:
        async with AsyncSession(self.engine) as session, session.begin():
            await session.execute(INSERT_ORDER, {"id": stream})
            self.store.within(session).stream(category="orders", stream=f"orders-{stream}").stage(
                events=events, condition=stream_is_empty()
            )
            await asyncio.sleep(work_s)

    async def fill_projections(self, size: int) -> None:
        connection = await self.db.raw()
        await connection.execute(stored_summaries("es_projections", more={"source_hash": "i", "version": "1"}), size)
        await connection.execute("VACUUM ANALYZE es_projections")

    async def save_projection(self, number: int) -> None:
        source = StreamIdentifier("orders", f"order-{number}")
        await self.projections.save(
            projection=Projection(
                id=source.stream, name="saved", source=source, state=order_summary(number), metadata=None
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


class CoalescingOurs(Ours):
    """The same with `coalesce=True`, where many write at once."""

    name = f"{OURS}, coalescing"
    setup = "`EventStore(..., coalesce=True)` on asyncpg"

    @classmethod
    def beside(cls, ours: Ours) -> CoalescingOurs:
        """Return it on the engine and tables of the one that does not coalesce."""
        coalescing = cls(EventStore(ours.engine, schema=ours.schema, coalesce=True), ours.engine, ours.schema)
        coalescing.db = ours.db
        return coalescing


_COUNT = _Count()

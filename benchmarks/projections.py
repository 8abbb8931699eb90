"""Stored projections on PostgreSQL with asyncpg: saving batches of them, and searching with an index.

The raw driver saves the same rows by one statement for each batch. A search is held against SQL that is written by hand for
that very search, with an index of its own: through SQLAlchemy, as an application would run it, and through the raw driver.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.databases import Database, Setting, database
from benchmarks.harness import Contest, benchmark, rate
from benchmarks.samples import order_placed
from eventstore_sa import EventStoreSchema, Projection, ProjectionStore, Projector, StoredEvent, StreamIdentifier
from eventstore_sa.projection import projection_index
from eventstore_sa.query import FilterClause, OffsetPagingClause, Operator, Path, SortClause, SortField, SortOrder
from eventstore_sa.testing import StoredEventBuilder

__all__ = ["SlottedProjection"]

_BATCH = 500
_PAGE_SIZE = 10
_STATUSES = ("open", "paid", "sent", "done")

_UPSERT = """
INSERT INTO es_projections (name, id, source, source_hash, state, metadata, version)
SELECT 'orders', id, source::jsonb, hashtextextended(source, 0), state::jsonb, 'null', 1
FROM unnest($1::text[], $2::text[], $3::text[]) AS saved (id, source, state)
ON CONFLICT (name, id) DO UPDATE
SET state = excluded.state, metadata = excluded.metadata, version = es_projections.version + 1
"""
_FILL = """
INSERT INTO es_projections (name, id, source, source_hash, state, metadata, version)
SELECT
  'orders', 'order-' || i, jsonb_build_object('type', 'stream', 'category', 'orders', 'stream', 'order-' || i), i,
  jsonb_build_object(
    'status', ($2::text[])[1 + i % 4], 'total', (i * 7919 % 100003) / 4.0, 'customer', 'customer-' || i % 997,
    'lines', jsonb_build_array(jsonb_build_object('sku', 'sku-' || i % 89, 'quantity', 1 + i % 5, 'price', 3.5))
  ),
  'null', 1
FROM generate_series(0, $1::bigint - 1) i
"""
_INDEX = """
CREATE INDEX by_hand ON es_projections ((state ->> 'status'), ((state ->> 'total')::numeric) DESC, id)
WHERE name = 'orders'
"""
_SEARCH = """
SELECT name, id, source::text, state::text, metadata::text, version FROM es_projections
WHERE name = 'orders' AND state ->> 'status' = {status} ORDER BY (state ->> 'total')::numeric DESC, id
LIMIT 10 OFFSET {offset}
"""


@dataclass(slots=True)
class SlottedProjection:
    """What one would make of rows without this library."""

    name: str
    id: str
    source: Any
    state: Any
    metadata: Any
    version: int


class OrdersProjector(Projector[StreamIdentifier, dict[str, Any], None]):
    """Keeps what was placed last, and how often."""

    def initial_state_factory(self) -> dict[str, Any]:
        return {"placed": 0}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
        return source.stream

    def order_placed(self, state: dict[str, Any], event: StoredEvent) -> dict[str, Any]:
        return _placed(state, event)


@benchmark(
    "save-projections", f"the same with save_all of projections made by hand, {_BATCH} at a time", unit="events/s"
)
async def save_projections(setting: Setting) -> AsyncIterator[Contest]:
    """Hold projecting and saving in batches against an upsert of the raw driver's."""
    size, streams = setting.sized(50_000, 1000), setting.sized(5000, 500)
    events = [_event(number % streams, number) for number in range(size)]
    projector = OrdersProjector()
    encode = msgspec.json.encode
    async with database(setting) as db:
        await db.store()
        store, raw = ProjectionStore(await db.engine()), await db.raw()

        async def save(states: dict[str, Any]) -> None:
            for batch in _batches(events):
                changed: dict[str, Projection[Any, Any]] = {}
                for event in batch:
                    states[event.stream] = projector.apply(event=event, state=states.get(event.stream))
                    source = StreamIdentifier(event.category, event.stream)
                    changed[event.stream] = Projection(
                        id=event.stream, name="orders", source=source, state=states[event.stream], metadata=None
                    )
                await store.save_all(projections=list(changed.values()))

        async def upsert(states: dict[str, Any]) -> None:
            for batch in _batches(events):
                changed: dict[str, tuple[str, str]] = {}
                for event in batch:
                    state = states[event.stream] = _placed(states.get(event.stream) or {"placed": 0}, event)
                    source = {"type": "stream", "category": event.category, "stream": event.stream}
                    changed[event.stream] = (encode(source).decode(), encode(state).decode())
                sources, texts = zip(*changed.values(), strict=True)
                await raw.execute(_UPSERT, list(changed), sources, texts)

        yield Contest(rate(size, save, dict), rate(size, upsert, dict))


@benchmark(
    "search-projections", "search 100,000 projections: filter, sort, page; SQL by hand", unit="searches/s", floor=0.5
)
async def search_projections(setting: Setting) -> AsyncIterator[Contest]:
    """Hold searches that an index serves against SQL by hand, on the same engine."""
    async with _searched(setting) as (db, times, search):
        engine = await db.engine()
        yield Contest(rate(times, search), rate(times, lambda _: _by_hand(engine, times)))


@benchmark("search-projections-raw", "the same against the raw driver", unit="searches/s")
async def search_projections_raw(setting: Setting) -> AsyncIterator[Contest]:
    """Hold them against SQL by hand, run by the raw driver on a connection that it keeps."""
    async with _searched(setting) as (db, times, search):
        raw = await db.raw()
        yield Contest(rate(times, search), rate(times, lambda _: _by_raw_driver(raw, times)))


@asynccontextmanager
async def _searched(setting: Setting) -> AsyncIterator[tuple[Database, int, Callable[[Any], Awaitable[None]]]]:
    """Provide a database with projections and both indexes, and what searches there so many times."""
    times = setting.sized(500, 5)
    schema = EventStoreSchema()
    total = SortField(Path("state", "total"), SortOrder.DESC)
    projection_index("orders", Path("state", "status"), total, schema=schema)
    async with database(setting) as db:
        store = ProjectionStore(await db.engine(), schema=schema)
        await store.create_schema()
        raw = await db.raw()
        await raw.execute(_FILL, setting.sized(100_000, 1000), _STATUSES)
        await raw.execute(_INDEX)
        await raw.execute("VACUUM ANALYZE es_projections")

        async def search(_: None) -> None:
            for turn in range(times):
                status, page = _wanted(turn)
                found = await store.search(
                    filters=[
                        FilterClause(Operator.EQUAL, Path("name"), "orders"),
                        FilterClause(Operator.EQUAL, Path("state", "status"), status),
                    ],
                    sort=SortClause([total]),
                    paging=OffsetPagingClause(page_number=page + 1, item_count=_PAGE_SIZE),
                )
                _expect_page(found)

        yield db, times, search


async def _by_hand(engine: AsyncEngine, times: int) -> None:
    statement = text(_SEARCH.format(status=":status", offset=":offset"))
    for turn in range(times):
        status, page = _wanted(turn)
        async with engine.connect() as connection:
            rows = await connection.execute(statement, {"status": status, "offset": page * _PAGE_SIZE})
        _expect_page(_slotted(rows.all()))


async def _by_raw_driver(raw: asyncpg.Connection[Any], times: int) -> None:
    statement = _SEARCH.format(status="$1", offset="$2")
    for turn in range(times):
        status, page = _wanted(turn)
        _expect_page(_slotted(await raw.fetch(statement, status, page * _PAGE_SIZE)))


def _wanted(turn: int) -> tuple[str, int]:
    return _STATUSES[turn % 4], turn % 5


def _slotted(rows: Sequence[Any]) -> list[SlottedProjection]:
    decode = msgspec.json.Decoder().decode
    return [
        SlottedProjection(name, key, decode(source), decode(state), decode(metadata), version)
        for name, key, source, state, metadata, version in rows
    ]


def _expect_page(found: Sequence[object]) -> None:
    if len(found) != _PAGE_SIZE:
        raise AssertionError(f"{len(found)} projections were found, of {_PAGE_SIZE}")


def _placed(state: dict[str, Any], event: StoredEvent) -> dict[str, Any]:
    return {"placed": state["placed"] + 1, "last": event.payload}


def _event(stream: int, number: int) -> StoredEvent:
    return (
        StoredEventBuilder()
        .with_name("order-placed")
        .with_category("orders")
        .with_stream(f"order-{stream}")
        .with_payload(order_placed(number))
        .build()
    )


def _batches(events: Sequence[StoredEvent]) -> list[Sequence[StoredEvent]]:
    return [events[begin : begin + _BATCH] for begin in range(0, len(events), _BATCH)]

"""Publishing on PostgreSQL with asyncpg: alone, in batches, by many at once, and within a session.

The raw driver calls the same function as the library, with a document that was written before the clock started; only
the contest of many writers is held against what one would write without that function.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from benchmarks.databases import Database, Setting, database
from benchmarks.harness import Contest, Measure, benchmark, rate
from benchmarks.samples import append_document, new_events, new_stream, order_placed
from eventstore_sa import EventStore
from eventstore_sa.store.conditions import position_is, stream_is_empty
from eventstore_sa.types import encode_json
from eventstore_sa.types.uuid7 import uuid7

__all__: list[str] = []

WRITERS = 16

_APPEND = "SELECT * FROM es_append_v1($1, false)"

_LOCK = "SELECT pg_advisory_xact_lock($1)"
_LAST = "SELECT position FROM plain_events WHERE category = $1 AND stream = $2 ORDER BY position DESC LIMIT 1"
_INSERT = """
INSERT INTO plain_events (id, category, stream, position, name, payload, metadata, observed_at, occurred_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, now(), now())
RETURNING sequence_number
"""


def _publishes(store: EventStore, *, times: int, size: int) -> Measure:
    """Publish to new streams, one after the other, on condition that they are empty."""

    async def publish(prepared: Any) -> None:
        for stream, events in prepared:
            await store.stream(category="orders", stream=stream).publish(events=events, condition=stream_is_empty())

    return rate(times * size, publish, lambda: [(new_stream(), new_events(size)) for _ in range(times)])


def _appends(raw: asyncpg.Connection[Any], *, times: int, size: int) -> Measure:
    """Do what `_publishes` does through the raw driver."""

    async def append(documents: list[str]) -> None:
        for document in documents:
            await raw.fetchrow(_APPEND, document)

    return rate(times * size, append, lambda: [append_document(new_stream(), size) for _ in range(times)])


@benchmark("publish-one", "publish one event on condition that the stream is empty", unit="publishes/s", floor=0.5)
async def publish_one(setting: Setting) -> AsyncIterator[Contest]:
    """Hold single publishes against the raw driver that calls the same function."""
    times = setting.sized(300, 5)
    async with database(setting) as db:
        store, raw = await db.store(), await db.raw()
        yield Contest(_publishes(store, times=times, size=1), _appends(raw, times=times, size=1))


@benchmark("publish-next", "publish one event at an expected position", unit="publishes/s", floor=0.5)
async def publish_next(setting: Setting) -> AsyncIterator[Contest]:
    """Hold single publishes to the end of one growing stream against the same."""
    times = setting.sized(300, 5)
    async with database(setting) as db:
        store, raw = await db.store(), await db.raw()

        async def publish(events: Any) -> None:
            stream = store.stream(category="orders", stream=new_stream())
            for position, event in enumerate(events):
                await stream.publish(events=[event], condition=position_is(position - 1 if position else None))

        async def append(documents: list[str]) -> None:
            for document in documents:
                await raw.fetchrow(_APPEND, document)

        def documents() -> list[str]:
            stream = new_stream()
            return [append_document(stream, 1, after=position - 1) for position in range(times)]

        yield Contest(rate(times, publish, lambda: new_events(times)), rate(times, append, documents))


@benchmark("publish-made", "the same, both sides making event and document in the time", unit="publishes/s")
async def publish_made(setting: Setting) -> AsyncIterator[Contest]:
    """Hold single publishes against the raw driver, when each makes what it sends."""
    times = setting.sized(300, 5)
    async with database(setting) as db:
        store, raw = await db.store(), await db.raw()

        async def publish(_nothing: None) -> None:
            for _ in range(times):
                stream = store.stream(category="orders", stream=new_stream())
                await stream.publish(events=new_events(1), condition=stream_is_empty())

        async def append(_nothing: None) -> None:
            for _ in range(times):
                await raw.fetchrow(_APPEND, append_document(new_stream(), 1))

        yield Contest(rate(times, publish), rate(times, append))


@benchmark("publish-batch", "publish batches of 1,000 events", unit="events/s", floor=0.8)
async def publish_batch(setting: Setting) -> AsyncIterator[Contest]:
    """Hold batches against the raw driver that calls the same function."""
    times, size = setting.sized(10, 1), setting.sized(1000, 20)
    async with database(setting) as db:
        store, raw = await db.store(), await db.raw()
        yield Contest(_publishes(store, times=times, size=size), _appends(raw, times=times, size=size))


@benchmark(
    "publish-concurrently",
    f"{WRITERS} writers at once, against one lock on the log, both waiting for the disk",
    unit="publishes/s",
    floor=3.5,
)
async def publish_concurrently(setting: Setting) -> AsyncIterator[Contest]:
    """Hold many writers to streams of their own against BEGIN, lock the log, SELECT, INSERT, COMMIT."""
    times = setting.sized(40, 2)
    # What the lock on the log costs is that it is held while the disk is written.
    async with database(setting, synchronous_commit="on") as db:
        store = await db.store(pool_size=WRITERS)
        connections = await _plain_table(db)

        async def publish(batches: Any) -> None:
            await asyncio.gather(*(_publish_in_order(store, events) for events in batches))

        async def insert(batches: Any) -> None:
            await asyncio.gather(*map(_insert_in_order, connections, batches))

        yield Contest(
            rate(WRITERS * times, publish, lambda: [new_events(times) for _ in range(WRITERS)]),
            rate(WRITERS * times, insert, lambda: [_payloads(times) for _ in range(WRITERS)]),
        )


async def _plain_table(db: Database) -> list[asyncpg.Connection[Any]]:
    """Make a table like ours that lacks our triggers, and connections of the raw driver."""
    await (await db.store(prefix="plain_")).adapter.aclose()
    connections = [await db.raw() for _ in range(WRITERS)]
    await connections[0].execute("ALTER TABLE plain_events DISABLE TRIGGER USER")
    return connections


def _payloads(times: int) -> list[tuple[str, str]]:
    return [(encode_json(order_placed(n)).decode(), encode_json({"user": "user-1"}).decode()) for n in range(times)]


async def _publish_in_order(store: EventStore, events: Any) -> None:
    stream = store.stream(category="orders", stream=new_stream())
    for position, event in enumerate(events):
        await stream.publish(events=[event], condition=position_is(position - 1 if position else None))


async def _insert_in_order(raw: asyncpg.Connection[Any], payloads: list[tuple[str, str]]) -> None:
    stream = new_stream()
    for position, (payload, metadata) in enumerate(payloads):
        async with raw.transaction():
            await raw.execute(_LOCK, 1)
            last = await raw.fetchval(_LAST, "orders", stream)
            _expect_position(None if position == 0 else position - 1, last)
            await raw.fetchval(_INSERT, uuid7(), "orders", stream, position, "order-placed", payload, metadata)


@benchmark(
    "publish-concurrently-alike",
    "the same, the lock on the log taken through SQLAlchemy too",
    unit="publishes/s",
)
async def publish_concurrently_alike(setting: Setting) -> AsyncIterator[Contest]:
    """Hold many writers against what a library with one lock does: the same statements, through SQLAlchemy."""
    times = setting.sized(40, 2)
    async with database(setting, synchronous_commit="on") as db:
        store = await db.store(pool_size=WRITERS)
        await _plain_table(db)
        engine = await db.engine(pool_size=WRITERS)

        async def publish(batches: Any) -> None:
            await asyncio.gather(*(_publish_in_order(store, events) for events in batches))

        async def insert(batches: Any) -> None:
            await asyncio.gather(*(_insert_in_order_alike(engine, payloads) for payloads in batches))

        yield Contest(
            rate(WRITERS * times, publish, lambda: [new_events(times) for _ in range(WRITERS)]),
            rate(WRITERS * times, insert, lambda: [_payloads(times) for _ in range(WRITERS)]),
        )


async def _insert_in_order_alike(engine: AsyncEngine, payloads: list[tuple[str, str]]) -> None:
    stream = new_stream()
    for position, (payload, metadata) in enumerate(payloads):
        async with engine.begin() as connection:
            await connection.exec_driver_sql(_LOCK, (1,))
            last = (await connection.exec_driver_sql(_LAST, ("orders", stream))).scalar()
            _expect_position(None if position == 0 else position - 1, last)
            values = (uuid7(), "orders", stream, position, "order-placed", payload, metadata)
            (await connection.exec_driver_sql(_INSERT, values)).scalar()


def _expect_position(expected: int | None, actual: int | None) -> None:
    if actual != expected:
        raise AssertionError(f"position {actual}, expected {expected}")


@benchmark(
    "publish-in-session", "publish one event and commit a session, against a publish of its own", unit="publishes/s"
)
async def publish_in_session(setting: Setting) -> AsyncIterator[Contest]:
    """Tell what BEGIN, the guard and COMMIT cost."""
    times = setting.sized(300, 5)
    async with database(setting) as db:
        engine = await db.engine()
        store = await db.store()
        yield Contest(
            rate(times, partial(_publish_in_sessions, engine, store), lambda: new_events(times)),
            _publishes(store, times=times, size=1),
        )


async def _publish_in_sessions(engine: AsyncEngine, store: EventStore, events: Any) -> None:
    for event in events:
        async with AsyncSession(engine) as session, session.begin():
            stream = store.within(session).stream(category="orders", stream=new_stream())
            await stream.publish(events=[event], condition=stream_is_empty())


@benchmark(
    "append-guarded", "the guarded function, against the bare one (raw driver in a transaction)", unit="publishes/s"
)
async def append_guarded(setting: Setting) -> AsyncIterator[Contest]:
    """Tell what the guard alone costs."""
    times = setting.sized(300, 5)
    async with database(setting) as db:
        await db.store()
        raw = await db.raw()

        def calls(function: str) -> Callable[[Any], Any]:
            async def append(documents: list[str]) -> None:
                for document in documents:
                    async with raw.transaction():
                        await raw.fetchrow(function, document)

            return append

        def documents() -> list[str]:
            return [append_document(new_stream(), 1) for _ in range(times)]

        yield Contest(
            rate(times, calls("SELECT * FROM es_append_guarded_v1($1)"), documents),
            rate(times, calls("SELECT * FROM es_append_v1($1, true)"), documents),
        )

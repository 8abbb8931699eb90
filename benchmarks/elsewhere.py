"""What has no floor: other drivers and databases, the in-memory adapter, and the making of events."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import create_engine

from benchmarks.databases import COLUMNS, Setting, database
from benchmarks.harness import Contest, Measure, benchmark, rate
from benchmarks.reading import SlottedEvent
from benchmarks.samples import append_document, new_events, new_stream, order_placed
from eventstore_sa import NewEvent, StoredEvent, SyncEventStore
from eventstore_sa.persistence.transactions.databases import configure_sqlite
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.store.conditions import stream_is_empty
from eventstore_sa.types import decode_json, encode_json
from eventstore_sa.types.uuid7 import uuid7

__all__: list[str] = []

_SQLITE_LAST = "SELECT max(position) FROM es_events WHERE category = ? AND stream = ?"
_SQLITE_INSERT = f"INSERT INTO es_events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, NULL, ?, ?, ?, ?)"
_SQLITE_PAGE = f"SELECT {COLUMNS} FROM es_events WHERE sequence_number > ? ORDER BY sequence_number LIMIT 1000"


def _steps(count: int, step: Callable[[Any], object], prepare: Callable[[int], Any] = range) -> Measure:
    """Measure a synchronous step, done once with each of the `count` items that `prepare` makes."""

    async def work(items: Any) -> None:
        for item in items:
            step(item)

    return rate(count, work, lambda: prepare(count))


def _publishes(store: SyncEventStore, count: int) -> Measure:
    def publish(event: Any) -> None:
        store.stream(category="orders", stream=new_stream()).publish(events=[event], condition=stream_is_empty())

    return _steps(count, publish, new_events)


def _scans(store: SyncEventStore, size: int) -> Measure:
    stream = store.stream(category="orders", stream=new_stream())
    for _ in range(0, size, 1000):
        stream.publish(events=new_events(min(size, 1000)))

    async def scan(_: None) -> None:
        for _event in store.log().iterate():
            pass

    return rate(size, scan)


@benchmark("publish-psycopg", "publish one event without asyncio, psycopg", unit="publishes/s")
async def publish_psycopg(setting: Setting) -> AsyncIterator[Contest]:
    """Hold publishes through psycopg against psycopg that calls the same function."""
    times = setting.sized(300, 5)
    async with database(setting) as db:
        engine = create_engine(db.server.url_for(db.name, "psycopg"))
        store = SyncEventStore(engine)
        store.create_schema()
        with psycopg.connect(db.dsn, autocommit=True) as raw:

            def append(document: str) -> None:
                raw.execute("SELECT * FROM es_append_v1(%s, false)", (document,)).fetchone()

            documents = _steps(times, append, lambda count: [append_document(new_stream(), 1) for _ in range(count)])
            yield Contest(_publishes(store, times), documents)
        engine.dispose()


@contextmanager
def _sqlite() -> Iterator[tuple[SyncEventStore, sqlite3.Connection]]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "events.db"
        engine = create_engine(f"sqlite:///{path}")
        configure_sqlite(engine)
        store = SyncEventStore(engine)
        store.create_schema()
        raw = sqlite3.connect(path, isolation_level=None)
        try:
            yield store, raw
        finally:
            raw.close()
            engine.dispose()


@benchmark("publish-sqlite", "publish one event, SQLite file", unit="publishes/s")
async def publish_sqlite(setting: Setting) -> AsyncIterator[Contest]:
    """Hold publishes to SQLite against BEGIN IMMEDIATE, SELECT, INSERT, COMMIT of the raw driver."""
    times = setting.sized(300, 5)
    with _sqlite() as (store, raw):

        def insert(number: int) -> None:
            stream, now = new_stream(), datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ")
            payload = encode_json(order_placed(number)).decode()
            raw.execute("BEGIN IMMEDIATE")
            if raw.execute(_SQLITE_LAST, ("orders", stream)).fetchone() != (None,):
                raise AssertionError("the stream is not empty")
            raw.execute(_SQLITE_INSERT, (uuid7().hex, "order-placed", stream, "orders", 0, payload, None, now, now))
            raw.execute("COMMIT")

        yield Contest(_publishes(store, times), _steps(times, insert))


@benchmark("scan-sqlite", "scan a log of 20,000 events, SQLite file", unit="events/s")
async def scan_sqlite(setting: Setting) -> AsyncIterator[Contest]:
    """Hold a scan of SQLite against keyset pages of the raw driver."""
    size = setting.sized(20_000, 100)
    with _sqlite() as (store, raw):

        async def fetch(_: None) -> None:
            after = 0
            while rows := raw.execute(_SQLITE_PAGE, (after,)).fetchall():
                after = [_slotted(*row) for row in rows][-1].sequence_number

        yield Contest(_scans(store, size), rate(size, fetch))


def _slotted(
    event_id: str,
    name: str,
    stream: str,
    category: str,
    position: int,
    number: int,
    payload: str,
    metadata: str,
    observed_at: str,
    occurred_at: str,
) -> SlottedEvent:
    return SlottedEvent(
        UUID(event_id),
        name,
        stream,
        category,
        position,
        number,
        decode_json(payload),
        decode_json(metadata),
        datetime.fromisoformat(observed_at),
        datetime.fromisoformat(occurred_at),
    )


@benchmark("publish-memory", "publish one event, in memory", unit="publishes/s")
async def publish_memory(setting: Setting) -> AsyncIterator[Contest]:
    """Tell what a publish costs without a database."""
    yield Contest(_publishes(SyncEventStore(InMemoryEventStorageAdapter()), setting.sized(3000, 5)))


@benchmark("scan-in-memory", "scan a log of 20,000 events, in memory", unit="events/s")
async def scan_in_memory(setting: Setting) -> AsyncIterator[Contest]:
    """Tell what a scan costs without a database."""
    yield Contest(_scans(SyncEventStore(InMemoryEventStorageAdapter()), setting.sized(20_000, 100)))


@benchmark("new-event", "make a NewEvent, against a slotted dataclass", unit="events/s")
async def new_event(setting: Setting) -> AsyncIterator[Contest]:
    """Hold new events, checked and with id and time, against objects that check nothing."""
    times, payload = setting.sized(20_000, 50), order_placed(1)

    def make(_: int) -> object:
        return NewEvent(name="order-placed", payload=payload)

    def make_plain(_: int) -> object:
        now = datetime.now(UTC)
        return SlottedEvent(uuid7(), "order-placed", "", "", 0, 0, payload, None, now, now)

    yield Contest(_steps(times, make), _steps(times, make_plain))


@benchmark("stored-event", "make a StoredEvent, against a slotted dataclass", unit="events/s")
async def stored_event(setting: Setting) -> AsyncIterator[Contest]:
    """Hold the objects that reads return against slotted ones."""
    times = setting.sized(100_000, 50)
    event_id, now, payload = uuid7(), datetime.now(UTC), order_placed(1)

    def make(number: int) -> object:
        return StoredEvent(event_id, "order-placed", "order-1", "orders", number, number, payload, None, now, now)

    def make_plain(number: int) -> object:
        return SlottedEvent(event_id, "order-placed", "order-1", "orders", number, number, payload, None, now, now)

    yield Contest(_steps(times, make), _steps(times, make_plain))

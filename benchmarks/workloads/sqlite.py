"""S1 and S2: single appends to a SQLite file, without asyncio and with it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import Struct
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.databases import Setting
from benchmarks.harness import OURS, Side, Suite, Workload, rate
from benchmarks.samples import METADATA, NAME, new_events, new_stream, order_placed
from eventstore_sa import EventStore, SyncEventStore, configure_sqlite
from eventstore_sa.store.conditions import stream_is_empty
from eventstore_sa.types import encode_json
from eventstore_sa.types.uuid7 import uuid7

__all__ = ["SUITE"]

BARE = "bare sqlite3"
BLOCKING = f"{OURS}, pysqlite"

_LAST = "SELECT max(position) FROM es_events WHERE category = ? AND stream = ?"
_INSERT = """
INSERT INTO es_events (id, name, stream, category, position, payload, metadata, observed_at, occurred_at)
VALUES (?, ?, ?, 'orders', 0, ?, ?, ?, ?)
"""


class _Files(Struct, frozen=True):
    blocking: SyncEventStore
    awaiting: EventStore
    bare: sqlite3.Connection


@asynccontextmanager
async def _opened(_: Setting) -> AsyncIterator[_Files]:
    """Open three ways into one file, in the mode of journal that `configure_sqlite` sets."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "events.db"
        engine = create_engine(f"sqlite:///{path}")
        async_engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        configure_sqlite(engine)
        configure_sqlite(async_engine)
        blocking = SyncEventStore(engine)
        blocking.create_schema()
        bare = sqlite3.connect(path, isolation_level=None)
        try:
            yield _Files(blocking, EventStore(async_engine), bare)
        finally:
            bare.close()
            engine.dispose()
            await async_engine.dispose()


def _prepare(times: int) -> list[tuple[int, Any]]:
    return [(new_stream(), new_events(1)) for _ in range(times)]


def _blocking_side(files: _Files, name: str) -> Side:
    async def publish(prepared: Any) -> None:
        for stream, events in prepared:
            files.blocking.stream(category="orders", stream=f"orders-{stream}").publish(
                events=events, condition=stream_is_empty()
            )

    return rate(name, 1, publish, _prepare, most=1000)


def _blocking(files: _Files, _: Setting) -> Sequence[Side]:
    async def insert(numbers: range) -> None:
        for number in numbers:
            _insert(files.bare, number)

    return [
        _blocking_side(files, OURS),
        rate(BARE, 1, insert, range, most=1000),
    ]


def _awaiting(files: _Files, _: Setting) -> Sequence[Side]:
    async def publish(prepared: Any) -> None:
        for stream, events in prepared:
            await files.awaiting.stream(category="orders", stream=f"orders-{stream}").publish(
                events=events, condition=stream_is_empty()
            )

    return [rate(OURS, 1, publish, _prepare, most=1000), _blocking_side(files, BLOCKING)]


def _insert(bare: sqlite3.Connection, number: int) -> None:
    stream, now = f"orders-{new_stream()}", datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ")
    payload, metadata = encode_json(order_placed(number)).decode(), encode_json(METADATA).decode()
    bare.execute("BEGIN IMMEDIATE")
    if bare.execute(_LAST, ("orders", stream)).fetchone() != (None,):
        raise AssertionError("the stream is not empty")
    bare.execute(_INSERT, (uuid7().hex, NAME, stream, payload, metadata, now, now))
    bare.execute("COMMIT")


SUITE = Suite(
    _opened,
    (
        Workload(
            name="S1",
            title="append one event to a SQLite file, blocking",
            unit="events/s",
            sides=_blocking,
            mark=BARE,
            floor=0.25,
            aim=0.4,
        ),
        Workload(
            name="S2",
            title="append one event to a SQLite file, aiosqlite beside pysqlite",
            unit="events/s",
            sides=_awaiting,
            mark=BLOCKING,
            floor=0.5,
            aim=0.8,
        ),
    ),
)

"""Reading on PostgreSQL with asyncpg: scans of the log, the memory that they take, and reads of short streams.

The raw driver fetches the same pages by key, decodes JSON with the same decoder and makes slotted objects.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec

from benchmarks.databases import COLUMNS, EVENTS_PER_STREAM, Setting, database
from benchmarks.harness import Contest, Measure, benchmark, rate
from eventstore_sa import EventStore

__all__ = ["SlottedEvent"]

_PAGE_SIZE = 1000
_PAGE = f"SELECT {COLUMNS} FROM es_events WHERE sequence_number > $1 ORDER BY sequence_number LIMIT {_PAGE_SIZE}"
_STREAM = f"SELECT {COLUMNS} FROM es_events WHERE category = $1 AND stream = $2 ORDER BY position LIMIT {_PAGE_SIZE}"


@dataclass(slots=True)
class SlottedEvent:
    """What one would hydrate rows to without this library."""

    id: Any
    name: str
    stream: str
    category: str
    position: int
    sequence_number: int
    payload: Any
    metadata: Any
    observed_at: Any
    occurred_at: Any


@benchmark("scan-log", "scan a log of 100,000 events", unit="events/s", floor=0.5)
async def scan_log(setting: Setting) -> AsyncIterator[Contest]:
    """Hold a scan of the log against keyset pages of the raw driver."""
    size = setting.sized(100_000, 1500)
    async with database(setting) as db:
        store, raw = await db.filled_store(size), await db.raw()

        async def scan(_: None) -> None:
            _expect(size, await _count(store))

        async def fetch(_: None) -> None:
            _expect(size, await _count_raw(raw))

        yield Contest(rate(size, scan), rate(size, fetch))


@benchmark(
    "scan-memory", "memory of a scan of 100,000 events, against 10,000", unit="bytes", ceiling=1.2, most_rounds=3
)
async def scan_memory(setting: Setting) -> AsyncIterator[Contest]:
    """Hold the memory of a scan against that of a scan of a shorter log."""
    large, small = setting.sized(100_000, 4000), setting.sized(10_000, 2000)
    async with database(setting) as db:
        yield Contest(
            _peak(await db.filled_store(large), large), _peak(await db.filled_store(small, prefix="small_"), small)
        )


@benchmark("read-stream", f"read a stream of {EVENTS_PER_STREAM} events", unit="streams/s")
async def read_stream(setting: Setting) -> AsyncIterator[Contest]:
    """Hold reads of short streams against one query of the raw driver each."""
    times, streams = setting.sized(500, 5), 250
    async with database(setting) as db:
        store, raw = await db.filled_store(streams * EVENTS_PER_STREAM), await db.raw()

        async def read(_: None) -> None:
            for number in range(times):
                stream = store.stream(category="orders", stream=f"order-{number % streams}")
                _expect(EVENTS_PER_STREAM, len(await stream.read()))

        async def fetch(_: None) -> None:
            for number in range(times):
                rows = await raw.fetch(_STREAM, "orders", f"order-{number % streams}")
                _expect(EVENTS_PER_STREAM, len(_slotted(rows)))

        yield Contest(rate(times, read), rate(times, fetch))


@benchmark("read-query", "read 1,000 events by a tag, against a stream of 1,000", unit="events/s", floor=0.6)
async def read_query(setting: Setting) -> AsyncIterator[Contest]:
    """Hold the events of a tag, spread over a log of a million, against a stream that is spread as far."""
    size, each, times = setting.sized(1_000_000, 200), setting.sized(1000, 20), setting.sized(20, 2)
    async with database(setting) as db:
        store = await db.tagged_store(size, each)

        async def query(_: None) -> None:
            for number in range(times):
                _expect(each, len(await store.tag(f"course:{number}").read()))

        async def stream(_: None) -> None:
            for number in range(times):
                _expect(each, len(await store.stream(category="orders", stream=f"order-{number}").read()))

        yield Contest(rate(times * each, query), rate(times * each, stream))


def _peak(store: EventStore, size: int) -> Measure:
    async def measure() -> float:
        tracemalloc.start()
        try:
            _expect(size, await _count(store))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


async def _count(store: EventStore) -> int:
    seen = 0
    async for _ in store.log().iterate():
        seen += 1
    return seen


async def _count_raw(raw: asyncpg.Connection[Any]) -> int:
    seen = after = 0
    while rows := await raw.fetch(_PAGE, after):
        for event in _slotted(rows):
            seen += 1
            after = event.sequence_number
    return seen


def _slotted(rows: list[asyncpg.Record]) -> list[SlottedEvent]:
    decode = msgspec.json.Decoder().decode
    return [
        SlottedEvent(
            event_id, name, stream, category, position, number, decode(payload), decode(metadata), observed, occurred
        )
        for event_id, name, stream, category, position, number, payload, metadata, observed, occurred in rows
    ]


def _expect(expected: int, actual: int) -> None:
    if actual != expected:
        raise AssertionError(f"{actual} events were read, of {expected}")

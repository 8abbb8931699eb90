"""The raw driver (asyncpg) doing the same work by hand, on the same tables: what is left if a library costs nothing.

It calls the function that this library installs, with a document that it encodes itself; reads fetch pages by key, decode
JSON with the fastest decoder for Python, and make slotted objects. Nothing is checked that the database does not check.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

from benchmarks.contenders.contender import ConflictError, Contender
from benchmarks.databases import Database
from benchmarks.harness import RAW
from benchmarks.samples import METADATA, NAME, changed, order_placed, order_summary
from eventstore_sa.types.uuid7 import uuid7

__all__ = [
    "COLUMNS",
    "PAGE_SIZE",
    "CoalescedWriter",
    "Connections",
    "RawDriver",
    "SlottedEvent",
    "append_document",
    "slotted",
]

COLUMNS = "id, name, stream, category, position, sequence_number, payload, metadata, observed_at, occurred_at"
PAGE_SIZE = 1000

_APPEND = "SELECT * FROM es_append_v1($1, false)"
_STREAM = f"""
SELECT {COLUMNS} FROM es_events WHERE category = $1 AND stream = $2 AND position > $3 ORDER BY position LIMIT {PAGE_SIZE}
"""
_CATEGORY = f"""
SELECT {COLUMNS} FROM es_events WHERE category = $1 AND sequence_number > $2 ORDER BY sequence_number LIMIT {PAGE_SIZE}
"""
_LOG_FROM = f"SELECT {COLUMNS} FROM es_events WHERE sequence_number > $1 ORDER BY sequence_number"
_BATCH = 500
_SUMMARIES = """
CREATE TABLE IF NOT EXISTS summaries (
  name text, id text, state jsonb NOT NULL, sequence_number bigint NOT NULL, PRIMARY KEY (name, id)
) WITH (fillfactor = 70)
"""
# With `id = ANY ($2)`, a table without statistics may be read as a whole, and each row compared with all of the array.
_STORED = """
SELECT s.id, s.state FROM unnest($2::text[]) AS wanted(id) JOIN summaries s ON s.name = $1 AND s.id = wanted.id
ORDER BY s.id FOR UPDATE OF s
"""
_UPSERT = """
INSERT INTO summaries SELECT $1, id, state, $4 FROM unnest($2::text[], $3::jsonb[]) AS item(id, state)
ON CONFLICT (name, id) DO UPDATE SET state = excluded.state, sequence_number = excluded.sequence_number
"""
_SAVE = """
INSERT INTO es_projections (name, id, source, source_hash, state, metadata, version)
VALUES ('saved', $1, $2::text::jsonb, hashtextextended($2, 0), $3::text::jsonb, 'null', 1)
ON CONFLICT (name, id) DO UPDATE
SET state = excluded.state, metadata = excluded.metadata, version = es_projections.version + 1
"""
_SEARCH = """
SELECT name, id, source::text, state::text, metadata::text, version FROM es_projections
WHERE name = 'orders' AND state ->> 'status' = $1 ORDER BY (state ->> 'total')::numeric DESC, id LIMIT 10 OFFSET $2
"""
_LATEST = f"SELECT {COLUMNS} FROM es_events WHERE category = $1 AND stream = $2 ORDER BY position DESC LIMIT 1"


@dataclass(slots=True)
class SlottedEvent:
    """What one would make of rows without a library."""

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


@dataclass(slots=True)
class SlottedProjection:
    """The same of projections."""

    name: str
    id: str
    source: Any
    state: Any
    metadata: Any
    version: int


class Connections:
    """Connections of asyncpg that are lent, without what a pool does to them when they come back."""

    def __init__(self, connections: Sequence[asyncpg.Connection[Any]]) -> None:
        # The one that came back last first: its plans and caches are warm.
        self._idle: asyncio.LifoQueue[asyncpg.Connection[Any]] = asyncio.LifoQueue()
        for connection in connections:
            self._idle.put_nowait(connection)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Lend an idle connection."""
        connection = await self._idle.get()
        try:
            yield connection
        finally:
            self._idle.put_nowait(connection)


class RawDriver(Contender):
    """What one would write by hand."""

    name = RAW
    setup = "asyncpg; the same tables and functions, documents by msgspec, pages of 1,000 into slotted objects"
    gives_up = (
        "checks of names and payloads, typed errors, retries, transactions of the host, complete reads of the log"
    )

    def __init__(self, connections: Connections) -> None:
        self.connections = connections

    @classmethod
    @asynccontextmanager
    async def opened(cls, db: Database, connections: int) -> AsyncIterator[RawDriver]:
        yield cls(Connections([await db.raw() for _ in range(connections)]))

    def new_events(self, category: str, stream: int, size: int, *, after: int) -> Any:
        return [order_placed(number) for number in range(size)]

    async def append(self, category: str, stream: int, events: Any, *, after: int) -> None:
        async with self.connections.lent() as connection:
            row = await connection.fetchrow(_APPEND, append_document([(category, stream, events, after)]))
        if row["outcome"] != "stored":
            raise ConflictError(row["outcome"])

    async def read_stream(self, category: str, stream: int) -> int:
        seen, position = 0, -1
        async with self.connections.lent() as connection:
            while rows := await connection.fetch(_STREAM, category, f"{category}-{stream}", position):
                events = slotted(rows)
                seen, position = seen + len(events), events[-1].position
                if len(rows) < PAGE_SIZE:
                    break
        return seen

    async def read_category(self, category: str) -> int:
        return await self._pages(_CATEGORY, category)

    async def read_log(self) -> int:
        return await self._pages(f"{_LOG_FROM} LIMIT {PAGE_SIZE}")

    async def _pages(self, statement: str, *values: str) -> int:
        seen = after = 0
        async with self.connections.lent() as connection:
            while rows := await connection.fetch(statement, *values, after):
                events = slotted(rows)
                seen, after = seen + len(events), events[-1].sequence_number
        return seen

    async def read_latest(self, category: str, stream: int) -> None:
        async with self.connections.lent() as connection:
            if not slotted([await connection.fetchrow(_LATEST, category, f"{category}-{stream}")]):
                raise AssertionError(f"stream {stream} is empty")

    async def catch_up(self, run: str) -> int:
        seen = after = 0
        async with self.connections.lent() as connection:
            await connection.execute(_SUMMARIES)
            while rows := await connection.fetch(f"{_LOG_FROM} LIMIT {_BATCH}", after):
                events = slotted(rows)
                async with connection.transaction():
                    streams = list({event.stream for event in events})
                    stored = await connection.fetch(_STORED, run, streams)
                    states: dict[str, Any] = {key: _DECODER.decode(state) for key, state in stored}
                    for event in events:
                        state = states.get(event.stream, {"changes": 0, "total": 0})
                        states[event.stream] = changed(state, event.payload)
                    texts = [msgspec.json.encode(states[key]).decode() for key in sorted(states)]
                    await connection.execute(_UPSERT, run, sorted(states), texts, events[-1].sequence_number)
                seen, after = seen + len(events), events[-1].sequence_number
        return seen

    async def save_projection(self, number: int) -> None:
        source, state = {"type": "stream", "category": "orders", "stream": f"order-{number}"}, order_summary(number)
        async with self.connections.lent() as connection:
            await connection.execute(
                _SAVE, f"order-{number}", msgspec.json.encode(source).decode(), msgspec.json.encode(state).decode()
            )

    async def search_projections(self, status: str, page: int) -> int:
        decode = _DECODER.decode
        async with self.connections.lent() as connection:
            rows = await connection.fetch(_SEARCH, status, 10 * page)
        return len(
            [
                SlottedProjection(name, key, decode(source), decode(state), decode(metadata), version)
                for name, key, source, state, metadata, version in rows
            ]
        )


class CoalescedWriter:
    """Appends of one process that gather while a call is under way, and travel together in the next one.

    The mark for coalescing: no errors of single appends, no limits, no order beyond that of a list.
    """

    def __init__(self, raw: RawDriver) -> None:
        self._connections = raw.connections
        self._waiting: list[tuple[tuple[str, int, Any, int], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def append(self, category: str, stream: int, events: Any, *, after: int) -> None:
        """Append events with whatever else waits; return when they are committed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(((category, stream, events, after), done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            async with self._connections.lent() as connection:
                row = await connection.fetchrow(_APPEND, append_document([item for item, _ in batch]))
            for _, done in batch:
                if row["outcome"] == "stored":
                    done.set_result(None)
                else:
                    done.set_exception(ConflictError(row["outcome"]))


def append_document(items: list[tuple[str, int, Any, int]]) -> str:
    """Write the document of appends, each of a category, a stream, payloads, and the position that the stream must be at."""
    now = datetime.now(UTC)
    return msgspec.json.encode(
        [
            {
                "category": category,
                "stream": f"{category}-{stream}",
                "allowed": [[after, after]],
                "events": [
                    {
                        "id": uuid7(),
                        "name": NAME,
                        "payload": payload,
                        "metadata": METADATA,
                        "observed_at": now,
                        "occurred_at": now,
                    }
                    for payload in payloads
                ],
            }
            for category, stream, payloads, after in items
        ]
    ).decode()


def slotted(rows: Any) -> list[SlottedEvent]:
    """Make objects of rows."""
    decode = _DECODER.decode
    return [
        SlottedEvent(
            event_id,
            name,
            stream,
            category,
            position,
            number,
            decode(payload),
            None if metadata is None else decode(metadata),
            observed,
            occurred,
        )
        for event_id, name, stream, category, position, number, payload, metadata, observed, occurred in rows
    ]


_DECODER = msgspec.json.Decoder()

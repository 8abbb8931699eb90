"""message-db: functions in the database, called through asyncpg. Its SQL comes from a checkout of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from benchmarks.contenders.contender import ConflictError, Contender
from benchmarks.contenders.raw import Connections
from benchmarks.databases import Database
from benchmarks.samples import METADATA, NAME, order_placed
from eventstore_sa.types.uuid7 import uuid7

__all__ = ["MessageDb", "missing"]

_VARIABLE = "MESSAGE_DB_SQL"
# In the order of its own installation script. The extension pgcrypto is left out: the server has gen_random_uuid() itself.
_FILES = (
    "schema/message-store",
    "tables/messages",
    "types/message",
    *(
        f"functions/{name}"
        for name in (
            "message-store-version",
            "hash-64",
            "acquire-lock",
            "category",
            "is-category",
            "id",
            "cardinal-id",
            "stream-version",
            "write-message",
            "get-stream-messages",
            "get-category-messages",
            "get-last-stream-message",
        )
    ),
    "indexes/messages-id",
    "indexes/messages-stream",
    "indexes/messages-category",
)

_WRITE = "SELECT write_message($1, $2, $3, $4, $5, $6)"
_STREAM = "SELECT * FROM get_stream_messages($1, $2, 1000)"
_CATEGORY = "SELECT * FROM get_category_messages($1, $2, 1000)"
_LATEST = "SELECT * FROM get_last_stream_message($1)"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def missing() -> str | None:
    """Return why it cannot be measured; None if it can."""
    folder = os.environ.get(_VARIABLE)
    if folder is None:
        return f"{_VARIABLE} does not name the folder `database` of a checkout of message-db"
    lacking = [name for name in _FILES if not Path(folder, f"{name}.sql").is_file()]
    return f"{folder} has no {lacking[0]}.sql" if lacking else None


class MessageDb(Contender):
    """Its functions, one call for each message: there is no call that writes several."""

    name = "message-db"
    setup = "its SQL, called through asyncpg; search_path set as its documentation asks"
    gives_up = (
        "several messages in one call (batches are single calls in a transaction), joining a transaction of SQLAlchemy's, "
        "names with any character; a writer locks its whole category until it commits, so that categories read complete"
    )

    reads_log = False

    def __init__(self, connections: Connections) -> None:
        self.connections = connections

    @classmethod
    @asynccontextmanager
    async def opened(cls, db: Database, connections: int) -> AsyncIterator[MessageDb]:
        first = await db.raw()
        for name in _FILES:
            await first.execute(_sql(name))
        await first.execute(f'ALTER DATABASE "{db.name}" SET search_path = message_store, public')
        yield cls(Connections([await db.raw() for _ in range(connections)]))

    def new_events(self, category: str, stream: int, size: int, *, after: int) -> Any:
        return [order_placed(number) for number in range(size)]

    async def append(self, category: str, stream: int, events: Any, *, after: int) -> None:
        async with self.connections.lent() as connection:
            try:
                if len(events) == 1:
                    await _write(connection, category, stream, events[0], after)
                else:
                    async with connection.transaction():
                        for number, event in enumerate(events):
                            await _write(connection, category, stream, event, after + number)
            except asyncpg.RaiseError as error:
                raise ConflictError(str(error)) from error

    async def read_stream(self, category: str, stream: int) -> int:
        seen = 0
        async with self.connections.lent() as connection:
            while rows := await connection.fetch(_STREAM, f"{category}-{stream}", seen):
                seen += len(_messages(rows))
        return seen

    async def read_category(self, category: str) -> int:
        seen, position = 0, 1
        async with self.connections.lent() as connection:
            while rows := await connection.fetch(_CATEGORY, category, position):
                seen += len(_messages(rows))
                position = rows[-1]["global_position"] + 1
        return seen

    async def read_log(self) -> int:
        """Read its largest category: it has no function that reads all messages."""
        return await self.read_category("orders")

    async def read_latest(self, category: str, stream: int) -> None:
        async with self.connections.lent() as connection:
            if not _messages([await connection.fetchrow(_LATEST, f"{category}-{stream}")]):
                raise AssertionError(f"stream {stream} is empty")


def _sql(name: str) -> str:
    return Path(os.environ[_VARIABLE], f"{name}.sql").read_text(encoding="utf-8")


async def _write(connection: asyncpg.Connection[Any], category: str, stream: int, event: Any, after: int) -> None:
    payload, metadata = _encode(event).decode(), _encode(METADATA).decode()
    await connection.fetchval(_WRITE, str(uuid7()), f"{category}-{stream}", NAME, payload, metadata, after)


def _messages(rows: Any) -> list[tuple[Any, ...]]:
    """Decode messages, as any use of them does."""
    return [(*row[:5], _decode(row["data"]), _decode(row["metadata"]), row["time"]) for row in rows]

"""What is measured on: new databases of one throwaway server, and the processor time of that server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import asyncpg
from msgspec import Struct
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from eventstore_sa import EventStore, EventStoreSchema
from eventstore_sa.testing.postgres import PostgresDriver, PostgresServer

__all__ = ["Database", "ProcessorClock", "Setting", "database", "server_clock"]

ProcessorClock: TypeAlias = Callable[[], float | None]
"""Returns the seconds of processor time that a server has used; None if that cannot be seen from here."""


Amount = TypeVar("Amount")


class Setting(Struct, frozen=True, kw_only=True):
    """What all workloads of a run have in common.

    Attributes:
        server: Where databases are made.
        server_time: The processor time of that server.
        rounds: How often each side is measured.
        size: "full", "quick" for a look, or "tiny" to see that everything runs.
        with_peers: Whether other event stores take part.
        synchronous_commit: PostgreSQL's setting of that name, for all sides.
    """

    server: PostgresServer
    server_time: ProcessorClock
    rounds: int
    size: str = "full"
    with_peers: bool = True
    synchronous_commit: str = "on"

    @property
    def is_tiny(self) -> bool:
        """Whether the figures mean nothing."""
        return self.size == "tiny"

    @property
    def round_s(self) -> float:
        """For how long each side works in a round, about."""
        return {"full": 1.0, "quick": 0.1, "tiny": 0.0}[self.size]

    def sized(self, full: Amount, quick: Amount, tiny: Amount) -> Amount:
        """Return how much work to do."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.size]


class Database(Struct, frozen=True):
    """A database of its own, with what is opened on it."""

    name: str
    server: PostgresServer
    resources: AsyncExitStack

    def url(self, driver: PostgresDriver | None = "asyncpg") -> URL:
        """Return its address for a driver through SQLAlchemy."""
        return self.server.url_for(self.name, driver)

    @property
    def dsn(self) -> str:
        """Its address for drivers without SQLAlchemy."""
        return self.url(None).render_as_string(hide_password=False)

    def engine(self, *, pool_size: int = 1) -> AsyncEngine:
        """Make an engine with a pool of that size; disposed of with the database."""
        engine = create_async_engine(self.url(), pool_size=pool_size, max_overflow=0)
        self.resources.push_async_callback(engine.dispose)
        return engine

    async def store(self, *, prefix: str = "es_", pool_size: int = 1, **options: Any) -> EventStore:
        """Make a store on an engine of its own, with its tables."""
        store = EventStore(self.engine(pool_size=pool_size), schema=EventStoreSchema(prefix=prefix), **options)
        await store.create_schema()
        return store

    async def raw(self) -> asyncpg.Connection[Any]:
        """Open a connection of the raw driver; closed with the database."""
        connection = await asyncpg.connect(self.dsn)
        self.resources.push_async_callback(connection.close)
        return connection


@asynccontextmanager
async def database(setting: Setting) -> AsyncIterator[Database]:
    """Provide a new database without tables; dropped at the end."""
    name = setting.server.create_database()
    try:
        async with AsyncExitStack() as resources:
            created = Database(name, setting.server, resources)
            connection = await created.raw()
            await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {setting.synchronous_commit}')
            yield created
    finally:
        setting.server.drop_database(name)


async def server_clock(server: PostgresServer) -> ProcessorClock:
    """Return the clock of the processor time of a server, which works if it runs on this machine, on Linux."""
    connection = await asyncpg.connect(server.url.render_as_string(hide_password=False))
    try:
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        try:
            postmaster = int(_stat(backend)[1])
            _processor_seconds(postmaster)
        except (OSError, IndexError, ValueError):
            return lambda: None
    finally:
        await connection.close()
    return lambda: _processor_seconds(postmaster)


def _processor_seconds(postmaster: int) -> float:
    """Add up the time of the server's processes; those that have ended count for the postmaster."""
    ticks = sum(map(int, _stat(postmaster)[11:15]))
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="ascii").split()
    nanoseconds = 0
    for child in children:
        try:
            nanoseconds += int(Path(f"/proc/{child}/schedstat").read_text(encoding="ascii").split()[0])
        except OSError:  # it has just ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK") + nanoseconds / 1e9


def _stat(process: int) -> list[str]:
    """Return the fields after the name: state, parent, ..., at 11 to 14 the times of the process and of ended children."""
    name, fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)
    if "postgres" not in name:
        raise ValueError(f"process {process} is not PostgreSQL's: the server runs elsewhere")
    return fields.split()

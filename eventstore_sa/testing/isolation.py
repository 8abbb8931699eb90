"""Databases of which each test finds the tables empty; the fixtures of the pytest plugin are made of these.

SQLite: a copy of a file that was prepared once. PostgreSQL: one database, prepared once and emptied before each test. All
other tables in the MetaData of the schema are created and emptied too, so an application's own tables need no fixture.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from eventstore_sa.errors import ConfigurationError, LockTimeoutError
from eventstore_sa.persistence.schema import EventStoreSchema, schema_or_default
from eventstore_sa.persistence.transactions.databases import configure_sqlite, driver_attribute
from eventstore_sa.testing.clearing import clear
from eventstore_sa.testing.postgres import PostgresServer

__all__ = ["PreparedPostgres", "PreparedSqlite", "async_sqlite_engine", "prepared_postgres", "prepared_sqlite"]

# Files there are in memory; nothing has to wait for a disk.
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - only folders with random names are created there
_ASYNC_DRIVERS: Final = ("asyncpg", "psycopg")
_SYNC_DRIVERS: Final = ("psycopg", "psycopg2")
_LOCK_NOT_AVAILABLE: Final = "55P03"


class PreparedSqlite:
    """SQLite files in which the tables exist and are empty.

    Files, and not databases in memory, because those are a single connection: what is open on it would share one
    transaction.
    """

    def __init__(self, folder: Path, schema: EventStoreSchema) -> None:
        self._folder = folder
        self._numbers = count(1)
        template = folder / "template.db"
        engine = create_engine(URL.create("sqlite", database=str(template)), poolclass=NullPool)
        # Not configured: a file in WAL mode could not be copied without its log.
        schema_or_default(schema).metadata.create_all(engine)
        self._image = template.read_bytes()

    @contextmanager
    def file(self) -> Generator[Path]:
        """Provide a new file."""
        path = self._folder / f"{next(self._numbers)}.db"
        path.write_bytes(self._image)
        try:
            yield path
        finally:
            for leftover in self._folder.glob(f"{path.name}*"):
                leftover.unlink(missing_ok=True)


@contextmanager
def prepared_sqlite(schema: EventStoreSchema) -> Generator[PreparedSqlite]:
    """Prepare a file, and provide copies of it until the block ends."""
    in_memory = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="eventstore_sa_", dir=in_memory, ignore_cleanup_errors=True) as folder:
        yield PreparedSqlite(Path(folder), schema)


def async_sqlite_engine(url: URL) -> AsyncEngine:
    """Return an engine that keeps no connection, so that nothing of it has to be closed in the event loop of a test."""
    if not find_spec("aiosqlite"):
        raise ConfigurationError("SQLite with asyncio needs aiosqlite: pip install 'eventstore-sa[aiosqlite]'")
    engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), poolclass=NullPool)
    configure_sqlite(engine)
    return engine


class PreparedPostgres:
    """A PostgreSQL database in which the tables exist, and its engines, with whichever drivers are installed."""

    def __init__(self, server: PostgresServer, schema: EventStoreSchema) -> None:
        self._schema = schema_or_default(schema)
        self.url: Final = server.url_for(server.create_database(), None)
        self._run(self._schema.metadata.create_all)

    @cached_property
    def engine(self) -> Engine:
        """An engine with a synchronous driver. It keeps its connections from test to test."""
        return create_engine(self.url.set(drivername=f"postgresql+{_installed(_SYNC_DRIVERS)}"))

    @cached_property
    def async_engine(self) -> AsyncEngine:
        """An engine with an asyncio driver. It keeps no connections: each belongs to the event loop of one test."""
        return create_async_engine(
            self.url.set(drivername=f"postgresql+{_installed(_ASYNC_DRIVERS)}"), poolclass=NullPool
        )

    def empty(self, *, timeout_s: float = 10.0) -> None:
        """Empty all tables, and restart their numbers.

        Raises:
            LockTimeoutError: If a transaction that an earlier test has left open uses the tables.
        """
        self._run(partial(self._empty, timeout_s=timeout_s))

    def close(self) -> None:
        """Close the connections that are kept."""
        if "engine" in vars(self):
            self.engine.dispose()

    def _empty(self, connection: Connection, timeout_s: float) -> None:
        quote = connection.dialect.identifier_preparer.format_table
        # Before the events, to which rows of the application may refer.
        others = [table for table in self._schema.metadata.tables.values() if table not in self._schema.tables]
        if others:
            connection.execute(text(f"SET LOCAL lock_timeout = {int(timeout_s * 1000)}"))
            try:
                connection.execute(text(f"TRUNCATE {', '.join(map(quote, others))} RESTART IDENTITY"))
            except DBAPIError as error:
                if driver_attribute(error, "sqlstate", "pgcode") != _LOCK_NOT_AVAILABLE:
                    raise
                raise LockTimeoutError(
                    f"could not lock the application's tables within {timeout_s:g} s, to empty them before a test: did an "
                    "earlier test leave a session open?"
                ) from error.orig
        clear(connection, schema=self._schema, timeout_s=timeout_s)

    def _run(self, work: Callable[[Connection], object]) -> None:
        if any(map(find_spec, _SYNC_DRIVERS)):
            with self.engine.begin() as connection:
                work(connection)
            return
        # A fixture may be set up while an event loop runs, where asyncio.run is not allowed; a new thread has none.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, self._run_async(work)).result()

    async def _run_async(self, work: Callable[[Connection], object]) -> None:
        async with self.async_engine.begin() as connection:
            await connection.run_sync(work)


@contextmanager
def prepared_postgres(server: PostgresServer, schema: EventStoreSchema) -> Generator[PreparedPostgres]:
    """Create a database with the tables, and provide it until the block ends."""
    prepared = PreparedPostgres(server, schema)
    try:
        yield prepared
    finally:
        prepared.close()
        server.drop_database(str(prepared.url.database))


def _installed(drivers: tuple[str, ...]) -> str:
    driver = next(filter(find_spec, drivers), None)
    if driver is None:
        extras = " or ".join(f"'eventstore-sa[{each}]'" for each in drivers)
        raise ConfigurationError(f"no driver of PostgreSQL is installed for this fixture: pip install {extras}")
    return driver

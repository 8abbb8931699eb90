"""Applications that host an event store: an engine for one driver, a table of their own, sessions and connections.

What a host does is the same with asyncio and without it: see `awaiting`. What others see is read and done through
connections of another engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias

import pytest
from sqlalchemy import URL, Engine, NullPool, create_engine, event, text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from eventstore_sa import EventStore, EventStoreSchema, NewEvent, SyncEventStore, configure_sqlite
from eventstore_sa.conditions import NoCondition, WriteCondition
from eventstore_sa.testing import clear
from tests.awaiting import entered, settled
from tests.databases import PostgresDatabase
from tests.stores import install_schema

__all__ = [
    "ASYNC_DRIVERS",
    "CALLERS",
    "DRIVERS",
    "KINDS_OF_DRIVERS",
    "POSTGRES_DRIVERS",
    "SQLITE_DRIVERS",
    "Ground",
    "Host",
    "Note",
    "TransactionSteps",
    "each_driver",
    "each_kind_of_driver",
    "install_host",
    "new_event",
    "open_connections",
    "open_postgres_ground",
    "open_sqlite_ground",
    "statements_of",
]

Driver: TypeAlias = str

SQLITE_DRIVERS: Final = ("sqlite+aiosqlite", "sqlite")
POSTGRES_DRIVERS: Final = (
    "postgresql+asyncpg",
    "postgresql+psycopg_async",
    "postgresql+psycopg",
    "postgresql+psycopg2",
)
DRIVERS: Final = (*SQLITE_DRIVERS, *POSTGRES_DRIVERS)
ASYNC_DRIVERS: Final = ("sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg_async")

# Those of which another driver is a twin are marked.
KINDS_OF_DRIVERS: Final[tuple[Any, ...]] = tuple(
    pytest.param(driver, marks=pytest.mark.long)
    if driver in {"postgresql+psycopg_async", "postgresql+psycopg2"}
    else driver
    for driver in DRIVERS
)

CALLERS: Final = ("within session", "within scoped", "on session", "on scoped", "on connection")

_HOST_TABLE: Final = "CREATE TABLE notes (note text NOT NULL UNIQUE)"


def each_driver(*drivers: Any) -> pytest.MarkDecorator:
    """Run a test once for each of these drivers, or for all of them; it takes the fixture `host`."""
    return pytest.mark.parametrize("host", drivers or DRIVERS, indirect=True)


def each_kind_of_driver() -> pytest.MarkDecorator:
    """Run a test on a driver with asyncio and one without for each database, and on the others if `long` is asked for.

    For what happens above the drivers, as in sessions and projections; SQL and errors are looked at on each of them.
    """
    return each_driver(*KINDS_OF_DRIVERS)


def new_event(name: str = "something-happened", **fields: Any) -> NewEvent[str, Any, Any]:
    """Make an event."""
    payload: Any = fields.pop("payload", None)
    return NewEvent(name=name, payload=payload, **fields)


def install_host(database: PostgresDatabase) -> None:
    """Prepare a template: the event store, and a table of the host's."""
    install_schema(database)
    engine = create_engine(database.url("psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(_HOST_TABLE))


class Base(DeclarativeBase):
    """The host's own tables."""


class Note(Base):
    """A row of the host's."""

    __tablename__ = "notes"
    note: Mapped[str] = mapped_column(primary_key=True)


class Ground:
    """A database with an event store in it, and what is seen there from outside of any host."""

    def __init__(self, engine: Engine) -> None:
        self.outside = engine

    def url(self, driver: Driver) -> URL:
        """Return the address for a driver."""
        return self.outside.url.set(drivername=driver)

    def names(self) -> list[str]:
        """Return the names of the committed events, in order of their numbers."""
        return self._column("SELECT name FROM es_events ORDER BY sequence_number")

    def notes(self) -> list[str]:
        """Return the committed rows of the host's table."""
        return self._column("SELECT note FROM notes ORDER BY note")

    def publish(
        self, name: str = "of-another", *, stream: str = "1", condition: WriteCondition | None = None, **fields: Any
    ) -> Any:
        """Publish an event in a transaction of its own."""
        (stored,) = (
            SyncEventStore(self.outside)
            .stream(category="orders", stream=stream)
            .publish(events=[new_event(name, **fields)], condition=condition or NoCondition())
        )
        return stored

    def empty(self) -> None:
        """Delete all that tests have stored."""
        clear(self.outside)
        with self.outside.begin() as connection:
            connection.execute(text("DELETE FROM notes"))

    def _column(self, query: str) -> list[str]:
        with self.outside.connect() as connection:
            return list(connection.scalars(text(query)))


@contextmanager
def open_postgres_ground(database: PostgresDatabase) -> Iterator[Ground]:
    """Use a database that `install_host` has prepared."""
    engine = create_engine(database.url("psycopg"))
    yield Ground(engine)
    engine.dispose()


@contextmanager
def open_sqlite_ground(path: Path) -> Iterator[Ground]:
    """Make a file with an event store and the host's table."""
    Path(path, "events.db").write_bytes(_prepared_sqlite_file())
    # Reads from outside must not queue behind an open transaction of the host, as BEGIN IMMEDIATE does.
    engine = create_engine(f"sqlite:///{path}/events.db", poolclass=NullPool)
    yield Ground(engine)
    engine.dispose()


@cache
def _prepared_sqlite_file() -> bytes:
    with TemporaryDirectory() as path:
        url = f"sqlite:///{path}/events.db"
        with SyncEventStore(url) as store:
            store.create_schema()
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text(_HOST_TABLE))
        return Path(path, "events.db").read_bytes()


class Host:
    """An application with its engine."""

    def __init__(
        self, ground: Ground, driver: Driver, *, configured: bool = True, shared: Any = None, **engine_options: Any
    ) -> None:
        """Be on an engine of its own, or on one that is `shared` with other tests, whose listeners do not see this one."""
        self.ground = ground
        self.driver = driver
        self.asynchronous = driver in ASYNC_DRIVERS
        self.postgres = driver in POSTGRES_DRIVERS
        self._shares = shared is not None
        if self._shares:
            self.engine = shared.execution_options()
        else:
            self.engine = self.make_engine(configured=configured, **engine_options)
        self.store = self.store_on(self.engine)

    def make_engine(self, *, configured: bool = True, **options: Any) -> Any:
        """Make an engine for the host's driver; without a pool, unless one is asked for."""
        create: Any = create_async_engine if self.asynchronous else create_engine
        engine = create(self.ground.url(self.driver), **{"poolclass": NullPool, **options})
        if configured:
            configure_sqlite(engine)
        return engine

    def store_on(self, bind: Any, *, schema: EventStoreSchema | None = None) -> Any:
        """Make a store of the fitting class."""
        return EventStore(bind, schema=schema) if self.asynchronous else SyncEventStore(bind, schema=schema)

    def factory(self, bind: Any = None, **options: Any) -> Any:
        """Make a session factory."""
        kind: Any = async_sessionmaker if self.asynchronous else sessionmaker
        return kind(self.engine if bind is None else bind, **options)

    def session(self, bind: Any = None, **options: Any) -> Any:
        """Make a session."""
        kind: Any = AsyncSession if self.asynchronous else Session
        return kind(self.engine if bind is None else bind, **options)

    def scoped(self) -> Any:
        """Make a scoped session."""
        if self.asynchronous:
            return async_scoped_session(self.factory(), scopefunc=lambda: None)
        return scoped_session(self.factory())

    @asynccontextmanager
    async def caller(self, kind: str = "within session", **engine_options: Any) -> AsyncIterator[tuple[Any, Any]]:
        """Open a session or connection of the host's; give it, and a store that works in its transaction."""
        engine = self.engine.execution_options(**engine_options)
        if kind == "on connection":
            async with entered(engine.connect()) as connection:
                yield connection, self.store_on(connection)
            return
        if kind.endswith("scoped"):
            registry = self.scoped()
            registry.configure(bind=engine)
            yield registry, self.store_on(registry) if kind.startswith("on") else self.store.within(registry)
            await settled(registry.remove())
            return
        async with entered(self.session(engine)) as session:
            yield session, self.store_on(session) if kind.startswith("on") else self.store.within(session)

    async def execute(self, caller: Any, sql: str) -> Any:
        """Execute SQL of the host's; return the first value, if there is any."""
        result = await settled(caller.execute(text(sql)))
        return result.scalar() if result.returns_rows else None

    async def write(self, caller: Any, note: str = "mine") -> None:
        """Write a row of the host's."""
        await self.execute(caller, f"INSERT INTO notes VALUES ('{note}')")

    async def publish(self, store: Any, name: str = "mine", *, stream: str = "1", **arguments: Any) -> Any:
        """Publish one event."""
        target = store.stream(category="orders", stream=stream)
        (stored,) = await settled(target.publish(events=[new_event(name)], **arguments))
        return stored

    async def locks(self, caller: Any) -> int:
        """Count the advisory locks that the caller's connection holds."""
        if not self.postgres:
            return 0
        return await self.execute(
            caller, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        )

    async def aclose(self) -> None:
        """Dispose of the engine, unless others share it."""
        if not self._shares:
            await settled(self.engine.dispose())


class TransactionSteps:
    """What happens to transactions on an engine: begin, commit, rollback and savepoints, by name."""

    def __init__(self, engine: Any) -> None:
        self.seen: list[str] = []
        sync_engine = getattr(engine, "sync_engine", engine)
        for step in ("begin", "commit", "rollback", "savepoint", "rollback_savepoint", "release_savepoint"):
            event.listen(sync_engine, step, self._listener(step))

    def _listener(self, step: str) -> Any:
        def note(*_: Any) -> None:
            self.seen.append(step)

        return note


def open_connections(engine: Any) -> list[object]:
    """Return the connections that an engine opens from now on and has not closed, kept up to date."""
    open_now: list[object] = []
    event.listen(engine, "connect", lambda connection, _: open_now.append(connection))
    event.listen(engine, "close", lambda connection, _: open_now.remove(connection))
    return open_now


@contextmanager
def statements_of(engine: Any) -> Iterator[list[str]]:
    """Collect the statements that an engine sends during a block."""
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    sync_engine = getattr(engine, "sync_engine", engine)
    event.listen(sync_engine, "before_cursor_execute", note)
    yield statements
    event.remove(sync_engine, "before_cursor_execute", note)

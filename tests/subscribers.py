"""Places where subscriptions run in tests: each kind of store, with asyncio and without it, and a table for the effects.

A test is written once: what has to be awaited is awaited (`tests/awaiting.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from eventstore_sa import EventStore, NewEvent, SyncEventStore, configure_sqlite
from eventstore_sa.attempts import Backoff
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.subscriptions import (
    FailurePolicy,
    Subscription,
    SubscriptionRunner,
    SyncSubscription,
    SyncSubscriptionRunner,
    catch_up,
    catch_up_sync,
)
from eventstore_sa.testing import clear
from tests.awaiting import entered, settled
from tests.databases import PostgresDatabase
from tests.hosts import ASYNC_DRIVERS
from tests.patience import PATIENCE_S
from tests.stores import install_schema

__all__ = [
    "ALL",
    "AT_ONCE",
    "DATABASES",
    "EVERY",
    "MEMORY",
    "POSTGRES",
    "Place",
    "eventually",
    "install_effects",
    "numbers",
    "open_place",
    "policy",
]

MEMORY: Final = ("memory", "memory sync")
SQLITE: Final = ("sqlite+aiosqlite", "sqlite")
POSTGRES: Final = ("postgresql+asyncpg", "postgresql+psycopg_async", "postgresql+psycopg2")
EVERY: Final = (*MEMORY, *SQLITE, *POSTGRES)
# One of each kind, with asyncio and without: enough for what happens above the drivers.
DATABASES: Final = ("sqlite", "postgresql+asyncpg")
ALL: Final = (*MEMORY, *DATABASES)

AT_ONCE: Final = Backoff(first_s=0, longest_s=0)

_EFFECTS: Final = "CREATE TABLE effects (number bigint NOT NULL, what text, at {serial})"


def policy(then: Any = "stop", *, retries: int = 0, **options: Any) -> FailurePolicy:
    """Make a policy that does not pause."""
    return FailurePolicy(retries=retries, backoff=AT_ONCE, then=then, **options)


def install_effects(database: PostgresDatabase) -> None:
    """Prepare a template: the event store, and a table for what handlers do."""
    install_schema(database)
    engine = create_engine(database.url("psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(_EFFECTS.format(serial="bigint GENERATED ALWAYS AS IDENTITY")))


class Place:
    """A store of one kind, its session factory, and what handlers have done there."""

    def __init__(self, kind: str, engine: Any, outside: Engine | None) -> None:
        self.kind = kind
        self.engine = engine
        self.outside = outside
        self.asynchronous = kind == "memory" or kind in ASYNC_DRIVERS
        self.postgres = kind in POSTGRES
        self.sessions: Any = None
        if engine is None:
            self.store: Any = (
                EventStore(InMemoryEventStorageAdapter())
                if self.asynchronous
                else SyncEventStore(SyncInMemoryEventStorageAdapter())
            )
        else:
            self.store = EventStore(engine) if self.asynchronous else SyncEventStore(engine)
            self.sessions = (async_sessionmaker if self.asynchronous else sessionmaker)(engine)
        self.done: list[int] = []

    @property
    def orders(self) -> Any:
        """The category that most tests read."""
        return self.store.category(category="orders")

    async def publish(self, *streams: str, category: str = "orders", name: str = "placed", **fields: Any) -> list[Any]:
        """Publish an event to each of these streams, in order."""
        stored: list[Any] = []
        for stream in streams:
            target = self.store.stream(category=category, stream=stream)
            stored += await settled(target.publish(events=[NewEvent(name=name, payload=fields.get("payload"))]))
        return stored

    def subscription(self, handler: Any = None, source: Any = None, *, name: str = "billing", **options: Any) -> Any:
        """Make a subscription of the fitting class; by default its handler stores effects, where there are sessions."""
        kind: Any = Subscription if self.asynchronous else SyncSubscription
        if handler is None:
            handler = self.note if self.sessions is None else self.store_effect
        if "sessions" not in options:
            options["sessions"] = self.sessions
        return kind(name, self.orders if source is None else source, handler, **options)

    def note(self, event: Any) -> None:
        """Note an event in this process."""
        self.done.append(event.sequence_number)

    def store_effect(self, event: Any, session: Any) -> Any:
        """Store an effect; return what is to be awaited."""
        self.done.append(event.sequence_number)
        return session.execute(
            text("INSERT INTO effects (number, what) VALUES (:number, :what)"),
            {"number": event.sequence_number, "what": event.stream},
        )

    async def catch_up(self, *subscriptions: Any, **options: Any) -> None:
        """Process to the end."""
        await settled((catch_up if self.asynchronous else catch_up_sync)(*subscriptions, **options))

    @asynccontextmanager
    async def running(self, *subscriptions: Any, **options: Any) -> AsyncIterator[Any]:
        """Run subscriptions during a block."""
        kind: Any = SubscriptionRunner if self.asynchronous else SyncSubscriptionRunner
        async with entered(kind(subscriptions, **options)) as runner:
            yield runner

    def effects(self) -> list[int]:
        """Return the numbers of the events with effects, in the order in which these were stored."""
        if self.outside is None:
            return self.done
        with self.outside.connect() as connection:
            return list(connection.scalars(text("SELECT number FROM effects ORDER BY at")))

    def execute(self, sql: str, **parameters: Any) -> Any:
        """Execute SQL from outside; return the rows, if there are any."""
        assert self.outside is not None
        with self.outside.begin() as connection:
            result = connection.execute(text(sql), parameters)
            return result.all() if result.returns_rows else []

    async def checkpoints(self, subscription: Any) -> list[int]:
        """Return the checkpoint of each partition."""
        return [each.sequence_number for each in await settled(subscription.status())]


async def eventually(condition: Any, what: str) -> None:
    """Wait until a condition holds, while the event loop runs."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while not await settled(condition()):
        assert loop.time() < deadline, what
        await asyncio.sleep(0.005)


def numbers(events: Iterable[Any]) -> list[int]:
    """Return the sequence numbers of events."""
    return [event.sequence_number for event in events]


@cache
def _engines(kind: str, postgres: PostgresDatabase) -> tuple[Any, Engine]:
    """Return engines that tests use one after the other: they keep the statements that they have compiled."""
    driver: Any = kind.partition("+")[2].removesuffix("_async")
    create: Any = create_async_engine if kind in ASYNC_DRIVERS else create_engine
    return create(postgres.url(driver)), create_engine(postgres.url("psycopg"), poolclass=NullPool)


@cache
def _prepared_sqlite_file() -> bytes:
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/events.db"
        with SyncEventStore(url) as store:
            store.create_schema()
        with create_engine(url, poolclass=NullPool).begin() as connection:
            connection.execute(text(_EFFECTS.format(serial="INTEGER PRIMARY KEY")))
        return Path(folder, "events.db").read_bytes()


@asynccontextmanager
async def open_place(kind: str, tmp_path: Path, postgres: PostgresDatabase | None) -> AsyncIterator[Place]:
    """Open a place of a kind, with an empty store."""
    if kind.startswith("memory"):
        yield Place(kind, None, None)
        return
    engine: Any
    if postgres is not None:
        engine, outside = _engines(kind, postgres)
        clear(outside)
        with outside.begin() as connection:
            connection.execute(text("DELETE FROM effects"))
    else:
        path = tmp_path / "events.db"
        path.write_bytes(_prepared_sqlite_file())
        engine = (create_async_engine if kind in ASYNC_DRIVERS else create_engine)(f"{kind}:///{path}")
        configure_sqlite(engine)
        outside = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    yield Place(kind, engine, outside)
    await settled(engine.dispose())
    outside.dispose()

"""A stage for deterministic interleavings on PostgreSQL: open transactions of several writers, moved by hand.

Nothing here sleeps for luck: `wait_until_blocked` asks the server whether a writer waits for a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.orm import Session

from eventstore_sa import EventStoreSchema, NewEvent, StoredEvent, StreamIdentifier, SyncEventStore
from eventstore_sa.conditions import NoCondition, WriteCondition
from tests.databases import PostgresDatabase
from tests.patience import PATIENCE_S, wait_until

__all__ = ["Stage", "Writer", "event", "install_schema", "names", "open_stage", "set_next_number"]

T = TypeVar("T")
AnyStoredEvent = StoredEvent[Any, Any, Any]

_WAITING = """
SELECT count(*) FROM pg_locks
WHERE NOT granted AND locktype = 'advisory'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def event(name: str = "something-happened") -> NewEvent[str, Any, Any]:
    """Make an event."""
    return NewEvent(name=name, payload=None)


def names(events: Iterator[AnyStoredEvent]) -> list[str]:
    """Return the names of events, in order."""
    return [stored.name for stored in events]


def install_schema(database: PostgresDatabase) -> None:
    """Prepare a template: the event store, and a table of the host's."""
    with SyncEventStore(database.url("psycopg")) as store:
        store.create_schema()
    engine = create_engine(database.url("psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE host (note text)"))


class Writer:
    """A session of its own on a connection of its own, and a store within it."""

    def __init__(self, session: Session, store: SyncEventStore) -> None:
        self.session = session
        self.store = store.within(session)
        self.pid = int(self.execute("SELECT pg_backend_pid()"))

    def publish(
        self,
        name: str = "something-happened",
        *,
        stream: str = "1",
        category: str = "orders",
        condition: WriteCondition = NoCondition(),  # noqa: B008 - an immutable value
    ) -> AnyStoredEvent:
        """Publish one event within the transaction."""
        (stored,) = self.store.stream(category=category, stream=stream).publish(
            events=[event(name)], condition=condition
        )
        return stored

    def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> Any:
        """Execute SQL of the host's; return the first value, if there are any."""
        result = self.session.execute(text(sql), parameters)
        return result.scalar() if result.returns_rows else None  # type: ignore[attr-defined]

    def commit(self) -> None:
        self.session.commit()

    def rollback(self) -> None:
        self.session.rollback()


class Stage:
    """One database, a store on it for readers, and as many writers as are wanted."""

    def __init__(self, database: PostgresDatabase, stack: ExitStack) -> None:
        self._database = database
        self._stack = stack
        self._threads = stack.enter_context(ThreadPoolExecutor(8))
        self.engine = self.engine_of("reader")
        self.store = SyncEventStore(self.engine)

    def engine_of(self, application_name: str) -> Engine:
        """Make an engine whose connections call themselves so."""
        # A test that goes wrong fails after a while instead of waiting for ever.
        arguments = {"application_name": application_name, "options": f"-c lock_timeout={PATIENCE_S:.0f}s"}
        engine = create_engine(self._database.url("psycopg"), connect_args=arguments)
        self._stack.callback(engine.dispose)
        return engine

    def writer(self, application_name: str = "writer", store: SyncEventStore | None = None) -> Writer:
        """Open a transaction; it is rolled back at the end, if it is open still."""
        session = self._stack.enter_context(Session(self.engine_of(application_name)))
        return Writer(session, store or self.store)

    def publish(self, name: str = "something-happened", *, stream: str, category: str = "orders") -> AnyStoredEvent:
        """Publish one event in a transaction of its own."""
        (stored,) = self.store.stream(category=category, stream=stream).publish(events=[event(name)])
        return stored

    def log(self) -> list[str]:
        """Return the names of the events that a reader of the log sees."""
        return names(self.store.log().iterate())

    def category(self, category: str = "orders") -> list[str]:
        """Return the names of the events that a reader of the category sees."""
        return names(self.store.category(category=category).iterate())

    def stream(self, stream: str, category: str = "orders") -> list[str]:
        """Return the names of the events that a reader of the stream sees."""
        return names(self.store.stream(category=category, stream=stream).iterate())

    def in_background(self, work: Callable[[], T]) -> Future[T]:
        """Start something that is going to wait."""
        return self._threads.submit(work)

    def wait_until_blocked(self, writers: int = 1) -> None:
        """Wait until so many connections wait for advisory locks."""
        query = text(_WAITING)
        with self.autocommit() as connection:
            wait_until(
                lambda: connection.execute(query).scalar_one() >= writers, f"{writers} writers wait for advisory locks"
            )

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """Give a connection for statements on their own."""
        with self.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            yield connection

    def definitions(self, *streams: str) -> dict[StreamIdentifier, Any]:
        """Make the argument for a publish of one event to each of these streams, in this order."""
        return {StreamIdentifier("orders", stream): {"events": [event(f"to-{stream}")]} for stream in streams}


@contextmanager
def open_stage(database: PostgresDatabase) -> Iterator[Stage]:
    """Set the stage on a database that `install_schema` has prepared; every transaction is closed at the end."""
    with ExitStack() as stack:
        yield Stage(database, stack)


def set_next_number(connection: Connection, number: int, schema: EventStoreSchema | None = None) -> None:
    """Let the next event get this sequence number."""
    events = (schema or EventStoreSchema()).events.fullname
    connection.execute(text(f"ALTER TABLE {events} ALTER COLUMN sequence_number RESTART WITH {number}"))

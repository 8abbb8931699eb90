"""Where connections come from, and whose transactions they are in.

An engine gives connections of our own: each publish is a transaction, and nothing is held between the pages of a read.
A session or connection of the caller's gives the caller's transaction, which is never begun, committed or rolled back
here. Everything is synchronous; asyncio callers run it in a greenlet.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Any, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import NullPool, Pool, StaticPool

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.dialects import event_dialect
from eventstore_sa.persistence.events.dialects.sqlite import READING
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.sqlalchemy_internals import is_flushing
from eventstore_sa.persistence.transactions.driver_connections import is_closed

__all__ = [
    "WHEN_RETURNED",
    "Bind",
    "ConnectionBind",
    "EngineBind",
    "FactoryBind",
    "SessionBind",
    "Workplace",
]


WHEN_RETURNED: Final = "eventstore_sa.when_returned"
"""An option of connections of our own: a list of what is to be called when the connection is back in its pool."""


class Workplace(Struct, frozen=True):
    """A connection to work on.

    Attributes:
        connection: The connection.
        guarded: Whether its transaction must outlive whatever goes wrong.
        hosted: Whether its transaction is the caller's.
        session: The session of the caller's that has the connection, if there is one.
        savepoint: Whether all that is done here is undone by a savepoint when it fails.
    """

    connection: Connection
    guarded: bool
    hosted: bool
    session: Session | None = None
    savepoint: bool = False


class Bind(Protocol):
    """What a store is bound to."""

    @property
    def hosted(self) -> bool:
        """Whether reads and publishes are part of a transaction of the caller's."""
        ...

    @property
    def engine(self) -> Engine | None:
        """The engine that connections of our own come from; None when all is done on a connection of the caller's."""
        ...

    @property
    def database(self) -> str:
        """SQLAlchemy's name of the database."""
        ...

    def reading(self) -> AbstractContextManager[Workplace]:
        """Give a connection for reading, for as long as one page or one call takes."""
        ...

    def writing(self) -> AbstractContextManager[Workplace]:
        """Give a connection for one publish, committed at the end when it is our own."""
        ...

    def deciding(self, *, in_session: bool = False) -> AbstractContextManager[Workplace]:
        """Give a connection for a publish of several statements: in a transaction, or a savepoint of the caller's.

        Args:
            in_session: Whether a session of the caller's is worked on too: then the savepoint is the session's.
        """
        ...

    def transaction(self) -> AbstractContextManager[Workplace]:
        """Give a connection in an ordinary transaction, committed at the end when it is our own."""
        ...

    def require_read_committed(self) -> bool:
        """Ask for READ COMMITTED by name from now on: the database's default is another isolation level.

        Return whether that is for us to choose.
        """
        ...


class EngineBind:
    """Connections of our own from an engine."""

    hosted: bool = False

    def __init__(self, engine: Engine, *, blocking: bool, owned: bool = False) -> None:
        """Take connections from `engine`; `blocking` tells that no event loop is involved, `owned` that it is ours."""
        self.engine = engine
        self._owned = owned
        self._pool_and_pid: tuple[Pool, int] | None = None
        # Given to each connection, not once to an engine: SQLAlchemy does that with an event listener on the engine, which
        # sends every step of every statement through its event dispatch.
        postgresql = engine.dialect.name == "postgresql"
        self._autocommit: Callable[[Connection], AbstractContextManager[Any]] = nullcontext
        self._writing: dict[str, Any] = {}
        if engine.dialect.driver == "psycopg2":
            self._autocommit = _psycopg2_autocommit
        elif postgresql:
            self._writing = {"isolation_level": "AUTOCOMMIT"}
        self._reading = {**self._writing, READING: True}
        self._explicit = False
        self._looked_at_driver = engine.dialect.driver != "asyncpg"
        # SQLite has no such level, and with a single writer no need of it.
        single_writer = engine.dialect.name == "sqlite"
        self._read_committed = {} if single_writer else {"isolation_level": "READ COMMITTED"}
        # A StaticPool hands out one and the same connection to everybody at once.
        shared = blocking and isinstance(engine.pool, StaticPool)
        self._turn: AbstractContextManager[Any] = Lock() if shared else nullcontext()

    @property
    def database(self) -> str:
        return self.engine.dialect.name

    @contextmanager
    def reading(self) -> Generator[Workplace]:
        with self._alone(self._reading) as workplace:
            yield workplace

    @contextmanager
    def writing(self) -> Generator[Workplace]:
        with self._alone(self._writing) as workplace:
            yield workplace
            if not workplace.guarded:
                # Needed on SQLite; without I/O in autocommit mode.
                workplace.connection.commit()

    @contextmanager
    def deciding(self, *, in_session: bool = False) -> Generator[Workplace]:
        calls: list[Callable[[], object]] = []
        with self._connected({**self._read_committed, WHEN_RETURNED: calls}) as connection, connection.begin():
            yield Workplace(connection, guarded=True, hosted=False)
        for call in calls:
            call()

    @contextmanager
    def transaction(self) -> Generator[Workplace]:
        with self._connected({}) as connection, connection.begin():
            yield Workplace(connection, guarded=True, hosted=False)

    def require_read_committed(self) -> bool:
        self._explicit = True
        return True

    @contextmanager
    def _alone(self, options: Mapping[str, Any]) -> Generator[Workplace]:
        """Give a connection whose statements commit by themselves, or a transaction where that does not do."""
        with self._connected({}) as connection:
            if not self._looked_at_driver:
                self._explicit = self._explicit or _names_statements(connection)
                self._looked_at_driver = True
            if self._explicit:
                with connection.execution_options(**self._read_committed).begin():
                    yield Workplace(connection, guarded=True, hosted=False)
                return
            connection.execution_options(**options)
            with self._autocommit(connection):
                yield Workplace(connection, guarded=False, hosted=False)

    def _enter_process(self) -> None:
        """Refuse a forked process at once: connections in a pool belong to the process that opened them."""
        pool, pid = self.engine.pool, os.getpid()
        if self._pool_and_pid == (pool, pid) or isinstance(pool, NullPool):
            return
        if self._pool_and_pid is not None and self._pool_and_pid[0] is pool:
            if not self._owned:
                raise ConfigurationError(
                    "this engine's pool has connections that belong to the process that this one was forked from: call "
                    "engine.dispose(close=False) in the new process before anything else uses the engine"
                )
            self.engine.dispose(close=False)
        self._pool_and_pid = (self.engine.pool, pid)

    @contextmanager
    def _connected(self, options: Mapping[str, Any]) -> Generator[Connection]:
        self._enter_process()
        with self._turn, self.engine.connect() as connection:
            if is_closed(connection):
                # Closed while it was in the pool. It is replaced, before SQLAlchemy or we set anything on it.
                connection.invalidate()
            # Set here and not by an engine with options: cancelled in its connect(), that loses the place in the pool.
            yield connection.execution_options(**options)


class FactoryBind:
    """Connections of our own from whatever a session factory is bound to at the time."""

    hosted: bool = False

    def __init__(
        self, factory: Callable[[], Session | AsyncSession], schema: EventStoreSchema, *, blocking: bool
    ) -> None:
        self._factory = factory
        self._schema = schema
        self._blocking = blocking
        self._resolving = Lock()
        self._engine_bind: EngineBind | None = None

    @property
    def engine(self) -> Engine | None:
        bind = self._resolve()
        return None if bind is None else bind.engine

    @property
    def database(self) -> str:
        with self._new_session() as session, _routing():
            return session.get_bind(mapper=self._schema.EventRecord).dialect.name

    def reading(self) -> AbstractContextManager[Workplace]:
        bind = self._resolve()
        return bind.reading() if bind is not None else self._session()

    def writing(self) -> AbstractContextManager[Workplace]:
        bind = self._resolve()
        return bind.writing() if bind is not None else self._session()

    def deciding(self, *, in_session: bool = False) -> AbstractContextManager[Workplace]:
        bind = self._resolve()
        return bind.deciding() if bind is not None else self._session()

    def transaction(self) -> AbstractContextManager[Workplace]:
        return self._session()

    def require_read_committed(self) -> bool:
        return self._engine_bind is not None and self._engine_bind.require_read_committed()

    def _resolve(self) -> EngineBind | None:
        with self._new_session() as session, _routing():
            bind = session.get_bind(mapper=self._schema.EventRecord)
        if isinstance(bind, Connection):
            return None
        # One for all threads, because they take turns on it.
        with self._resolving:
            if self._engine_bind is None or self._engine_bind.engine is not bind:
                self._engine_bind = EngineBind(bind, blocking=self._blocking)
            return self._engine_bind

    @contextmanager
    def _session(self) -> Generator[Workplace]:
        # Bound to a connection, as test suites do: the session knows how to join that connection's transaction.
        with self._new_session() as session, session.begin():
            connection = session.connection(bind_arguments={"mapper": self._schema.EventRecord})
            yield Workplace(connection, guarded=True, hosted=False, session=session)

    def _new_session(self) -> Session:
        session = self._factory()
        return session.sync_session if isinstance(session, AsyncSession) else session


class _CallersBind(ABC):
    """A transaction of the caller's."""

    hosted: bool = True
    engine: Engine | None = None

    def __init__(self, schema: EventStoreSchema) -> None:
        self._schema = schema

    @abstractmethod
    def connection(self) -> Connection:
        """Return the connection of the transaction."""

    @property
    def database(self) -> str:
        return self.connection().dialect.name

    @contextmanager
    def reading(self) -> Generator[Workplace]:
        yield Workplace(self.connection(), guarded=True, hosted=True)

    @contextmanager
    def writing(self) -> Generator[Workplace]:
        connection = self.connection()
        if not connection.in_transaction():
            # As any statement does; looking at the driver's transaction alone does not.
            connection.begin()
        event_dialect(connection.dialect.name, self._schema).check_hosted(connection)
        yield Workplace(connection, guarded=True, hosted=True)

    @contextmanager
    def deciding(self, *, in_session: bool = False) -> Generator[Workplace]:
        with self.writing() as workplace, workplace.connection.begin_nested():
            yield replace(workplace, savepoint=True)

    def transaction(self) -> AbstractContextManager[Workplace]:
        return self.reading()

    def require_read_committed(self) -> bool:
        return False


class ConnectionBind(_CallersBind):
    """The transaction that a connection of the caller's is in."""

    def __init__(self, connection: Connection | AsyncConnection, schema: EventStoreSchema) -> None:
        super().__init__(schema)
        self._given = connection

    def connection(self) -> Connection:
        """Return the caller's connection.

        Raises:
            ConfigurationError: If it is closed, or not started.
        """
        given = self._given
        connection = given.sync_connection if isinstance(given, AsyncConnection) else given
        if connection is None or connection.closed:
            if isinstance(given, AsyncConnection):
                raise ConfigurationError(
                    "this AsyncConnection is not started or is closed: use it inside "
                    "`async with engine.connect() as connection`"
                )
            raise ConfigurationError("this Connection is closed: use it inside `with engine.connect() as connection`")
        return connection


class SessionBind(_CallersBind):
    """The transaction that a session of the caller's is in, routed as the session routes our mapped classes.

    Attributes:
        route: How the session is asked for the connection: the arguments of its `get_bind`.
    """

    def __init__(
        self,
        session: Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any],
        schema: EventStoreSchema,
    ) -> None:
        super().__init__(schema)
        self._given = session
        self.route: Final[dict[str, Any]] = {"mapper": schema.EventRecord}

    @property
    def session(self) -> Session:
        """The session; with a scoped_session, that of the current scope."""
        given: Session | AsyncSession = (
            self._given() if isinstance(self._given, scoped_session | async_scoped_session) else self._given
        )
        return given.sync_session if isinstance(given, AsyncSession) else given

    @property
    def database(self) -> str:
        return self._dialect.name

    @property
    def asynchronous(self) -> bool:
        """Whether the session does its I/O in a greenlet of SQLAlchemy's."""
        return self._dialect.is_async

    @property
    def _dialect(self) -> Dialect:
        with _routing():
            return self.session.get_bind(**self.route).dialect

    def check_routing(self) -> None:
        """Refuse a session that does not know where our tables are, without I/O.

        Raises:
            ConfigurationError: It does not.
        """
        with _routing():
            self.session.get_bind(**self.route)

    @contextmanager
    def deciding(self, *, in_session: bool = False) -> Generator[Workplace]:
        session = self.session
        # While it is flushing, a session can be read but not flushed: others have to work beside it.
        usable = not is_flushing(session)
        savepoint_of = session if in_session and usable else None
        with self.writing() as workplace, (savepoint_of or workplace.connection).begin_nested():
            # Asked for anew: a session begins its savepoint on a connection when that is first used in it.
            yield replace(workplace, connection=self.connection(), session=session if usable else None, savepoint=True)

    def connection(self) -> Connection:
        """Return the connection of the session's transaction, which is begun if there is none."""
        with _routing():
            return self.session.connection(bind_arguments=self.route)


def _names_statements(connection: Connection) -> bool:
    """Tell whether the application gives asyncpg names for prepared statements, which is done because of a pooler.

    Statements with names are closed when they are not used any more. asyncpg does that between preparing the next one and
    executing it, and without a transaction that is when the pooler takes the server away.
    """
    adapted: Any = connection.connection.dbapi_connection
    name_func = getattr(adapted, "_prepared_statement_name_func", None)
    return name_func is not getattr(adapted, "_default_name_func", None)


@contextmanager
def _routing() -> Generator[None]:
    """Say what is missing when a session does not know where our tables are."""
    try:
        yield
    except UnboundExecutionError as error:
        raise ConfigurationError(
            "the session does not know in which database the events are: give it bind=engine, or in its binds an engine "
            "for EventRecord of the store's EventStoreSchema"
        ) from error


@contextmanager
def _psycopg2_autocommit(connection: Connection) -> Generator[None]:
    """Put a connection into autocommit mode for a while, without a word to the server.

    SQLAlchemy's AUTOCOMMIT names an isolation level when the connection goes back to the pool, and from then on psycopg2
    sends SETs for it. When one fails on the way back, the pool loses the connection's place.
    """
    driver: Any = connection.connection.dbapi_connection
    if driver.autocommit:
        yield
        return
    level = driver.isolation_level
    driver.rollback()
    driver.isolation_level = None
    driver.autocommit = True
    try:
        yield
    finally:
        if not connection.invalidated:
            driver.autocommit = False
            driver.isolation_level = level

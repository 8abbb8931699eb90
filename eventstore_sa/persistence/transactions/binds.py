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
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.sqlalchemy_internals import is_flushing
from eventstore_sa.persistence.transactions.databases import Database, database_named, database_of
from eventstore_sa.persistence.transactions.prepared import OF_OUR_OWN

__all__ = [
    "WHEN_RETURNED",
    "Bind",
    "ConnectionBind",
    "ConnectionScope",
    "EngineBind",
    "FactoryBind",
    "SessionBind",
]


WHEN_RETURNED: Final = "eventstore_sa.when_returned"
"""An option of connections of our own: a list of what is to be called when the connection is back in its pool."""


class ConnectionScope(Struct, frozen=True):
    """A connection to work on, and the transaction that it is in.

    Attributes:
        connection: The connection.
        single_statement: Whether each statement is a transaction by itself; otherwise an error must not end the
            transaction, because there may be more in it.
        in_transaction: Whether the transaction is the caller's.
        session: The session of the caller's that has the connection, if there is one.
        in_savepoint: Whether a savepoint undoes all that is done here when it fails.
    """

    connection: Connection
    single_statement: bool = False
    in_transaction: bool = False
    session: Session | None = None
    in_savepoint: bool = False


class Bind(Protocol):
    """What a store is bound to."""

    @property
    def in_transaction(self) -> bool:
        """Whether reads and publishes are part of a transaction of the caller's."""
        ...

    @property
    def engine(self) -> Engine | None:
        """The engine that connections of our own come from; None if everything runs on a connection of the caller's."""
        ...

    @property
    def engine_bind(self) -> EngineBind | None:
        """The same connections of our own, of the engine that the caller is led to now; None like `engine`."""
        ...

    @property
    def database(self) -> Database:
        """The database that connections lead to."""
        ...

    def reading(self) -> AbstractContextManager[ConnectionScope]:
        """Give a connection for reading, for as long as one page or one call takes."""
        ...

    def writing(self) -> AbstractContextManager[ConnectionScope]:
        """Give a connection for one publish, committed at the end when it is our own."""
        ...

    def savepoint(self, *, in_session: bool = False) -> AbstractContextManager[ConnectionScope]:
        """Give a connection for several statements: in a transaction of our own, or a savepoint of the caller's.

        Args:
            in_session: Whether a session of the caller's is used too: then the savepoint is the session's.
        """
        ...

    def transaction(self) -> AbstractContextManager[ConnectionScope]:
        """Give a connection in an ordinary transaction, committed at the end when it is our own."""
        ...

    def require_read_committed(self) -> bool:
        """Ask for READ COMMITTED by name from now on: the database's default is another isolation level.

        Return whether that is for us to choose.
        """
        ...


class EngineBind:
    """Connections of our own from an engine.

    Args:
        engine: The engine.
        blocking: Whether no event loop is involved.
        owned: Whether the engine was made for this bind.
    """

    in_transaction: bool = False

    def __init__(self, engine: Engine, *, blocking: bool, owned: bool = False) -> None:
        self.engine = engine
        self.database: Final[Database] = database_named(engine.dialect.name)
        self._owned = owned
        self._pool_and_pid: tuple[Pool, int] | None = None
        # Given to each connection, not once to an engine: SQLAlchemy does that with an event listener on the engine, which
        # sends every step of every statement through its event dispatch.
        self._own: Final[Mapping[str, Any]] = {OF_OUR_OWN: True} if self.database.executes_directly else {}
        self._reading, self._writing = (
            self.database.single_statement_options(engine.dialect.driver, reading=reading) for reading in (True, False)
        )
        self._explicit: bool | None = None  # not known before there is a connection
        # A StaticPool hands out one and the same connection to everybody at once.
        shared = blocking and isinstance(engine.pool, StaticPool)
        self._turn: AbstractContextManager[Any] = Lock() if shared else nullcontext()

    @property
    def engine_bind(self) -> EngineBind | None:
        return self

    def reading(self) -> AbstractContextManager[ConnectionScope]:
        return self._single_statement(self._reading)

    @contextmanager
    def writing(self) -> Generator[ConnectionScope]:
        with self._single_statement(self._writing) as scope:
            yield scope
            if scope.single_statement:
                # Needed on SQLite; without I/O in autocommit mode.
                scope.connection.commit()

    @contextmanager
    def savepoint(self, *, in_session: bool = False) -> Generator[ConnectionScope]:
        calls: list[Callable[[], object]] = []
        options = {**self._own, **self.database.read_committed, WHEN_RETURNED: calls}
        with self._connected() as connection, connection.execution_options(**options).begin():
            yield ConnectionScope(connection)
        for call in calls:
            call()

    @contextmanager
    def transaction(self) -> Generator[ConnectionScope]:
        with self._connected() as connection, connection.begin():
            yield ConnectionScope(connection)

    def require_read_committed(self) -> bool:
        self._explicit = True
        return True

    @contextmanager
    def _single_statement(self, options: Mapping[str, Any]) -> Generator[ConnectionScope]:
        """Give a connection whose statements commit by themselves, or a transaction where that does not work."""
        with self._connected() as connection:
            if self._explicit is None:
                self._explicit = self.database.needs_explicit_transactions(connection)
            if self._explicit:
                with connection.execution_options(**self._own, **self.database.read_committed).begin():
                    yield ConnectionScope(connection)
                return
            own: Mapping[str, Any] = self._own if self.database.commits_each(connection) else {}
            connection.execution_options(**options, **own)
            with self.database.committing_each(connection):
                yield ConnectionScope(connection, single_statement=True)

    def _enter_process(self) -> None:
        """Refuse a forked process at once: connections in a pool belong to the process that opened them."""
        pool, pid = self.engine.pool, os.getpid()
        if self._pool_and_pid == (pool, pid) or isinstance(pool, NullPool):
            return
        if self._pool_and_pid is not None and self._pool_and_pid[0] is pool:
            if not self._owned:
                raise ConfigurationError(
                    "this process was forked from one that has connections in this engine's pool, and cannot use them: call "
                    "engine.dispose(close=False) in the new process before anything else uses the engine"
                )
            self.engine.dispose(close=False)
        self._pool_and_pid = (self.engine.pool, pid)

    @contextmanager
    def _connected(self) -> Generator[Connection]:
        self._enter_process()
        with self._turn, self.engine.connect() as connection:
            if self.database.is_closed(connection):
                # Closed while it was in the pool. It is replaced, before SQLAlchemy or we set anything on it.
                connection.invalidate()
            # Options are set on it and not on the engine: cancelled in its connect(), that loses the place in the pool.
            yield connection


class FactoryBind:
    """Connections of our own from whatever a session factory is bound to at the time."""

    in_transaction: bool = False

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
    def engine_bind(self) -> EngineBind | None:
        return self._resolve()

    @property
    def database(self) -> Database:
        with self._new_session() as session, _routing():
            return database_named(session.get_bind(mapper=self._schema.EventRecord).dialect.name)

    def reading(self) -> AbstractContextManager[ConnectionScope]:
        bind = self._resolve()
        return bind.reading() if bind is not None else self.transaction()

    def writing(self) -> AbstractContextManager[ConnectionScope]:
        bind = self._resolve()
        return bind.writing() if bind is not None else self.transaction()

    def savepoint(self, *, in_session: bool = False) -> AbstractContextManager[ConnectionScope]:
        bind = self._resolve()
        return bind.savepoint() if bind is not None else self.transaction()

    @contextmanager
    def transaction(self) -> Generator[ConnectionScope]:
        # Bound to a connection, as test suites do: the session knows how to join that connection's transaction.
        with self._new_session() as session, session.begin():
            connection = session.connection(bind_arguments={"mapper": self._schema.EventRecord})
            yield ConnectionScope(connection, session=session)

    def require_read_committed(self) -> bool:
        bind = self._resolve()
        return bind is not None and bind.require_read_committed()

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

    def _new_session(self) -> Session:
        session = self._factory()
        return session.sync_session if isinstance(session, AsyncSession) else session


class _CallersBind(ABC):
    """A transaction of the caller's."""

    in_transaction: bool = True
    engine: Engine | None = None
    engine_bind: EngineBind | None = None

    @abstractmethod
    def connection(self) -> Connection:
        """Return the connection of the transaction."""

    @property
    def database(self) -> Database:
        return database_of(self.connection())

    @contextmanager
    def reading(self) -> Generator[ConnectionScope]:
        yield ConnectionScope(self.connection(), in_transaction=True)

    @contextmanager
    def writing(self) -> Generator[ConnectionScope]:
        connection = self.connection()
        if not connection.in_transaction():
            # As any statement does; looking at the driver's transaction alone does not.
            connection.begin()
        database_of(connection).check_transaction(connection)
        yield ConnectionScope(connection, in_transaction=True)

    @contextmanager
    def savepoint(self, *, in_session: bool = False) -> Generator[ConnectionScope]:
        with self.writing() as scope, scope.connection.begin_nested():
            yield replace(scope, in_savepoint=True)

    def transaction(self) -> AbstractContextManager[ConnectionScope]:
        return self.reading()

    def require_read_committed(self) -> bool:
        return False


class ConnectionBind(_CallersBind):
    """The transaction that a connection of the caller's is in."""

    def __init__(self, connection: Connection | AsyncConnection) -> None:
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
    def database(self) -> Database:
        return database_named(self._dialect.name)

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
            ConfigurationError: If it does not.
        """
        _ = self._dialect

    @contextmanager
    def savepoint(self, *, in_session: bool = False) -> Generator[ConnectionScope]:
        session = self.session
        # While it is flushing, a session can be read but not flushed, and needs another session for what is to be written.
        usable = not is_flushing(session)
        savepoint_of = session if in_session and usable else None
        with self.writing() as scope, (savepoint_of or scope.connection).begin_nested():
            # Asked for again: a session begins its savepoint on a connection when that is first used in it.
            yield replace(scope, connection=self.connection(), session=session if usable else None, in_savepoint=True)

    def connection(self) -> Connection:
        """Return the connection of the session's transaction, which is begun if there is none."""
        with _routing():
            return self.session.connection(bind_arguments=self.route)


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

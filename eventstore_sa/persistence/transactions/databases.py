"""What differs between databases in their transactions and errors: a base with the defaults, and a class for each.

Nothing here knows a table. A `Database` has no state: there is one of each kind, and it is given a connection.
`configure_sqlite` gives an engine real transactions, which SQLite's drivers do not have by default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import ceil
from sqlite3 import SQLITE_BUSY
from sqlite3 import OperationalError as SQLiteOperationalError
from time import monotonic, sleep
from traceback import walk_tb
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, Engine, case, event, func, select
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from eventstore_sa.errors import ConfigurationError, TransactionError
from eventstore_sa.persistence.schema.ddl import MARIADB
from eventstore_sa.persistence.schema.encoding import wrong_encoding
from eventstore_sa.persistence.sqlalchemy_internals import is_closed
from eventstore_sa.persistence.transactions.failures import Failure, FailureKind, Refusal

__all__ = [
    "Database",
    "configure_sqlite",
    "database_named",
    "database_of",
    "driver_attribute",
    "limit_idleness",
    "limit_waits",
    "milliseconds",
    "postgresql_failure",
    "unknown_database",
]

_NO_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({})
_CHECKED: Final = "eventstore_sa.checked"


class Database(ABC):
    """The ways of a kind of database; the defaults are those of a server that returns errors of statements one by one.

    Attributes:
        read_committed: The options of a connection whose transactions are READ COMMITTED, whatever the default is.
        ddl_commits: Whether a statement of DDL commits the transaction that it is in.
        executes_directly: Whether a connection of our own needs nothing of SQLAlchemy's before a statement is executed in
            a transaction that is begun; see `PreparedStatement`.
        works_beside_us: Whether a server reads for us while we do something else, which it does not hold up.
        has_whole_snapshots: Whether a statement that sees a transaction sees all those for whose locks that one waited.
    """

    read_committed: Mapping[str, Any] = MappingProxyType({"isolation_level": "READ COMMITTED"})
    ddl_commits: bool = False
    executes_directly: bool = False
    works_beside_us: bool = True
    has_whole_snapshots: bool = True

    @property
    def listeners(self) -> Collection[Callable[..., object]]:
        """What this library has engines of this database call; nobody sees anything through it."""
        return ()

    def check_connection(self, connection: Connection) -> None:
        """Refuse a connection that cannot be used; each connection of the driver is asked once.

        Raises:
            ConfigurationError: If it cannot carry every character, or the database is too old.
        """
        if _CHECKED in connection.info:
            return
        self._refuse_wrong_encoding(connection)
        connection.info[_CHECKED] = True

    @staticmethod
    def _refuse_wrong_encoding(connection: Connection) -> None:
        wrong = wrong_encoding(connection)
        if wrong is not None:
            raise ConfigurationError(wrong)

    def is_closed(self, connection: Connection) -> bool:
        """Return whether the driver knows that its connection is closed; by default it is asked, without I/O."""
        return is_closed(connection)

    def check_transaction(self, connection: Connection) -> None:
        """Refuse a connection of the caller's that has no real transaction.

        Raises:
            TransactionError: If it is in autocommit mode, or its driver begins no transactions.
        """
        # SQLAlchemy's dialects can tell only since 2.0.43.
        driver: Any = connection.connection.driver_connection
        adapted: Any = connection.connection.dbapi_connection
        if driver.get_autocommit() if hasattr(driver, "get_autocommit") else adapted.autocommit:
            raise TransactionError(
                "this session or connection is in autocommit mode, so the publish would commit alone: leave out "
                "isolation_level='AUTOCOMMIT', or publish through a store on the engine"
            )

    def check_read_committed(self, connection: Connection) -> None:
        """Refuse a transaction whose snapshot may be older than its locks.

        Raises:
            Refusal: If it is not READ COMMITTED.
        """
        if connection.get_isolation_level() not in ("READ COMMITTED", "READ UNCOMMITTED"):
            said = "a condition of the application needs READ COMMITTED: an older snapshot may not see what it looks at"
            raise Refusal(Failure(FailureKind.ISOLATION, said))

    def begin_writing(self, connection: Connection) -> None:
        """Take the lock that a transaction needs to write; only SQLite has one for the whole database."""

    def single_statement_options(self, driver: str, *, reading: bool) -> Mapping[str, Any]:
        """Return the options of a connection of our own on which each statement is a transaction."""
        return _NO_OPTIONS

    def committing_each(self, connection: Connection) -> AbstractContextManager[object]:
        """Have statements of a connection commit by themselves, where its options do not do that."""
        return nullcontext()

    def commits_each(self, connection: Connection) -> bool:
        """Return whether a statement that is executed directly commits by itself on a connection of our own."""
        return self.executes_directly

    def needs_explicit_transactions(self, connection: Connection) -> bool:
        """Return whether a statement of a connection of our own must stand in a transaction, even a single one."""
        return False

    @abstractmethod
    def failure_of(self, error: DBAPIError) -> Failure:
        """Read a driver's error."""

    def ends_transaction(self, connection: Connection | None, error: DBAPIError) -> bool:
        """Return whether a transaction of the caller's in which this error was raised can only be rolled back.

        Args:
            connection: That of the transaction; None if the error came from beginning a transaction or savepoint.
            error: What the driver has raised.
        """
        return False

    def unwrapped_failure_of(self, connection: Connection, error: Exception) -> Failure | None:
        """Read an error of the driver that SQLAlchemy does not wrap; None if it is not the driver's."""
        return None

    def is_undecodable(self, error: DBAPIError | UnicodeDecodeError) -> bool:
        """Return whether the driver has failed to decode a text that is stored."""
        return isinstance(error, UnicodeDecodeError) or isinstance(error.orig, UnicodeDecodeError)


_POSTGRESQL_KINDS: Final = {
    "40001": FailureKind.SERIALISATION_FAILURE,
    "40P01": FailureKind.DEADLOCK,
    "55P03": FailureKind.LOCK_TIMEOUT,
    "57014": FailureKind.CANCELLED,
    "25006": FailureKind.READ_ONLY,
    "25P02": FailureKind.ABORTED_TRANSACTION,
    "42P01": FailureKind.MISSING_SCHEMA,
    "42883": FailureKind.MISSING_SCHEMA,
    "3F000": FailureKind.MISSING_SCHEMA,
    "54000": FailureKind.TOO_LARGE,
    "26000": FailureKind.LOST_STATEMENT,
    "42P05": FailureKind.LOST_STATEMENT,
    "ES002": FailureKind.STANDBY,
    "ES003": FailureKind.ISOLATION,
    "ES004": FailureKind.MISSING_SEQUENCE,
}
_UNIQUE_VIOLATION: Final = "23505"
# The server's function that refuses a prepared statement whose columns have changed. Its SQLSTATE, 0A000, says less, and its
# message may be in any language.
_CHECKS_STATEMENT: Final = "RevalidateCachedQuery"
_SHUTDOWNS: Final = frozenset({"57P01", "57P02", "57P03"})
_LONGEST_MS: Final = 2**31 - 1  # of lock_timeout; 24 days


class _PostgreSQL(Database):
    executes_directly: bool = True

    def check_connection(self, connection: Connection) -> None:
        """Look at what the driver knows each time, because a SET may have changed the encoding."""
        self._refuse_wrong_encoding(connection)

    def single_statement_options(self, driver: str, *, reading: bool) -> Mapping[str, Any]:
        return _NO_OPTIONS if driver == "psycopg2" else {"isolation_level": "AUTOCOMMIT"}

    def committing_each(self, connection: Connection) -> AbstractContextManager[object]:
        return _psycopg2_autocommit(connection) if connection.dialect.driver == "psycopg2" else nullcontext()

    def commits_each(self, connection: Connection) -> bool:
        """Return whether a statement that is executed directly commits by itself on a connection of our own."""
        return self.executes_directly

    def needs_explicit_transactions(self, connection: Connection) -> bool:
        """Return whether the application gives asyncpg names for prepared statements, which is done because of a pooler.

        Statements with names are closed when they are not used any more. asyncpg does that between preparing the next one
        and executing it, and without a transaction that is when the pooler takes the server away.
        """
        adapted: Any = connection.connection.dbapi_connection
        name_func = getattr(adapted, "_prepared_statement_name_func", None)
        return name_func is not getattr(adapted, "_default_name_func", None)

    def failure_of(self, error: DBAPIError) -> Failure:
        """Read SQLSTATE and constraint from any of the drivers."""
        sqlstate = driver_attribute(error, "sqlstate", "pgcode")
        said = driver_attribute(error, "diag.message_primary", "message") or str(error.orig)
        if error.connection_invalidated or _says_disconnected(error, sqlstate, said):
            return Failure(FailureKind.DISCONNECTED)
        if driver_attribute(error, "server_source_function", "diag.source_function") == _CHECKS_STATEMENT:
            return Failure(FailureKind.STALE_STATEMENT, said)
        return postgresql_failure(sqlstate, driver_attribute(error, "constraint_name", "diag.constraint_name"), said)

    def ends_transaction(self, connection: Connection | None, error: DBAPIError) -> bool:
        """Return whether the error came from the server, and not from the driver itself."""
        return bool(driver_attribute(error, "sqlstate", "pgcode"))

    def unwrapped_failure_of(self, connection: Connection, error: Exception) -> Failure | None:
        """Read what asyncpg raises of its socket, or when it is confused by news that came before the statement."""
        if connection.dialect.driver != "asyncpg":
            return None
        # A function of the application's, such as a condition, may raise the same.
        if isinstance(error, TimeoutError) and _raised_in(error).startswith("asyncpg."):
            return Failure(FailureKind.TIMED_OUT)
        if connection.invalidated:
            return None
        if type(error).__name__ == "InternalClientError":
            return Failure(FailureKind.DISCONNECTED)
        if isinstance(error, OSError) and (connection.closed or is_closed(connection)):
            return Failure(FailureKind.DISCONNECTED)
        return None


def postgresql_failure(
    sqlstate: str, constraint: str, message: str, *, otherwise: FailureKind = FailureKind.OTHER
) -> Failure:
    """Read what PostgreSQL says of an error; `otherwise` is the kind of those that are not known."""
    kind = _POSTGRESQL_KINDS.get(sqlstate)
    if kind is not None:
        return Failure(kind, message)
    said = f"{message} [{', constraint '.join(filter(None, (sqlstate, constraint)))}]"
    return Failure(otherwise, said, constraint if sqlstate == _UNIQUE_VIOLATION else "")


def milliseconds(seconds: float) -> int:
    """Return a time that was checked by `checked_seconds` in milliseconds, at least 1: 0 would stand for no limit."""
    return max(1, ceil(min(seconds * 1000, _LONGEST_MS)))


def limit_waits(connection: Connection, seconds: float) -> None:
    """Set PostgreSQL's `lock_timeout` for the rest of the transaction or savepoint."""
    connection.execute(select(func.pg_catalog.set_config("lock_timeout", f"{milliseconds(seconds)}ms", True)))


def limit_idleness(connection: Connection, seconds: float) -> None:
    """Set PostgreSQL's `idle_in_transaction_session_timeout` for the rest of the transaction, unless there is one."""
    name = "idle_in_transaction_session_timeout"
    current = func.pg_catalog.current_setting(name)
    limit = case((current == "0", f"{milliseconds(seconds)}ms"), else_=current)
    connection.execute(select(func.pg_catalog.set_config(name, limit, True)))


def _raised_in(error: Exception) -> str:
    """Return the name of the module that raised an error."""
    module = ""
    for frame, _ in walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
    return module


def _says_disconnected(error: DBAPIError, sqlstate: str, said: str) -> bool:
    """Return whether a driver's error means that the connection is gone.

    SQLAlchemy asks the driver's connection, which does not always know yet. What the driver says on its own has no
    SQLSTATE: OperationalError is libpq's about its connection, InterfaceError is about any wrong use of the driver.
    """
    if sqlstate:
        return sqlstate.startswith("08") or sqlstate in _SHUTDOWNS
    return isinstance(error, OperationalError) or (
        isinstance(error, InterfaceError) and "connection" in said and "closed" in said
    )


@contextmanager
def _psycopg2_autocommit(connection: Connection) -> Generator[None]:
    """Put a connection into autocommit mode for a while, without sending anything.

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


_MARIADB_DUPLICATE_KEY: Final = 1062
_MARIADB_DOES_NOT_EXIST: Final = 1305
# By number: most messages of the server quote values.
_MARIADB_KINDS: Final = {
    1020: FailureKind.TRANSACTION_LOST,
    1049: FailureKind.MISSING_TABLES,
    1146: FailureKind.MISSING_TABLES,
    1153: FailureKind.TOO_LARGE,
    1205: FailureKind.LOCK_TIMEOUT,
    1213: FailureKind.TRANSACTION_LOST,
    1290: FailureKind.READ_ONLY,
    1317: FailureKind.CANCELLED,
    1792: FailureKind.READ_ONLY,
    1969: FailureKind.CANCELLED,
}


class _MariaDB(Database):
    """A deadlock ends the whole transaction there, not the statement: see `FailureKind.TRANSACTION_LOST`.

    That is a kind of failure; any other error costs a statement. The drivers raise errors of their own, whatever happens
    to their connection.

    InnoDB makes a snapshot by walking a list of the open transactions, while they may end: of two that follow one another,
    it may have met the first while that was open, and not meet the second, which has ended since.
    """

    ddl_commits: bool = True
    has_whole_snapshots: bool = False

    def failure_of(self, error: DBAPIError) -> Failure:
        """Read the number of the error, and of a duplicate the name of the key, which ends the message."""
        if error.connection_invalidated:
            return Failure(FailureKind.DISCONNECTED)
        arguments: tuple[Any, ...] = getattr(error.orig, "args", ())
        number = arguments[0] if arguments and isinstance(arguments[0], int) else 0
        said = str(arguments[-1]) if arguments else ""
        if number == _MARIADB_DOES_NOT_EXIST and said.startswith("SAVEPOINT"):
            # That of the publish, because its transaction is gone.
            return Failure(FailureKind.TRANSACTION_LOST)
        constraint = said.removesuffix("'").rpartition(" for key '")[2] if number == _MARIADB_DUPLICATE_KEY else ""
        return Failure(_MARIADB_KINDS.get(number, FailureKind.OTHER), f"MariaDB error {number}", constraint)


_READING: Final = "eventstore_sa_reading"
"""The execution option of our own reads: they need no transaction, and so no write lock."""

_CONFIGURED: Final = "eventstore_sa.configured"
_LEGACY: Final = -1
_BUSY_TIMEOUT_MS: Final = 10_000
_PATIENCE_S: Final = 10
_PAUSE_S: Final = 0.01
_OLDEST_SQLITE: Final = (3, 38, 0)
_UNIQUE_FAILED: Final = "UNIQUE constraint failed: "
_SQLITE_KINDS: Final = {
    "SQLITE_BUSY": FailureKind.LOCK_TIMEOUT,
    "SQLITE_BUSY_SNAPSHOT": FailureKind.STALE_SNAPSHOT,
    "SQLITE_LOCKED": FailureKind.LOCK_TIMEOUT,
    "SQLITE_LOCKED_SHAREDCACHE": FailureKind.LOCK_TIMEOUT,
    "SQLITE_READONLY": FailureKind.READ_ONLY,
    "SQLITE_TOOBIG": FailureKind.TOO_LARGE,
}


class _SQLite(Database):
    # There is no such level, and with a single writer no need of it.
    read_committed: Mapping[str, Any] = _NO_OPTIONS
    executes_directly: bool = True
    works_beside_us: bool = False

    @property
    def listeners(self) -> Collection[Callable[..., object]]:
        """The listener of `configure_sqlite`."""
        return (_begin_immediate,)

    def commits_each(self, connection: Connection) -> bool:
        """Return whether the driver is left in autocommit mode, as by `configure_sqlite`, and nothing is begun.

        Something is begun by others on a connection that everybody shares.
        """
        driver: Any = connection.connection.driver_connection
        return (
            driver.isolation_level is None
            and getattr(driver, "autocommit", _LEGACY) is not False
            and not driver.in_transaction
        )

    def check_connection(self, connection: Connection) -> None:
        """Refuse also a SQLite without `->` and `->>`, which otherwise would answer with a syntax error."""
        found = connection.dialect.server_version_info
        if found is not None and found < _OLDEST_SQLITE:
            oldest, version = (".".join(map(str, each)) for each in (_OLDEST_SQLITE, found))
            raise ConfigurationError(
                f"SQLite {oldest} or newer is needed, and Python's sqlite3 module has {version}: use a Python that was "
                "built with a newer one, or replace the system's libsqlite3"
            )
        super().check_connection(connection)

    def is_closed(self, connection: Connection) -> bool:
        """Return False: there is no server that could close a connection."""
        return False

    def check_transaction(self, connection: Connection) -> None:
        """Refuse autocommit, and the driver's own way of opening transactions."""
        driver: Any = connection.connection.driver_connection
        if getattr(driver, "autocommit", _LEGACY) is False:
            return
        if not driver.in_transaction or (driver.isolation_level is not None and _CONFIGURED not in connection.info):
            raise TransactionError(
                "this SQLite engine has no real transactions: its driver opens one only at the first write, and a released "
                "savepoint outlives the rollback; call eventstore_sa.configure_sqlite(engine) right after creating the "
                "engine"
            )

    def begin_writing(self, connection: Connection) -> None:
        """Begin a transaction, which engines in autocommit mode or without `configure_sqlite` do not have yet."""
        driver: Any = connection.connection.driver_connection
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def single_statement_options(self, driver: str, *, reading: bool) -> Mapping[str, Any]:
        return {_READING: True} if reading else _NO_OPTIONS

    def failure_of(self, error: DBAPIError) -> Failure:
        """Read the error's name and, for constraints, its text, which names columns and no values."""
        name, said = driver_attribute(error, "sqlite_errorname"), str(error.orig)
        if said.startswith("no such table"):
            return Failure(FailureKind.MISSING_TABLES, said)
        constraint = said.removeprefix(_UNIQUE_FAILED) if said.startswith(_UNIQUE_FAILED) else ""
        return Failure(_SQLITE_KINDS.get(name, FailureKind.OTHER), said, constraint)

    def ends_transaction(self, connection: Connection | None, error: DBAPIError) -> bool:
        """Return whether SQLite has rolled back by itself, as it does when the disk is full or a trigger says ROLLBACK."""
        if connection is None:
            return False
        driver: Any = connection.connection.driver_connection
        real = driver.isolation_level is None or getattr(driver, "autocommit", _LEGACY) is False
        return real and not driver.in_transaction

    def is_undecodable(self, error: DBAPIError | UnicodeDecodeError) -> bool:
        # Its message quotes the text.
        return isinstance(error, DBAPIError) and str(error.orig).startswith("Could not decode to UTF-8")


def configure_sqlite(engine: Engine | AsyncEngine) -> None:
    """Give a SQLite engine real transactions, write-ahead logging, a busy timeout and foreign keys.

    Call it right after creating the engine; a second call changes nothing. Every transaction then begins with BEGIN
    IMMEDIATE and is the only writer until it ends; savepoints work as on PostgreSQL. An engine with another database is
    left alone.

    Args:
        engine: An engine for pysqlite or aiosqlite.
    """
    sync_engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if sync_engine.dialect.name != "sqlite":
        return
    # Listening a second time changes nothing; `event.contains` could mean an engine that was here before this one.
    event.listen(sync_engine, "connect", _prepare_connection)
    event.listen(sync_engine, "begin", _begin_immediate)


def _prepare_connection(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    _use_write_ahead_log(cursor)
    cursor.execute("PRAGMA foreign_keys = ON")
    # With it, INSERT OR REPLACE fires the trigger that forbids deleting events.
    cursor.execute("PRAGMA recursive_triggers = ON")
    cursor.close()
    record.info[_CONFIGURED] = True


def _use_write_ahead_log(cursor: Any) -> None:
    """Switch a file to write-ahead logging; of several that do so together, SQLite refuses some without waiting."""
    deadline = monotonic() + _PATIENCE_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except SQLiteOperationalError as error:
            if error.sqlite_errorcode & 0xFF != SQLITE_BUSY or monotonic() >= deadline:
                raise
            sleep(_PAUSE_S)
        else:
            return


def _begin_immediate(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("isolation_level") != "AUTOCOMMIT" and not options.get(_READING):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


_DATABASES: Final[Mapping[str, Database]] = {
    "postgresql": _PostgreSQL(),
    "sqlite": _SQLite(),
    **dict.fromkeys(MARIADB, _MariaDB()),
}


def database_named(name: str) -> Database:
    """Return the database with SQLAlchemy's name of it.

    Raises:
        ConfigurationError: If the library does not support it.
    """
    database = _DATABASES.get(name)
    if database is None:
        raise unknown_database(name)
    return database


def database_of(connection: Connection) -> Database:
    """Return the database of a connection.

    Raises:
        ConfigurationError: If the library does not support it.
    """
    return database_named(connection.dialect.name)


def unknown_database(name: str) -> ConfigurationError:
    """Say which databases are supported instead of this one."""
    return ConfigurationError(
        f"events cannot be kept in {name}: use PostgreSQL in production, SQLite for tests and demos; MariaDB is "
        "supported as an experiment"
    )


def driver_attribute(error: DBAPIError, *names: str) -> str:
    """Return the first of these attributes that is set on the driver's error, or on what it was made from."""
    raised: list[BaseException | None] = [error.orig, error.orig and error.orig.__cause__]
    for each in raised:
        for name in names:
            value: object = each
            for step in name.split("."):
                value = getattr(value, step, None)
            if isinstance(value, str) and value:
                return value
    return ""

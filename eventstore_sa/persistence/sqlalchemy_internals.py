"""What SQLAlchemy has no public way of doing or telling: every private or deprecated part of it that we rely on.

The events around a flush and a commit cannot replace what is asked of sessions here: they do not tell when a flush or a
commit fails, and a commit of the outermost transaction looks like the release of a savepoint that is open in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Column, Compiled, Connection, NestedTransaction, util
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import Pool, QueuePool
from sqlalchemy.types import TypeEngine

__all__ = [
    "await_in_greenlet",
    "column_types",
    "connections_of",
    "executed",
    "is_closed",
    "is_committing",
    "is_flushing",
    "is_observed",
    "leaves_joined_transaction",
    "most_connections",
    "renew_connections",
    "run_in_greenlet",
    "savepoint_around",
    "update_key",
]

T = TypeVar("T")

_PREPARING: Final = "_prepare_impl"
_NO_SUCH_STATEMENT: Final = "26000"


def run_in_greenlet(work: Callable[..., T], *arguments: object) -> Coroutine[Any, Any, T]:
    """Return what calls a function in a greenlet, and awaits what drivers await in there."""
    # What `run_sync` of SQLAlchemy's asyncio classes is made of; those need a connection or a session.
    return util.greenlet_spawn(work, *arguments)


def await_in_greenlet(awaitable: Awaitable[T]) -> T:
    """Await something from a function that `run_in_greenlet` or `run_sync` has called."""
    # Deprecated for SQLAlchemy 2.2, where its name is `await_`; 2.0 has no other name for it.
    return util.await_only(awaitable)


def is_closed(connection: Connection) -> bool:
    """Return whether the driver knows that its connection is closed; SQLAlchemy learns it when a statement fails.

    Nothing is sent. The answer is False for drivers that cannot tell, such as those of SQLite.
    """
    driver: Any = connection.connection.driver_connection
    return bool(driver.is_closed() if hasattr(driver, "is_closed") else getattr(driver, "closed", False))


def is_observed(connection: Connection, besides: Collection[Callable[..., object]] = ()) -> bool:
    """Return whether anybody is to see what is executed on a connection: a listener of SQLAlchemy's events, or a log.

    Args:
        connection: The connection.
        besides: Listeners that do not count, because they are ours.
    """
    engine, known = cast("Any", connection.engine), cast("Any", connection)
    # A listener for all engines, and one for a single engine or its dialect, set `_has_events`.
    if known._echo or engine.dialect._has_events or cast("Any", Connection)._has_events:  # noqa: SLF001
        return True
    if not engine._has_events:  # noqa: SLF001
        return bool(known._has_events)  # noqa: SLF001
    # A connection has listeners of its own only if one of its engine has set them.
    names: Iterable[str] = Connection.dispatch._event_names  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return any(listener not in besides for name in names for listener in getattr(engine.dispatch, name))


@contextmanager
def executed(connection: Connection, sql: str, parameters: Any) -> Generator[Any]:
    """Execute compiled SQL, and give the driver's cursor: SQLAlchemy makes neither a context of it nor a result.

    Errors are handled as in `Connection.execute`: wrapped, and a connection that is gone or was interrupted is invalidated.
    The connection must be in autocommit mode or in a transaction that is begun.
    """
    dialect = cast("Any", connection.dialect)
    pooled = connection.connection
    cursor: Any = None
    # asyncpg's cache of prepared statements, which SQLAlchemy gives up, for all of a pool, when tables have changed.
    invalidate_cache = getattr(dialect, "_invalidate_schema_cache", None)
    try:
        cursor = pooled.cursor()
        if invalidate_cache is not None:
            cursor._invalidate_schema_cache_asof = dialect._invalidate_schema_cache_asof  # noqa: SLF001
        dialect.do_execute(cursor, sql, parameters)
        yield cursor
    except BaseException as error:  # noqa: BLE001 - raised again, as SQLAlchemy raises it
        of_driver = isinstance(error, dialect.loaded_dbapi.Error)
        if of_driver and invalidate_cache is not None and _is_about_prepared_statement(error):
            invalidate_cache()
        # Without a statement, what is not the driver's is passed on as it is.
        handle = connection._handle_dbapi_exception  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        handle(error, sql if of_driver else None, parameters if of_driver else None, cursor, None)
    cursor.close()


def _is_about_prepared_statement(error: BaseException) -> bool:
    """Return whether asyncpg's prepared statements do not fit the tables any more, or are gone from the session."""
    stale = type(error).__name__ in {"InvalidCachedStatementError", "InternalServerError"}
    return stale or getattr(error, "sqlstate", None) == _NO_SUCH_STATEMENT


def column_types(compiled: Compiled) -> Sequence[TypeEngine[Any]]:
    """Return the types of the columns of a compiled statement's result."""
    # What a result is made from; empty if the statement does not say what it returns.
    return [each.type for each in cast("Any", compiled)._result_columns]  # noqa: SLF001


def is_flushing(session: Session) -> bool:
    """Return whether a flush or a bulk operation of the session is under way."""
    return session._flushing  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def is_committing(session: Session) -> bool:
    """Return whether the outermost transaction of a session is being committed or prepared, and still takes statements."""
    transaction = session.get_transaction()
    if transaction is None or not transaction.is_active:
        return False
    # The method of the transaction that is running, which it keeps to forbid some calls within others.
    method = transaction._current_fn  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return method is not None and method.__name__ == _PREPARING


def connections_of(transaction: SessionTransaction) -> set[Connection]:
    """Return the connections that a transaction has used so far, or had used when it ended; without I/O."""
    # Public from SQLAlchemy 2.1.7 on, as `transaction.connections`.
    return {used[0] for used in transaction._connections.values()}  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def leaves_joined_transaction(transaction: SessionTransaction) -> bool:
    """Return whether a transaction that ends leaves its work in a connection's transaction that stays open."""
    # Only here is kept whether the session commits the connection's transaction, or has merely joined it.
    used = transaction._connections.values()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return any(not commits and joined.is_active and not connection.closed for connection, joined, commits, _ in used)


def most_connections(pool: Pool) -> int | None:
    """Return how many connections a pool gives out at once; None: any number."""
    if not isinstance(pool, QueuePool):
        return None
    # Kept under no public name.
    overflow = pool._max_overflow  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return None if overflow < 0 else pool.size() + overflow


def renew_connections(pool: Pool) -> None:
    """Have a pool replace the connections that it has by now, each when it is given out the next time."""
    # What a pool does when one of its connections was found to be lost; `dispose` would be for the application alone.
    cast("Any", pool)._invalidate(None)  # noqa: SLF001


def savepoint_around(connection: Connection, name: str) -> NestedTransaction | None:
    """Return the savepoint in which the one with a name was begun."""
    # Events carry the name of a savepoint and not its object; and only the private parts connect the two.
    savepoint = connection.get_nested_transaction()
    while savepoint is not None and savepoint._savepoint != name:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        savepoint = savepoint._previous_nested  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return None if savepoint is None else savepoint._previous_nested  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def update_key(column: Column[Any]) -> str:
    """Return the name under which the ORM gives the value of a primary key to an UPDATE."""
    # The ORM names its parameters so when it compiles the WHERE of an UPDATE by primary key.
    return str(column._label)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

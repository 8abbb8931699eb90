"""Emptying the tables between tests, in spite of the triggers that forbid it.

Not for production: it needs the ownership of the tables, and readers that remember sequence numbers are led astray.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from typing import Any, cast, overload

from msgspec.structs import replace
from sqlalchemy import URL, Connection, Engine, delete
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.persistence.schema import EventStoreSchema, default_schema
from eventstore_sa.persistence.schema.listeners import changes_allowed
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.persistence.sqlalchemy_internals import run_in_greenlet
from eventstore_sa.persistence.transactions.binds import Bind, ConnectionScope
from eventstore_sa.persistence.transactions.databases import database_of
from eventstore_sa.persistence.transactions.running import TransactionRunner
from eventstore_sa.store.adapters.bindables import AsyncBindable, async_bind, sync_bind
from eventstore_sa.types.numbers import checked_seconds

__all__ = ["clear"]


@overload
def clear(
    bind: Engine | sessionmaker[Any] | Connection | Session | scoped_session[Any],
    *,
    schema: EventStoreSchema | None = None,
    timeout_s: float = 10.0,
) -> None: ...
@overload
def clear(
    bind: AsyncEngine | async_sessionmaker[Any] | AsyncConnection | AsyncSession | async_scoped_session[Any],
    *,
    schema: EventStoreSchema | None = None,
    timeout_s: float = 10.0,
) -> Awaitable[None]: ...
def clear(bind: object, *, schema: EventStoreSchema | None = None, timeout_s: float = 10.0) -> Awaitable[None] | None:
    """Empty all tables of the library, and let numbers begin at 1 again, as after `create_schema()`; for tests only.

    Within a session or connection of the caller's it is part of that transaction; otherwise it is committed. Rows of the
    host that refer to events must be deleted first. No other transaction may have the events open meanwhile, not even to
    read them.

    Args:
        bind: What a store could be bound to, except a URL; the asyncio ones return an awaitable.
        schema: The tables; those of `EventStoreSchema()` by default.
        timeout_s: How long to wait for a transaction that has them open, at most 24 days. On SQLite the busy timeout of
            the connection counts, which `configure_sqlite` sets to ten seconds.

    Raises:
        ConfigurationError: It is not a bind, or `timeout_s` is not a time.
        SchemaError: There are no tables.
        LockTimeoutError: Another transaction has had them open for all that time; on PostgreSQL the message names its
            process, application_name, and since when it is open.
        StorageError: The database refused, say because a row of the host refers to an event.
        TransactionError: On PostgreSQL, it is a session or connection in autocommit mode.

        Whatever it is, on PostgreSQL and SQLite the caller's transaction goes on as it was before.
    """
    tables = default_schema() if schema is None else schema
    if isinstance(bind, URL | str):
        raise ConfigurationError(
            "clear() does not accept a URL, because the engine would never be closed: give it an engine"
        )
    checked_seconds("timeout_s", timeout_s)
    if isinstance(bind, AsyncEngine | async_sessionmaker | AsyncConnection | AsyncSession | async_scoped_session):
        return run_in_greenlet(_clear, async_bind(cast("AsyncBindable", bind), tables), tables, timeout_s)
    _clear(sync_bind(bind, tables), tables, timeout_s)
    return None


def _clear(bind: Bind, tables: EventStoreSchema, timeout_s: float) -> None:
    with TransactionRunner(bind).enter(_undoing(bind)) as scope:
        connection = scope.connection
        dialect = made_once(EventRepository, tables, connection.dialect.name).dialect
        with (
            dialect.locked_alone(connection, timeout_s=timeout_s),
            changes_allowed(connection, tables.prefix, tables.schema),
        ):
            for table in (tables.events, tables.locks, tables.projections, tables.snapshots, tables.rebuilds):
                connection.execute(delete(table))


@contextmanager
def _undoing(bind: Bind) -> Generator[ConnectionScope]:
    """Give a transaction in which `locked_alone` undoes what goes wrong; on MariaDB, where each DDL commits, it cannot."""
    # Not `transaction()` of an engine of ours: it may be one in autocommit mode.
    with bind.transaction() if bind.in_transaction else bind.savepoint() as scope:
        yield replace(scope, in_savepoint=not database_of(scope.connection).ddl_commits)

"""Empties the tables between tests, although triggers forbid it.

Not for production: it needs ownership of the tables, and invalidates sequence numbers that readers have stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from typing import Any, cast, overload

from msgspec.structs import replace
from sqlalchemy import URL, Connection, Engine, delete, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.persistence.schema import EventStoreSchema, schema_or_default
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
    """Empty all tables of the library and restart numbers at 1, as after `create_schema()`. For tests only.

    On a session or connection it is part of the caller's transaction; otherwise it is committed. Delete rows of the
    application that refer to events first. While it runs, no other transaction may use the events, not even for reading.

    Args:
        bind: Anything that a store can be bound to, except a URL. With an asyncio bind, the call returns an awaitable.
        schema: The tables; by default those of `EventStoreSchema()`.
        timeout_s: How long to wait for other transactions that use the tables, at most 24 days. On SQLite the busy timeout
            of the connection applies instead, which `configure_sqlite` sets to ten seconds.

    Raises:
        ConfigurationError: If `bind` is not a bind, or `timeout_s` is not a valid timeout.
        SchemaError: If the tables do not exist.
        LockTimeoutError: If another transaction used the tables during the whole timeout; on PostgreSQL the message has its
            process id, its application_name and its start time.
        StorageError: If the database refuses, for example because a row of the application refers to an event.
        TransactionError: If it is a session or connection in autocommit mode on PostgreSQL.

    After any of these, the caller's transaction remains usable on PostgreSQL and SQLite.
    """
    tables = schema_or_default(schema)
    if isinstance(bind, URL | str):
        raise ConfigurationError(
            "clear() does not accept a URL, because its engine would never be disposed of: pass an engine"
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
            for table in tables.tables:
                if table is not tables.version:
                    connection.execute(delete(table))
            epoch = tables.version.c.tags_epoch
            connection.execute(update(tables.version).where(epoch != "").values(tags_epoch=""))


@contextmanager
def _undoing(bind: Bind) -> Generator[ConnectionScope]:
    """Give a transaction in which `locked_alone` undoes what goes wrong; on MariaDB, where each DDL commits, it cannot."""
    # Not `transaction()` of an engine, which may be in autocommit mode.
    with bind.transaction() if bind.in_transaction else bind.savepoint() as scope:
        yield replace(scope, in_savepoint=not database_of(scope.connection).ddl_commits)

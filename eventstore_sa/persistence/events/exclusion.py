"""The table of events for one transaction alone, waited for no longer than told: what emptying it needs.

An open transaction that has only read the table keeps others from that, so who waits has to learn which one it is.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from math import ceil
from typing import Final

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError

from eventstore_sa.errors import LockTimeoutError, TransactionError
from eventstore_sa.persistence.events.dialects import EventDialect
from eventstore_sa.persistence.events.document import publish_document
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.ddl import MARIADB, effective_schema, in_text, quoted
from eventstore_sa.persistence.transactions.failures import ProblemKind
from eventstore_sa.persistence.transactions.lock_timeouts import limit_waits, milliseconds

__all__ = ["locked_alone"]

# Rows of the other tables are deleted, which readers of theirs do not keep anybody from.
_HOLDERS: Final = text(
    "SELECT DISTINCT l.pid, a.application_name, a.state, coalesce(a.xact_start, p.prepared) AS since, p.gid "
    "FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid "
    "LEFT JOIN pg_catalog.pg_prepared_xacts p ON l.pid IS NULL AND l.virtualtransaction = '-1/' || p.transaction::text "
    "WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() "
    "AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) "
    "AND (l.relation = pg_catalog.to_regclass(:events) "
    "OR l.relation IN (SELECT pg_catalog.to_regclass(name) FROM pg_catalog.unnest(CAST(:tables AS text[])) AS name) "
    "AND l.mode <> 'AccessShareLock') "
    "ORDER BY since"
)
_MARIADB_TIMEOUTS: Final = ("lock_wait_timeout", "innodb_lock_wait_timeout")


@contextmanager
def locked_alone(
    connection: Connection, dialect: EventDialect, schema: EventStoreSchema, *, timeout_s: float
) -> Generator[None]:
    """Lock the table of events for the rest of the transaction, and wait at most that long for this and later locks.

    On SQLite it is the whole database, and the busy timeout decides how long that waits. What fails within is undone, on
    PostgreSQL and SQLite by a savepoint; on MariaDB the caller has to do it.

    Raises:
        LockTimeoutError: A lock was held by others for longer; on PostgreSQL they are named.
        TransactionError: On PostgreSQL, the connection is in autocommit mode.
    """
    if connection.dialect.name == "postgresql":
        with _on_postgresql(connection, dialect, schema, timeout_s):
            yield
    elif connection.dialect.name in MARIADB:
        with _on_mariadb(connection, timeout_s):
            yield
    else:
        # An engine in autocommit mode has no transaction here, and one that is not configured may have none yet.
        dialect.lock(connection, publish_document(()))
        with connection.begin_nested():
            yield


@contextmanager
def _on_postgresql(
    connection: Connection, dialect: EventDialect, schema: EventStoreSchema, timeout_s: float
) -> Generator[None]:
    try:
        dialect.check_hosted(connection)
    except TransactionError:
        raise TransactionError(
            "the event store's tables can be locked only in a transaction, and this session or connection is in autocommit "
            "mode: give the engine in its place, or leave out isolation_level='AUTOCOMMIT'"
        ) from None
    place = effective_schema(connection, schema.schema)
    events, tables = quoted(schema.events.name, place), [quoted(table.name, place) for table in schema.tables]
    try:
        with connection.begin_nested():
            before = connection.scalar(select(func.pg_catalog.current_setting("lock_timeout")))
            limit_waits(connection, timeout_s)
            # In the strongest mode at once: who strengthens a lock step by step waits for another who does the same.
            connection.execute(text(f"LOCK TABLE {in_text(events)} IN ACCESS EXCLUSIVE MODE"))
            yield
            connection.execute(select(func.pg_catalog.set_config("lock_timeout", before, True)))
    except DBAPIError as error:
        if dialect.problem_of(error).kind is not ProblemKind.LOCK_TIMEOUT:
            raise
        rows = connection.execute(_HOLDERS, {"events": events, "tables": tables}).all()
        holders = "; ".join(_described(*row) for row in rows) or "a transaction that has ended meanwhile"
        raise LockTimeoutError(
            f"could not lock the event store's tables within {timeout_s:g} s. They were in use by {holders}. End that "
            "transaction (did a test leave a session open?), then try again"
        ) from error.orig


def _described(pid: int | None, application: str | None, state: str | None, since: object, gid: str | None) -> str:
    if pid is None:
        return f"the prepared transaction {gid!r} since {since}"
    return f"process {pid} (application_name {application or ''!r}, {state or 'state unknown'}) since {since}"


@contextmanager
def _on_mariadb(connection: Connection, timeout_s: float) -> Generator[None]:
    names = ", ".join(f"@@{name}" for name in _MARIADB_TIMEOUTS)
    before = connection.execute(text(f"SELECT {names}")).one()
    for name in _MARIADB_TIMEOUTS:
        connection.execute(text(f"SET SESSION {name} = :value"), {"value": ceil(milliseconds(timeout_s) / 1000)})
    try:
        yield
    finally:
        if not connection.invalidated:
            for name, value in zip(_MARIADB_TIMEOUTS, before, strict=True):
                connection.execute(text(f"SET SESSION {name} = :value"), {"value": value})

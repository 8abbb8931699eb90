"""What differs between databases that keep subscriptions: the clock, and how a stalled owner is dealt with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Float,
    Insert,
    Select,
    Table,
    Text,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite

from eventstore_sa.contracts.subscriptions import Lease
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.transactions.databases import limit_waits, milliseconds

__all__ = ["SubscriptionDialect", "subscription_dialect"]

# How long changes from outside wait for a row that a handler's transaction has locked.
_PATIENCE_S: Final = 10.0
_IDLE: Final = "idle_in_transaction_session_timeout"
_TOTAL: Final = "transaction_timeout"
_FIRST_WITH_TRANSACTION_TIMEOUT: Final = (17,)

_TERMINATE: Final = text(
    "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(l.pid)) FROM pg_catalog.pg_locks l "
    "WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.pid <> pg_catalog.pg_backend_pid() "
    "AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) "
    "AND ((l.classid::bigint << 32) | l.objid::bigint) = :key"
).bindparams(bindparam("key", type_=BigInteger()))


class SubscriptionDialect(ABC):
    """How one kind of database keeps subscriptions."""

    @abstractmethod
    def now(self, later_s: float = 0.0) -> ColumnElement[datetime]:
        """Return the time of the database when the statement is executed, or a later one."""

    @abstractmethod
    def insert_or_ignore(self, table: Table) -> Insert:
        """Return an INSERT that leaves rows alone that exist."""

    @abstractmethod
    def upsert(self, table: Table, values: dict[str, Any]) -> Insert:
        """Return an INSERT that replaces the row with the same primary key."""

    def limit_waits(self, connection: Connection) -> None:
        """Limit how long the rest of the transaction waits for locks."""

    def guard(self, connection: Connection, lease: Lease, *, longest_s: float) -> None:
        """Mark the transaction of a handler, and let the server end it if the process stalls."""

    def terminate(self, connection: Connection, *, owner: object, lease: tuple[str, int, int]) -> int:
        """End the transactions that an owner has marked; return how many there were.

        Args:
            connection: Where the statement is executed.
            owner: The node.
            lease: The name, the partition and the epoch.
        """
        return 0


class SQLiteSubscriptions(SubscriptionDialect):
    """Subscriptions on SQLite: there is one writer, and the clock is that of the machine."""

    def now(self, later_s: float = 0.0) -> ColumnElement[datetime]:
        later = timedelta(seconds=later_s)
        return bindparam(None, type_=DateTime(), callable_=lambda: datetime.now(UTC) + later)

    def insert_or_ignore(self, table: Table) -> Insert:
        return sqlite.insert(table).on_conflict_do_nothing()

    def upsert(self, table: Table, values: dict[str, Any]) -> Insert:
        statement = sqlite.insert(table).values(values)
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=_replaced(table, values))


class PostgreSQLSubscriptions(SubscriptionDialect):
    """Subscriptions on PostgreSQL.

    The transaction of a handler holds an advisory lock whose key is made of the lease. So whoever takes the lease over finds
    its backend in `pg_locks`, whichever connection of whichever pool it came through, and can end it.
    """

    def now(self, later_s: float = 0.0) -> ColumnElement[datetime]:
        # Not that of the transaction's beginning, which may be long ago.
        clock: ColumnElement[datetime] = func.pg_catalog.clock_timestamp()
        if not later_s:
            return clock
        return clock + literal(later_s, Float()) * literal_column("interval '1 second'")

    def insert_or_ignore(self, table: Table) -> Insert:
        return postgresql.insert(table).on_conflict_do_nothing()

    def upsert(self, table: Table, values: dict[str, Any]) -> Insert:
        statement = postgresql.insert(table).values(values)
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=_replaced(table, values))

    def limit_waits(self, connection: Connection) -> None:
        limit_waits(connection, _PATIENCE_S)

    def guard(self, connection: Connection, lease: Lease, *, longest_s: float) -> None:
        version = connection.dialect.server_version_info
        has_total = version is not None and version >= _FIRST_WITH_TRANSACTION_TIMEOUT
        parameters = {
            "key": _key(lease.owner, lease.name, lease.partition, lease.epoch),
            _IDLE: f"{milliseconds(longest_s)}ms",
            _TOTAL: f"{milliseconds(2 * longest_s)}ms",
        }
        connection.execute(_GUARD_WITH_TOTAL if has_total else _GUARD, parameters)

    def terminate(self, connection: Connection, *, owner: object, lease: tuple[str, int, int]) -> int:
        ended: int = connection.execute(_TERMINATE, {"key": _key(owner, *lease)}).scalar_one()
        return ended


def _guard(*settings: str) -> Select[Any]:
    """Return the statement that marks and limits a transaction; it is made once, because it is executed for each batch."""
    limits = [func.pg_catalog.set_config(name, bindparam(name, type_=Text()), True) for name in settings]
    return select(*limits, func.pg_catalog.pg_try_advisory_xact_lock(bindparam("key", type_=BigInteger())))


_GUARD: Final = _guard(_IDLE)
_GUARD_WITH_TOTAL: Final = _guard(_IDLE, _TOTAL)


def _key(owner: object, name: str, partition: int, epoch: int) -> int:
    """Return the key of an advisory lock: of 64 bits, and no other store's, because the id of a node is random."""
    digest = sha256(f"{owner}/{partition}/{epoch}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


def _replaced(table: Table, values: dict[str, Any]) -> dict[str, Any]:
    keys = {column.key for column in table.primary_key}
    return {name: value for name, value in values.items() if name not in keys}


def subscription_dialect(database: str) -> SubscriptionDialect:
    """Return the dialect for a database, by SQLAlchemy's name for it.

    Raises:
        ConfigurationError: If subscriptions cannot be kept there.
    """
    if database == "postgresql":
        return PostgreSQLSubscriptions()
    if database == "sqlite":
        return SQLiteSubscriptions()
    raise ConfigurationError(f"subscriptions cannot be kept in {database}: use PostgreSQL, or SQLite in one process")

"""What differs between databases that keep snapshots: how one is inserted without waiting long for another transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Connection, Table, Text, bindparam, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema.ddl import effective_schema, quoted

__all__ = ["SnapshotDialect", "snapshot_dialect"]

_LONGEST_WAIT: Final = "1s"
# How many advisory locks a transaction can acquire by saving snapshots.
_LOCKS: Final = 128


class SnapshotDialect(ABC):
    """How one kind of database inserts snapshots.

    Args:
        table: The table of snapshots.
    """

    def __init__(self, table: Table) -> None:
        self.table: Table = table

    @cached_property
    def values(self) -> Mapping[str, ColumnElement[Any]]:
        """The parameters for a new snapshot, by column."""
        return {column.key: bindparam(f"new_{column.key}", type_=column.type) for column in self.table.c}

    @abstractmethod
    def insert(self, *, in_transaction: bool) -> Any:
        """Return the INSERT that supports ON CONFLICT.

        Args:
            in_transaction: Whether the transaction is the caller's.
        """

    def lock_parameters(self, connection: Connection, source_hash: UUID) -> Mapping[str, Any]:
        """Return the parameters of the INSERT in a caller's transaction, besides `values`."""
        return {}


class SQLiteSnapshots(SnapshotDialect):
    """Snapshots on SQLite, where there is a single writer."""

    def insert(self, *, in_transaction: bool) -> Any:
        return sqlite.insert(self.table).values(dict(self.values))


class PostgreSQLSnapshots(SnapshotDialect):
    """Snapshots on PostgreSQL. Two writers never wait long for each other.

    In a caller's transaction, nothing is inserted while another such transaction saves a snapshot: their rows would stay
    locked until they end, in any order.
    """

    def insert(self, *, in_transaction: bool) -> Any:
        condition = _lock_is_free() if in_transaction else _waits_briefly()
        return postgresql.insert(self.table).from_select(
            list(self.values), select(*self.values.values()).where(condition)
        )

    def lock_parameters(self, connection: Connection, source_hash: UUID) -> Mapping[str, Any]:
        table = quoted(self.table.name, effective_schema(connection, self.table.schema))
        return {"lock_scope": f"{table} {source_hash.int % _LOCKS}"}


def _lock_is_free() -> ColumnElement[bool]:
    """Try to acquire one of a few locks until the end of the transaction."""
    return func.pg_catalog.pg_try_advisory_xact_lock(
        func.pg_catalog.hashtextextended(bindparam("lock_scope", type_=Text()), literal(0, BigInteger()))
    )


def _waits_briefly() -> ColumnElement[bool]:
    """Limit how long this statement, a transaction of its own, waits for a row that another transaction has locked."""
    limit: ColumnElement[bool] = func.pg_catalog.set_config("lock_timeout", _LONGEST_WAIT, True).is_not(None)
    return limit


_DIALECTS: Final[Mapping[str, type[SnapshotDialect]]] = {"postgresql": PostgreSQLSnapshots, "sqlite": SQLiteSnapshots}


def snapshot_dialect(database: str, table: Table) -> SnapshotDialect:
    """Return the dialect for a database, by SQLAlchemy's name for it.

    Raises:
        ConfigurationError: If snapshots cannot be kept there.
    """
    if database not in _DIALECTS:
        raise ConfigurationError(f"snapshots cannot be kept in {database}: use PostgreSQL or SQLite")
    return _DIALECTS[database](table)

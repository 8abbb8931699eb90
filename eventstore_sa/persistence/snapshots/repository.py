"""The statements on the table of snapshots. Transactions are neither begun nor ended here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Connection, Text, bindparam, delete, func, literal, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.dialects import event_dialect
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.ddl import effective_schema, quoted
from eventstore_sa.types import EARLIEST_TIME, Snapshot, SnapshotKey

__all__ = ["SnapshotRepository"]

_LONGEST_WAIT: Final = "1s"
# How many advisory locks a transaction can come to hold by saving snapshots.
_LOCKS: Final = 128


class SnapshotRepository:
    """Reads and writes snapshots on one kind of database.

    Args:
        schema: The tables.
        database: SQLAlchemy's name of the database.

    Raises:
        ConfigurationError: Snapshots cannot be kept there.
    """

    def __init__(self, schema: EventStoreSchema, database: str) -> None:
        if database not in ("postgresql", "sqlite"):
            raise ConfigurationError(f"snapshots cannot be kept in {database}: use PostgreSQL or SQLite")
        self._table = schema.snapshots
        self._postgresql = database == "postgresql"
        self._dialect = event_dialect(database, schema)
        columns: dict[str, ColumnElement[Any]] = {column.key: column for column in self._table.c}
        columns["taken_at"] = self._dialect.time_column(self._table.c.taken_at).label("taken_at")
        self._find = select(*columns.values()).where(
            *(
                self._table.c[name] == bindparam(name, type_=self._table.c[name].type)
                for name in ("projector", "projector_version", "source_hash", "source")
            )
        )

    def find(self, connection: Connection, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key."""
        found = connection.execute(self._find, _key_values(key)).first()
        if found is None:
            return None
        return Snapshot(
            key=key,
            place=found.place,
            event_id=UUID(bytes=found.event_id.bytes),  # asyncpg returns a class of its own
            state=found.state,
            metadata=found.metadata,
            taken_at=self._read_time(found.taken_at),
            format=found.format,
            checksum=found.checksum,
        )

    def _read_time(self, value: Any) -> datetime:
        try:
            return self._dialect.read_time(value)
        except (ValueError, TypeError, OverflowError):
            # For people only: what other SQL has made of it does not keep the snapshot from being used.
            return EARLIEST_TIME

    def save(self, connection: Connection, snapshot: Snapshot, *, replacing: Snapshot | None, guarded: bool) -> bool:
        """Insert a snapshot, or put it in the place of an earlier one, or of `replacing`; return whether that was done.

        Two writers never wait for each other for long on PostgreSQL. In a transaction of the caller's (`guarded`), it is
        not even tried while another such transaction saves: their rows would be locked until they end, in any order.
        """
        table = self._table
        statement: Any
        if self._postgresql:
            statement = postgresql.insert(table).from_select(
                *self._selected(snapshot, self._may_try(connection, snapshot.key) if guarded else self._waits_briefly())
            )
        else:
            statement = sqlite.insert(table).values(_values(snapshot))
        outdated = [table.c.place < statement.excluded.place]
        if replacing is not None:
            outdated.append((table.c.place == replacing.place) & (table.c.checksum == replacing.checksum))
        statement = statement.on_conflict_do_update(
            index_elements=list(table.primary_key),
            set_={name: statement.excluded[name] for name in _values(snapshot) if not table.c[name].primary_key},
            where=or_(*outdated),
        )
        return connection.scalar(statement.returning(table.c.place)) is not None

    def prune(
        self,
        connection: Connection,
        *,
        projector: str | None,
        keep_version: str | None,
        taken_before: datetime | None,
    ) -> int:
        """Delete the snapshots that meet all conditions given; return how many."""
        table = self._table
        conditions: list[ColumnElement[bool]] = []
        if projector is not None:
            conditions.append(table.c.projector == projector)
        if keep_version is not None:
            conditions.append(table.c.projector_version != keep_version)
        if taken_before is not None:
            conditions.append(table.c.taken_at < taken_before.astimezone(UTC))
        return connection.execute(delete(table).where(*conditions)).rowcount

    def _selected(self, snapshot: Snapshot, guard: ColumnElement[bool]) -> tuple[list[str], Any]:
        values = _values(snapshot)
        selected = select(*(literal(value, self._table.c[name].type) for name, value in values.items())).where(guard)
        return list(values), selected

    def _may_try(self, connection: Connection, key: SnapshotKey) -> ColumnElement[bool]:
        """Take one of a few locks to the end of the transaction, unless another transaction has it."""
        table = quoted(self._table.name, effective_schema(connection, self._table.schema))
        scope = f"{table} {key.source_hash.int % _LOCKS}"
        return func.pg_catalog.pg_try_advisory_xact_lock(
            func.pg_catalog.hashtextextended(literal(scope, Text()), literal(0, BigInteger()))
        )

    @staticmethod
    def _waits_briefly() -> ColumnElement[bool]:
        """Limit how long this statement, a transaction of its own, waits for a row that a caller's transaction holds."""
        limit: ColumnElement[bool] = func.pg_catalog.set_config("lock_timeout", _LONGEST_WAIT, True).is_not(None)
        return limit


def _key_values(key: SnapshotKey) -> dict[str, Any]:
    return {
        "projector": key.projector,
        "projector_version": key.version,
        "source_hash": key.source_hash,
        "source": key.source,
    }


def _values(snapshot: Snapshot) -> dict[str, Any]:
    return _key_values(snapshot.key) | {
        "place": snapshot.place,
        "event_id": snapshot.event_id,
        "state": snapshot.state,
        "metadata": snapshot.metadata,
        "taken_at": snapshot.taken_at.astimezone(UTC),
        "format": snapshot.format,
        "checksum": snapshot.checksum,
    }

"""The statements on the table of snapshots. Transactions are neither begun nor ended here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, or_, select

from eventstore_sa.persistence.events.dialects import event_dialect
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.snapshots.dialects import snapshot_dialect
from eventstore_sa.persistence.transactions.prepared import PreparedStatement
from eventstore_sa.types import EARLIEST_TIME, Snapshot, SnapshotKey

__all__ = ["SnapshotRepository"]


class SnapshotRepository:
    """Reads and writes snapshots on one kind of database. All stores on a schema share one: see `made_once`.

    Args:
        schema: The tables.
        database: SQLAlchemy's name for the database.

    Raises:
        ConfigurationError: If snapshots cannot be kept there.
    """

    def __init__(self, schema: EventStoreSchema, database: str) -> None:
        self._table = schema.snapshots
        self._inserting = snapshot_dialect(database, self._table)
        self._dialect = event_dialect(database, schema)
        c = self._table.c
        found = select(
            c.place, c.event_id, c.state, c.metadata, self._dialect.time_column(c.taken_at), c.format, c.checksum
        )
        self._find = PreparedStatement(
            found.where(
                *(
                    c[name] == bindparam(name, type_=c[name].type)
                    for name in ("projector", "projector_version", "source_hash", "source")
                )
            )
        )

    def find(self, connection: Connection, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key."""
        for place, event_id, state, metadata, taken_at, format_, checksum in self._find.rows(
            connection, _key_values(key)
        ):
            return Snapshot(
                key=key,
                place=place,
                event_id=UUID(bytes=event_id.bytes),  # asyncpg returns a class of its own
                state=state,
                metadata=metadata,
                taken_at=self._read_time(taken_at),
                format=format_,
                checksum=checksum,
            )
        return None

    def _read_time(self, value: Any) -> datetime:
        try:
            return self._dialect.read_time(value)
        except (ValueError, TypeError, OverflowError):
            # Only informative: the snapshot can be used even if other SQL has changed it.
            return EARLIEST_TIME

    def save(
        self, connection: Connection, snapshot: Snapshot, *, replacing: Snapshot | None, in_transaction: bool
    ) -> bool:
        """Insert a snapshot, or replace an earlier one, or `replacing`; return whether that was done.

        Args:
            connection: The connection.
            snapshot: The snapshot.
            replacing: A snapshot to replace even if it is a later one.
            in_transaction: Whether the transaction is the caller's; see `SnapshotDialect`.
        """
        parameters = {f"new_{name}": value for name, value in _values(snapshot).items()}
        if replacing is not None:
            parameters |= {"replaced_place": replacing.place, "replaced_checksum": replacing.checksum}
        if in_transaction:
            parameters |= self._inserting.lock_parameters(connection, snapshot.key.source_hash)
        return self._saves[replacing is not None, in_transaction].scalar(connection, parameters) is not None

    @cached_property
    def _saves(self) -> Mapping[tuple[bool, bool], PreparedStatement]:
        ways = [(replacing, in_transaction) for replacing in (False, True) for in_transaction in (False, True)]
        return {way: self._save_statement(*way) for way in ways}

    def _save_statement(self, replacing: bool, in_transaction: bool) -> PreparedStatement:
        c = self._table.c
        insert = self._inserting.insert(in_transaction=in_transaction)
        outdated = [c.place < insert.excluded.place]
        if replacing:
            replaced = {name: bindparam(f"replaced_{name}", type_=c[name].type) for name in ("place", "checksum")}
            outdated.append(and_(*(c[name] == value for name, value in replaced.items())))
        upsert = insert.on_conflict_do_update(
            index_elements=list(self._table.primary_key),
            set_={name: insert.excluded[name] for name in self._inserting.values if not c[name].primary_key},
            where=or_(*outdated),
        )
        return PreparedStatement(upsert.returning(c.place))

    def prune(
        self,
        connection: Connection,
        *,
        projector: str | None,
        keep_version: str | None,
        taken_before: datetime | None,
    ) -> int:
        """Delete the snapshots that match all given conditions; return how many."""
        table = self._table
        conditions: list[ColumnElement[bool]] = []
        if projector is not None:
            conditions.append(table.c.projector == projector)
        if keep_version is not None:
            conditions.append(table.c.projector_version != keep_version)
        if taken_before is not None:
            conditions.append(table.c.taken_at < taken_before.astimezone(UTC))
        return connection.execute(delete(table).where(*conditions)).rowcount


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

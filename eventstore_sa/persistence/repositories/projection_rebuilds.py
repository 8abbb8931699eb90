"""The statements that rebuild projections: how far a rebuild is, and putting its results in the place of the old ones.

The results grow in a table of their own, in which the row with an empty id tells how far they are. Transactions are
neither begun nor ended here.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB

from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.types.codec import decode_json, encode_json

__all__ = ["ProjectionRebuilds", "RebuildProgressRecord"]

_PROGRESS = ""
_REPLACED = ("source", "source_hash", "state", "metadata", "sequence_number")


class RebuildProgressRecord(Struct, frozen=True):
    """How far a rebuild is.

    Attributes:
        plan: What is rebuilt, from what: another plan is another rebuild.
        sequence_number: That of the last event that was applied; 0: none.
        events: How many events were applied.
    """

    plan: str
    sequence_number: int = 0
    events: int = 0


class ProjectionRebuilds:
    """Rebuilds of the projections of one event store, on PostgreSQL or SQLite."""

    def __init__(self, schema: EventStoreSchema, database: str) -> None:
        self._rebuilds = schema.rebuilds
        self._projections = schema.projections
        self._on_postgresql = database == "postgresql"

    def progress(self, connection: Connection, name: str) -> RebuildProgressRecord | None:
        """Return how far the rebuild of the projections of a name is; None when there is none."""
        table = self._rebuilds
        state = cast(table.c.state, Text) if self._on_postgresql else type_coerce(table.c.state, Text)
        found = select(state, table.c.sequence_number, table.c.version)
        row = connection.execute(found.where(table.c.name == name, table.c.id == _PROGRESS)).one_or_none()
        if row is None:
            return None
        plan, sequence_number, events = row
        return RebuildProgressRecord(decode_json(plan), sequence_number, events)

    def begin(self, connection: Connection, name: str, progress: RebuildProgressRecord) -> None:
        """Begin a rebuild; forget what there is of an earlier one."""
        self.forget(connection, name)
        connection.execute(
            insert(self._rebuilds).values(
                name=name,
                id=_PROGRESS,
                source=self._json(None),
                source_hash=0,
                state=self._json(progress.plan),
                metadata=self._json(None),
                version=progress.events,
                sequence_number=progress.sequence_number,
            )
        )

    def advance(
        self, connection: Connection, name: str, before: RebuildProgressRecord, after: RebuildProgressRecord
    ) -> bool:
        """Note how far a rebuild is; return whether it was where it was thought to be."""
        table = self._rebuilds
        noted = (
            update(table)
            .where(
                table.c.name == name,
                table.c.id == _PROGRESS,
                table.c.sequence_number == before.sequence_number,
                table.c.version == before.events,
            )
            .values(sequence_number=after.sequence_number, version=after.events)
        )
        return connection.execute(noted).rowcount == 1

    def swap(self, connection: Connection, name: str) -> int:
        """Put what was rebuilt in the place of the projections of a name; return how many there are.

        Projections that stay keep their place among unsorted results, and their versions count on.
        """
        old, new = self._projections, self._rebuilds
        rebuilt = (new.c.name == name, new.c.id != _PROGRESS)
        fields = ("name", "id", *_REPLACED)
        rows = select(*(new.c[field] for field in fields), literal(1)).where(*rebuilt).order_by(new.c.number)
        upsert = postgresql.insert if self._on_postgresql else sqlite.insert
        statement = upsert(old).from_select([*fields, "version"], rows)
        replaced = {field: statement.excluded[field] for field in _REPLACED}
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[old.c.name, old.c.id], set_={**replaced, "version": old.c.version + 1}
            )
        )
        still_there = exists().where(new.c.name == old.c.name, new.c.id == old.c.id)
        connection.execute(delete(old).where(old.c.name == name, ~still_there))
        count = connection.scalar(select(func.count()).select_from(new).where(*rebuilt)) or 0
        self.forget(connection, name)
        return count

    def forget(self, connection: Connection, name: str) -> None:
        """Delete what there is of a rebuild."""
        connection.execute(delete(self._rebuilds).where(self._rebuilds.c.name == name))

    def _json(self, value: str | None) -> ColumnElement[Any]:
        # As text that the database casts: the serialiser of SQLAlchemy's JSON is the host's to choose.
        text = literal(encode_json(value).decode(), Text())
        return cast(text, JSONB()) if self._on_postgresql else text

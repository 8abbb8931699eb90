"""The statements that rebuild projections: how far a rebuild is, and putting its results in the place of the old ones.

The results grow in a table of their own, in which the row with an empty id tells how far they are, and by its hash which
run is at it. Transactions are neither begun nor ended here.
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

    def begin(self, connection: Connection, name: str, plan: str, run: int) -> RebuildProgressRecord:
        """Go on with the rebuild of the same plan, or begin one; from now on by this run alone. Return how far it is.

        The row is locked before anything else, and so out of the reach of the run that was at it.
        """
        table = self._rebuilds
        upsert = postgresql.insert if self._on_postgresql else sqlite.insert
        state = cast(table.c.state, Text) if self._on_postgresql else type_coerce(table.c.state, Text)
        statement = upsert(table).values(
            name=name,
            id=_PROGRESS,
            source=self._json(None),
            source_hash=run,
            state=self._json(plan),
            metadata=self._json(None),
            version=0,
            sequence_number=0,
        )
        taken = statement.on_conflict_do_update(
            index_elements=[table.c.name, table.c.id], set_={"source_hash": statement.excluded.source_hash}
        ).returning(state, table.c.sequence_number, table.c.version)
        found, sequence_number, events = connection.execute(taken).one()
        if decode_json(found) == plan:
            return RebuildProgressRecord(plan, sequence_number, events)
        begun = RebuildProgressRecord(plan)
        self._note(connection, name, run, begun)
        connection.execute(delete(table).where(table.c.name == name, table.c.id != _PROGRESS))
        return begun

    def advance(self, connection: Connection, name: str, run: int, progress: RebuildProgressRecord) -> bool:
        """Note how far a rebuild is; return whether it is still this run that is at it."""
        return self._note(connection, name, run, progress) == 1

    def _note(self, connection: Connection, name: str, run: int, progress: RebuildProgressRecord) -> int:
        table = self._rebuilds
        noted = (
            update(table)
            .where(table.c.name == name, table.c.id == _PROGRESS, table.c.source_hash == run)
            .values(
                state=self._json(progress.plan),
                sequence_number=progress.sequence_number,
                version=progress.events,
            )
        )
        return connection.execute(noted).rowcount

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
        connection.execute(delete(new).where(new.c.name == name))
        return count

    def _json(self, value: str | None) -> ColumnElement[Any]:
        # As text that the database casts: the serialiser of SQLAlchemy's JSON is the host's to choose.
        text = literal(encode_json(value).decode(), Text())
        return cast(text, JSONB()) if self._on_postgresql else text

"""The statements that rebuild projections: a connection in, values out.

The results are collected in a table of their own. In it, the row with an empty id holds the progress, and its hash
identifies the current run.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    Update,
    bindparam,
    delete,
    exists,
    func,
    literal,
    select,
    update,
)

from eventstore_sa.contracts.rebuilds import RebuildProgressRecord
from eventstore_sa.persistence.projections.repository import ProjectionRepository
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.types.codec import decode_json, encode_json

__all__ = ["ProjectionRebuilds"]

_PROGRESS: Final = ""
_REPLACED = ("source", "source_hash", "state", "metadata", "sequence_number")


class ProjectionRebuilds:
    """The statements of rebuilds on one kind of database; all stores share them: see `made_once`.

    Args:
        schema: The tables.
        database: SQLAlchemy's name for the database.

    Attributes:
        repository: Loads and saves the projections that are being rebuilt.
    """

    def __init__(self, schema: EventStoreSchema, database: str) -> None:
        self._rebuilds = schema.rebuilds
        self._projections = schema.projections
        self.repository: ProjectionRepository = ProjectionRepository(schema, database, rebuilding=True)
        self._dialect = self.repository.dialect

    def begin(self, connection: Connection, name: str, plan: str, run: int) -> RebuildProgressRecord:
        """Resume the rebuild of the same plan, or start a new one, as the only run from now on. Return its progress.

        The row is locked before anything else, so an earlier run cannot change it any more.
        """
        table = self._rebuilds
        statement = self._dialect.insert(table).values(
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
        ).returning(self._dialect.as_text(table.c.state), table.c.sequence_number, table.c.version)
        row: Any = connection.execute(taken).one()
        found, sequence_number, events = row
        if decode_json(found) == plan:
            return RebuildProgressRecord(plan, sequence_number, events)
        begun = RebuildProgressRecord(plan)
        self.advance(connection, name, run, begun)
        connection.execute(delete(table).where(table.c.name == name, table.c.id != _PROGRESS))
        return begun

    def advance(self, connection: Connection, name: str, run: int, progress: RebuildProgressRecord) -> bool:
        """Record the progress of a rebuild; return False if another run has taken it over."""
        parameters = {
            "rebuilt": name,
            "run": run,
            "plan": encode_json(progress.plan).decode(),
            "reached": progress.sequence_number,
            "events": progress.events,
        }
        return connection.execute(self._advance, parameters).rowcount == 1

    @cached_property
    def _advance(self) -> Update:
        table = self._rebuilds
        return (
            update(table)
            .where(
                table.c.name == bindparam("rebuilt"),
                table.c.id == _PROGRESS,
                table.c.source_hash == bindparam("run"),
            )
            .values(
                state=self._dialect.from_text(bindparam("plan", type_=Text())),
                sequence_number=bindparam("reached", type_=BigInteger()),
                version=bindparam("events", type_=BigInteger()),
            )
        )

    def swap(self, connection: Connection, name: str) -> int:
        """Replace the projections of a name by those that were rebuilt; return how many there are.

        Projections that remain keep their position among unsorted results, and their versions are incremented.
        """
        old, new = self._projections, self._rebuilds
        rebuilt = (new.c.name == name, new.c.id != _PROGRESS)
        fields = ("name", "id", *_REPLACED)
        rows = select(*(new.c[field] for field in fields), literal(1)).where(*rebuilt).order_by(new.c.number)
        statement = self._dialect.insert(old).from_select([*fields, "version"], rows)
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
        return self._dialect.from_text(literal(encode_json(value).decode(), Text()))

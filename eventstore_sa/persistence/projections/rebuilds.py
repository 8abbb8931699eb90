"""Rebuilding projections as complete operations: connections are opened and closed here, and each step is a transaction.

Synchronous; the asyncio adapter runs it in a greenlet. The caller reads the events, except for the last ones, which are read
and applied in the transaction that replaces the projections.

The results are collected in a table of their own. In it, the row with an empty id holds the progress, and its hash
identifies the current run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Final
from uuid import uuid4

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

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.contracts.rebuilds import ApplyLast, RebuildProgressRecord, RebuildTarget, rebuild_taken_over
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.reads import Wanted
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.persistence.projections.repository import ProjectionRepository
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.running import TransactionRunner
from eventstore_sa.types.codec import decode_json, encode_json

__all__ = ["SQLRebuildStorage"]

_PROGRESS: Final = ""
_REPLACED = ("source", "source_hash", "state", "metadata", "sequence_number")


class SQLRebuildStorage:
    """The rebuild of the projections of one name in a database; see `RebuildStorage`.

    Args:
        bind: Where connections come from.
        schema: The tables.
        name: The name of the projections.

    Raises:
        ConfigurationError: If the bind is a single transaction.
    """

    def __init__(self, bind: Bind, schema: EventStoreSchema, name: str) -> None:
        if bind.engine is None:
            raise ConfigurationError(
                "a rebuild commits each of its steps, and cannot run within a transaction of yours: give it a store on an "
                "engine"
            )
        self._schema = schema
        self._name = name
        self._runner = TransactionRunner(bind)
        # Identifies this run: a run that finds another number in the table has been taken over.
        self._run = uuid4().int >> 65
        self._progress = RebuildProgressRecord("")

    def begin(self, plan: str) -> RebuildProgressRecord:
        with self._runner.savepoint() as scope:
            self._progress = self._rebuilds(scope.connection).begin(scope.connection, self._name, plan, self._run)
        return self._progress

    def load(self, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        with self._runner.reading() as scope:
            return self._load(scope.connection, ids)

    def save(self, records: Sequence[ProjectionRecord], *, sequence_number: int, events: int) -> RebuildProgressRecord:
        with self._runner.savepoint() as scope:
            return self._save(scope.connection, records, sequence_number=sequence_number, events=events)

    def finish(self, target: RebuildTarget, apply: ApplyLast | None, *, page_size: int, timeout_s: float) -> int:
        with self._runner.savepoint() as scope:
            connection = scope.connection
            events = made_once(EventRepository, self._schema, connection.dialect.name)
            rebuilds = self._rebuilds(connection)
            rebuilds.repository.dialect.exclude_publishes(connection, self._name, timeout_s=timeout_s)
            while apply is not None:
                wanted = Wanted(target, page_size, low=self._progress.sequence_number)
                page = events.page(connection, wanted).checked_events()
                if not page:
                    break
                records = apply(page, lambda ids: self._load(connection, ids))
                self._save(connection, records, sequence_number=page[-1].sequence_number, events=len(page))
            if not rebuilds.advance(connection, self._name, self._run, self._progress):
                raise rebuild_taken_over(self._name)
            return rebuilds.swap(connection, self._name)

    def _load(self, connection: Connection, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return self._rebuilds(connection).repository.load(connection, self._name, ids)

    def _save(
        self, connection: Connection, records: Sequence[ProjectionRecord], *, sequence_number: int, events: int
    ) -> RebuildProgressRecord:
        before, rebuilds = self._progress, self._rebuilds(connection)
        after = RebuildProgressRecord(before.plan, sequence_number, before.events + events)
        if not rebuilds.advance(connection, self._name, self._run, after) or (
            records and rebuilds.repository.save_loaded(connection, records) < len(records)
        ):
            raise rebuild_taken_over(self._name)
        self._progress = after
        return after

    def _rebuilds(self, connection: Connection) -> ProjectionRebuilds:
        return made_once(ProjectionRebuilds, self._schema, connection.dialect.name)


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

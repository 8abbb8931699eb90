"""Rebuilding projections as whole operations: connections are opened and closed here, and each step is a transaction.

Synchronous; the asyncio face runs it in a greenlet. Events are read by whoever drives a rebuild, but for the last ones,
which are read and applied in the transaction that puts the results in place.

The results grow in a table of their own, in which the row with an empty id tells how far they are, and by its hash which
run is at it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from time import monotonic
from typing import Any, Final
from uuid import uuid4

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
from sqlalchemy.exc import DBAPIError

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.contracts.rebuilds import ApplyLast, RebuildProgressRecord, RebuildTarget, rebuild_taken_over
from eventstore_sa.errors import ConfigurationError, LockTimeoutError
from eventstore_sa.persistence.events.reads import Wanted
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.persistence.projections.batches import projection_batches
from eventstore_sa.persistence.projections.locks import (
    lock_holders,
    lock_parameters,
    name_lock,
)
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.databases import database_of, limit_waits
from eventstore_sa.persistence.transactions.failures import FailureKind
from eventstore_sa.persistence.transactions.running import TransactionRunner
from eventstore_sa.types.codec import decode_json, encode_json

__all__ = ["SQLRebuildStorage"]

_FIRST_SLICE_S: Final = 0.02
_LONGEST_SLICE_S: Final = 0.64
_PROGRESS = ""
_REPLACED = ("source", "source_hash", "state", "metadata", "sequence_number")


class SQLRebuildStorage:
    """The rebuild of the projections of one name in a database; see `RebuildStorage`.

    Args:
        bind: Where connections come from.
        schema: The tables.
        name: The name of the projections.

    Raises:
        ConfigurationError: If everything on the bind is part of one transaction.
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
        # A number of its own: whoever finds another one in the table knows that another run has begun.
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
            self._exclude_publishes(connection, timeout_s)
            while apply is not None:
                wanted = Wanted(target, page_size, low=self._progress.sequence_number)
                page = events.page(connection, wanted).checked_events()
                if not page:
                    break
                records = apply(page, lambda ids: self._load(connection, ids))
                self._save(connection, records, sequence_number=page[-1].sequence_number, events=len(page))
            if not self._rebuilds(connection).advance(connection, self._name, self._run, self._progress):
                raise rebuild_taken_over(self._name)
            return self._rebuilds(connection).swap(connection, self._name)

    def _exclude_publishes(self, connection: Connection, timeout_s: float) -> None:
        if connection.dialect.name != "postgresql":
            database_of(connection).begin_writing(connection)
            return
        deadline, slice_s = monotonic() + timeout_s, _FIRST_SLICE_S
        while not self._try_to_exclude(connection, slice_s):
            if monotonic() >= deadline:
                holders = connection.scalar(lock_holders(), lock_parameters(connection, self._schema, self._name))
                raise LockTimeoutError(
                    f"publishes that update projections {self._name!r} did not end within {timeout_s:g} s (held by "
                    f"{holders or 'a transaction that has just ended'}): call again to resume, or give it more time"
                )
            connection.execute(select(func.pg_catalog.pg_sleep(slice_s)))
            slice_s = min(slice_s * 2, _LONGEST_SLICE_S)
        limit_waits(connection, timeout_s)

    def _try_to_exclude(self, connection: Connection, slice_s: float) -> bool:
        """Queue for the lock, but for a moment only: all publishes of these projections queue up behind."""
        try:
            with connection.begin_nested():
                limit_waits(connection, slice_s)
                connection.execute(select(name_lock()), lock_parameters(connection, self._schema, self._name))
        except DBAPIError as error:
            if database_of(connection).failure_of(error).kind is not FailureKind.LOCK_TIMEOUT:
                raise
            return False
        return True

    def _load(self, connection: Connection, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return projection_batches(self._schema, connection.dialect.name, rebuilding=True).load(
            connection, self._name, ids
        )

    def _save(
        self, connection: Connection, records: Sequence[ProjectionRecord], *, sequence_number: int, events: int
    ) -> RebuildProgressRecord:
        before = self._progress
        after = RebuildProgressRecord(before.plan, sequence_number, before.events + events)
        batches = projection_batches(self._schema, connection.dialect.name, rebuilding=True)
        if not self._rebuilds(connection).advance(connection, self._name, self._run, after) or (
            records and batches.save(connection, records) < len(records)
        ):
            raise rebuild_taken_over(self._name)
        self._progress = after
        return after

    def _rebuilds(self, connection: Connection) -> ProjectionRebuilds:
        return ProjectionRebuilds(self._schema, connection.dialect.name)


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

"""Rebuilding projections as complete operations: connections are opened and closed here, and each step is a transaction.

Synchronous; the asyncio adapter runs it in a greenlet. The caller reads the events, except for the last ones, which are read
and applied in the transaction that replaces the projections.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from uuid import uuid4

from sqlalchemy import Connection, select, update

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.contracts.rebuilds import ApplyLast, RebuildProgressRecord, RebuildTarget, rebuild_taken_over
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.reads import Wanted
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.persistence.projections.rebuilds import ProjectionRebuilds
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.running import TransactionRunner

__all__ = ["SQLRebuildStorage"]


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
            subscribed = self._is_subscribed(connection)
            while apply is not None and not subscribed:
                wanted = Wanted(target, page_size, low=self._progress.sequence_number)
                page = events.page(connection, wanted).checked_events()
                if not page:
                    break
                records = apply(page, lambda ids: self._load(connection, ids))
                self._save(connection, records, sequence_number=page[-1].sequence_number, events=len(page))
            if not rebuilds.advance(connection, self._name, self._run, self._progress):
                raise rebuild_taken_over(self._name)
            count = rebuilds.swap(connection, self._name)
            if subscribed:
                self._set_back(connection)
            return count

    def _is_subscribed(self, connection: Connection) -> bool:
        """Return whether a subscription updates these projections: then it applies the last events, in their order.

        It waits for the watermark, and these must not: a projection would then have skipped an event that commits later.
        """
        c = self._schema.subscriptions.c
        return connection.execute(select(c.partition).where(c.projection == self._name).limit(1)).first() is not None

    def _set_back(self, connection: Connection) -> None:
        """Set the subscription back to where the new projections are; whoever processes it loses its partitions."""
        table, events = self._schema.subscriptions, self._schema.events
        number = self._progress.sequence_number
        last = select(events.c.id).where(events.c.sequence_number == number).scalar_subquery()
        connection.execute(
            update(table)
            .where(table.c.projection == self._name, table.c.sequence_number > number)
            .values(
                sequence_number=number, event_number=number or None, event_id=last, owner=None, epoch=table.c.epoch + 1
            )
        )

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

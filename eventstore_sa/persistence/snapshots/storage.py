"""Saving and finding snapshots as whole operations: connections are opened and closed here.

Synchronous; the asyncio adapter runs it in a greenlet. A snapshot can be taken again, so a save gives up early rather than
block another transaction.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.persistence.snapshots.repository import SnapshotRepository
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.running import TransactionRunner
from eventstore_sa.types import Snapshot, SnapshotKey

__all__ = ["SnapshotStorage"]


class SnapshotStorage:
    """The snapshots of one event store, on one bind.

    Args:
        bind: Where connections come from.
        schema: The tables.
    """

    def __init__(self, bind: Bind, schema: EventStoreSchema) -> None:
        self._schema = schema
        self._runner = TransactionRunner(bind)

    def find(self, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key."""
        for attempt in self._runner.attempts():
            with attempt, self._runner.reading() as scope:
                return self._repository(scope.connection).find(scope.connection, key)
        raise AssertionError("the last attempt returns or raises")

    def save(self, snapshot: Snapshot, replacing: Snapshot | None) -> bool:
        """Keep a snapshot unless a later one is kept; return whether it was.

        In a transaction of the caller's it is done within a savepoint, so that what goes wrong is undone there.
        """
        runner = self._runner
        with runner.savepoint() if runner.bind.in_transaction else runner.writing() as scope:
            repository, in_transaction = self._repository(scope.connection), not scope.single_statement
            return repository.save(scope.connection, snapshot, replacing=replacing, in_transaction=in_transaction)

    def prune(self, projector: str | None, keep_version: str | None, taken_before: datetime | None) -> int:
        """Delete the snapshots that meet all conditions given; return how many."""
        with self._runner.writing() as scope:
            return self._repository(scope.connection).prune(
                scope.connection, projector=projector, keep_version=keep_version, taken_before=taken_before
            )

    def _repository(self, connection: Connection) -> SnapshotRepository:
        return made_once(SnapshotRepository, self._schema, connection.dialect.name)

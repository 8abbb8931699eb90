"""Saving and finding snapshots as whole operations: connections are opened and closed here.

Synchronous; the asyncio adapter runs it in a greenlet. Snapshots are to be had again, so a save gives up early rather than
stand in anybody's way.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from eventstore_sa.persistence.events.conditions import ConditionEvaluators
from eventstore_sa.persistence.events.constraints import ConstraintConverters
from eventstore_sa.persistence.events.storage import EventStorage
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.persistence.snapshots.repository import SnapshotRepository
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.running import Workplaces
from eventstore_sa.types import Snapshot, SnapshotKey

__all__ = ["SnapshotStorage"]


class SnapshotStorage:
    """The snapshots of one event store, on one bind.

    Args:
        bind: Where connections come from.
        schema: The tables.
    """

    def __init__(self, bind: Bind, schema: EventStoreSchema) -> None:
        self._bind = bind
        self._schema = schema
        self._places = Workplaces(bind, schema, constraint_converters=ConstraintConverters())

    def find(self, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key."""
        return self._places.retried(lambda: self._find(key))

    def save(self, snapshot: Snapshot, replacing: Snapshot | None) -> bool:
        """Keep a snapshot unless a later one is kept; return whether it was.

        In a transaction of the caller's it is done within a savepoint, so that what goes wrong is undone there.
        """
        place = self._bind.deciding() if self._bind.hosted else self._bind.writing()
        with self._places.enter(place, checked=False) as (workplace, _):
            connection = workplace.connection
            repository = self._repository(connection)
            return repository.save(connection, snapshot, replacing=replacing, in_transaction=workplace.guarded)

    def prune(self, projector: str | None, keep_version: str | None, taken_before: datetime | None) -> int:
        """Delete the snapshots that meet all conditions given; return how many."""
        with self._places.enter(self._bind.writing(), checked=False) as (workplace, _):
            connection = workplace.connection
            return self._repository(connection).prune(
                connection, projector=projector, keep_version=keep_version, taken_before=taken_before
            )

    def create_schema(self) -> None:
        """Create all tables of the library that are missing; see `EventStorage.create_schema`."""
        self._events().create_schema()

    def drop_schema(self) -> None:
        """Drop all tables of the library."""
        self._events().drop_schema()

    def _find(self, key: SnapshotKey) -> Snapshot | None:
        with self._places.enter(self._bind.reading(), checked=False) as (workplace, _):
            return self._repository(workplace.connection).find(workplace.connection, key)

    def _events(self) -> EventStorage:
        return EventStorage(
            self._bind,
            self._schema,
            page_size=1,
            evaluators=ConditionEvaluators(),
            constraint_converters=ConstraintConverters(),
        )

    def _repository(self, connection: Connection) -> SnapshotRepository:
        return made_once(SnapshotRepository, self._schema, connection.dialect.name)

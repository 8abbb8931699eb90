"""Saving and finding projections as whole operations: connections are opened and closed here.

Synchronous; the asyncio adapter runs it in a greenlet. The twin of `storage`, which does this for events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from eventstore_sa.persistence.binds import Bind
from eventstore_sa.persistence.custom_conditions import ConditionEvaluators
from eventstore_sa.persistence.locking import LockingRecord
from eventstore_sa.persistence.queries import ConstraintConverters
from eventstore_sa.persistence.repositories.projection_batches import ProjectionBatches, projection_batches
from eventstore_sa.persistence.repositories.projections import ProjectionRepository
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.storage import EventStorage
from eventstore_sa.persistence.workplaces import Workplaces
from eventstore_sa.query import FilterExpression, Search
from eventstore_sa.query.records import ProjectionRecord, unexpected_version

__all__ = ["ProjectionStorage"]

T = TypeVar("T")


class ProjectionStorage:
    """The projections of one event store, on one bind.

    Args:
        bind: Where connections come from.
        schema: The tables.
    """

    def __init__(self, bind: Bind, schema: EventStoreSchema) -> None:
        self._bind = bind
        self._schema = schema
        self._places = Workplaces(
            bind, schema, constraint_converters=ConstraintConverters(), locking=LockingRecord.latest_of(schema)
        )

    def save(self, records: Sequence[ProjectionRecord]) -> list[int]:
        """Insert or replace projections, all or none; return their new versions."""
        if not records:
            return []
        return self._places.retried(lambda: self._write(lambda connection, do: do.save(connection, records)))

    def save_expecting(self, record: ProjectionRecord, expected: int) -> int:
        """Insert or replace a projection if it is at a version; return the new one.

        It is not tried again: had the first try been stored, the second would find a version that nobody expects.

        Raises:
            ProjectionVersionError: It is at another version.
        """
        version = self._write(lambda connection, do: do.save_expecting(connection, record, expected))
        if version is not None:
            return version
        actual = self._read(lambda connection, do: do.version(connection, record))
        raise unexpected_version(record, expected=expected, actual=actual)

    def delete(self, name: str, id: str) -> bool:
        """Delete a projection; return whether there was one."""
        return self._write(lambda connection, do: do.delete(connection, name=name, id=id))

    def search(self, search: Search) -> list[ProjectionRecord]:
        """Return what a search finds."""
        return self._places.retried(lambda: self._read(lambda connection, do: do.search(connection, search)))

    def count(self, filters: Collection[FilterExpression]) -> int:
        """Count the projections that meet all filters."""
        return self._places.retried(lambda: self._read(lambda connection, do: do.count(connection, filters)))

    def load_batch(self, name: str, ids: Collection[str]) -> dict[str, ProjectionRecord]:
        """Return the projections of a name that are there, by id."""
        return self._places.retried(
            lambda: self._read(lambda connection, _: self._batches(connection).load(connection, name, ids))
        )

    def save_batch(self, records: Sequence[ProjectionRecord]) -> int:
        """Save projections over the versions that they were loaded with; return how many were saved.

        What a first try has saved when the connection broke is not counted: it has another version then.
        """
        return self._places.retried(
            lambda: self._write(lambda connection, _: self._batches(connection).save(connection, records))
        )

    def create_schema(self) -> None:
        """Create all tables of the library that are missing; see `EventStorage.create_schema`."""
        self._events().create_schema()

    def drop_schema(self) -> None:
        """Drop all tables of the library."""
        self._events().drop_schema()

    def _events(self) -> EventStorage:
        return EventStorage(
            self._bind,
            self._schema,
            page_size=1,
            evaluators=ConditionEvaluators(),
            constraint_converters=ConstraintConverters(),
            locking=LockingRecord.latest_of(self._schema),
        )

    def _read(self, work: Callable[[Connection, ProjectionRepository], T]) -> T:
        with self._places.enter(self._bind.reading(), checked=False) as (workplace, _):
            return work(workplace.connection, self._repository(workplace.connection))

    def _write(self, work: Callable[[Connection, ProjectionRepository], T]) -> T:
        with self._places.enter(self._bind.writing(), checked=False) as (workplace, _):
            return work(workplace.connection, self._repository(workplace.connection))

    def _batches(self, connection: Connection) -> ProjectionBatches:
        return projection_batches(self._schema, connection.dialect.name)

    def _repository(self, connection: Connection) -> ProjectionRepository:
        return ProjectionRepository(self._schema, connection.dialect.name)

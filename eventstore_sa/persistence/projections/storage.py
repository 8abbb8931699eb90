"""Saving and finding projections as complete operations: connections are opened and closed here.

Synchronous; the asyncio adapter runs it in a greenlet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from eventstore_sa.attempts import Attempts
from eventstore_sa.contracts.projection_records import ProjectionRecord, unexpected_version
from eventstore_sa.persistence.projections.queries import ProjectionConverters
from eventstore_sa.persistence.projections.repository import ProjectionRepository
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.running import TransactionRunner
from eventstore_sa.query import FilterExpression, Search, SortClause

__all__ = ["ProjectionStorage"]

T = TypeVar("T")


class ProjectionStorage:
    """The projections of one event store, on one bind.

    Args:
        bind: Where connections come from.
        schema: The tables.
        converters: The application's own parts of queries.
        page_size: How many projections `pages` fetches at a time.
    """

    def __init__(
        self, bind: Bind, schema: EventStoreSchema, *, converters: ProjectionConverters, page_size: int
    ) -> None:
        self._schema = schema
        self._converters = converters
        self._page_size = page_size
        self._runner = TransactionRunner(bind)

    def save(self, records: Sequence[ProjectionRecord]) -> list[int]:
        """Insert or replace projections, all or none; return their new versions."""
        if not records:
            return []
        return self._write(lambda connection, do: do.save(connection, records))

    def save_expecting(self, record: ProjectionRecord, expected: int) -> int:
        """Insert or replace a projection if it is at a version; return the new version.

        It is not retried: if the first attempt had been stored, the second would find a version other than the expected one.

        Raises:
            ProjectionVersionError: If it is at another version.
        """
        version = self._write(lambda connection, do: do.save_expecting(connection, record, expected), Attempts(1))
        if version is not None:
            return version
        actual = self._read(lambda connection, do: do.version(connection, record))
        raise unexpected_version(record, expected=expected, actual=actual)

    def delete(self, name: str, id: str) -> bool:
        """Delete a projection; return whether there was one."""
        return self._write(lambda connection, do: do.delete(connection, name=name, id=id), Attempts(1))

    def search(self, search: Search) -> list[ProjectionRecord]:
        """Return the results of a search."""
        return self._read(lambda connection, do: do.searches.search(connection, search, self._converters))

    def pages(self, filters: Collection[FilterExpression], sort: SortClause | None) -> Iterator[list[ProjectionRecord]]:
        """Yield all projections that match the filters, page by page; no connection is held between pages."""
        search = Search(filters=filters, sort=sort)
        after: Sequence[str] | None = None
        looks_ahead = self._page_size
        while True:
            page, after = self._page(search, after, looks_ahead)
            if page:
                yield page
            if after is None:
                return
            looks_ahead = min(self._page_size, 2 * len(page))

    def _page(
        self, search: Search, after: Sequence[str] | None, size: int
    ) -> tuple[list[ProjectionRecord], Sequence[str] | None]:
        return self._read(
            lambda connection, do: do.searches.page_beyond(connection, search, self._converters, after=after, size=size)
        )

    def count(self, filters: Collection[FilterExpression]) -> int:
        """Count the projections that match all filters."""
        search = Search(filters=filters)
        return self._read(lambda connection, do: do.searches.count(connection, search, self._converters))

    def names(self, after: str | None, size: int) -> list[str]:
        """Return some names of projections, those above `after`."""
        return self._read(lambda connection, do: do.searches.names(connection, after=after, size=size))

    def by_id(self, name: str, after: str | None, size: int) -> tuple[list[ProjectionRecord], bool]:
        """Return projections of a name by their ids, those above `after`, and whether there may be more."""
        return self._read(lambda connection, do: do.searches.by_id(connection, name=name, after=after, size=size))

    def load_batch(self, name: str, ids: Collection[str]) -> dict[str, ProjectionRecord]:
        """Return the projections of a name that exist, by id."""
        return self._read(lambda connection, do: do.load(connection, name, ids))

    def save_batch(self, records: Sequence[ProjectionRecord]) -> int:
        """Save projections over the versions that were loaded; return how many were saved.

        If the connection breaks, those that the first attempt has saved are not counted: they have another version by then.
        """
        return self._write(lambda connection, do: do.save_loaded(connection, records))

    def _read(self, work: Callable[[Connection, ProjectionRepository], T]) -> T:
        for attempt in self._runner.attempts():
            with attempt, self._runner.reading() as scope:
                return work(scope.connection, self._repository(scope.connection))
        raise AssertionError("the last attempt returns or raises")

    def _write(self, work: Callable[[Connection, ProjectionRepository], T], attempts: Attempts | None = None) -> T:
        for attempt in attempts or self._runner.attempts():
            with attempt, self._runner.writing() as scope:
                return work(scope.connection, self._repository(scope.connection))
        raise AssertionError("the last attempt returns or raises")

    def _repository(self, connection: Connection) -> ProjectionRepository:
        return made_once(ProjectionRepository, self._schema, connection.dialect.name)

"""The contract of storage for projections, for asyncio and without, and what all implementations check alike.

Third parties implement it and run the shipped cases over their adapter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any, Self, TypeAlias

from eventstore_sa.contracts.projection_records import ProjectionRecord, record_of
from eventstore_sa.errors import ConfigurationError, QueryError
from eventstore_sa.query import FilterExpression, Lookup, OffsetPagingClause, Search, SortClause
from eventstore_sa.types import JsonValue, Projection

__all__ = [
    "AnyProjection",
    "JsonProjection",
    "ProjectionStorageAdapter",
    "SyncProjectionStorageAdapter",
    "checked_expectation",
    "distinct_records",
    "one_at_most",
    "search_for_two",
]

AnyProjection: TypeAlias = Projection[Any, Any]
JsonProjection: TypeAlias = Projection[JsonValue, JsonValue]

_NO_SESSION = "only a store on a SQLAlchemy bind can work within a session: this one is on a {}"
_NO_BATCHES = "a {} cannot apply events to its projections: it lacks load_batch and save_batch"


class ProjectionStorageAdapter(ABC):
    """Keeps projections; used with asyncio.

    Saving a key (name and id) again replaces state and metadata; the source stays, and so does the place among results
    without a sort. What is returned has state and metadata as JSON, and carries its version.
    """

    @abstractmethod
    async def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        """Save a projection; return its new version, which is 1 for a new one and then counts up.

        Args:
            projection: What to save; its own version has no influence.
            expected_version: Save only over this version; 0: only when there is none; None: in any case.

        Raises:
            ProjectionVersionError: Another version is stored; nothing was saved.
            SerialisationError: Something of it cannot be stored exactly; nothing was saved.
        """

    @abstractmethod
    async def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        """Save projections, all or none; return their new versions in the same order.

        Raises:
            ConfigurationError: A key is given twice; nothing was saved.
            SerialisationError: Something of them cannot be stored exactly; nothing was saved.
        """

    @abstractmethod
    async def delete(self, *, name: str, id: str) -> bool:
        """Delete a projection; return whether there was one."""

    @abstractmethod
    async def find_one(self, *, lookup: Lookup) -> JsonProjection | None:
        """Return the projection that meets all filters; None when there is none.

        Raises:
            QueryError: There are several, or a filter cannot be evaluated.
        """

    @abstractmethod
    async def find_many(self, *, search: Search) -> Sequence[JsonProjection]:
        """Return the projections that a search finds: filtered, then sorted, then one page of them.

        Raises:
            QueryError: The search cannot be answered.
        """

    async def scan(
        self, *, filters: Collection[FilterExpression] = (), sort: SortClause | None = None
    ) -> AsyncIterator[JsonProjection]:
        """Iterate over all projections that meet the filters, sorted as `find_many` does.

        An adapter to a database fetches them in pages, each from a snapshot of its own, and holds nothing in between.

        Raises:
            QueryError: The search cannot be answered.
        """
        for projection in await self.find_many(search=Search(filters=filters, sort=sort)):
            yield projection

    @abstractmethod
    async def count(self, *, search: Search) -> int:
        """Count the projections that meet all filters, whatever the paging.

        Raises:
            QueryError: A filter cannot be evaluated.
        """

    async def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        """Return the projections of a name that are there, by id, as they are to be given to `save_batch` again.

        Raises:
            ConfigurationError: This storage cannot apply events to projections.
        """
        raise ConfigurationError(_NO_BATCHES.format(type(self).__name__))

    async def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        """Save projections over the versions that they were loaded with, or 0; return how many were saved.

        Each is saved on its own: those that somebody else has saved meanwhile are left alone.

        Raises:
            ConfigurationError: This storage cannot apply events to projections.
        """
        raise ConfigurationError(_NO_BATCHES.format(type(self).__name__))

    def within(self, session: Any) -> Self:
        """Return the same storage inside the transaction of a session.

        Raises:
            ConfigurationError: This storage knows no sessions.
        """
        raise ConfigurationError(_NO_SESSION.format(type(self).__name__))

    async def create_schema(self) -> None:
        """Create what the storage needs and does not have yet."""

    async def drop_schema(self) -> None:
        """Drop it, with all that is stored."""

    async def aclose(self) -> None:
        """Give back what was opened by the adapter itself."""


class SyncProjectionStorageAdapter(ABC):
    """Keeps projections; the twin of `ProjectionStorageAdapter` without asyncio."""

    @abstractmethod
    def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        """Save a projection; see `ProjectionStorageAdapter.save`."""

    @abstractmethod
    def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        """Save projections, all or none; see `ProjectionStorageAdapter.save_all`."""

    @abstractmethod
    def delete(self, *, name: str, id: str) -> bool:
        """Delete a projection; return whether there was one."""

    @abstractmethod
    def find_one(self, *, lookup: Lookup) -> JsonProjection | None:
        """Return the projection that meets all filters; see `ProjectionStorageAdapter.find_one`."""

    @abstractmethod
    def find_many(self, *, search: Search) -> Sequence[JsonProjection]:
        """Return the projections that a search finds; see `ProjectionStorageAdapter.find_many`."""

    def scan(
        self, *, filters: Collection[FilterExpression] = (), sort: SortClause | None = None
    ) -> Iterator[JsonProjection]:
        """Iterate over all projections that meet the filters; see `ProjectionStorageAdapter.scan`."""
        yield from self.find_many(search=Search(filters=filters, sort=sort))

    @abstractmethod
    def count(self, *, search: Search) -> int:
        """Count the projections that meet all filters, whatever the paging."""

    def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        """Return the projections of a name that are there, by id; see `ProjectionStorageAdapter.load_batch`."""
        raise ConfigurationError(_NO_BATCHES.format(type(self).__name__))

    def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        """Save projections over the versions that they were loaded with; see `ProjectionStorageAdapter.save_batch`."""
        raise ConfigurationError(_NO_BATCHES.format(type(self).__name__))

    def within(self, session: Any) -> Self:
        """Return the same storage inside the transaction of a session.

        Raises:
            ConfigurationError: This storage knows no sessions.
        """
        raise ConfigurationError(_NO_SESSION.format(type(self).__name__))

    def create_schema(self) -> None:
        """Create what the storage needs and does not have yet."""

    def drop_schema(self) -> None:
        """Drop it, with all that is stored."""

    def close(self) -> None:
        """Give back what was opened by the adapter itself."""


def distinct_records(projections: Sequence[AnyProjection]) -> list[ProjectionRecord]:
    """Return what to store for projections.

    Raises:
        ConfigurationError: A key is given twice.
        SerialisationError: Something of them cannot be stored exactly.
    """
    records = [record_of(projection) for projection in projections]
    seen: set[tuple[str, str]] = set()
    for record in records:
        if (record.name, record.id) in seen:
            raise ConfigurationError(
                f"projection {record.name!r} with id {record.id!r} is given twice in one save: give the last state only"
            )
        seen.add((record.name, record.id))
    return records


def checked_expectation(version: object) -> int:
    """Refuse what can be no version.

    Raises:
        ConfigurationError: It is not an integer from 0.
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise ConfigurationError(f"expected_version is 0 (none stored yet) or a version from 1, not {version!r}")
    return version


def search_for_two(lookup: Lookup) -> Search:
    """Return the search that tells whether a lookup finds one or more."""
    return Search(filters=lookup.filters, paging=OffsetPagingClause(item_count=2))


def one_at_most(records: Sequence[ProjectionRecord]) -> JsonProjection | None:
    """Return what a lookup found.

    Raises:
        QueryError: It found more than one.
    """
    if len(records) > 1:
        raise QueryError(
            "several projections meet the filters of a lookup, of which one is "
            f"{records[0].name!r} with id {records[0].id!r}: filter by name and id, or search"
        )
    return records[0].projection() if records else None

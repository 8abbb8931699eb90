"""Storage of projections in memory: for tests, and as the measure of what the query language means."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from eventstore_sa.projection.adapters.base import (
    AnyProjection,
    JsonProjection,
    ProjectionStorageAdapter,
    SyncProjectionStorageAdapter,
    checked_expectation,
    distinct_records,
    one_at_most,
    search_for_two,
)
from eventstore_sa.query import Lookup, Search
from eventstore_sa.query.evaluation import found
from eventstore_sa.query.records import ProjectionRecord, record_of
from eventstore_sa.store.adapters.memory_projections import InMemoryProjections

__all__ = ["InMemoryProjectionStorageAdapter", "SyncInMemoryProjectionStorageAdapter"]


class SyncInMemoryProjectionStorageAdapter(SyncProjectionStorageAdapter):
    """Keeps projections in memory, for stores without asyncio.

    Args:
        projections: Where they are kept, such as the `projections` of an in-memory event store's adapter; by default
            apart from all others.
    """

    def __init__(self, projections: InMemoryProjections | None = None) -> None:
        self._projections = InMemoryProjections() if projections is None else projections

    def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        expected = None if expected_version is None else checked_expectation(expected_version)
        return self._projections.save([record_of(projection)], expected)[0]

    def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        return self._projections.save(distinct_records(projections))

    def delete(self, *, name: str, id: str) -> bool:
        return self._projections.delete(name, id)

    def find_one(self, *, lookup: Lookup) -> JsonProjection | None:
        return one_at_most(self._search(search_for_two(lookup)))

    def find_many(self, *, search: Search) -> Sequence[JsonProjection]:
        return [record.projection() for record in self._search(search)]

    def count(self, *, search: Search) -> int:
        return len(self._search(Search(filters=search.filters)))

    def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return self._projections.load_batch(name, ids)

    def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        return self._projections.save_batch(records)

    def drop_schema(self) -> None:
        self._projections.clear()

    def _search(self, search: Search) -> list[ProjectionRecord]:
        return found(self._projections.all(), search, ProjectionRecord.document)


class InMemoryProjectionStorageAdapter(ProjectionStorageAdapter):
    """Keeps projections in memory; serves both kinds of stores, see `sync_adapter`.

    Args:
        projections: Where they are kept, such as the `projections` of an in-memory event store's adapter; by default
            apart from all others.
    """

    def __init__(self, projections: InMemoryProjections | None = None) -> None:
        self.sync_adapter: SyncInMemoryProjectionStorageAdapter = SyncInMemoryProjectionStorageAdapter(projections)
        """The same projections, for a `SyncProjectionStore`."""

    async def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        return self.sync_adapter.save(projection=projection, expected_version=expected_version)

    async def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        return self.sync_adapter.save_all(projections=projections)

    async def delete(self, *, name: str, id: str) -> bool:
        return self.sync_adapter.delete(name=name, id=id)

    async def find_one(self, *, lookup: Lookup) -> JsonProjection | None:
        return self.sync_adapter.find_one(lookup=lookup)

    async def find_many(self, *, search: Search) -> Sequence[JsonProjection]:
        return self.sync_adapter.find_many(search=search)

    async def count(self, *, search: Search) -> int:
        return self.sync_adapter.count(search=search)

    async def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return self.sync_adapter.load_batch(name=name, ids=ids)

    async def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        return self.sync_adapter.save_batch(records=records)

    async def drop_schema(self) -> None:
        self.sync_adapter.drop_schema()

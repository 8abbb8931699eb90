"""Storage of projections in memory: for tests, and as the measure of what the query language means."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from threading import Lock

from msgspec.structs import replace

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
from eventstore_sa.query import FilterExpression, Lookup, Search
from eventstore_sa.query.evaluation import found
from eventstore_sa.query.records import ProjectionRecord, record_of, unexpected_version

__all__ = ["InMemoryProjectionStorageAdapter", "SyncInMemoryProjectionStorageAdapter"]


class _Projections:
    """Projections by their keys, in the order in which they were first saved; safe from several threads."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], ProjectionRecord] = {}
        self._lock = Lock()

    def save(self, records: Sequence[ProjectionRecord], expected: int | None = None) -> list[int]:
        with self._lock:
            return [self._save(record, expected) for record in records]

    def _save(self, record: ProjectionRecord, expected: int | None) -> int:
        key = (record.name, record.id)
        stored = self._records.get(key)
        version = stored.version if stored is not None else 0
        if expected is not None and expected != version:
            raise unexpected_version(record, expected=expected, actual=version)
        source = stored.source if stored is not None else record.source
        self._records[key] = replace(record, source=source, version=version + 1)
        return version + 1

    def delete(self, name: str, id: str) -> bool:
        with self._lock:
            return self._records.pop((name, id), None) is not None

    def search(self, search: Search) -> list[ProjectionRecord]:
        with self._lock:
            records = list(self._records.values())
        return found(records, search, ProjectionRecord.document)

    def count(self, filters: Collection[FilterExpression]) -> int:
        return len(self.search(Search(filters=filters)))

    def clear(self) -> None:
        with self._lock:
            self._records.clear()


class SyncInMemoryProjectionStorageAdapter(SyncProjectionStorageAdapter):
    """Keeps projections in memory, for stores without asyncio."""

    def __init__(self) -> None:
        self._projections = _Projections()

    def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        expected = None if expected_version is None else checked_expectation(expected_version)
        return self._projections.save([record_of(projection)], expected)[0]

    def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        return self._projections.save(distinct_records(projections))

    def delete(self, *, name: str, id: str) -> bool:
        return self._projections.delete(name, id)

    def find_one(self, *, lookup: Lookup) -> JsonProjection | None:
        return one_at_most(self._projections.search(search_for_two(lookup)))

    def find_many(self, *, search: Search) -> Sequence[JsonProjection]:
        return [record.projection() for record in self._projections.search(search)]

    def count(self, *, search: Search) -> int:
        return self._projections.count(search.filters)

    def drop_schema(self) -> None:
        self._projections.clear()


class InMemoryProjectionStorageAdapter(ProjectionStorageAdapter):
    """Keeps projections in memory; serves both kinds of stores, see `sync_adapter`."""

    def __init__(self) -> None:
        self.sync_adapter: SyncInMemoryProjectionStorageAdapter = SyncInMemoryProjectionStorageAdapter()
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

    async def drop_schema(self) -> None:
        self.sync_adapter.drop_schema()

"""What the cases about projections are set in: a small vocabulary, and sync adapters behind the awaitable contract.

No case is here. `projection_storage` puts the cases together and provides the fixture `adapter`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.projection.adapters import ProjectionStorageAdapter, SyncProjectionStorageAdapter
from eventstore_sa.query import FilterExpression, Lookup, PagingClause, Search, SortClause, SortField
from eventstore_sa.types import EventSourceIdentifier, Projection, StreamIdentifier

__all__ = ["AwaitableProjectionStorageAdapter", "found_ids", "projection", "stored_states"]


def projection(
    id: str,
    state: Any = None,
    *,
    name: str = "summary",
    metadata: Any = None,
    source: EventSourceIdentifier | None = None,
) -> Projection[Any, Any]:
    """Make a projection, of the stream of that id by default."""
    source = StreamIdentifier("orders", id) if source is None else source
    return Projection(id=id, name=name, source=source, state=state, metadata=metadata)


async def stored_states(adapter: ProjectionStorageAdapter, *states: Any) -> None:
    """Save projections with these states under "value", and the ids "0", "1", ..."""
    await adapter.save_all(
        projections=[projection(str(number), {"value": state}) for number, state in enumerate(states)]
    )


async def found_ids(
    adapter: ProjectionStorageAdapter,
    *filters: FilterExpression,
    sort: Sequence[SortField] | None = None,
    paging: PagingClause | None = None,
) -> list[str]:
    """Search; return the ids of what was found. Without paging, counting and scanning must agree."""
    search = Search(filters=filters, sort=None if sort is None else SortClause(sort), paging=paging)
    found = [each.id for each in await adapter.find_many(search=search)]
    if paging is None:
        assert await adapter.count(search=search) == len(found)
        assert [each.id async for each in adapter.scan(filters=filters, sort=search.sort)] == found
    return found


class AwaitableProjectionStorageAdapter(ProjectionStorageAdapter):
    """Pass every call on to a synchronous adapter, in the thread that awaits it."""

    def __init__(self, adapter: SyncProjectionStorageAdapter) -> None:
        self._adapter = adapter

    async def save(self, *, projection: Projection[Any, Any], expected_version: int | None = None) -> int:
        """Save a projection."""
        return self._adapter.save(projection=projection, expected_version=expected_version)

    async def save_all(self, *, projections: Sequence[Projection[Any, Any]]) -> Sequence[int]:
        """Save projections."""
        return self._adapter.save_all(projections=projections)

    async def delete(self, *, name: str, id: str) -> bool:
        """Delete a projection."""
        return self._adapter.delete(name=name, id=id)

    async def find_one(self, *, lookup: Lookup) -> Projection[Any, Any] | None:
        """Find one projection."""
        return self._adapter.find_one(lookup=lookup)

    async def find_many(self, *, search: Search) -> Sequence[Projection[Any, Any]]:
        """Find projections."""
        return self._adapter.find_many(search=search)

    async def scan(
        self, *, filters: Collection[FilterExpression] = (), sort: SortClause | None = None
    ) -> AsyncIterator[Projection[Any, Any]]:
        """Iterate over projections."""
        for each in self._adapter.scan(filters=filters, sort=sort):
            yield each

    async def count(self, *, search: Search) -> int:
        """Count projections."""
        return self._adapter.count(search=search)

    async def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        """Load projections to apply events to."""
        return self._adapter.load_batch(name=name, ids=ids)

    async def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        """Save projections that events were applied to."""
        return self._adapter.save_batch(records=records)

"""What the cases about projections are set in: a small vocabulary.

No case is here. `projection_storage` puts the cases together and provides the fixture `adapter`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventstore_sa.projection.adapters import ProjectionStorageAdapter
from eventstore_sa.query import FilterExpression, PagingClause, Search, SortClause, SortField
from eventstore_sa.types import EventSourceIdentifier, Projection, StreamIdentifier

__all__ = ["found_ids", "projection", "stored_states"]


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

"""`Inspection` and `SyncInspection`: questions about a store, with asyncio and without.

Both have the same methods. The answers come from the storage of its adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from eventstore_sa.contracts.inspection import (
    CategorySummary,
    InspectionStorage,
    Statistics,
    StreamSummary,
    TraceSlice,
    WatermarkReport,
)
from eventstore_sa.sources.constraints import observed_between
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters.storage_adapter import AwaitableStorageAdapter
from eventstore_sa.types import AnyStoredEvent, CategoryIdentifier
from eventstore_sa.types.numbers import checked_count

__all__ = ["Inspection", "SyncInspection"]

T = TypeVar("T")

_PAGE: Final = 100
_SLICE: Final = 10_000
_TOP: Final = 10
_WINDOWS: Final[Mapping[str, timedelta]] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=30),
}


class Inspection:
    """Questions about a store that is used with asyncio.

    Events come as they are stored: their payloads are JSON, even if the store has event types.

    Args:
        store: The store; on a SQLAlchemy bind, in memory, or over another adapter that owns a synchronous one.

    Raises:
        ConfigurationError: If its adapter cannot be inspected.

    Example:
        >>> import asyncio
        >>> from eventstore_sa import EventStore, NewEvent
        >>> async def main() -> None:
        ...     async with EventStore("sqlite+aiosqlite://") as store:
        ...         await store.create_schema()
        ...         await store.stream(category="orders", stream="1").publish(
        ...             events=[NewEvent(name="placed", payload={})]
        ...         )
        ...         print(await Inspection(store).streams(category="orders"))
        >>> asyncio.run(main())  # doctest: +ELLIPSIS
        [StreamSummary(category='orders', stream='1', events=1, ...)]
    """

    def __init__(self, store: EventStore[Any]) -> None:
        adapter = store.adapter
        self._storage: InspectionStorage = adapter.inspection_storage()
        self._adapter: AwaitableStorageAdapter[Any] | None = (
            adapter if isinstance(adapter, AwaitableStorageAdapter) else None
        )

    async def find(self, event_id: UUID) -> AnyStoredEvent | None:
        """Return the event with an id; None if there is none."""
        return (await self._ask(partial(self._storage.find_all, [event_id]))).get(event_id)

    async def categories(self, *, after: str | None = None, limit: int = _PAGE) -> Sequence[CategorySummary]:
        """Return some categories with their last events, in code-point order.

        Each costs two probes of an index, however many events there are.

        Args:
            after: Only those above this name: the last one of the page before.
            limit: At most so many.
        """
        return await self._ask(_categories(self._storage, after, limit))

    async def streams(self, *, category: str, after: str | None = None, limit: int = _PAGE) -> Sequence[StreamSummary]:
        """Return some streams of a category with their last events, in code-point order; see `categories`."""
        return await self._ask(_streams(self._storage, category, after, limit))

    async def trace(
        self, correlation_id: str, *, before: int | None = None, limit: int = _PAGE, within: int = _SLICE
    ) -> TraceSlice:
        """Return some of the events that belong together, last to first: those with a correlation id.

        The event whose id is the correlation id, with which it all began, may have none itself: `find` it.

        With the index of `inspection_index("correlation")`, they are looked up. Without it, the log is gone through
        backwards, and each call looks at a part of it: call again with `before=slice.next_before` until that is None.

        Args:
            correlation_id: The `correlation_id` in the metadata of the events.
            before: Only those below this number; None: all.
            limit: At most so many.
            within: At how many numbers to look, where there is no index.
        """
        return await self._ask(_trace(self._storage, correlation_id, before, limit, within))

    async def first_since(self, moment: datetime) -> int | None:
        """Return the lowest number of an event that was recorded at a moment or later; None if there is none.

        Without the index of `inspection_index("time")`, all events before it are looked at.
        """
        return await self._ask(_first_since(self._storage, moment))

    async def watermark(self) -> WatermarkReport:
        """Return how far the log can be read, how far it goes, and all transactions that hold readers back."""
        return await self._ask(self._storage.watermark)

    async def statistics(
        self, *, exact: bool = False, top: int = _TOP, windows: Mapping[str, timedelta] = _WINDOWS
    ) -> Statistics:
        """Return how many events there are and where, how fast they come, and what they take on disk.

        Args:
            exact: Whether to count all events, which goes through all of them. If not, the figures are estimates that cost
                some hundreds of probes of an index. Storage in memory always counts.
            top: How many categories and streams to return.
            windows: How far to look back for the growth, by name.
        """
        return await self._ask(_statistics(self._storage, exact, top, windows))

    async def _ask(self, question: Callable[[], T]) -> T:
        return question() if self._adapter is None else await self._adapter.runner.run(question)


class SyncInspection:
    """Questions about a store that is used without asyncio: the twin of `Inspection`.

    Args:
        store: The store.
    """

    def __init__(self, store: SyncEventStore[Any]) -> None:
        self._storage: InspectionStorage = store.adapter.inspection_storage()

    def find(self, event_id: UUID) -> AnyStoredEvent | None:
        """Return the event with an id; None if there is none."""
        return self._storage.find_all([event_id]).get(event_id)

    def categories(self, *, after: str | None = None, limit: int = _PAGE) -> Sequence[CategorySummary]:
        """Return some categories with their last events; see `Inspection.categories`."""
        return _categories(self._storage, after, limit)()

    def streams(self, *, category: str, after: str | None = None, limit: int = _PAGE) -> Sequence[StreamSummary]:
        """Return some streams of a category with their last events; see `Inspection.streams`."""
        return _streams(self._storage, category, after, limit)()

    def trace(
        self, correlation_id: str, *, before: int | None = None, limit: int = _PAGE, within: int = _SLICE
    ) -> TraceSlice:
        """Return some of the events that belong together, last to first; see `Inspection.trace`."""
        return _trace(self._storage, correlation_id, before, limit, within)()

    def first_since(self, moment: datetime) -> int | None:
        """Return the lowest number of an event that was recorded at a moment or later; see `Inspection.first_since`."""
        return _first_since(self._storage, moment)()

    def watermark(self) -> WatermarkReport:
        """Return how far the log can be read, and who holds readers back; see `Inspection.watermark`."""
        return self._storage.watermark()

    def statistics(
        self, *, exact: bool = False, top: int = _TOP, windows: Mapping[str, timedelta] = _WINDOWS
    ) -> Statistics:
        """Return how many events there are, how fast they come, and what they take; see `Inspection.statistics`."""
        return _statistics(self._storage, exact, top, windows)()


def _categories(storage: InspectionStorage, after: str | None, limit: int) -> Callable[[], Sequence[CategorySummary]]:
    return partial(storage.categories, after=after, limit=checked_count("limit", limit))


def _streams(
    storage: InspectionStorage, category: str, after: str | None, limit: int
) -> Callable[[], Sequence[StreamSummary]]:
    name = CategoryIdentifier(category).category
    return partial(storage.streams, category=name, after=after, limit=checked_count("limit", limit))


def _trace(
    storage: InspectionStorage, correlation_id: str, before: int | None, limit: int, within: int
) -> Callable[[], TraceSlice]:
    limit, within = checked_count("limit", limit), checked_count("within", within)
    return partial(storage.trace, correlation_id, before=before, limit=limit, within=within)


def _first_since(storage: InspectionStorage, moment: datetime) -> Callable[[], int | None]:
    return partial(storage.first_since, observed_between(moment, None).start or moment)


def _statistics(
    storage: InspectionStorage, exact: bool, top: int, windows: Mapping[str, timedelta]
) -> Callable[[], Statistics]:
    now = datetime.now(UTC)
    moments = {name: now - window for name, window in windows.items()}
    return partial(storage.statistics, exact=exact, top=checked_count("top", top), moments=moments)

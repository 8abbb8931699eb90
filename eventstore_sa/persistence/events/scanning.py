"""The pages of a scan, one after another: where each begins, how many events are looked at, and when there is no more.

How a page is read, and on which connection, is for the storage to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

from eventstore_sa.errors import UnreadableEventError
from eventstore_sa.persistence.events.hydration import Page
from eventstore_sa.persistence.events.reads import Wanted
from eventstore_sa.types import AnyStoredEvent

__all__ = ["EventPages"]

ReadPage = Callable[[Wanted, bool, bool], tuple[Page, Wanted]]


class EventPages(Iterator[list[AnyStoredEvent]]):
    """The events of a scan, page by page.

    A page that could not be read is read when the next one is asked for: an error does not end the scan, unless it is
    about an event. Nothing is held between pages.

    Args:
        read: Reads a page; gets what is wanted, whether it is the first page, and whether it is the last one if it is
            full. Returns the page, and what is wanted of the scan from then on.
        wanted: The scan, with the largest size of a page.
        limit: At most so many events; None: all.
    """

    def __init__(self, read: ReadPage, wanted: Wanted, limit: int | None) -> None:
        self._read = read
        self._wanted = wanted
        self._page_size = wanted.size
        self._looks_ahead = wanted.size
        self._remaining = limit
        self._is_first = True
        self._ends = limit is not None and limit <= 0
        self._unreadable: UnreadableEventError | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[AnyStoredEvent]:
        unreadable, self._unreadable = self._unreadable, None
        if unreadable is not None:
            raise unreadable
        if self._ends:
            raise StopIteration
        remaining = self._remaining
        size = self._looks_ahead if remaining is None else min(self._looks_ahead, remaining)
        page, wanted = self._read(self._wanted.sized(size), self._is_first, size == remaining)
        count = len(page.events)
        self._is_first = False
        self._ends = not page.more or count == 0 or page.unreadable is not None or count == remaining
        if page.unreadable is not None and count == 0:
            raise page.unreadable
        if count == 0:
            raise StopIteration
        self._unreadable = page.unreadable
        self._wanted = wanted.beyond(page.events[-1])
        self._remaining = None if remaining is None else remaining - count
        # Databases that copy values look at the sizes of all rows that a page might have.
        self._looks_ahead = min(self._page_size, 2 * count)
        return page.events

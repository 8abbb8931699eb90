"""What the workloads ask of an event store, and how writers of one that blocks run in threads."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from benchmarks.databases import Database

__all__ = ["ConflictError", "Contender", "at_once"]


class ConflictError(Exception):
    """The stream is not where the condition of an append demands it to be."""


class Contender(ABC):
    """An event store. Streams are numbered, and positions begin at 0, whatever names and numbers it uses itself.

    Attributes:
        name: What it is called in tables.
        setup: How it is configured.
        gives_up: What it does not do that this library does, as far as it matters for speed.
        reads_log: Whether `read_log` reads all events; else those of the category "orders".
        blocks: Whether its coroutines never suspend, because what they call blocks; its writers run in threads.

        db: The database that it is opened on.

    Methods that raise NotImplementedError here are optional.
    """

    name: ClassVar[str]
    setup: ClassVar[str]
    gives_up: ClassVar[str]
    reads_log: ClassVar[bool] = True
    blocks: ClassVar[bool] = False
    db: Database

    def can(self, method: str) -> bool:
        """Return whether it has an optional method."""
        return getattr(type(self), method) is not getattr(Contender, method)

    @classmethod
    @abstractmethod
    def opened(cls, db: Database, connections: int) -> AbstractAsyncContextManager[Contender]:
        """Open the store, with its tables, for so many writers at once."""

    @abstractmethod
    def new_events(self, category: str, stream: int, size: int, *, after: int) -> Any:
        """Make events to append to a stream whose last position is `after`, or -1; not measured."""

    @abstractmethod
    async def append(self, category: str, stream: int, events: Any, *, after: int) -> None:
        """Append events, unless the stream has moved on.

        Raises:
            ConflictError: If it has.
        """

    async def append_decided(self, category: str, stream: int) -> int:
        """Load a stream, decide on one event and append it; try again until no other writer was faster.

        Returns:
            The number of attempts.
        """
        attempts = 0
        while True:
            attempts += 1
            after = await self.read_stream(category, stream) - 1
            try:
                await self.append(category, stream, self.new_events(category, stream, 1, after=after), after=after)
            except ConflictError:
                continue
            return attempts

    @abstractmethod
    async def read_stream(self, category: str, stream: int) -> int:
        """Read all events of a stream, payloads decoded; return how many there are."""

    async def read_category(self, category: str) -> int:
        """Read all events of a category, payloads decoded; return how many there are."""
        raise NotImplementedError

    async def read_log(self) -> int:
        """Read all events in the order of the log, payloads decoded; return how many there are."""
        raise NotImplementedError

    async def read_latest(self, category: str, stream: int) -> None:
        """Read the last event of a stream."""
        raise NotImplementedError

    async def catch_up(self, run: str) -> int:
        """Project each stream of the log into a stored state of its own, by `changed`; return the number of events.

        Args:
            run: The name of the projection, of which nothing is stored yet.
        """
        raise NotImplementedError

    async def transact(self, stream: int, events: Any, work_s: float) -> None:
        """Insert a row into `orders` and append events to a new stream, work for that long, and commit it all."""
        raise NotImplementedError

    async def fill_projections(self, size: int) -> None:
        """Store so many projections."""
        raise NotImplementedError

    async def save_projection(self, number: int) -> None:
        """Save one projection, by a call of its own."""
        raise NotImplementedError

    async def search_projections(self, status: str, page: int) -> int:
        """Find a page of ten projections with a status, the highest totals first; return how many were found."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Bring the statistics of the database up to date, after it was filled."""
        await (await self.db.raw()).execute("VACUUM ANALYZE")


async def at_once(contender: Contender, writers: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run writers at once: as tasks, or in threads if the contender blocks."""
    if not contender.blocks:
        return await asyncio.gather(*writers)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(len(writers)) as threads:
        return await asyncio.gather(*(loop.run_in_executor(threads, _driven, writer) for writer in writers))


def _driven(writer: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends."""
    try:
        writer.send(None)
    except StopIteration as finished:
        return finished.value
    raise AssertionError("a contender that blocks has suspended")

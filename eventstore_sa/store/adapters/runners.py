"""The ways in which an asyncio adapter runs the synchronous adapter that it owns: in the calling task, or in a greenlet.

In a greenlet the driver's own awaits come out, as in SQLAlchemy's asyncio extension. Everything that concerns event loops
is here: connections that belong to one loop, connections that all tasks share, and cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from itertools import chain
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast
from weakref import ref

from sqlalchemy.pool import NullPool, Pool, QueuePool, StaticPool

from eventstore_sa.errors import ConfigurationError, StorageError, TransactionError
from eventstore_sa.persistence.sqlalchemy_internals import run_in_greenlet
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.cancellation import uninterrupted

__all__ = ["IN_TASK", "GreenletRunner", "InTaskRunner", "Paged", "Runner", "paged", "settled"]

_LONGEST_PAGE_S: Final = 5.0

T = TypeVar("T")
P = ParamSpec("P")


class Paged(chain[T]):
    """An iterator over the items of pages that also offers the pages, so that a runner can fetch each of them at once.

    Attributes:
        pages: The pages that are left. Iterate over these or over the items, not over both.
        ahead: Whether a page may be fetched before it is needed. If that fails, the pages must go on where they were.
    """

    pages: Iterator[Iterable[T]]
    ahead: bool


def paged(pages: Iterator[Iterable[T]], *, ahead: bool = False) -> Paged[T]:
    """Return an iterator over the items of pages."""
    items = cast("Paged[T]", Paged.from_iterable(pages))
    items.pages, items.ahead = pages, ahead
    return items


class Runner(Protocol):
    """A way to run synchronous code from asyncio."""

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` and return its result."""
        ...

    def iterate(self, items: Iterator[T], /) -> AsyncIterator[T]:
        """Iterate over the items of a synchronous iterator."""
        ...


class InTaskRunner:
    """Runs work in the calling task, which it blocks: for work without I/O, and for tests.

    Other tasks get a turn before each call, as they do while a database is waited for. Otherwise tasks that read, decide
    and publish would never meet one another, and code that forgets a condition would pass its tests.
    """

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(0)
        return work(*args, **kwargs)

    async def iterate(self, items: Iterator[T], /) -> AsyncIterator[T]:
        await asyncio.sleep(0)
        for item in items:
            yield item


IN_TASK: Final = InTaskRunner()


class GreenletRunner:
    """Runs the work of one store in greenlets, on the event loop that its pool of connections belongs to.

    Args:
        bind: Where the work takes its connections from.
    """

    def __init__(self, bind: Bind) -> None:
        self._bind = bind
        self._pool: Pool | None = None
        # Weak, because a store may outlive many event loops.
        self._loop: Callable[[], asyncio.AbstractEventLoop | None] = lambda: None
        self._turn: AbstractAsyncContextManager[Any] = nullcontext()
        self._pages_ahead: set[asyncio.Task[Any]] = set()

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` in a greenlet; what the driver awaits in there is awaited here.

        Raises:
            ConfigurationError: If the connections in the pool belong to another event loop.
        """
        engine = self._bind.engine
        if engine is None:
            return await run_in_greenlet(partial(work, *args, **kwargs))
        self._enter_loop(engine.pool)
        async with self._turn:
            running = run_in_greenlet(partial(work, *args, **kwargs))
            # aiosqlite's thread continues with what was cancelled, and SQLAlchemy drops the connection: that would leave
            # the file locked, or delete a database in memory.
            return await (uninterrupted(running) if engine.dialect.name == "sqlite" else running)

    async def iterate(self, items: Iterator[T], /) -> AsyncIterator[T]:
        """Iterate over items, with one greenlet for each page of them where they are `Paged`.

        From the second page on, the next one is fetched while the caller works on this one.
        """
        pages: Iterator[Iterable[T]] = items.pages if isinstance(items, Paged) else zip(items)
        may_read_ahead = isinstance(items, Paged) and items.ahead
        ahead: asyncio.Task[Iterable[T] | None] | None = None
        page = await self.run(next, pages, None)
        is_first = True
        try:
            while page is not None:
                # Who has asked for a second page will ask for more.
                if may_read_ahead and not is_first and self._has_idle_connection():
                    ahead = asyncio.create_task(self.run_unattended(next, pages, None))
                    self._pages_ahead.add(ahead)
                    ahead.add_done_callback(self._pages_ahead.discard)
                    await asyncio.sleep(0)  # so that the server begins, even if the caller never waits for anything
                is_first = False
                for item in page:
                    yield item
                if ahead is None:
                    page = await self.run(next, pages, None)
                    continue
                fetched, ahead = ahead, None
                try:
                    page = await fetched
                except (StorageError, TransactionError):
                    # The caller may have held what was needed, such as all connections, or a lock.
                    page = await self.run(next, pages, None)
        finally:
            if ahead is not None:
                await settled(ahead)

    async def end_reading_ahead(self) -> None:
        """Wait for pages that nobody needs any more, before the engine is disposed of."""
        loop = asyncio.get_running_loop()
        for task in [each for each in self._pages_ahead if each.get_loop() is loop]:
            await settled(task)

    async def run_unattended(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what nobody may wait for any more, and who disposes of the engine does not know of.

        Then the connection goes back to a pool that nobody closes.
        """
        engine = self._bind.engine
        pool = None if engine is None else engine.pool
        try:
            return await self.run(work, *args, **kwargs)
        finally:
            if engine is not None and pool is not None and engine.pool is not pool:
                await run_in_greenlet(pool.dispose)

    def _has_idle_connection(self) -> bool:
        """Return whether the pool has a connection that nobody uses, on a server that can work while we do."""
        engine = self._bind.engine
        if engine is None or not self._bind.database.works_beside_us:
            return False
        return isinstance(engine.pool, QueuePool) and engine.pool.checkedin() > 0

    def _enter_loop(self, pool: Pool) -> None:
        """Refuse a second event loop at once: connections in a pool belong to the loop that opened them."""
        loop = asyncio.get_running_loop()
        if pool is not self._pool:
            self._pool, self._loop = pool, ref(loop)
            # A StaticPool gives the same connection to all callers at once.
            self._turn = asyncio.Lock() if isinstance(pool, StaticPool) else nullcontext()
        elif self._loop() is not loop and not isinstance(pool, NullPool):
            raise ConfigurationError(
                "this store's engine has a pool of connections that belong to another event loop: make an engine for each "
                "loop, use poolclass=NullPool, or call engine.dispose() before the new loop uses it"
            )


async def settled(task: asyncio.Task[Any]) -> None:
    """Wait until a task that nobody needs any more has ended, whatever comes of it.

    It is cancelled only if it takes long, such as on a lock, because that costs its connection.
    """
    try:
        await asyncio.wait([task], timeout=_LONGEST_PAGE_S)
    finally:
        if not task.cancel() and not task.cancelled():
            task.exception()

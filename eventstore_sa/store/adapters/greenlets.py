"""Runs the synchronous storage on an event loop, in greenlets, as SQLAlchemy's own asyncio extension does.

Here is what concerns event loops alone: connections that belong to one of them, connections that all tasks share, and
cancellation. Used by the asyncio adapter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

from sqlalchemy.pool import NullPool, Pool, StaticPool

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.sqlalchemy_internals import run_in_greenlet
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.cancellation import uninterrupted

__all__ = ["GreenletRunner"]

T = TypeVar("T")


class GreenletRunner:
    """Runs the work of one store, on the event loop that its pool of connections belongs to."""

    def __init__(self, bind: Bind) -> None:
        self._bind = bind
        self._pool: Pool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn: AbstractAsyncContextManager[Any] = nullcontext()

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Call `work` in a greenlet; what the driver awaits in there is awaited here.

        Raises:
            ConfigurationError: The connections in the pool belong to another event loop.
        """
        engine = self._bind.engine
        if engine is None:
            return await run_in_greenlet(work, *arguments)
        self._enter_loop(engine.pool)
        async with self._turn:
            running = run_in_greenlet(work, *arguments)
            # aiosqlite's thread goes on with what was cancelled, and SQLAlchemy drops the connection: that would leave
            # the file locked, or delete a database in memory.
            return await (uninterrupted(running) if engine.dialect.name == "sqlite" else running)

    def _enter_loop(self, pool: Pool) -> None:
        """Refuse a second event loop at once: connections in a pool belong to the loop that opened them."""
        loop = asyncio.get_running_loop()
        if pool is not self._pool:
            self._pool, self._loop = pool, loop
            # A StaticPool hands out one and the same connection to everybody at once.
            self._turn = asyncio.Lock() if isinstance(pool, StaticPool) else nullcontext()
        elif loop is not self._loop and not isinstance(pool, NullPool):
            raise ConfigurationError(
                "this store's engine has a pool of connections that belong to another event loop: make an engine for each "
                "loop, use poolclass=NullPool, or call engine.dispose() before the new loop uses it"
            )

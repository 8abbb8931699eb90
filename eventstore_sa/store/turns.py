"""Updates of one stream in one process queue in memory, instead of racing in the database for what only one can win.

A hint, and no lock: whoever has waited for a second goes on without a turn, and the condition of the publish decides. So it
does not matter whether somebody holds a turn for long, or that other processes have turns of their own. An update within
another one does not wait at all: two that are nested the other way round would wait for each other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from threading import Lock
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from eventstore_sa.types import StreamIdentifier

__all__ = ["Leave", "Turns", "is_nested", "no_turn"]

Leave: TypeAlias = Callable[[], object]
"""Gives a turn to the next one."""

_PATIENCE_S: Final = 1.0

is_nested: Final[ContextVar[bool]] = ContextVar("eventstore_sa.update_in_progress", default=False)
"""Whether an update is in progress in whose course this is called."""


def no_turn() -> None:
    """Leave nothing: there was no turn."""


class _Turn:
    """The turn of one stream, as long as somebody has it or waits for it."""

    def __init__(self, lock: Any) -> None:
        self.lock: Final = lock
        self.users: int = 0


class Turns:
    """The turns of the streams of one store; those of each event loop by themselves, and of all threads together."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._guard = Lock()
        self._of_threads: dict[StreamIdentifier, _Turn] = {}
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[StreamIdentifier, _Turn]] = (
            WeakKeyDictionary()
        )

    async def take(self, stream: StreamIdentifier) -> Leave:
        """Wait for the turn of a stream, with asyncio."""
        self._enter_process()
        with self._guard:
            turns = self._of_loops.setdefault(asyncio.get_running_loop(), {})
        turn = self._joined(turns, stream, asyncio.Lock)
        has_it = False
        try:
            async with asyncio.timeout(None if turn.users == 1 else _PATIENCE_S):
                has_it = await turn.lock.acquire()
        except TimeoutError:
            pass
        finally:
            if not has_it:
                self._left(turns, stream, turn)
        return (lambda: self._leave(turns, stream, turn)) if has_it else no_turn

    def take_sync(self, stream: StreamIdentifier) -> Leave:
        """Wait for the turn of a stream, without asyncio."""
        self._enter_process()
        turns = self._of_threads
        turn = self._joined(turns, stream, Lock)
        has_it = False
        try:
            has_it = turn.lock.acquire(timeout=_PATIENCE_S)
        finally:
            if not has_it:
                self._left(turns, stream, turn)
        return (lambda: self._leave(turns, stream, turn)) if has_it else no_turn

    def _enter_process(self) -> None:
        """Begin anew in a forked process: who had a turn goes on in the other one."""
        if self._pid != os.getpid():
            self.__init__()  # type: ignore[misc]

    def _joined(
        self, turns: MutableMapping[StreamIdentifier, _Turn], stream: StreamIdentifier, lock: Callable[[], Any]
    ) -> _Turn:
        with self._guard:
            turn = turns.get(stream)
            if turn is None:
                turn = turns[stream] = _Turn(lock())
            turn.users += 1
            return turn

    def _left(self, turns: MutableMapping[StreamIdentifier, _Turn], stream: StreamIdentifier, turn: _Turn) -> None:
        with self._guard:
            turn.users -= 1
            if not turn.users:
                turns.pop(stream, None)

    def _leave(self, turns: MutableMapping[StreamIdentifier, _Turn], stream: StreamIdentifier, turn: _Turn) -> None:
        turn.lock.release()
        self._left(turns, stream, turn)

"""Updates of one stream or tag in one process queue in memory, instead of racing in the database for what one can win.

A hint, and no lock: whoever has waited for a second goes on without a turn, and the condition of the publish decides. So it
does not matter whether somebody holds a turn for long, or that other processes have turns of their own. An update within
another one does not wait at all: two that are nested the other way round would wait for each other.

A decision takes the turns of several items, in one order. Those that are only depended on are not queued for: orders that
depend on a price do not exclude each other. Which these are shows when something was stored.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextvars import ContextVar
from threading import Lock
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from eventstore_sa.types import StreamIdentifier

__all__ = ["Leave", "Turn", "Turns", "is_nested", "no_turn"]

Turn: TypeAlias = StreamIdentifier | str
"""What updates queue for: a stream, or the text that stands for an item of a query."""

Leave: TypeAlias = Callable[[], object]
"""Gives a turn to the next one."""

_PATIENCE_S: Final = 1.0
_MOST_KNOWN: Final = 10_000

is_nested: Final[ContextVar[bool]] = ContextVar("eventstore_sa.update_in_progress", default=False)
"""Whether an update is in progress in whose course this is called."""


def no_turn() -> None:
    """Leave nothing: there was no turn."""


class _Turn:
    """A turn, as long as somebody has it or waits for it."""

    def __init__(self, lock: Any) -> None:
        self.lock: Final = lock
        self.users: int = 0


class Turns:
    """The turns of one store; those of each event loop by themselves, and of all threads together."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._guard = Lock()
        self._of_threads: dict[Turn, _Turn] = {}
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Turn, _Turn]] = WeakKeyDictionary()
        self._only_read: dict[str, None] = {}

    def worthwhile(self, items: Iterable[str]) -> Sequence[str]:
        """Return the items to queue for, in the order for it: all but those that are known to be read alone."""
        return [item for item in sorted(items) if item not in self._only_read]

    def note(self, item: str, *, is_written: bool) -> None:
        """Note whether a decision on an item has stored an event of it, for those to come."""
        with self._guard:
            self._only_read.pop(item, None)
            if not is_written:
                self._only_read[item] = None
                if len(self._only_read) > _MOST_KNOWN:
                    del self._only_read[next(iter(self._only_read))]

    async def take(self, wanted: Turn) -> Leave:
        """Wait for a turn, with asyncio."""
        self._enter_process()
        with self._guard:
            turns = self._of_loops.setdefault(asyncio.get_running_loop(), {})
        turn = self._joined(turns, wanted, asyncio.Lock)
        has_it = False
        try:
            async with asyncio.timeout(None if turn.users == 1 else _PATIENCE_S):
                has_it = await turn.lock.acquire()
        except TimeoutError:
            pass
        finally:
            if not has_it:
                self._left(turns, wanted, turn)
        return (lambda: self._leave(turns, wanted, turn)) if has_it else no_turn

    def take_sync(self, wanted: Turn) -> Leave:
        """Wait for a turn, without asyncio."""
        self._enter_process()
        turns = self._of_threads
        turn = self._joined(turns, wanted, Lock)
        has_it = False
        try:
            has_it = turn.lock.acquire(timeout=_PATIENCE_S)
        finally:
            if not has_it:
                self._left(turns, wanted, turn)
        return (lambda: self._leave(turns, wanted, turn)) if has_it else no_turn

    def _enter_process(self) -> None:
        """Begin anew in a forked process: who had a turn goes on in the other one."""
        if self._pid != os.getpid():
            self.__init__()  # type: ignore[misc]

    def _joined(self, turns: MutableMapping[Turn, _Turn], wanted: Turn, lock: Callable[[], Any]) -> _Turn:
        with self._guard:
            turn = turns.get(wanted)
            if turn is None:
                turn = turns[wanted] = _Turn(lock())
            turn.users += 1
            return turn

    def _left(self, turns: MutableMapping[Turn, _Turn], wanted: Turn, turn: _Turn) -> None:
        with self._guard:
            turn.users -= 1
            if not turn.users:
                turns.pop(wanted, None)

    def _leave(self, turns: MutableMapping[Turn, _Turn], wanted: Turn, turn: _Turn) -> None:
        turn.lock.release()
        self._left(turns, wanted, turn)

"""Telling readers in the same process that events may have been stored, so that they need not poll often.

A hint, and no promise: whoever waits looks for itself, and polls in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeAlias

__all__ = ["Listener", "Wakeups"]

Listener: TypeAlias = Callable[[], object]


class Wakeups:
    """Calls those who listen when events are committed, from the thread that did it; they must not block or raise."""

    def __init__(self) -> None:
        self._lock = Lock()
        # Replaced, and never changed: `wake` needs no lock.
        self._listeners: tuple[Listener, ...] = ()

    def listen(self, listener: Listener) -> None:
        """Call a function at each publish."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def ignore(self, listener: Listener) -> None:
        """Call it no longer."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != listener)

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens: otherwise nobody has to find out when a transaction is committed."""
        return bool(self._listeners)

    def wake(self) -> None:
        """Say that events may have been stored."""
        for listener in self._listeners:
            listener()

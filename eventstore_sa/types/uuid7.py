"""UUID version 7 (RFC 9562): time-ordered ids that keep the unique index of the events growing at its right end.

The standard library has them from Python 3.14 on. This one follows RFC 9562, section 6.2, method 1: 48 bits of
milliseconds, a 42-bit counter that starts at random in each millisecond, and 32 random bits. Nothing else lives here
but `uuid_of`, which both new and stored ids are made with.
"""

from __future__ import annotations

import os
import time
from threading import Lock
from uuid import UUID, SafeUUID

__all__ = ["uuid7", "uuid_of"]

_SAFETY = SafeUUID.unknown
_COUNTER_START_BITS = 41
_COUNTER_LIMIT = 1 << 42
_VERSION_AND_VARIANT = (7 << 76) | (2 << 62)


class _Generator:
    """The state of one process: the last millisecond and counter, under a lock."""

    __slots__ = ("_counter", "_lock", "_millisecond")

    def __init__(self) -> None:
        self._lock = Lock()
        self._millisecond = -1
        self._counter = 0

    def next(self) -> int:
        random = int.from_bytes(os.urandom(10))
        tail = random & 0xFFFF_FFFF
        millisecond = time.time_ns() // 1_000_000
        with self._lock:
            if millisecond <= self._millisecond:
                # Within one millisecond, or after the system's clock was set back: keep counting.
                counter = self._counter + 1
                millisecond = self._millisecond
            else:
                counter = (random >> 32) & ((1 << _COUNTER_START_BITS) - 1)
            if counter == _COUNTER_LIMIT:
                counter = (random >> 32) & ((1 << _COUNTER_START_BITS) - 1)
                millisecond += 1
            self._millisecond = millisecond
            self._counter = counter
        high, low = counter >> 30, counter & 0x3FFF_FFFF
        return millisecond << 80 | _VERSION_AND_VARIANT | high << 64 | low << 32 | tail


_generator = _Generator()


def _forget_parent() -> None:
    """Start afresh after a fork: the child must use neither the parent's counter nor a lock that another thread held."""
    global _generator  # noqa: PLW0603
    _generator = _Generator()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def uuid7() -> UUID:
    """Return a new UUID of version 7.

    Within a process, whatever the thread, each is greater than those returned before it. Processes, forked ones too,
    are told apart by 73 random bits in each millisecond.
    """
    return uuid_of(_generator.next())


def uuid_of(number: int) -> UUID:
    """Return the UUID that the number is the 128 bits of; a third of the time of `UUID(int=...)`, for it is not checked."""
    new = object.__new__(UUID)
    object.__setattr__(new, "int", number)
    object.__setattr__(new, "is_safe", _SAFETY)
    return new

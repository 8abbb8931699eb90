"""Where the time comes from: the system's clock, and clocks that stand still for tests.

A clock is passed to `NewEvent(clock=...)` and to whatever else reads the time; nothing in the library asks the system
directly. Clocks do not wait, and are no timers.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Protocol, runtime_checkable

__all__ = ["Clock", "StaticClock", "SystemClock", "TimezoneRequiredStaticClock"]


@runtime_checkable
class Clock(Protocol):
    """Anything that tells the time."""

    def now(self, tz: tzinfo | None = UTC) -> datetime:
        """Return the current time in the time zone `tz`; with None, as naive local time."""
        ...


class SystemClock:
    """The clock of the operating system."""

    __slots__ = ()

    def now(self, tz: tzinfo | None = UTC) -> datetime:
        """Return the current time in the time zone `tz`; with None, as naive local time."""
        return datetime.now(tz)


class StaticClock:
    """A clock that stands still until it is set.

    Args:
        now: The time that it shows.
    """

    __slots__ = ("_now",)

    def __init__(self, now: datetime) -> None:
        self._now = now

    def set(self, now: datetime) -> None:
        """Set the clock to `now`."""
        self._now = now

    def now(self, tz: tzinfo | None = UTC) -> datetime:
        """Return the time that the clock was set to, in the time zone `tz`; with None, exactly as it was set."""
        return self._now if tz is None else self._now.astimezone(tz)


class TimezoneRequiredStaticClock(StaticClock):
    """A static clock that refuses to be read without a time zone, to catch code that forgets it."""

    __slots__ = ()

    def now(self, tz: tzinfo | None = None) -> datetime:
        """Return the time that the clock was set to, in the time zone `tz`.

        Raises:
            ValueError: `tz` is None.
        """
        if tz is None:
            raise ValueError("this clock must be read with a time zone: call now(UTC), or now() with another tzinfo")
        return super().now(tz)

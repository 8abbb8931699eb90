"""Stops the library's clock and counts the ids of new events, so that a test can compare whole events."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from itertools import count
from typing import Final
from unittest.mock import patch

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.types import StaticClock, SystemClock, events
from eventstore_sa.types.uuid7 import uuid_of

__all__ = ["frozen"]

_NOW: Final = datetime(2000, 1, 1, tzinfo=UTC)
_VERSION_AND_VARIANT: Final = (7 << 76) | (2 << 62)


@contextmanager
def frozen(now: datetime = _NOW) -> Generator[StaticClock]:
    """Stop the clock of the library inside the block, and give new events the ids 1, 2, 3 and so on.

    It applies to the whole process: to every `NewEvent` that is made without an id, a time or a clock of its own. The ids
    are UUIDs of version 7 whose last digits count. Each block begins with 1 again, so a test that stores events must begin
    with an empty store. The times and clocks of databases are not affected.

    Args:
        now: The time, with a time zone; by default the first moment of the year 2000 in UTC.

    Yields:
        The clock; `set` changes its time.

    Raises:
        ConfigurationError: If the time has no time zone.

    Examples:
        >>> from eventstore_sa import NewEvent
        >>> with frozen() as clock:
        ...     event = NewEvent(name="order-placed", payload=None)
        >>> str(event.id), event.observed_at == clock.now()
        ('00000000-0000-7000-8000-000000000001', True)
    """
    if now.utcoffset() is None:
        raise ConfigurationError(f"the clock needs a time with a time zone, such as datetime.now(UTC); got {now}")
    clock, ids = StaticClock(now), count(1)

    def read_clock(_: SystemClock, tz: tzinfo | None = UTC) -> datetime:
        return clock.now(tz)

    with (
        patch.object(SystemClock, "now", read_clock),
        patch.object(events, "uuid7", lambda: uuid_of(_VERSION_AND_VARIANT | next(ids))),
    ):
        yield clock

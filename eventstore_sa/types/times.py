"""Which times an event can have: as far from the ends of the calendar as time zones are wide. They are kept in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from eventstore_sa.errors import SerialisationError

__all__ = ["EARLIEST_TIME", "LATEST_TIME", "stored_time"]

EARLIEST_TIME = datetime(1, 1, 2, tzinfo=UTC)
"""The first time that an event can have: in every time zone, it has a date that Python knows."""

LATEST_TIME = datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC)
"""The last time that an event can have."""


def stored_time(moment: datetime, label: str) -> datetime:
    """Return a time as it is stored: in UTC.

    Args:
        moment: An aware datetime.
        label: Whose time it is, for the message.

    Raises:
        SerialisationError: If it is too close to the end of the calendar.
    """
    try:
        in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except OverflowError as error:
        raise _unstorable_time(moment, label) from error
    if 1 < in_utc.year < 9999 or EARLIEST_TIME <= in_utc <= LATEST_TIME:
        return in_utc
    raise _unstorable_time(moment, label)


def _unstorable_time(moment: datetime, label: str) -> SerialisationError:
    return SerialisationError(
        f"{label} has the time {moment.isoformat()}, and only times from {EARLIEST_TIME.date()} to {LATEST_TIME.date()} in "
        "UTC can be stored: others have no date in some time zones, where clients could not read them; keep such a time in "
        "the payload"
    )

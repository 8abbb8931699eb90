"""Clocks: the system's, and those that stand still."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import Clock, StaticClock, SystemClock, TimezoneRequiredStaticClock

NOW = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
INDIA = timezone(timedelta(hours=5, minutes=30))


def test_the_system_clock_tells_the_time_in_utc_unless_asked_otherwise() -> None:
    clock = SystemClock()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
    assert clock.now().tzinfo is UTC
    assert clock.now(INDIA).tzinfo is INDIA
    assert clock.now(None).tzinfo is None


@in_turn("kind", [StaticClock, TimezoneRequiredStaticClock])
def test_static_clocks_stand_still_until_they_are_set(kind: type[StaticClock]) -> None:
    clock = kind(NOW)
    assert clock.now(UTC) == clock.now(UTC) == NOW
    clock.set(NOW + timedelta(days=1))
    assert clock.now(UTC) == NOW + timedelta(days=1)


def test_static_clocks_convert_to_the_time_zone_asked_for() -> None:
    now = StaticClock(NOW).now(INDIA)
    assert now == NOW
    assert now.tzinfo is INDIA
    assert StaticClock(NOW.astimezone(INDIA)).now(None).tzinfo is INDIA


def test_a_clock_may_require_a_time_zone() -> None:
    clock = TimezoneRequiredStaticClock(NOW)
    for read in (clock.now, lambda: clock.now(None)):
        with pytest.raises(ValueError, match="time zone"):
            read()


def test_anything_with_now_is_a_clock() -> None:
    assert isinstance(SystemClock(), Clock)
    assert isinstance(StaticClock(NOW), Clock)
    assert not isinstance(object(), Clock)

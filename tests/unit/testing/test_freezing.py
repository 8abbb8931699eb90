"""The frozen clock and the ids that count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from eventstore_sa import NewEvent
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.testing import NewEventBuilder, data, frozen
from eventstore_sa.types import StaticClock

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


def event() -> NewEvent:
    return NewEvent(name="order-placed", payload=None)


def test_events_have_the_time_of_the_clock_and_ids_that_count() -> None:
    with frozen(NOON) as clock:
        first = event()
        clock.set(NOON + timedelta(hours=1))
        second = event()

    assert (first.observed_at, second.observed_at) == (NOON, NOON + timedelta(hours=1))
    assert [str(each.id)[-2:] for each in (first, second)] == ["01", "02"]
    assert first.id.version == 7
    assert first.id.variant == event().id.variant


def test_each_block_repeats_the_same_events() -> None:
    with frozen():
        before = [event(), event()]
    with frozen():
        assert [event(), event()] == before


def test_what_a_test_sets_itself_stays() -> None:
    own_id, other = UUID(int=1), NOON - timedelta(days=1)

    with frozen(NOON):
        own = NewEvent(name="order-placed", payload=None, id=own_id, clock=StaticClock(other))

    assert (own.id, own.observed_at) == (own_id, other)


def test_the_clock_runs_again_afterwards() -> None:
    with pytest.raises(ValueError, match="no"), frozen(NOON):
        raise ValueError("no")

    assert abs(event().observed_at - datetime.now(UTC)) < timedelta(hours=1)
    assert event().id != event().id


def test_builders_stay_random() -> None:
    with frozen():
        assert data.random_event_id() != data.random_event_id()
        assert NewEventBuilder().build().id != event().id


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="time zone"), frozen(datetime(2024, 2, 29)):
        pass

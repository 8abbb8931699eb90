"""Cases: there is no limit to the events, streams and bytes of a publish but the memory of the machine."""

from __future__ import annotations

import pytest

from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import DuplicateEventError, UnmetWriteConditionError
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter
from eventstore_sa.testing.cases.setting import (
    LOG,
    ORDERS,
    EventStorageSetting,
    new_event,
    new_events,
    read,
    stored_in,
    stream,
)

__all__ = ["VolumeCases"]


class VolumeCases(EventStorageSetting):
    """How much fits."""

    @property
    def many_events(self) -> int:
        """How many events go into one publish; 8,000 have more values than PostgreSQL takes as parameters."""
        return 20_000 if self.thorough else 8_000

    @property
    def many_streams(self) -> int:
        """How many streams go into one publish."""
        return 5_000 if self.thorough else 1_200

    async def test_many_thousands_of_events_in_one_publish(self, adapter: EventStorageAdapter) -> None:
        events = new_events(self.many_events)
        await stored_in(adapter, stream())

        stored = await adapter.save(target=stream(), events=events, condition=position_is(0))

        assert [event.position for event in stored] == list(range(1, self.many_events + 1))
        found = await read(adapter, stream())
        assert [event.id for event in found[1:]] == [event.id for event in events]
        assert found[1:] == list(stored)

    async def test_a_failure_of_many_thousands_of_events_stores_none(self, adapter: EventStorageAdapter) -> None:
        events = new_events(self.many_events)
        known = await adapter.save(target=stream(), events=[events[-1]])

        with pytest.raises(DuplicateEventError):
            await adapter.save(target=stream(), events=events)
        with pytest.raises(UnmetWriteConditionError):
            await adapter.save(target=stream(), events=events[:-1], condition=stream_is_empty())

        assert await read(adapter) == list(known)

    async def test_a_publish_of_thousands_of_events_can_be_repeated(self, adapter: EventStorageAdapter) -> None:
        events = new_events(self.many_events // 4)
        stored = await adapter.save(target=stream(), events=events, condition=stream_is_empty())

        repeated = await adapter.save(target=stream(), events=events, condition=stream_is_empty())

        assert list(repeated) == list(stored)

    async def test_thousands_of_streams_in_one_publish_to_a_category(self, adapter: EventStorageAdapter) -> None:
        names = [f"stream-{number}" for number in reversed(range(self.many_streams))]

        results = await adapter.save(
            target=ORDERS,
            streams={name: {"events": new_events(1), "condition": stream_is_empty()} for name in names},
        )

        assert list(results) == names
        assert await read(adapter) == [event for events in results.values() for event in events]
        assert {event.position for event in await read(adapter, ORDERS)} == {0}

    async def test_thousands_of_streams_are_stored_all_or_none(self, adapter: EventStorageAdapter) -> None:
        last = stream(str(self.many_streams - 1))
        (known,) = await stored_in(adapter, last)

        with pytest.raises(UnmetWriteConditionError) as caught:
            await adapter.save(
                target=LOG,
                streams={
                    stream(str(number)): {"events": new_events(1), "condition": stream_is_empty()}
                    for number in range(self.many_streams)
                },
            )

        assert caught.value.stream == last
        assert await read(adapter) == [known]

    async def test_a_payload_of_10_megabytes(self, adapter: EventStorageAdapter) -> None:
        event = new_event(payload={"text": "é" * 5_000_000, "numbers": [1, 2, 3]})

        await adapter.save(target=stream(), events=[event])

        (found,) = await read(adapter)
        assert found.payload["numbers"] == [1, 2, 3]
        is_same = found.payload["text"] == event.payload["text"]  # a failed comparison would print both
        assert is_same

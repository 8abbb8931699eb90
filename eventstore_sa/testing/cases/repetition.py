"""Cases: publishing ids that are stored already.

The very same publish, all of its ids in their streams and order, is a retry: it stores nothing and returns what is stored,
whatever its conditions say now. Anything else that reuses an id is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from eventstore_sa.conditions import NoCondition, WriteCondition, position_is, stream_is_empty
from eventstore_sa.errors import DuplicateEventError
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
from eventstore_sa.testing.cases.tables import case, in_turn
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent

__all__ = ["RepetitionCases"]

CONDITIONS: Mapping[str, WriteCondition] = {
    "no condition": NoCondition(),
    "unmet since": stream_is_empty(),
    "met": position_is(1),
    "never met": position_is(7),
}


async def expect_refusal(
    adapter: EventStorageAdapter,
    events: Sequence[AnyNewEvent],
    *,
    taken: Sequence[AnyNewEvent | AnyStoredEvent],
    name: str = "42",
    condition: WriteCondition | None = None,
) -> None:
    """Publish the events to the named stream; expect an error that tells which of them are taken, in their order."""
    with pytest.raises(DuplicateEventError) as caught:
        await adapter.save(target=stream(name), events=events, condition=condition)
    assert caught.value.event_ids == tuple(event.id for event in taken)


class RepetitionCases(EventStorageSetting):
    """What happens to ids that are stored already."""

    async def test_a_repeated_publish_returns_what_is_stored(self, adapter: EventStorageAdapter) -> None:
        events = new_events(2)
        stored = await adapter.save(target=stream(), events=events, condition=stream_is_empty())

        for key, condition in CONDITIONS.items():
            with case(key):
                repeated = await adapter.save(target=stream(), events=events, condition=condition)

                assert list(repeated) == list(stored)
                assert await read(adapter) == list(stored)

    async def test_tags_and_version_are_those_of_the_first_publish(self, adapter: EventStorageAdapter) -> None:
        event = new_event(tags={"course:c1"}, version=2)
        (stored,) = await adapter.save(target=stream(), events=[event])

        for tags, version in (({"course:c1"}, 2), ({"course:c2"}, 3), (set[str](), 1)):
            again = new_event(id=event.id, payload=event.payload, tags=tags, version=version)
            assert list(await adapter.save(target=stream(), events=[again])) == [stored]

        assert await read(adapter) == [stored]

    async def test_a_publish_can_be_repeated_after_the_stream_has_moved_on(self, adapter: EventStorageAdapter) -> None:
        await stored_in(adapter, stream())
        events = new_events(2)
        stored = await adapter.save(target=stream(), events=events, condition=position_is(0))
        await stored_in(adapter, stream(), stream("43"))
        before = await read(adapter)

        repeated = await adapter.save(target=stream(), events=events, condition=position_is(0))

        assert list(repeated) == list(stored)
        assert await read(adapter) == before

    async def test_a_repeated_publish_takes_no_position(self, adapter: EventStorageAdapter) -> None:
        events = new_events(2)
        for _ in range(3):
            await adapter.save(target=stream(), events=events)

        (following,) = await adapter.save(target=stream(), events=new_events(1))

        assert following.position == 2

    async def test_a_repeated_publish_returns_the_objects_of_the_caller(self, adapter: EventStorageAdapter) -> None:
        event = new_event(payload={"total": 12}, metadata={"by": "someone"})
        await adapter.save(target=stream(), events=[event])

        (repeated,) = await adapter.save(target=stream(), events=[event])

        assert repeated.payload is event.payload
        assert repeated.metadata is event.metadata

    async def test_the_first_content_of_an_id_stays(self, adapter: EventStorageAdapter) -> None:
        first = new_event(payload={"total": 12})
        (stored,) = await adapter.save(target=stream(), events=[first])

        (repeated,) = await adapter.save(target=stream(), events=[new_event(id=first.id, payload={"total": 13})])

        assert repeated == stored
        assert await read(adapter) == [stored]

    async def test_a_repeated_publish_to_many_streams_returns_what_is_stored(
        self, adapter: EventStorageAdapter
    ) -> None:
        events = {name: new_events(2) for name in "ba"}
        first: dict[str, Any] = {name: {"events": events[name]} for name in "ba"}
        results = await adapter.save(target=ORDERS, streams=first)

        for key, condition in CONDITIONS.items():
            with case(key):
                streams: dict[str, Any] = {name: {"events": events[name], "condition": condition} for name in "ba"}
                repeated = await adapter.save(target=ORDERS, streams=streams)

                assert list(repeated) == ["b", "a"]
                assert {name: list(repeated[name]) for name in "ba"} == {name: list(results[name]) for name in "ba"}
                assert len(await read(adapter)) == 4

    async def test_a_repeated_publish_to_the_log_returns_what_is_stored(self, adapter: EventStorageAdapter) -> None:
        targets = [stream("1", "orders"), stream("1", "invoices"), stream("2", "orders")]
        streams: dict[Any, Any] = {
            target: {"events": new_events(number), "condition": stream_is_empty()}
            for number, target in enumerate(targets)
        }
        results = await adapter.save(target=LOG, streams=streams)

        repeated = await adapter.save(target=LOG, streams=streams)

        assert list(repeated) == targets
        assert [list(events) for events in repeated.values()] == [list(events) for events in results.values()]
        assert len(await read(adapter)) == 3

    async def test_a_publish_may_be_repeated_in_another_order_of_streams(self, adapter: EventStorageAdapter) -> None:
        streams: dict[str, Any] = {name: {"events": new_events(1)} for name in "ab"}
        results = await adapter.save(target=ORDERS, streams=streams)

        repeated = await adapter.save(target=ORDERS, streams={name: streams[name] for name in "ba"})

        assert [(name, list(events)) for name, events in repeated.items()] == [
            (name, list(results[name])) for name in "ba"
        ]

    async def test_ids_in_another_order_are_refused(self, adapter: EventStorageAdapter) -> None:
        events = new_events(3)
        stored = await adapter.save(target=stream(), events=events)

        await expect_refusal(adapter, events[::-1], taken=events[::-1])

        assert await read(adapter) == list(stored)

    @in_turn("condition", {"no condition": NoCondition(), "unmet": stream_is_empty()})
    async def test_a_publish_that_repeats_only_a_part_is_refused(
        self, adapter: EventStorageAdapter, condition: WriteCondition
    ) -> None:
        known, other = new_events(2), new_events(2)
        stored = [*await read(adapter), *await adapter.save(target=stream(), events=known)]

        await expect_refusal(adapter, [known[0], *other], taken=known[:1], condition=condition)
        await expect_refusal(adapter, [*other, known[1]], taken=known[1:], condition=condition)
        await expect_refusal(adapter, [*known, *other], taken=known, condition=condition)

        assert await read(adapter) == stored

    async def test_ids_of_another_stream_are_refused(self, adapter: EventStorageAdapter) -> None:
        events = new_events(2)
        stored = await adapter.save(target=stream("42"), events=events)

        await expect_refusal(adapter, events, taken=events, name="43")

        assert await read(adapter) == list(stored)

    async def test_ids_of_a_stream_of_the_same_name_are_refused_in_another_category(
        self, adapter: EventStorageAdapter
    ) -> None:
        events = new_events(1)
        await adapter.save(target=stream("42", "invoices"), events=events)

        await expect_refusal(adapter, events, taken=events)

        assert await read(adapter, ORDERS) == []

    async def test_ids_that_have_changed_places_between_streams_are_refused(self, adapter: EventStorageAdapter) -> None:
        first, second = new_events(2)
        await adapter.save(target=ORDERS, streams={"a": {"events": [first]}, "b": {"events": [second]}})

        with pytest.raises(DuplicateEventError):
            await adapter.save(target=ORDERS, streams={"a": {"events": [second]}, "b": {"events": [first]}})

        assert len(await read(adapter)) == 2

    async def test_a_publish_to_many_streams_is_repeated_as_a_whole_or_refused(
        self, adapter: EventStorageAdapter
    ) -> None:
        known = new_events(2)
        stored = await adapter.save(target=stream("a"), events=known)

        with pytest.raises(DuplicateEventError) as caught:
            await adapter.save(target=ORDERS, streams={"new": {"events": new_events(1)}, "a": {"events": known}})

        assert caught.value.event_ids == tuple(event.id for event in known)
        assert await read(adapter) == list(stored)

    async def test_one_id_for_two_events_of_a_publish_is_refused(self, adapter: EventStorageAdapter) -> None:
        event = new_event()

        await expect_refusal(adapter, [event, new_event(id=event.id)], taken=[event])
        with pytest.raises(DuplicateEventError):
            await adapter.save(target=ORDERS, streams={"a": {"events": [event]}, "b": {"events": [event]}})

        assert await read(adapter) == []

    async def test_the_message_names_the_event_and_its_place(self, adapter: EventStorageAdapter) -> None:
        (stored,) = await stored_in(adapter, stream("42"))

        with pytest.raises(DuplicateEventError) as caught:
            await adapter.save(target=stream("43"), events=[new_event(id=stored.id)])

        assert str(stored.id) in caught.value.message
        assert "'orders/42'" in caught.value.message

    async def test_after_a_refusal_the_free_events_can_be_published(self, adapter: EventStorageAdapter) -> None:
        (known,) = await stored_in(adapter, stream())
        free = new_event()
        await expect_refusal(adapter, [free, new_event(id=known.id)], taken=[known])

        (stored,) = await adapter.save(target=stream(), events=[free])

        assert (stored.id, stored.position) == (free.id, 1)

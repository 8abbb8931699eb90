"""Cases: what cannot be stored exactly, and calls that make no sense, are refused with a typed error.

Nothing of a refused publish is stored, wherever in it the fault is, and the store remains usable.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from eventstore_sa.conditions import stream_is_empty
from eventstore_sa.errors import ConfigurationError, EventStoreError, SerialisationError
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
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import (
    EARLIEST_TIME,
    LATEST_TIME,
    AnyNewEvent,
    CategoryIdentifier,
    LogPartitionIdentifier,
    StreamIdentifier,
)

__all__ = ["RefusalCases"]


def circular() -> list[Any]:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append({"again": value})
    return value


class Broken:
    """A value whose conversion to JSON gives what is no JSON."""

    def serialise(self) -> object:
        """Return what cannot be stored."""
        return {"when": object()}


UNSTORABLE: dict[str, Any] = {
    "nan": float("nan"),
    "infinity": float("inf"),
    "negative infinity": float("-inf"),
    "nul": "a\0b",
    "nul in a key": {"a\0": 1},
    "lone surrogate": "\ud800",
    "lone surrogate in a key": {"\udfff": 1},
    "object": object(),
    "class": dict,
    "function": len,
    "bytes": b"bytes",
    "set": {1, 2},
    "complex": 1j,
    "naive datetime": datetime(2024, 1, 1),  # noqa: DTZ001 - that is the point
    "integer key": {1: "one"},
    "none key": {None: 1},
    "circular": circular(),
    "broken serialise": Broken(),
}

UNMAKEABLE: dict[str, Callable[[], object]] = {
    "empty event name": lambda: new_event(""),
    "nul in the event name": lambda: new_event("a\0"),
    "surrogate in the event name": lambda: new_event("\ud800"),
    "event name that is no text": lambda: new_event(object()),
    "naive observed_at": lambda: new_event(observed_at=datetime(2024, 1, 1)),  # noqa: DTZ001
    "naive occurred_at": lambda: new_event(occurred_at=datetime(2024, 1, 1)),  # noqa: DTZ001
    "before year 1 in utc": lambda: new_event(occurred_at=datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))),
    "after year 9999 in utc": lambda: new_event(occurred_at=datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))),
    "just before the first time": lambda: new_event(occurred_at=EARLIEST_TIME - timedelta(microseconds=1)),
    "just after the last time": lambda: new_event(observed_at=LATEST_TIME + timedelta(microseconds=1)),
    "the first microsecond": lambda: new_event(observed_at=datetime.min.replace(tzinfo=UTC)),
    "the last microsecond": lambda: new_event(occurred_at=datetime.max.replace(tzinfo=UTC)),
    "id that is no uuid": lambda: new_event(id="42"),
}

UNNAMEABLE: dict[str, Any] = {
    "empty": "",
    "nul": "a\0",
    "lone surrogate": "\ud800",
    "none": None,
    "number": 42,
    "too long": "x" * 1001,
    "too long in utf-8": "é" * 501,
}

EACH_UNNAMEABLE = in_turn("name", UNNAMEABLE)

MISFITS: dict[str, Callable[[list[AnyNewEvent]], dict[str, Any]]] = {
    "a stream without events": lambda _: {"target": stream()},
    "a stream with streams": lambda events: {"target": stream(), "streams": {"42": {"events": events}}},
    "a stream with both": lambda events: {"target": stream(), "events": events, "streams": {}},
    "a category without streams": lambda _: {"target": ORDERS},
    "a category with events": lambda events: {"target": ORDERS, "events": events},
    "a category with both": lambda events: {"target": ORDERS, "events": [], "streams": {"42": {"events": events}}},
    "a category with a condition": lambda events: {
        "target": ORDERS,
        "condition": stream_is_empty(),
        "streams": {"42": {"events": events}},
    },
    "a category with identifiers": lambda events: {"target": ORDERS, "streams": {stream(): {"events": events}}},
    "a name": lambda events: {"target": "orders", "events": events},
    "a name with streams": lambda events: {"target": "orders", "streams": {"42": {"events": events}}},
    "nothing": lambda events: {"target": None, "events": events},
    "a partition": lambda events: {
        "target": LogPartitionIdentifier(0, 2),
        "streams": {stream(): {"events": events}},
    },
    "the log without streams": lambda _: {"target": LOG},
    "the log with events": lambda events: {"target": LOG, "events": events},
    "the log with names": lambda events: {"target": LOG, "streams": {"42": {"events": events}}},
    "the log with categories": lambda events: {"target": LOG, "streams": {ORDERS: {"events": events}}},
}

MISTYPED: dict[str, Callable[[list[AnyNewEvent]], dict[str, Any]]] = {
    "a dict for an event": lambda events: {"target": stream(), "events": [*events, {"name": "placed"}]},
    "an event without a list": lambda events: {"target": stream(), "events": events[0]},
    "a number for events": lambda _: {"target": stream(), "events": 3},
    "an event without a list in a definition": lambda events: {
        "target": ORDERS,
        "streams": {"1": {"events": events}, "42": {"events": events[0]}},
    },
    "a list for streams": lambda events: {"target": ORDERS, "streams": [("42", {"events": events})]},
    "an event for streams": lambda events: {"target": LOG, "streams": events[0]},
    "a number for a condition": lambda events: {"target": stream(), "events": events, "condition": 3},
    "a list for a definition": lambda events: {"target": ORDERS, "streams": {"42": events}},
    "a definition without events": lambda _: {"target": ORDERS, "streams": {"42": {"condition": stream_is_empty()}}},
    "a misspelt definition": lambda events: {
        "target": ORDERS,
        "streams": {"42": {"events": events, "conditions": stream_is_empty()}},
    },
}


class RefusalCases(EventStorageSetting):
    """What is refused, and that nothing of it is stored."""

    @in_turn("value", UNSTORABLE)
    async def test_values_that_cannot_be_stored_are_refused(self, adapter: EventStorageAdapter, value: Any) -> None:
        known = [*await read(adapter), *await stored_in(adapter, stream())]

        for content in (value, {"deep": [1, {"down": value}]}):
            for bad in (new_event(payload=content), new_event(metadata=content)):
                with pytest.raises(SerialisationError):
                    await adapter.save(target=stream(), events=[new_event(), bad])

        assert await read(adapter) == known

    async def test_a_value_that_cannot_be_stored_undoes_a_publish_to_many(self, adapter: EventStorageAdapter) -> None:
        known = await stored_in(adapter, stream())
        bad = [new_event(), new_event(payload=float("nan"))]

        with pytest.raises(SerialisationError):
            await adapter.save(target=ORDERS, streams={"a": {"events": new_events(1)}, "b": {"events": bad}})
        with pytest.raises(SerialisationError):
            await adapter.save(target=LOG, streams={stream("a"): {"events": new_events(1)}, stream(): {"events": bad}})

        assert await read(adapter) == known

    @in_turn("make", UNMAKEABLE)
    async def test_events_that_make_no_sense_are_refused(
        self, adapter: EventStorageAdapter, make: Callable[[], Any]
    ) -> None:
        with pytest.raises(SerialisationError):
            await adapter.save(target=stream(), events=[new_event(), make()])

        assert await read(adapter) == []

    @EACH_UNNAMEABLE
    async def test_names_that_cannot_be_stored_are_refused(self, adapter: EventStorageAdapter, name: Any) -> None:
        with pytest.raises(SerialisationError):
            await adapter.save(target=StreamIdentifier("orders", name), events=new_events(1))
        with pytest.raises(SerialisationError):
            await adapter.save(target=StreamIdentifier(name, "42"), events=new_events(1))
        with pytest.raises(SerialisationError):
            await adapter.save(target=CategoryIdentifier(name), streams={"42": {"events": new_events(1)}})

        assert await read(adapter) == []

    @EACH_UNNAMEABLE
    async def test_a_stream_name_that_cannot_be_stored_undoes_a_publish_to_a_category(
        self, adapter: EventStorageAdapter, name: Any
    ) -> None:
        with pytest.raises(ValueError):
            await adapter.save(
                target=ORDERS, streams={"42": {"events": new_events(1)}, name: {"events": new_events(1)}}
            )

        assert await read(adapter) == []

    @in_turn("arguments", MISFITS)
    async def test_arguments_that_do_not_fit_the_target_are_refused(
        self, adapter: EventStorageAdapter, arguments: Callable[[list[AnyNewEvent]], dict[str, Any]]
    ) -> None:
        with pytest.raises(ValueError, match=r"publishing to|streams of"):
            await adapter.save(**arguments(new_events(1)))

        assert await read(adapter) == []

    @in_turn("arguments", MISTYPED)
    async def test_arguments_of_the_wrong_type_are_refused(
        self, adapter: EventStorageAdapter, arguments: Callable[[list[AnyNewEvent]], dict[str, Any]]
    ) -> None:
        with pytest.raises(ConfigurationError):
            await adapter.save(**arguments(new_events(1)))

        assert await read(adapter) == []

    async def test_messages_hold_no_payload(self, adapter: EventStorageAdapter) -> None:
        event = new_event(payload={"card": "4111-1111", "why": float("nan")}, metadata={"card": "4111-1111"})

        with pytest.raises(EventStoreError) as caught:
            await adapter.save(target=stream(), events=[event])

        assert "4111" not in str(caught.value)

    async def test_after_a_refusal_the_store_goes_on_as_if_it_had_never_been(
        self, adapter: EventStorageAdapter
    ) -> None:
        first, second = new_events(2)
        with pytest.raises(SerialisationError):
            await adapter.save(target=stream(), events=[first, new_event(payload=float("nan"))])

        stored = await adapter.save(target=stream(), events=[first, second], condition=stream_is_empty())

        assert [event.position for event in stored] == [0, 1]
        assert await read(adapter) == list(stored)

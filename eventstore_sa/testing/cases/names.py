"""Cases: names of categories, streams and events are opaque: whatever text they are, they name exactly one thing.

Most of these would break out of a carelessly written SQL string, format string, path or key.
"""

from __future__ import annotations

from enum import StrEnum

import pytest

from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import DuplicateEventError, UnmetWriteConditionError
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter
from eventstore_sa.testing.cases.setting import (
    LOG,
    EventStorageSetting,
    new_event,
    new_events,
    read,
    stored_in,
    stream,
)
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import CategoryIdentifier, StreamIdentifier

__all__ = ["NameCases"]

NAMES = {
    "single quote": "it's",
    "double quote": 'the "best"',
    "percent": "100% %s %(name)s %%",
    "colon": ":name ::text a:b",
    "question mark": "? ?? ?1",
    "dollar": "$1 $$ $.a[0]",
    "backslash": "C:\\temp\\n \\' \\\\",
    "emoji": "🎉 👩‍👩‍👧‍👦",
    "unicode": "Grüße-你好-עברית",
    "sql": "'; DROP TABLE es_events; --",
    "like pattern": "%_%",
    "json": '{"type": "log"}',
    "json path": "a.b[0]->>'c'",
    "slashes": "/a//b/../c/",
    "newline": "first\nsecond\r\n\tthird",
    "blank": " ",
    "surrounded by blanks": " a ",
    "null": "null",
    "number": "0",
    "braces": "{0} {name} ${x}",
    "control character": "\x01\x1f\x7f",
    "comma and semicolon": "a,b;c|d",
    "longest": "x" * 1000,
    "longest in utf-8": "é" * 500,
}

EACH_NAME = in_turn("name", NAMES)


class Name(StrEnum):
    """Names as an application may keep them."""

    ORDERS = "orders"
    PLACED = "placed"


LOOKALIKES = [
    ("a", "bc"),
    ("ab", "c"),
    ("a/b", "c"),
    ("a", "b/c"),
    ("A", "bc"),
    ("a", "BC"),
    ("a ", "bc"),
    ("a", " bc"),
    ("a", "b_"),
    ("a", "b%"),
    ("a", "é"),
    ("a", "e\u0301"),
    ("a", "1"),
    ("a", "01"),
    ("bc", "a"),
    ("x" * 1000, "y" * 1000),
    ("x" * 1000, "y" * 999),
]


class NameCases(EventStorageSetting):
    """Which names are told apart, and which are allowed: all."""

    @EACH_NAME
    async def test_any_text_names_a_stream_and_a_category(self, adapter: EventStorageAdapter, name: str) -> None:
        before = await read(adapter)
        target = StreamIdentifier(name, name)
        others = await stored_in(adapter, stream(), StreamIdentifier(name, "other"), StreamIdentifier("other", name))

        stored = await adapter.save(target=target, events=new_events(2), condition=stream_is_empty())

        assert {(event.category, event.stream) for event in stored} == {(name, name)}
        assert await read(adapter, target) == list(stored)
        assert await read(adapter, target, backwards=True, limit=1) == [stored[1]]
        assert await read(adapter, CategoryIdentifier(name)) == [others[1], *stored]
        assert await adapter.latest(target=target) == stored[1]
        assert await adapter.latest(target=CategoryIdentifier(name)) == stored[1]
        assert await read(adapter) == [*before, *others, *stored]

    @EACH_NAME
    async def test_any_text_names_the_streams_of_a_publish_to_many(
        self, adapter: EventStorageAdapter, name: str
    ) -> None:
        in_category = await adapter.save(
            target=CategoryIdentifier(name), streams={name: {"events": new_events(1), "condition": stream_is_empty()}}
        )
        target = StreamIdentifier(name, name)
        in_log = await adapter.save(
            target=LOG, streams={target: {"events": new_events(1), "condition": position_is(0)}}
        )

        assert await read(adapter, target) == [*in_category[name], *in_log[target]]

    @EACH_NAME
    async def test_errors_come_through_with_any_name(self, adapter: EventStorageAdapter, name: str) -> None:
        target = StreamIdentifier(name, name)
        (stored,) = await adapter.save(target=target, events=new_events(1))

        with pytest.raises(UnmetWriteConditionError) as unmet:
            await adapter.save(target=target, events=new_events(1), condition=stream_is_empty())
        with pytest.raises(DuplicateEventError) as duplicate:
            await adapter.save(target=stream(), events=[new_event(id=stored.id)])

        assert (unmet.value.stream, unmet.value.actual_position) == (target, 0)
        assert duplicate.value.event_ids == (stored.id,)

    async def test_any_text_names_an_event(self, adapter: EventStorageAdapter) -> None:
        names = [*NAMES.values(), "é" * 5_000]

        await adapter.save(target=stream(), events=[new_event(name) for name in names])

        assert [event.name for event in await read(adapter)] == names

    async def test_a_member_of_an_enum_names_what_its_text_names(self, adapter: EventStorageAdapter) -> None:
        known = await stored_in(adapter, StreamIdentifier("orders", "placed"))

        target = StreamIdentifier(Name.ORDERS, Name.PLACED)
        (in_stream,) = await adapter.save(target=target, events=new_events(1), condition=position_is(0))
        in_category = await adapter.save(
            target=CategoryIdentifier(Name.ORDERS), streams={Name.PLACED: {"events": new_events(1)}}
        )

        found = await read(adapter, CategoryIdentifier("orders"))
        assert found == [*known, in_stream, *in_category[Name.PLACED]]
        for event in (in_stream, *in_category[Name.PLACED], *found):
            assert (type(event.category), type(event.stream)) == (str, str)

    async def test_names_that_look_alike_are_told_apart(self, adapter: EventStorageAdapter) -> None:
        targets = [StreamIdentifier(category, name) for category, name in LOOKALIKES]
        streams = {target: await stored_in(adapter, target) for target in targets}

        for target, events in streams.items():
            assert [event.position for event in events] == [0]
            assert await read(adapter, target) == events
        for category in {target.category for target in targets}:
            expected = [event for target in targets if target.category == category for event in streams[target]]
            assert await read(adapter, CategoryIdentifier(category)) == expected

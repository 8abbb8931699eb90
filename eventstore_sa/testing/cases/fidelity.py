"""Cases: what comes back is what was published: JSON values of the same type, instants, and the caller's own objects.

Reads return copies that belong to the reader alone.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any, cast
from uuid import UUID

from eventstore_sa.store.adapters.event_contract import EventStorageAdapter
from eventstore_sa.testing.cases.setting import LOG, ORDERS, EventStorageSetting, new_event, read, stream
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import EARLIEST_TIME, LATEST_TIME, MAX_NAME_BYTES, MAX_TAGS

__all__ = ["FidelityCases"]


def nested(depth: int) -> Any:
    """Return arrays and objects in one another."""
    return 0 if not depth else [nested(depth - 1)] if depth % 2 else {"deeper": nested(depth - 1)}


class OtherDatetime(datetime):
    """A datetime of a library's own, as pendulum and freezegun have."""


JSON_VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "empty object": {},
    "empty array": [],
    "empty string": "",
    "nested": {"a": [{"b": [[], {}, [None, {"c": {"d": [1, [2, [3]]]}}]]}], "e": {"": {"": ""}}},
    "nested 180 deep": nested(180),
    "null in containers": {"a": None, "b": [None, None], "c": {"d": None}},
    "booleans beside numbers": [True, 1, 1.0, False, 0, 0.0],
    "whole floats": [1.0, -1.0, 100.0, 1e15, 123456789012345.0],
    "64-bit limits": [2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64],
    "beyond 64 bits": [2**53 + 1, 2**65, -(2**200), 10**400],
    "floats": [0.1, 0.1 + 0.2, 1 / 3, math.pi, -2.5e-7, 123456789.123456789],
    "large floats": [1e16, 1e17, 2.0**63, 1e100, -1e300, 1.7976931348623157e308],
    "small floats": [1e-7, 5e-324, 2.2250738585072014e-308, -1e-300],
    "float and integer of the same value": [1e16, 10**16, 2.0**64, 2**64],
    "negative zero": [-0.0],
    "unicode": "Grüße, Ελλάδα, Привет, 你好, こんにちは, עברית, \u202eright to left",
    "emoji": {"🎉": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽"},
    "combining characters": ["é", "e\u0301"],
    "separators": "\u2028 \u2029 \x85 \ufeff \uffff \U0010ffff",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f",
    "whitespace": "  leading, \t inner \r\n and trailing \n ",
    "long string": "x" * 100_000 + "é" * 10_000,
    "long array": list(range(5_000)),
    "many keys": {f"key {number}": number for number in range(2_000)},
    "quotes": {"'": "'", '"': '"', "''": "it's", "`": "`", '"a"': "'b'"},
    "percent signs": {"%": "%", "%s": "%s %%", "%(name)s": "%(value)s", "100%": "LIKE '%a_b%'"},
    "colons": {":": ":", ":name": ":value", "::": "::jsonb", "a:b": "12:30:00"},
    "dollars": {"$": "$", "$1": "$2", "$$": "$body$ $$", "$.a[0]": "$.b"},
    "backslashes": {"\\": "\\", "\\\\": "\\u0000", "\\n": '\\"', "C:\\": "\\'"},
    "braces": {"{}": "{0}", "{name}": "${name}", "{{": "}}"},
    "strings that look like JSON": ["null", "true", "12", "1e5", '"x"', '{"a": 1}', "[]", "NaN", "Infinity"],
    "strings that look like SQL": ["'; DROP TABLE es_events; --", "NULL", "1 OR 1=1", "/* */", "E'\\x'", "?", "??"],
    "keys that look like ours": {"payload": 1, "metadata": 2, "id": 3, "position": 4, "type": "log", "events": []},
    "keys that differ in little": {"a": 1, "A": 2, " a": 3, "a ": 4, "á": 5, "a\u0301": 6, "1": 7, "01": 8, "1.0": 9},
    "prototype keys": {"__class__": 1, "__proto__": 2, "constructor": 3},
}
INSTANTS: dict[str, datetime] = {
    "microseconds": datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC),
    "one microsecond": datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    "last microsecond": datetime(2024, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "whole seconds": datetime(2024, 6, 1, 12, tzinfo=UTC),
    "east": datetime(2024, 6, 1, 12, 30, 0, 500, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    "west": datetime(2024, 6, 1, 22, 30, tzinfo=timezone(timedelta(hours=-11))),
    "an odd offset": datetime(1890, 6, 1, 12, tzinfo=timezone(timedelta(minutes=19, seconds=32))),
    "of a subclass, in UTC": OtherDatetime(2024, 6, 1, 12, 30, 0, 500, tzinfo=UTC),
    "of a subclass, whole seconds east": OtherDatetime(2024, 6, 1, 12, tzinfo=timezone(timedelta(hours=5))),
    "before the epoch": datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "the first that can be stored": EARLIEST_TIME,
    "the last that can be stored": LATEST_TIME,
    "the first, far west": EARLIEST_TIME.astimezone(timezone(timedelta(hours=-15, minutes=-59, seconds=-59))),
    "the last, far east": LATEST_TIME.astimezone(timezone(timedelta(hours=15, minutes=59, seconds=59))),
    "year 1": datetime(1, 6, 1, 12, tzinfo=UTC),
    "year 9999": datetime(9999, 6, 1, 12, 0, 0, 1, tzinfo=UTC),
}

TAGS: dict[str, set[str]] = {
    "none": set(),
    "one": {"course:c1"},
    "several": {"course:c1", "student:s1", "course:c2"},
    "many": {f"number:{number}" for number in range(MAX_TAGS)},
    "long": {"x" * MAX_NAME_BYTES, "é" * (MAX_NAME_BYTES // 2), "🎉" * (MAX_NAME_BYTES // 4)},
    "that differ in little": {"a", "A", " a", "a ", "á", "a\u0301", "1", "01"},
    "that look like something else": {"null", "[]", '"', "'", "\\", "{a,b}", "%s", ":a", "$1", ",", "\n", "\x7f"},
}


def same_json(left: Any, right: Any) -> bool:
    """Tell whether two JSON values are equal down to their types: 1 is neither 1.0 nor True."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        one, other = cast("dict[str, Any]", left), cast("dict[str, Any]", right)
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(left, list):
        items, others = cast("Sequence[Any]", left), cast("Sequence[Any]", right)
        return len(items) == len(others) and all(map(same_json, items, others))
    return bool(left == right)


class Money:
    """A value that turns itself into JSON."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def serialise(self) -> dict[str, int]:
        """Return it as a JSON object."""
        return {"amount": self.amount}


class EventName(Enum):
    """Names of events."""

    ORDER_PLACED = "order-placed"


class FidelityCases(EventStorageSetting):
    """How exactly events are kept."""

    @in_turn("value", JSON_VALUES)
    async def test_json_comes_back_exactly(self, adapter: EventStorageAdapter, value: Any) -> None:
        await adapter.save(target=stream(), events=[new_event(payload=value, metadata={"copy": value})])

        (event,) = await read(adapter, stream(), backwards=True, limit=1)

        assert same_json(event.payload, value)
        assert same_json(event.metadata, {"copy": value})
        assert await adapter.latest(target=ORDERS) == event

    async def test_metadata_may_be_any_json_value_and_is_none_by_default(self, adapter: EventStorageAdapter) -> None:
        values: list[Any] = [None, {}, [], "", 0, False, "null", [None]]
        await adapter.save(target=stream(), events=[new_event(metadata=value) for value in values])
        await adapter.save(target=stream(), events=[new_event()])

        events = await read(adapter)

        assert all(same_json(event.metadata, value) for event, value in zip(events, [*values, None], strict=True))

    async def test_a_missing_key_is_not_null(self, adapter: EventStorageAdapter) -> None:
        await adapter.save(target=stream(), events=[new_event(payload={"a": None}), new_event(payload={})])

        with_null, without = await read(adapter)

        assert "a" in with_null.payload
        assert "a" not in without.payload

    @in_turn("instant", INSTANTS)
    async def test_times_come_back_as_the_same_instants_in_utc(
        self, adapter: EventStorageAdapter, instant: datetime
    ) -> None:
        other = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)
        events = [new_event(observed_at=instant, occurred_at=other), new_event(observed_at=other, occurred_at=instant)]

        stored = await adapter.save(target=stream(), events=events)

        for found in (list(stored), (await read(adapter))[-2:]):
            times = [(event.observed_at, event.occurred_at) for event in found]
            assert times == [(instant, other), (other, instant)]
            assert {time.utcoffset() for pair in times for time in pair} == {timedelta(0)}

    @in_turn("tags", TAGS)
    async def test_tags_come_back_as_a_set(self, adapter: EventStorageAdapter, tags: set[str]) -> None:
        events = [new_event(tags=tags), new_event(), new_event(tags=tags)]

        stored = await adapter.save(target=stream(), events=events)

        for found in (list(stored), (await read(adapter))[-3:]):
            assert [event.tags for event in found] == [tags, frozenset(), tags]
            assert {type(event.tags) for event in found} == {frozenset}
        assert await adapter.latest(target=ORDERS) == stored[-1]

    @in_turn("version", [1, 2, 3, 2**31 - 1])
    async def test_the_version_of_the_type_comes_back(self, adapter: EventStorageAdapter, version: int) -> None:
        stored = await adapter.save(target=stream(), events=[new_event(version=version), new_event()])

        for found in (list(stored), (await read(adapter))[-2:]):
            assert [event.version for event in found] == [version, 1]
            assert {type(event.version) for event in found} == {int}

    async def test_the_result_of_a_publish_carries_the_objects_of_the_caller(
        self, adapter: EventStorageAdapter
    ) -> None:
        event = new_event(EventName.ORDER_PLACED, payload={"price": Money(12)}, metadata=[Money(1)])

        (stored,) = await adapter.save(target=stream("1"), events=[event])

        assert stored.name is EventName.ORDER_PLACED
        assert stored.payload is event.payload
        assert stored.metadata is event.metadata

    async def test_the_result_of_a_publish_to_many_carries_the_objects_of_the_caller(
        self, adapter: EventStorageAdapter
    ) -> None:
        one, other = new_event(), new_event()

        in_category = await adapter.save(target=ORDERS, streams={"1": {"events": [one]}})
        in_log = await adapter.save(target=LOG, streams={stream("2"): {"events": [other]}})

        assert in_category["1"][0].payload is one.payload
        assert in_log[stream("2")][0].payload is other.payload

    async def test_what_is_read_depends_on_no_driver(self, adapter: EventStorageAdapter) -> None:
        await adapter.save(target=stream(), events=[new_event()])

        (found,) = await read(adapter)

        assert type(found.id) is UUID
        assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301 - made here

    async def test_reads_return_plain_json(self, adapter: EventStorageAdapter) -> None:
        event = new_event(EventName.ORDER_PLACED, payload={"price": Money(12)}, metadata=(1, 2))
        await adapter.save(target=stream(), events=[event])

        (found,) = await read(adapter)

        assert (type(found.name), found.name) == (str, "order-placed")
        assert same_json(found.payload, {"price": {"amount": 12}})
        assert same_json(found.metadata, [1, 2])

    async def test_changing_what_was_published_changes_nothing_stored(self, adapter: EventStorageAdapter) -> None:
        payload: dict[str, Any] = {"items": [1]}
        metadata: dict[str, Any] = {"by": "someone"}
        (stored,) = await adapter.save(target=stream(), events=[new_event(payload=payload, metadata=metadata)])

        payload["items"].append(2)
        metadata["by"] = "someone else"
        stored.payload["more"] = True

        (found,) = await read(adapter)
        assert (found.payload, found.metadata) == ({"items": [1]}, {"by": "someone"})

    async def test_changing_what_was_read_changes_nothing_stored(self, adapter: EventStorageAdapter) -> None:
        await adapter.save(target=stream(), events=[new_event(payload={"items": [1]}, metadata={"by": "someone"})])

        for target in (LOG, ORDERS, stream()):
            for found in (*await read(adapter, target), await adapter.latest(target=target)):
                assert found is not None
                assert (found.payload, found.metadata) == ({"items": [1]}, {"by": "someone"})
                found.payload["items"].append(2)
                found.metadata.clear()

        (found,) = await read(adapter)
        assert (found.payload, found.metadata) == ({"items": [1]}, {"by": "someone"})

    async def test_changing_what_a_repeated_publish_returned_changes_nothing_stored(
        self, adapter: EventStorageAdapter
    ) -> None:
        event = new_event(payload={"items": [1]})
        await adapter.save(target=stream(), events=[event])

        (repeated,) = await adapter.save(target=stream(), events=[new_event(id=event.id, payload={"items": [2]})])
        repeated.payload["items"].append(3)

        assert (await read(adapter))[0].payload == {"items": [1]}

"""Cases: tags are kept as they are, and queries find the events that match them, whatever streams they are in.

Which events match is said by `EventQuery.met_by`; every adapter must agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from eventstore_sa.sources.constraints import (
    QueryConstraint,
    name_in,
    occurred_between,
    position_after,
    position_before,
    sequence_number_after,
    sequence_number_before,
)
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter
from eventstore_sa.testing.cases.setting import (
    LOG,
    ORDERS,
    EventStorageSetting,
    belongs,
    new_event,
    read,
    scanned,
    stream,
)
from eventstore_sa.testing.cases.tables import case, in_turn
from eventstore_sa.types import (
    MAX_NAME_BYTES,
    MAX_TAGS,
    AnyStoredEvent,
    EventQuery,
    QueryIdentifier,
    QueryItem,
    QueryPartitionIdentifier,
)

__all__ = ["TagCases"]

TAGS: dict[str, set[str]] = {
    "none": set(),
    "one": {"course:c1"},
    "several": {"course:c1", "student:s1", "course:c2"},
    "many": {f"number:{number}" for number in range(MAX_TAGS)},
    "long": {"x" * MAX_NAME_BYTES, "é" * (MAX_NAME_BYTES // 2), "🎉" * (MAX_NAME_BYTES // 4)},
    "that differ in little": {"a", "A", " a", "a ", "á", "a\u0301", "1", "01"},
    "that look like something else": {"null", "[]", '"', "'", "\\", "{a,b}", "%s", ":a", "$1", ",", "\n", "\x7f"},
}
HOSTILE = TAGS["that differ in little"] | TAGS["that look like something else"]

COURSE, STUDENT = QueryItem(tags=["course:1"]), QueryItem(tags=["student:2"])
BOTH = QueryItem(tags=["course:1", "student:2"])
QUERIES: Mapping[str, EventQuery] = {
    "a tag": EventQuery([COURSE]),
    "a tag of all": EventQuery.tagged("term:1"),
    "a tag of none": EventQuery.tagged("course:unknown"),
    "tags": EventQuery([BOTH]),
    "tags of which one is of none": EventQuery.tagged("course:1", "course:unknown"),
    "tags of which one is of all": EventQuery.tagged("student:2", "term:1", "course:1"),
    "a tag and names": EventQuery([QueryItem(names=["joined", "left"], tags=["course:1"])]),
    "tags and a name": EventQuery([QueryItem(names=["left"], tags=["course:1", "student:2"])]),
    "a tag and unknown names": EventQuery([QueryItem(names=["Joined", "unknown"], tags=["course:1"])]),
    "a name": EventQuery([QueryItem(names=["opened"])]),
    "unknown names": EventQuery([QueryItem(names=["Opened", "it's"])]),
    "two tags": EventQuery([COURSE, STUDENT]),
    "items that overlap": EventQuery(
        [BOTH, COURSE, QueryItem(names=["left"]), QueryItem(tags=["term:1", "student:2"])]
    ),
    "items with a name and a tag": EventQuery(
        [QueryItem(names=["opened"]), QueryItem(names=["left"], tags=["student:2"])]
    ),
    "many items": EventQuery([QueryItem(tags=[f"student:{number}"]) for number in range(50)]),
    "everything": EventQuery.all(),
    "everything and more": EventQuery([COURSE, QueryItem()]),
}


async def subscribed(adapter: EventStorageAdapter) -> list[AnyStoredEvent]:
    """Publish events of three names to streams of two categories, with and without tags."""
    stored: list[AnyStoredEvent] = []
    for number in range(30):
        tags = {f"course:{number % 3}", f"student:{number % 4}"} if number % 5 else set[str]()
        event = new_event(("opened", "joined", "left")[number % 7 % 3], tags=tags | {"term:1"})
        stored += await adapter.save(
            target=stream(str(number % 2), ("orders", "courses")[number % 3 % 2]), events=[event]
        )
        stored += await adapter.save(target=stream(), events=[new_event("left")] * (number % 6 == 0))
    return stored


class TagCases(EventStorageSetting):
    """What tags and queries are worth."""

    @pytest.fixture(autouse=True)
    def _only_with_tags(self) -> None:
        if not self.keeps_tags:
            pytest.skip("this adapter keeps no tags")

    @in_turn("tags", TAGS)
    async def test_tags_come_back_as_a_set(self, adapter: EventStorageAdapter, tags: set[str]) -> None:
        events = [new_event(tags=tags), new_event(), new_event(tags=tags)]

        stored = await adapter.save(target=stream(), events=events)

        for found in (list(stored), (await read(adapter))[-3:]):
            assert [event.tags for event in found] == [tags, frozenset(), tags]
            assert {type(event.tags) for event in found} == {frozenset}
        assert await adapter.latest(target=ORDERS) == stored[-1]

    async def test_tags_and_version_are_those_of_the_first_publish(self, adapter: EventStorageAdapter) -> None:
        event = new_event(tags={"course:c1"}, version=2)
        (stored,) = await adapter.save(target=stream(), events=[event])

        for tags, version in (({"course:c1"}, 2), ({"course:c2"}, 3), (set[str](), 1)):
            again = new_event(id=event.id, payload=event.payload, tags=tags, version=version)
            assert list(await adapter.save(target=stream(), events=[again])) == [stored]

        assert await read(adapter) == [stored]

    async def test_queries_return_what_matches_in_all_the_ways_of_the_log(self, adapter: EventStorageAdapter) -> None:
        stored = await subscribed(adapter)
        middle = stored[len(stored) // 2].sequence_number
        constraints: Sequence[Sequence[QueryConstraint]] = (
            (),
            (sequence_number_after(middle),),
            (sequence_number_before(middle), name_in(["joined", "opened"])),
            (sequence_number_after(stored[3].sequence_number), sequence_number_before(stored[-2].sequence_number)),
            (position_after(2), position_before(9), occurred_between(stored[4].occurred_at, None)),
        )

        for key, query in QUERIES.items():
            with case(key):
                for demanded in constraints:
                    await self.assert_returns_what_matches(adapter, stored, query, *demanded)
                matching = [event for event in stored if query.met_by(event=event)]
                assert await adapter.latest(target=query) == (matching[-1] if matching else None)

    async def assert_returns_what_matches(
        self,
        adapter: EventStorageAdapter,
        stored: Sequence[AnyStoredEvent],
        target: QueryIdentifier,
        *constraints: QueryConstraint,
    ) -> None:
        """Read a query with constraints, if thorough in two ways and else in one, and compare with what matches."""
        own = [event for event in stored if belongs(event, target)]
        expected = [event for event in own if all(constraint.met_by(event=event) for constraint in constraints)]
        ways = [(False, None), (True, 2)]
        for backwards, limit in ways if self.thorough else [self.random.choice(ways)]:
            ordered = expected[::-1] if backwards else expected
            found = await scanned(adapter, target, set(constraints), limit=limit, backwards=backwards)
            assert found == ordered[:limit], (target, constraints, limit, backwards)

    @in_turn("query", QUERIES)
    async def test_queries_of_an_empty_store_are_empty(self, adapter: EventStorageAdapter, query: EventQuery) -> None:
        assert await read(adapter, query) == []
        assert await adapter.latest(target=query) is None

    async def test_parts_of_a_query_hold_each_event_of_it_once(self, adapter: EventStorageAdapter) -> None:
        stored = await subscribed(adapter)

        for key in ("a tag", "tags", "two tags", "a name", "everything"):
            with case(key):
                parts = [QueryPartitionIdentifier(QUERIES[key], part, 3) for part in range(3)]
                for part in parts:
                    await self.assert_returns_what_matches(adapter, stored, part)
                    await self.assert_returns_what_matches(adapter, stored, part, sequence_number_after(9))
                    own = [event for event in stored if belongs(event, part)]
                    assert await adapter.latest(target=part) == (own[-1] if own else None)
                together = [event for part in parts for event in await read(adapter, part)]
                matching = [event for event in stored if QUERIES[key].met_by(event=event)]
                assert sorted(together, key=lambda event: event.sequence_number) == matching

    async def test_tags_are_compared_exactly(self, adapter: EventStorageAdapter) -> None:
        stored = list(await adapter.save(target=stream(), events=[new_event(tags={tag}) for tag in sorted(HOSTILE)]))

        for event in stored:
            assert await read(adapter, EventQuery.tagged(*event.tags)) == [event]

    async def test_names_of_a_query_are_compared_exactly(self, adapter: EventStorageAdapter) -> None:
        names = sorted(HOSTILE)
        stored = list(await adapter.save(target=stream(), events=[new_event(name, tags={"a"}) for name in names]))

        for event in stored:
            for tags in ({"a"}, set[str]()):
                assert await read(adapter, EventQuery([QueryItem(names=[event.name], tags=tags)])) == [event]

    async def test_queries_go_through_thousands_of_events(self, adapter: EventStorageAdapter) -> None:
        events = [
            new_event(("even", "odd")[number % 2], tags={"all", f"half:{number // 2 % 2}", f"tenth:{number % 10}"})
            for number in range(2100)
        ]
        stored = list(await adapter.save(target=stream(), events=events))

        for query in (
            EventQuery.tagged("all", "half:1"),
            EventQuery([QueryItem(names=["odd"], tags=["all"])]),
            EventQuery([QueryItem(tags=["half:1"]), QueryItem(names=["odd"], tags=["tenth:3"])]),
        ):
            matching = [event for event in stored if query.met_by(event=event)]
            assert len(matching) > 1000
            assert await read(adapter, query) == matching
            assert await read(adapter, query, backwards=True, limit=1001) == matching[:-1002:-1]
            names = {name_in(["odd"])}
            assert await scanned(adapter, query, names) == [event for event in matching if event.name == "odd"]

    async def test_a_query_finds_what_several_streams_get_at_once(self, adapter: EventStorageAdapter) -> None:
        definitions: Any = {
            stream("1"): {"events": [new_event(tags={"a"}), new_event(), new_event(tags={"a", "b"})]},
            stream("2", "courses"): {"events": [new_event(tags={"b"}), new_event(tags={"a"})]},
        }

        results = await adapter.save(target=LOG, streams=definitions)

        stored = [event for events in results.values() for event in events]
        assert await read(adapter, EventQuery.tagged("a")) == [event for event in stored if "a" in event.tags]
        assert await read(adapter, EventQuery.tagged("a", "b")) == [stored[2]]

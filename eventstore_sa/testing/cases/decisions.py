"""Cases: conditions on events of queries, whatever stream they are in, and the decisions that remember such events."""

from __future__ import annotations

from uuid import uuid4

import pytest
from msgspec.structs import replace

from eventstore_sa.conditions import (
    NoEventMatchesCondition,
    WriteCondition,
    no_event_matches,
    position_is,
    stream_exists,
    stream_is_empty,
)
from eventstore_sa.errors import ConfigurationError, UnmetWriteConditionError
from eventstore_sa.store.adapters.event_contract import AnyStreamPublishDefinition, EventStorageAdapter
from eventstore_sa.testing.cases.setting import ORDERS, EventStorageSetting, new_event, read, stream
from eventstore_sa.testing.cases.tables import case
from eventstore_sa.types import EventQuery, NewEvent, QueryItem

__all__ = ["QueryConditionCases"]

COURSE = QueryItem(tags=["course:c1"])
BOTH = QueryItem(tags=["course:c1", "student:s1"])
LEFT = QueryItem(names=["left"], tags=["course:c1"])
CLOSED = QueryItem(names=["closed"])


def tagged(name: str, *tags: str) -> NewEvent:
    """Make an event with tags."""
    return new_event(name, tags=tags)


def none_of(*items: QueryItem) -> WriteCondition:
    """Demand that no event matches any of these items."""
    return no_event_matches(EventQuery(items))


class QueryConditionCases(EventStorageSetting):
    """What conditions on events of queries let through."""

    async def is_met(self, adapter: EventStorageAdapter, condition: WriteCondition) -> bool:
        """Try a condition by a publish without events to an empty stream."""
        try:
            await adapter.save(target=stream("empty"), events=[], condition=condition)
        except UnmetWriteConditionError:
            return False
        return True

    async def test_conditions_on_queries_are_met_while_nothing_matches(self, adapter: EventStorageAdapter) -> None:
        if not self.checks_queries:
            with pytest.raises(ConfigurationError):
                await adapter.save(target=stream(), events=[], condition=none_of(COURSE))
            return
        await adapter.save(
            target=stream("a"),
            events=[tagged("joined", "course:c1", "student:s2"), tagged("left", "course:c2", "student:s1")],
        )
        await adapter.save(target=stream("b", "else"), events=[new_event("opened")])

        for condition, met in (
            (none_of(COURSE), False),
            (none_of(BOTH), True),
            (none_of(LEFT), True),
            (none_of(CLOSED), True),
            (none_of(QueryItem(names=["opened"])), False),
            (none_of(QueryItem(names=["opened", "closed"])), False),
            (none_of(QueryItem(names=["opened", "closed"], tags=["course:c1"])), True),
            (none_of(BOTH, LEFT, CLOSED), True),
            (none_of(BOTH, COURSE), False),
            (none_of(BOTH) & none_of(COURSE), False),
            (none_of(BOTH) | none_of(COURSE), True),
            (none_of(COURSE) | none_of(QueryItem(names=["opened"])), False),
            (none_of(BOTH) & stream_is_empty(), True),
            (none_of(BOTH) & stream_exists(), False),
            (none_of(BOTH) & position_is(3), False),
            (none_of(COURSE) | stream_is_empty(), True),
            (none_of(COURSE) | stream_exists(), False),
            ((none_of(COURSE) & stream_is_empty()) | (none_of(BOTH) & stream_exists()), False),
            ((none_of(BOTH) & stream_is_empty()) | (none_of(COURSE) & stream_exists()), True),
            (no_event_matches(EventQuery.all()), False),
            (none_of(QueryItem(tags=["course:C1"])), True),
        ):
            with case(condition):
                assert await self.is_met(adapter, condition) == met

    async def test_conditions_on_queries_count_only_events_after_a_number(self, adapter: EventStorageAdapter) -> None:
        if not self.checks_queries:
            return
        first, second = await adapter.save(
            target=stream("a"), events=[tagged("joined", "course:c1"), tagged("left", "course:c1")]
        )
        between, last = first.sequence_number, second.sequence_number

        for condition, met in (
            (no_event_matches(EventQuery([COURSE]), after=last), True),
            (no_event_matches(EventQuery([COURSE]), after=between), False),
            (no_event_matches(EventQuery([LEFT]), after=between), False),
            (no_event_matches(EventQuery([QueryItem(names=["joined"])]), after=between), True),
            (no_event_matches(EventQuery.all(), after=last), True),
            (no_event_matches(EventQuery.all(), after=2**62), True),
            (no_event_matches(EventQuery.all(), after=2**63), True),
            (no_event_matches(EventQuery([COURSE]), after=2**64), True),
            (NoEventMatchesCondition(COURSE, last, second.id), True),
            (NoEventMatchesCondition(COURSE, between, first.id), False),
        ):
            with case(condition):
                assert await self.is_met(adapter, condition) == met

    async def test_a_last_event_that_is_not_there_any_more_leaves_the_condition_unmet(
        self, adapter: EventStorageAdapter
    ) -> None:
        if not self.checks_queries:
            return
        (stored,) = await adapter.save(target=stream("a"), events=[tagged("joined", "course:c1")])
        number = stored.sequence_number

        for condition in (
            NoEventMatchesCondition(COURSE, number, uuid4()),
            NoEventMatchesCondition(COURSE, number + 1, uuid4()),
            NoEventMatchesCondition(COURSE, number + 1, stored.id),
            NoEventMatchesCondition(COURSE, 2**62, stored.id),
        ):
            with case(condition):
                assert not await self.is_met(adapter, condition)

    async def test_tags_that_are_added_to_stored_events_begin_another_epoch(self, adapter: EventStorageAdapter) -> None:
        if not self.keeps_tags:
            return
        first, last = await adapter.save(
            target=stream("a"), events=[new_event("joined"), tagged("joined", "course:c1", "student:s1")]
        )
        added = {first.sequence_number: frozenset(COURSE.tags), last.sequence_number: frozenset(COURSE.tags)}
        if not self.adds_tags:
            with pytest.raises(ConfigurationError):
                await adapter.add_tags(added)
            return
        before = await adapter.tags_epoch(current=True)

        assert await adapter.add_tags(added) == 1

        epoch = await adapter.tags_epoch(current=True)
        assert epoch != before
        assert await read(adapter) == [replace(first, tags=COURSE.tags), last]
        assert await adapter.add_tags(added) == 0
        assert await adapter.tags_epoch(current=True) == epoch
        if self.checks_queries:
            assert [each.id for each in await read(adapter, EventQuery([COURSE]))] == [first.id, last.id]
            for remembered, met in ((before, False), (epoch, True), (None, True)):
                condition = NoEventMatchesCondition(COURSE, last.sequence_number, last.id, remembered)
                with case(condition):
                    assert await self.is_met(adapter, condition) == met

    async def test_what_a_publish_stores_does_not_fail_its_own_condition(self, adapter: EventStorageAdapter) -> None:
        if not self.checks_queries:
            return
        stored = await adapter.save(
            target=stream(),
            events=[tagged("joined", "course:c1"), tagged("left", "course:c1")],
            condition=none_of(COURSE),
        )

        assert await read(adapter) == list(stored)
        with pytest.raises(UnmetWriteConditionError):
            await adapter.save(target=stream("b"), events=[tagged("joined", "course:c1")], condition=none_of(COURSE))
        assert await read(adapter) == list(stored)

    async def test_conditions_of_later_streams_count_the_events_of_earlier_ones(
        self, adapter: EventStorageAdapter
    ) -> None:
        if not self.checks_queries:
            return
        rows: list[tuple[list[str], list[str], bool]] = [
            ([], ["course"], False),
            ([], ["course", "student"], False),
            (["joined"], ["course"], False),
            (["left"], ["course"], True),
            ([], ["course", "teacher"], True),
        ]
        for number, (names, tags, met) in enumerate(rows):
            with case((names, tags)):
                condition = none_of(QueryItem(names=names, tags=[f"{tag}:{number}" for tag in tags]))
                joined = [tagged("joined", f"course:{number}", f"student:{number}")]
                streams: dict[str, AnyStreamPublishDefinition] = {
                    f"a{number}": {"events": joined},
                    f"b{number}": {"events": [new_event()], "condition": condition},
                }
                if met:
                    await adapter.save(target=ORDERS, streams=streams)
                else:
                    with pytest.raises(UnmetWriteConditionError) as caught:
                        await adapter.save(target=ORDERS, streams=streams)
                    assert caught.value.stream == stream(f"b{number}")
                assert len(await read(adapter, stream(f"a{number}"))) == met

    async def test_an_unmet_condition_on_a_query_says_which_events_it_does_not_allow(
        self, adapter: EventStorageAdapter
    ) -> None:
        if not self.checks_queries:
            return
        (stored,) = await adapter.save(target=stream("a"), events=[tagged("left", "course:c1", "student:s1")])

        with pytest.raises(UnmetWriteConditionError, match="no event 'left' tagged 'course:c1'") as caught:
            await adapter.save(target=stream("b"), events=[new_event()], condition=none_of(LEFT))

        assert (caught.value.stream, caught.value.actual_position) == (stream("b"), None)
        assert await read(adapter) == [stored]

    async def test_a_repeated_publish_is_recognised_though_its_condition_on_a_query_is_not_met(
        self, adapter: EventStorageAdapter
    ) -> None:
        if not self.checks_queries:
            return
        event = tagged("joined", "course:c1")

        stored = await adapter.save(target=stream(), events=[event], condition=none_of(COURSE))

        assert await adapter.save(target=stream(), events=[event], condition=none_of(COURSE)) == stored

    async def test_of_many_who_claim_the_same_tag_one_succeeds(self, adapter: EventStorageAdapter) -> None:
        if not self.checks_queries:
            return

        async def claim(number: int) -> object:
            return await adapter.save(
                target=stream(str(number)),
                events=[tagged("claimed", "name:ada")],
                condition=none_of(QueryItem(tags=["name:ada"])),
            )

        outcomes = await self.run_concurrently([lambda number=number: claim(number) for number in range(8)])  # type: ignore[misc]

        assert sum(isinstance(outcome, UnmetWriteConditionError) for outcome in outcomes) == len(outcomes) - 1
        assert len(await read(adapter)) == 1

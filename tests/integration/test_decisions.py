"""Decide on the events of queries, and publish if nothing was added to them: at once, staged, within sessions."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore_sa import EventQuery, Projector, QueryItem, StreamIdentifier
from eventstore_sa.conditions import NoEventMatchesCondition, no_event_matches, stream_is_empty
from eventstore_sa.errors import ConfigurationError, UnmetWriteConditionError
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from tests.awaiting import settled
from tests.hosts import Host, each_driver, each_kind_of_driver, new_event

pytestmark = pytest.mark.keeps_connections

SEATS = 2
ONE_OF_EACH = ("sqlite", "postgresql+asyncpg", "postgresql+psycopg2")


class Count(Projector[EventQuery, int, None]):
    """Counts those who have joined and not left."""

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: EventQuery) -> str:
        return source.json()

    def joined(self, state: int, event: Any) -> int:
        return state + 1

    def left(self, state: int, event: Any) -> int:
        return state - 1

    def closed(self, state: int, event: Any) -> int:
        return SEATS


def course(name: str = "c1") -> EventQuery:
    return EventQuery.tagged(f"course:{name}")


def student(name: str = "s1") -> EventQuery:
    return EventQuery.tagged(f"student:{name}")


def joined(course: str = "c1", student: str = "s1", name: str = "joined") -> Any:
    return new_event(name, tags={f"course:{course}", f"student:{student}"})


def enrolment(name: str = "1") -> StreamIdentifier:
    return StreamIdentifier("enrolments", name)


async def join(store: Any, *, stream: str = "1", condition: Any = None, **about: str) -> Any:
    definition = {"events": [joined(**about)]} | ({} if condition is None else {"condition": condition})
    return await settled(store.publish(streams={enrolment(stream): definition}))


@each_kind_of_driver()
async def test_decision_is_made_of_the_events_of_its_query(host: Host) -> None:
    for number, about in enumerate(({}, {"student": "s2"}, {"course": "c2"}, {"student": "s2", "name": "left"})):
        await join(host.store, stream=str(number), **about)

    decision = await settled(host.store.decide(course(), Count()))

    assert decision.state == 1
    assert [(each.item, each.after) for each in decision.items] == [(course().items[0], 4)]


@each_kind_of_driver()
async def test_publish_on_a_decision_is_stored_until_something_is_added_to_it(host: Host) -> None:
    await join(host.store)
    decision = await settled(host.store.decide(course(), Count()))
    same = await settled(host.store.decide(course(), Count()))

    await join(host.store, stream="2", course="c2", condition=decision.unchanged())
    await join(host.store, stream="3", student="s2", condition=decision.unchanged())

    with pytest.raises(UnmetWriteConditionError, match="no event tagged 'course:c1' after number 1"):
        await join(host.store, stream="4", student="s3", condition=same.unchanged())
    assert len(host.ground.names()) == 3


@each_kind_of_driver()
async def test_several_models_are_one_decision_with_a_last_number_for_each_item(host: Host) -> None:
    await join(host.store, student="s2")
    await join(host.store, stream="2", course="c2")
    models = {
        "course": (course(), Count()),
        "student": (student(), Count()),
        "both": (EventQuery([*course().items, *student().items]), Count()),
    }

    decision = await settled(host.store.decide(models))

    assert decision.state == {"course": 1, "student": 1, "both": 2}
    assert sorted((each.item.tags, each.after) for each in decision.items) == [
        (course().items[0].tags, 1),
        (student().items[0].tags, 2),
    ]
    await join(host.store, stream="3", student="s3", course="c3", condition=decision.unchanged())
    await join(host.store, stream="4", condition=decision.unchanged())
    with pytest.raises(UnmetWriteConditionError):
        await join(host.store, stream="5", course="c5", condition=decision.unchanged())


@each_driver(*ONE_OF_EACH)
async def test_event_of_two_items_counts_once_and_in_order_of_numbers(host: Host) -> None:
    await join(host.store)
    await join(host.store, stream="2", student="s2", name="left")

    decision = await settled(
        host.store.decide(EventQuery([*course().items, *student().items, QueryItem(names=["left"])]), Count())
    )

    assert decision.state == 0


@each_kind_of_driver()
async def test_update_of_a_decision_returns_the_new_state_and_the_stored_events(host: Host) -> None:
    async def take_a_seat(number: int) -> Any:
        def decide(taken: int) -> Any:
            if taken >= SEATS:
                return {}
            return {enrolment(str(number)): {"events": [joined(student=f"s{number}")], "condition": stream_is_empty()}}

        return await settled(host.store.update_decision(course(), Count(), decide=decide))

    for expected in (1, 2, 2):
        update = await take_a_seat(expected + len(host.ground.names()))
        assert update.state == expected

    assert update.events == {}
    assert len(host.ground.names()) == SEATS


@each_kind_of_driver()
async def test_update_of_a_decision_tries_again_when_another_was_faster(host: Host) -> None:
    seen: list[Any] = []

    def decide(states: dict[str, int]) -> Any:
        if len(seen) < 2:
            host.ground.publish("joined", stream=f"other-{len(seen)}", tags={"course:c1"})
        seen.append(dict(states))
        return {enrolment(): {"events": [joined()]}, enrolment("2"): {"events": [joined(course="c2")]}}

    update = await settled(
        host.store.update_decision({"course": (course(), Count()), "student": (student(), Count())}, decide=decide)
    )

    assert [states["course"] for states in seen] == [0, 1, 2]
    assert update.state == {"course": 3, "student": 2}
    assert [len(events) for events in update.events.values()] == [1, 1]


@each_driver(*ONE_OF_EACH)
async def test_update_of_a_decision_gives_up_after_so_many_retries(host: Host) -> None:
    def decide(_: int) -> Any:
        host.ground.publish("joined", tags={"course:c1"})
        return {enrolment(): {"events": [joined()]}}

    with pytest.raises(UnmetWriteConditionError):
        await settled(host.store.update_decision(course(), Count(), decide=decide, retries=1))

    assert host.ground.names() == ["joined", "joined"]


@each_driver(*ONE_OF_EACH)
async def test_decider_may_change_its_state_and_the_result_is_made_of_events_alone(host: Host) -> None:
    class Names(Count):
        def initial_state_factory(self) -> Any:
            return []

        def joined(self, state: Any, event: Any) -> Any:
            return [*state, event.name]

    def decide(names: list[str]) -> Any:
        names.append("nonsense")
        return {enrolment(): {"events": [joined()]}}

    update = await settled(host.store.update_decision(course(), Names(), decide=decide))

    assert update.state == ["joined"]


async def test_model_may_change_its_events_without_another_noticing() -> None:
    class Careless(Count):
        def joined(self, state: int, event: Any) -> int:
            event.payload["seats"] += 1
            return int(event.payload["seats"])

    store = SyncEventStore(InMemoryEventStorageAdapter())
    store.publish(streams={enrolment(): {"events": [new_event("joined", payload={"seats": 1}, tags={"course:c1"})]}})

    decision = store.decide({name: (course(), Careless()) for name in ("one", "other")})

    assert decision.state == {"one": 2, "other": 2}


@each_kind_of_driver()
async def test_staged_publishes_on_one_decision_see_each_other(host: Host) -> None:
    async with host.caller() as (session, store):
        decision = await settled(store.decide(course(), Count()))
        for number in (1, 2):
            store.stream(category="enrolments", stream=str(number)).stage(
                events=[joined(student=f"s{number}")], condition=decision.unchanged()
            )
        with pytest.raises(UnmetWriteConditionError) as caught:
            await settled(session.commit())
        await settled(session.rollback())

    assert caught.value.stream == enrolment("2")
    assert host.ground.names() == []


@each_kind_of_driver()
async def test_staged_publish_on_a_decision_is_checked_at_the_commit(host: Host) -> None:
    for interfering in (False, True):
        async with host.caller() as (session, store):
            decision = await settled(host.store.decide(course(), Count()))
            if interfering:
                host.ground.publish("joined", tags={"course:c1"})
            store.stream(category="enrolments", stream=f"{interfering}").stage(
                events=[joined()], condition=decision.unchanged()
            )
            if interfering:
                with pytest.raises(UnmetWriteConditionError):
                    await settled(session.commit())
                await settled(session.rollback())
            else:
                await settled(session.commit())

    assert host.ground.names() == ["joined", "joined"]


@each_kind_of_driver()
async def test_decision_within_a_session_sees_what_the_session_has_published(host: Host) -> None:
    async with host.caller() as (session, store):
        await join(store)
        decision = await settled(store.decide(course(), Count()))
        await join(store, stream="2", condition=decision.unchanged())
        again = await settled(store.decide({"all": (EventQuery([QueryItem(names=["joined"])]), Count())}))
        with pytest.raises(UnmetWriteConditionError):
            await join(store, stream="3", condition=decision.unchanged())
        await join(store, stream="4", condition=again.unchanged())
        await settled(session.commit())

    assert (decision.state, again.state) == (1, {"all": 2})
    assert len(host.ground.names()) == 3


@each_kind_of_driver()
async def test_decision_on_an_event_of_a_savepoint_that_was_rolled_back_is_refused(host: Host) -> None:
    async with host.caller() as (session, store):
        savepoint = await settled(session.begin_nested())
        await join(store)
        decision = await settled(store.decide(course(), Count()))
        await settled(savepoint.rollback())
        await join(store, stream="2", course="c2")

        with pytest.raises(UnmetWriteConditionError):
            await join(store, stream="3", condition=decision.unchanged())
        await settled(session.commit())

    assert host.ground.names() == ["joined"]


@each_driver(*ONE_OF_EACH)
async def test_unmet_decision_leaves_the_transaction_usable_and_no_lock(host: Host) -> None:
    await join(host.store)
    async with host.caller() as (session, store):
        await host.write(session)
        before = await host.locks(session)
        with pytest.raises(UnmetWriteConditionError):
            await join(store, stream="2", condition=no_event_matches(course()) & no_event_matches(student("s2")))
        assert await host.locks(session) == before
        await settled(session.commit())

    assert host.ground.notes() == ["mine"]


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
async def test_decisions_work_in_memory(asynchronous: bool) -> None:
    adapter = InMemoryEventStorageAdapter()
    store: Any = EventStore(adapter) if asynchronous else SyncEventStore(adapter)

    def decide(states: dict[str, int]) -> Any:
        return {enrolment(): {"events": [joined()]}} if states["course"] < SEATS else {}

    models = {"course": (course(), Count()), "student": (student(), Count())}
    results = [(await settled(store.update_decision(models, decide=decide))).state for _ in range(SEATS + 1)]
    decision = await settled(store.decide(course(), Count()))

    assert [state["student"] for state in results] == [1, 2, 2]
    assert decision.state == SEATS
    assert decision.unchanged() == NoEventMatchesCondition(course().items[0], 2, decision.items[0].last_id, "")


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
async def test_what_is_no_decision_is_refused(asynchronous: bool) -> None:
    adapter = InMemoryEventStorageAdapter()
    store: Any = EventStore(adapter) if asynchronous else SyncEventStore(adapter)

    for arguments in (
        (course(),),
        (course(), None),
        (course(), object()),
        ("course:c1", Count()),
        ({},),
        ({"course": course()},),
        ({"course": (course(), None)},),
        ({"course": (course(), Count())}, Count()),
        ([(course(), Count())],),
    ):
        with pytest.raises(ConfigurationError):
            await settled(store.decide(*arguments))
    for decided in (None, [joined()], {enrolment(): [joined()]}, {enrolment(): None}):
        with pytest.raises(ConfigurationError):
            await settled(store.update_decision(course(), Count(), decide=lambda _, decided=decided: decided))
    assert await settled(store.log().latest()) is None

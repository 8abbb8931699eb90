"""Tags for events that were stored without them: what changes, who is refused meanwhile, and who may do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import SQLITE_LIMIT_VARIABLE_NUMBER
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner
from sqlalchemy import select, text
from sqlalchemy.event import listen
from sqlalchemy.exc import DBAPIError

from eventstore_sa import EventQuery, EventStoreSchema, EventTypes, Projector, StreamIdentifier, SyncEventStore, event
from eventstore_sa.cli import main
from eventstore_sa.conditions import ConditionScope, WriteCondition, no_event_matches
from eventstore_sa.errors import ConfigurationError, SerialisationError, TransactionError, UnmetWriteConditionError
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.testing.cases.tables import in_turn
from tests.awaiting import settled
from tests.databases import PostgresDatabase
from tests.hosts import Host, each_driver, each_kind_of_driver, new_event, statements_of
from tests.interleaving import Stage, install_schema, open_stage

ONE_OF_EACH = ("sqlite", "postgresql+asyncpg", "postgresql+psycopg2")
INDEX = EventStoreSchema().event_tags
COURSE = EventQuery.tagged("course:c1")


class Count(Projector[Any, int, None]):
    """Counts events. Its `id_factory` is meant for streams: decisions do not ask for an id."""

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: Any) -> str:
        return str(source.stream)

    def joined(self, state: int, event: Any) -> int:
        return state + 1


@pytest.fixture
def stage(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Stage]:
    with open_stage(make_postgres_database(prepared_by=install_schema)) as opened:
        yield opened


def added_and_then(fail: Callable[[], object]) -> Callable[..., int]:
    """Return what adds tags as ever, and then fails."""
    add_tags = EventRepository.add_tags

    def add(*arguments: Any) -> int:
        amount = add_tags(*arguments)
        fail()
        return amount

    return add


def tags_of(event: Any) -> list[str]:
    return [] if event.payload is None else [f"course:{event.payload}"]


async def join(store: Any, *streams: str, course: str | None = "c1", **options: Any) -> None:
    """Publish an event without tags to each of the streams."""
    for stream in streams:
        target = store.stream(category="enrolments", stream=stream)
        await settled(target.publish(events=[new_event("joined", payload=course)], **options))


@each_kind_of_driver()
async def test_tags_are_added_to_the_events_that_lack_them_and_to_their_index(host: Host) -> None:
    await join(host.store, "1", "2")
    await join(host.store, "3", course=None)
    tagged = new_event("joined", payload="c1", tags={"course:c1", "student:s1"})
    await settled(host.store.stream(category="enrolments", stream="4").publish(events=[tagged]))
    before = await settled(host.store.log().read())
    progress: list[Any] = []

    done = await settled(host.store.backfill_tags(tags_of, batch_size=3, on_progress=progress.append))

    after = await settled(host.store.log().read())
    assert done == (4, 4, 2)
    assert progress == [(3, 3, 2), (4, 4, 2)]
    assert [sorted(each.tags) for each in after] == [["course:c1"], ["course:c1"], [], ["course:c1", "student:s1"]]
    assert [(each.id, each.payload, each.position, each.occurred_at) for each in after] == [
        (each.id, each.payload, each.position, each.occurred_at) for each in before
    ]
    assert await settled(host.store.query(COURSE).read()) == [each for each in after if each.tags]
    with host.ground.outside.connect() as connection:
        entries = [*connection.execute(select(INDEX.c.tag, INDEX.c.sequence_number).order_by(INDEX.c.sequence_number))]
    assert entries == [("course:c1", 1), ("course:c1", 2), ("course:c1", 4), ("student:s1", 4)]
    assert await settled(host.store.backfill_tags(tags_of)) == (4, 4, 0)
    assert await settled(host.store.backfill_tags(lambda event: ["new"], after=3)) == (4, 1, 1)
    with pytest.raises(DBAPIError, match=r"UPDATE.* is forbidden"), host.ground.outside.begin() as connection:
        connection.execute(text("UPDATE es_events SET tags = NULL"))


@each_kind_of_driver()
async def test_decision_from_before_is_refused_and_made_again(host: Host) -> None:
    await join(host.store, "1")
    last = new_event("joined", payload="c1", tags={"course:c1"})
    await settled(host.store.stream(category="enrolments", stream="2").publish(events=[last]))
    decision = await settled(host.store.decide(COURSE, Count()))
    other = await settled(host.store.decide(EventQuery.tagged("course:c2"), Count()))

    await settled(host.store.backfill_tags(tags_of))

    with pytest.raises(UnmetWriteConditionError):
        await join(host.store, "3", condition=decision.unchanged())
    await join(host.store, "4", condition=other.unchanged())
    again = await settled(host.store.decide(COURSE, Count()))
    await join(host.store, "5", condition=again.unchanged())
    assert (decision.state, other.state, again.state) == (1, 0, 2)


@each_driver(*ONE_OF_EACH)
async def test_decision_that_knew_of_no_event_is_refused_when_an_old_one_matches(host: Host) -> None:
    await join(host.store, "1")
    decision = await settled(host.store.decide(COURSE, Count()))

    await settled(host.store.backfill_tags(tags_of))

    for condition in (decision.unchanged(), no_event_matches(COURSE)):
        with pytest.raises(UnmetWriteConditionError):
            await join(host.store, "2", condition=condition)


@each_driver(*ONE_OF_EACH)
async def test_store_that_has_not_heard_of_it_is_refused_once(host: Host) -> None:
    last = new_event("joined", payload="c1", tags={"course:c1"})
    await join(host.store, "1")
    await settled(host.store.stream(category="enrolments", stream="2").publish(events=[last]))
    await settled(host.store.decide(COURSE, Count()))
    with SyncEventStore(host.ground.outside) as elsewhere:
        elsewhere.backfill_tags(tags_of)
    states: list[int] = []

    def decide(state: int) -> dict[StreamIdentifier, Any]:
        states.append(state)
        return {StreamIdentifier("enrolments", "3"): {"events": [new_event("joined", payload="c1")]}}

    await settled(host.store.update_decision(COURSE, Count(), decide=decide))
    await settled(host.store.update_decision(COURSE, Count(), decide=decide))

    assert states == [2, 2, 2]


@each_driver("sqlite", "postgresql+psycopg")
async def test_nothing_of_a_batch_is_changed_if_an_event_cannot_get_its_tags(host: Host) -> None:
    await join(host.store, "1", "2")
    for tags, message in (
        ("one", "tags are passed as a set"),
        ([""], "must not be empty"),
        (map(str, range(101)), "101"),
    ):

        def wrong(event: Any, tags: Any = tags) -> Any:
            return ["fine"] if event.sequence_number == 1 else tags

        with pytest.raises(SerialisationError, match=f"event 2 cannot get its tags: .*{message}"):
            host.store.backfill_tags(wrong)
    assert [each.tags for each in host.store.log().read()] == [frozenset()] * 2


@each_driver("sqlite", "postgresql+psycopg")
async def test_event_whose_name_cannot_be_indexed_gets_no_tags(host: Host) -> None:
    stream = host.store.stream(category="enrolments", stream="1")
    stream.publish(events=[new_event("joined"), new_event("n" * 1001)])

    with pytest.raises(
        SerialisationError, match="event 2 cannot get its tags: the name of an event with tags may be 1000"
    ):
        host.store.backfill_tags(lambda event: ["new"])
    assert host.store.backfill_tags(lambda event: ["new"] if event.name == "joined" else []).changed == 1


async def test_batch_on_sqlite_may_be_larger_than_its_statements(sqlite_ground: Any) -> None:
    host = Host(sqlite_ground, "sqlite")
    await join(host.store, "1", "2")

    def limit(connection: Any, _: object) -> None:
        connection.setlimit(SQLITE_LIMIT_VARIABLE_NUMBER, 1000)

    listen(host.engine, "connect", limit)
    far = {number: frozenset({"new"}) for number in range(1, 2001)}

    assert host.store.adapter.add_tags(far) == 2
    await host.aclose()


@each_driver(*ONE_OF_EACH)
async def test_tags_are_not_added_within_a_session(host: Host) -> None:
    async with host.caller() as (_, store):
        with pytest.raises(TransactionError, match="in transactions of their own"):
            await settled(store.backfill_tags(tags_of))


@in_turn(
    "arguments, message",
    [
        ({}, "takes a function of a stored event"),
        ({"tags_of": ["a"]}, "takes a function of a stored event"),
        ({"tags_of": tags_of, "after": -1}, "after is an integer from 0"),
        ({"tags_of": tags_of, "batch_size": 0}, "batch_size is an integer from 1"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SyncEventStore(InMemoryEventStorageAdapter()).backfill_tags(**arguments)


async def test_memory_adds_tags_and_refuses_decisions_from_before() -> None:
    adapter = InMemoryEventStorageAdapter()
    store = SyncEventStore(adapter)
    await join(store, "1")
    store.stream(category="enrolments", stream="2").publish(
        events=[new_event("joined", payload="c1", tags={"course:c1"})]
    )
    decision = store.decide(COURSE, Count())
    running = iter(store.query(COURSE))

    assert store.backfill_tags(tags_of) == (2, 2, 1)
    assert store.backfill_tags(tags_of) == (2, 2, 0)

    with pytest.raises(UnmetWriteConditionError):
        await join(store, "3", condition=decision.unchanged())
    again = store.decide(COURSE, Count())
    await join(store, "3", condition=again.unchanged())
    assert (len([*running]), again.state) == (1, 2)
    assert [each.stream for each in store.query(COURSE).read()] == ["1", "2"]


async def test_memory_evaluates_a_condition_again_if_tags_were_added_meanwhile() -> None:
    adapter = SyncInMemoryEventStorageAdapter()
    store = SyncEventStore(adapter)
    await join(store, "1")
    evaluated: list[int] = []

    class NobodyHasJoined(WriteCondition, frozen=True):
        scope = ConditionScope.LOG

    def evaluate(_: NobodyHasJoined, context: Any) -> bool:
        evaluated.append(len([*context.scan(COURSE)]))
        store.backfill_tags(tags_of)
        return evaluated[-1] == 0

    adapter.register_condition(NobodyHasJoined, evaluate)

    with pytest.raises(UnmetWriteConditionError):
        await join(store, "2", condition=NobodyHasJoined())
    assert evaluated == [0, 1]


def test_types_say_which_tags_their_events_get() -> None:
    @event("joined", tags=lambda joined: [f"course:{joined.course}"])
    @dataclass
    class Joined:
        course: str

    @event("left")
    @dataclass
    class Left:
        course: str

    adapter = InMemoryEventStorageAdapter()
    old = SyncEventStore(adapter).stream(category="enrolments", stream="1")
    old.publish(events=[new_event(name, payload={"course": "c1"}) for name in ("joined", "left", "lost")])
    store = SyncEventStore(adapter, types=EventTypes(Joined, Left, unknown="keep"))

    assert store.backfill_tags() == (3, 3, 1)
    assert [each.payload for each in store.query(COURSE).read()] == [Joined("c1")]


def test_batch_waits_for_transactions_that_use_tags(stage: Stage) -> None:
    stage.store.stream(category="enrolments", stream="1").publish(events=[new_event("joined", payload="c1")])
    writer = stage.writer()
    writer.store.stream(category="enrolments", stream="2").publish(events=[new_event("joined", tags={"other"})])

    added = stage.in_background(lambda: stage.store.adapter.add_tags({1: frozenset({"course:c1"})}))
    stage.wait_until_blocked()
    writer.commit()

    assert added.result() == 1


def test_only_the_owner_adds_tags(stage: Stage) -> None:
    stage.store.stream(category="enrolments", stream="1").publish(events=[new_event("joined", payload="c1")])
    with stage.engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS es_tags_adder"))
        connection.execute(text("CREATE ROLE es_tags_adder"))
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO es_tags_adder"))
    try:
        adding = stage.writer()
        adding.execute("SET LOCAL ROLE es_tags_adder")
        with pytest.raises(Exception, match="UPDATE on es_events is forbidden"):
            adding.store.adapter.add_tags({1: frozenset({"course:c1"})})
        adding.rollback()
    finally:
        with stage.engine.begin() as connection:
            connection.execute(text("DROP OWNED BY es_tags_adder"))
            connection.execute(text("DROP ROLE es_tags_adder"))


def test_command_adds_the_tags_of_a_function_and_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_tags.py").write_text("def tags_of(event): return [event.stream]\nwrong = 12\n")
    monkeypatch.chdir(tmp_path)
    with SyncEventStore("sqlite:///events.db") as store:
        store.create_schema()
        for stream in "abc":
            store.stream(category="enrolments", stream=stream).publish(events=[new_event("joined")])

        for url in ("sqlite:///events.db", "sqlite+aiosqlite:///events.db"):
            run = CliRunner().invoke(
                main, ["backfill-tags", "shop_tags:tags_of", "-u", url, "--batch-size", "2", "--after", "1"]
            )
            assert run.exit_code == 0, run.output

        assert run.output == "up to 3: 0 of 2 events changed\n"
        assert [sorted(each.tags) for each in store.log().read()] == [[], ["b"], ["c"]]
    for where, url, code in (
        ("shop_tags:wrong", "sqlite:///events.db", 2),
        ("shop_tags:missing", "sqlite:///events.db", 2),
        ("shop_tags:tags_of", "sqlite:///missing.db", 3),
    ):
        assert CliRunner().invoke(main, ["backfill-tags", where, "--url", url]).exit_code == code


@each_driver("postgresql+psycopg")
async def test_decision_asks_for_the_epoch_once_until_tags_are_added(host: Host) -> None:
    await join(host.store, "1")
    host.store.decide(COURSE, Count())

    with statements_of(host.engine) as before:
        host.store.decide(COURSE, Count())
    host.store.backfill_tags(tags_of)
    decision = host.store.decide(EventQuery.tagged("course:c2"), Count())
    with pytest.raises(UnmetWriteConditionError):
        await join(host.store, "2", condition=no_event_matches(COURSE) & decision.unchanged())
    with statements_of(host.engine) as after:
        host.store.decide(COURSE, Count())

    assert [sum("tags_epoch" in each for each in statements) for statements in (before, after)] == [0, 1]


@each_driver("sqlite", "postgresql+psycopg")
async def test_batch_that_fails_half_way_leaves_nothing_and_events_are_protected(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await join(host.store, "1")

    def fail() -> NoReturn:
        raise RuntimeError("the process is about to end")

    with monkeypatch.context() as patch:
        # After the change, before the commit.
        patch.setattr(EventRepository, "add_tags", added_and_then(fail))
        with pytest.raises(RuntimeError):
            host.store.backfill_tags(tags_of)

    assert [each.tags for each in host.store.log().read()] == [frozenset()]
    with pytest.raises(DBAPIError, match="is forbidden"), host.ground.outside.begin() as connection:
        connection.execute(text("UPDATE es_events SET tags = NULL"))
    assert host.store.backfill_tags(tags_of).changed == 1

"""Many that decide on one tag: they queue within a process, and the fourth try excludes those of other processes."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from eventstore_sa import EventQuery, EventStore, QueryItem, StreamIdentifier, SyncEventStore
from eventstore_sa.conditions import no_event_matches
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.persistence.events.document import holding_document
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.store import turns
from eventstore_sa.types import EventTypes, event
from tests.awaiting import settled
from tests.blocking import terminate_others, wait_for_waiting
from tests.databases import PostgresDatabase
from tests.deciding import TAG, Count
from tests.hosts import Host, each_driver, new_event
from tests.interleaving import install_schema
from tests.patience import PATIENCE_S
from tests.preloaded import run_preloaded

EACH_KIND = ("postgresql+asyncpg", "postgresql+psycopg")
COURSE = EventQuery.tagged(TAG)


def joining(stream: object = "1", *, tags: Any = (TAG,)) -> Any:
    return {StreamIdentifier("enrolments", str(stream)): {"events": [new_event("joined", tags=tags)]}}


async def all_at_once(host: Host, works: list[Callable[[], Any]]) -> list[Any]:
    if host.asynchronous:
        return await asyncio.gather(*(work() for work in works))
    with ThreadPoolExecutor(len(works)) as threads:
        return [each.result() for each in [threads.submit(work) for work in works]]


@each_driver(*EACH_KIND)
async def test_decisions_on_one_tag_in_one_process_do_not_race(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do those that differ in names, or in what they decide on besides."""
    monkeypatch.setattr(turns, "_PATIENCE_S", PATIENCE_S)
    engine = host.make_engine(poolclass=None, pool_size=8, max_overflow=8)
    store = host.store_on(engine)
    tries: list[int] = []

    def decide(states: dict[str, int]) -> Any:
        tries.append(states["course"])
        return joining(len(tries), tags=[TAG, "student:a"])

    def update(number: int) -> Any:
        course = COURSE if number % 2 else EventQuery([QueryItem(names=["joined"], tags=[TAG])])
        models = {"course": (course, Count()), "student": (EventQuery.tagged(f"student:{number}"), Count())}
        return store.update_decision(models, decide=decide)

    await all_at_once(host, [partial(update, number) for number in range(8)])

    assert tries == [*range(8)]
    await settled(engine.dispose())


@each_driver(*EACH_KIND)
async def test_decisions_do_not_queue_for_a_tag_that_they_only_depend_on(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as nothing is known, they do."""
    monkeypatch.setattr(turns, "_PATIENCE_S", 2 * PATIENCE_S)
    host.ground.publish("joined", tags={TAG})
    engine = host.make_engine(poolclass=None, pool_size=8, max_overflow=8)
    store = host.store_on(engine)
    met = threading.Barrier(2)

    def order(number: int, *, alone: bool = False) -> Any:
        async def decide(_: int) -> Any:
            return await asyncio.to_thread(decide_sync, _)

        def decide_sync(_: int) -> Any:
            if not alone:
                met.wait(PATIENCE_S)
            return joining(number, tags=())

        return store.update_decision(COURSE, Count(), decide=decide if host.asynchronous else decide_sync)

    await settled(order(0, alone=True))
    await all_at_once(host, [partial(order, 1), partial(order, 2)])

    assert len(host.ground.names()) == 4
    await settled(engine.dispose())


@event("joined", tags=lambda joined: [f"course:{joined.course}"])
class Joined(msgspec.Struct):
    course: str


class Raced:
    """Decides while others are faster three times, and then while another waits."""

    def __init__(self, host: Host, *, tags: Any = (TAG,)) -> None:
        self.seen: list[int] = []
        self.streams: list[str] = []
        self.host = host
        self.tags = tags
        self.other = threading.Thread(target=partial(host.ground.publish, "joined", tags={TAG}, payload="waited"))

    def __call__(self, state: int) -> Any:
        self.seen.append(state)
        if len(self.seen) <= 3:
            self.host.ground.publish("joined", tags={TAG})
        else:
            self.other.start()
            wait_for_waiting(self.host.ground)
        return joining(len(self.seen), tags=self.tags)


@each_driver(*EACH_KIND)
async def test_the_fourth_try_locks_the_tags_so_that_nobody_else_can_be_faster(host: Host) -> None:
    """Those that the decision depends on as well as those that it writes, and to a stream that the last try did not name."""
    for tags in ((TAG, "student:a"), ()):
        engine = host.make_engine(poolclass=None)
        decide = Raced(host, tags=tags)

        update = await settled(host.store_on(engine).update_decision(COURSE, Count(), decide=decide))

        decide.other.join()
        assert (decide.seen, update.state) == ([0, 1, 2, 3], 3 + bool(tags))
        assert len(host.ground.names()) == 5
        host.ground.empty()
        await settled(engine.dispose())


@each_driver("postgresql+psycopg", "postgresql+asyncpg")
async def test_the_fourth_try_locks_the_tags_of_objects_of_event_types(host: Host) -> None:
    engine = host.make_engine(poolclass=None)
    seen: list[int] = []
    other = threading.Thread(target=partial(host.ground.publish, "joined", tags={TAG}, payload={"course": "c1"}))

    def decide(state: int) -> Any:
        seen.append(state)
        if len(seen) <= 3:
            host.ground.publish("joined", tags={TAG}, payload={"course": "c1"})
        else:
            other.start()
            wait_for_waiting(host.ground)
        return {StreamIdentifier("enrolments", str(len(seen))): {"events": [Joined("c1")]}}

    store: Any = (EventStore if host.asynchronous else SyncEventStore)(engine, types=EventTypes(Joined))
    update = await settled(store.update_decision(COURSE, Count(), decide=decide))

    other.join()
    assert (seen, update.state) == ([0, 1, 2, 3], 4)
    await settled(engine.dispose())


@each_driver(*EACH_KIND)
async def test_a_locked_try_that_needs_what_another_holds_who_waits_for_it_gives_way(host: Host) -> None:
    """Otherwise the server would end one of the two after a second, perhaps the other."""
    engine = host.make_engine(poolclass=None)
    seen: list[int] = []
    held = threading.Event()
    errors: list[BaseException] = []

    def hold_and_wait() -> None:
        try:
            with host.ground.outside.begin() as connection:
                # On a slow machine its check for deadlocks might fall into the short time in which there is one.
                connection.execute(text("SET LOCAL deadlock_timeout = '60s'"))
                store = SyncEventStore(connection)
                store.publish(streams=joining("wanted by both", tags=()))
                held.set()
                store.publish(streams=joining("of the other"))
        except BaseException as error:
            errors.append(error)

    other = threading.Thread(target=hold_and_wait)

    def decide(state: int) -> Any:
        seen.append(state)
        if len(seen) <= 3:
            host.ground.publish("joined", tags={TAG})
        if len(seen) == 4:
            other.start()
            assert held.wait(PATIENCE_S)
            wait_for_waiting(host.ground)
        if len(seen) == 5:
            other.join()
            return joining("own")
        return joining("wanted by both" if len(seen) == 4 else "own")

    update = await settled(host.store_on(engine).update_decision(COURSE, Count(), decide=decide, retries=4))

    other.join()
    assert errors == []
    assert seen[:4] == [0, 1, 2, 3]
    assert seen[4] in {3, 4}  # The other may commit before this one reads again.
    assert update.state == 5
    await settled(engine.dispose())


@each_driver(*EACH_KIND)
async def test_a_connection_that_is_lost_before_the_commit_of_a_locked_try_costs_the_locks_alone(host: Host) -> None:
    engine = host.make_engine(poolclass=None)
    seen: list[int] = []

    def decide(state: int) -> Any:
        seen.append(state)
        if len(seen) <= 3:
            host.ground.publish("joined", tags={TAG})
        if len(seen) == 4:
            terminate_others(host.ground)
        return joining()

    update = await settled(host.store_on(engine).update_decision(COURSE, Count(), decide=decide))

    assert (seen, update.state) == ([0, 1, 2, 3, 3], 4)
    await settled(engine.dispose())


@each_driver(*EACH_KIND)
async def test_a_locked_try_leaves_alone_what_has_no_tag_that_excludes_writers(host: Host) -> None:
    """Nobody could publish anything while it decides."""
    engine = host.make_engine(poolclass=None)
    seen: list[int] = []

    def decide(state: int) -> Any:
        seen.append(state)
        if len(seen) <= 4:
            host.ground.publish("joined")
        return joining(tags=())

    query = EventQuery([QueryItem(names=["joined"])])
    with pytest.raises(UnmetWriteConditionError):
        await settled(host.store_on(engine).update_decision(query, Count(), decide=decide))

    assert seen == [*range(4)]
    await settled(engine.dispose())


@each_driver(*EACH_KIND)
async def test_decisions_within_decisions_of_others_do_not_wait_for_each_other(host: Host) -> None:
    engine = host.make_engine(poolclass=None, pool_size=8, max_overflow=8)
    store = host.store_on(engine)
    met = threading.Barrier(2)

    def update(tag: str, inner: str | None) -> Any:
        async def decide(_: int) -> Any:
            if inner is not None:
                await asyncio.to_thread(met.wait, PATIENCE_S)
                await update(inner, None)
            return joining(f"{tag} {inner}", tags=[tag])

        def decide_sync(_: int) -> Any:
            if inner is not None:
                met.wait(PATIENCE_S)
                update(inner, None)
            return joining(f"{tag} {inner}", tags=[tag])

        query = EventQuery.tagged(tag)
        given: Any = decide if host.asynchronous else decide_sync
        return store.update_decision(query, Count(), decide=given, retries=0 if inner else 3)

    async def outcome(tag: str, inner: str) -> Any:
        try:
            return await update(tag, inner)
        except UnmetWriteConditionError as error:
            return error

    def outcome_sync(tag: str, inner: str) -> Any:
        try:
            return update(tag, inner)
        except UnmetWriteConditionError as error:
            return error

    each: Any = outcome if host.asynchronous else outcome_sync
    outcomes = await all_at_once(host, [partial(each, "a", "b"), partial(each, "b", "a")])

    refused = [each for each in outcomes if isinstance(each, UnmetWriteConditionError)]
    assert len(host.ground.names()) == 4 - len(refused)
    await settled(engine.dispose())


@pytest.fixture
def database(make_postgres_database: Callable[..., PostgresDatabase]) -> PostgresDatabase:
    return make_postgres_database(prepared_by=install_schema)


@pytest.mark.parametrize("processes", [1, 2])
def test_every_decision_of_many_writers_is_made_within_the_default_retries(
    database: PostgresDatabase, processes: int
) -> None:
    url = database.url("psycopg").render_as_string(hide_password=False)
    writers, decisions = 8 // processes, 4

    with ThreadPoolExecutor(processes) as threads:
        program = partial(run_preloaded, "-m", "tests.deciding", url, str(writers), str(decisions))
        outcomes = [future.result() for future in [threads.submit(program) for _ in range(processes)]]

    assert [outcome.stderr for outcome in outcomes if outcome.returncode] == []
    tries = Counter(int(each) for outcome in outcomes for each in outcome.stdout.split())
    print(f"{processes} processes: {sorted(tries.items())}")
    assert tries.total() == 8 * decisions
    assert max(tries) <= 4 if processes > 1 else max(tries) == 1
    with SyncEventStore(url) as store:
        stored = [event.payload for event in store.tag(TAG).read()]
    assert stored == [*range(8 * decisions)]


async def test_what_a_try_locks_is_no_more_than_its_publish_needs() -> None:
    """The condition of the publish may need the whole log; the locks of a try that decides may not."""
    condition = no_event_matches(EventQuery([QueryItem(names=["joined"]), QueryItem(names=["left"], tags=[TAG])]))
    (stream,) = joining(tags=["student:a"])
    part = StreamPublication(stream, (new_event("joined", tags=["student:a"]),), condition)

    (held,) = holding_document([part]).streams

    assert (held.scope, held.written_tags, held.read_tags, held.events) == (None, [TAG, "student:a"], None, ())

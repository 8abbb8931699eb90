"""Many writers at once on few inline projections: no update is lost, nothing deadlocks, rows come into being once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from eventstore_sa import StreamIdentifier, SyncEventStore, SyncProjectionStore
from eventstore_sa.errors import LockTimeoutError, TransactionError
from eventstore_sa.projection import TableProjection, project
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.types import AnyStoredEvent
from tests.blocking import wait_for_waiting
from tests.databases import PostgresDatabase
from tests.hosts import Ground, new_event
from tests.patience import PATIENCE_S
from tests.projectors import CustomerProjector, OrderProjector
from tests.stores import install_schema

WRITERS = 16
CUSTOMERS = 3


@pytest.fixture(params=[4, pytest.param(12, marks=pytest.mark.long)])
def rounds(request: pytest.FixtureRequest) -> int:
    """Provide how often each writer does something."""
    return int(request.param)


@pytest.fixture(params=["memory", "psycopg", pytest.param("psycopg2", marks=pytest.mark.long)])
def store(request: pytest.FixtureRequest) -> Iterator[SyncEventStore]:
    """Provide an empty store."""
    if request.param == "memory":
        yield SyncEventStore(InMemoryEventStorageAdapter())
        return
    database: PostgresDatabase = request.getfixturevalue("make_postgres_database")(prepared_by=install_schema)
    # Many wait for one another, on a busy machine for longer than locks are waited for by default.
    patient = {"options": f"-c lock_timeout={PATIENCE_S:.0f}s"}
    engine = create_engine(database.url(request.param), pool_size=WRITERS, connect_args=patient)
    yield SyncEventStore(engine)
    engine.dispose()


def publish_at_once(store: SyncEventStore, session: Session | None, number: int, turn: int) -> None:
    streams: Any = {
        StreamIdentifier(category, f"{(number + turn + step) % CUSTOMERS}-{number}"): {"events": [new_event(payload=1)]}
        for step, category in enumerate(("payments", "orders"))
    }
    (store if session is None else store.within(session)).publish(streams=streams)


def stage(store: SyncEventStore, session: Session | None, number: int, turn: int) -> None:
    assert session is not None
    within = store.within(session)
    for step, category in enumerate(("payments", "orders")):
        stream = within.stream(category=category, stream=f"{(number + turn + step) % CUSTOMERS}-{number}")
        stream.stage(events=[new_event(payload=1)])


def in_parallel(work: Callable[[int], None]) -> None:
    barrier = Barrier(WRITERS)

    def run(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(WRITERS) as threads:
        for outcome in [threads.submit(run, number) for number in range(WRITERS)]:
            outcome.result()


def assert_nothing_is_lost(store: SyncEventStore, rounds: int) -> None:
    events = store.log().read()
    sums = {(each.name, each.id): each.state["sum"] for each in SyncProjectionStore(store).search()}
    expected: dict[tuple[str, str], int] = {}
    for event in events:
        key = ("customer", event.stream.partition("-")[0])
        expected[key] = expected.get(key, 0) + 1
        if event.category == "orders":
            expected["order", event.stream] = expected.get(("order", event.stream), 0) + 1
    assert len(events) == WRITERS * rounds * 2
    assert sums == expected


def test_publishes_of_their_own(store: SyncEventStore, rounds: int) -> None:
    projecting = store.with_projections(OrderProjector(), CustomerProjector())

    def work(number: int) -> None:
        for turn in range(rounds):
            publish_at_once(projecting, None, number, turn)

    in_parallel(work)

    assert_nothing_is_lost(store, rounds)


@pytest.mark.parametrize("publish", [publish_at_once, stage], ids=["at once", "staged"])
@pytest.mark.parametrize("store", ["psycopg", "psycopg2"], indirect=True)
def test_publishes_within_sessions(store: SyncEventStore, publish: Callable[..., None], rounds: int) -> None:
    projecting = store.with_projections(CustomerProjector(), OrderProjector())
    adapter: Any = store.adapter
    factory = sessionmaker(adapter.bind.engine)
    given_up: list[TransactionError] = []

    def work(number: int) -> None:
        for turn in range(rounds):
            with factory() as session:
                publish(projecting, session, number, turn)
                try:
                    session.commit()
                except TransactionError as error:
                    given_up.append(error)

    in_parallel(work)

    assert given_up == []
    assert_nothing_is_lost(store, rounds)


@pytest.mark.parametrize("store", ["psycopg", "psycopg2"], indirect=True)
def test_transaction_that_holds_projections_does_not_wait_for_more(store: SyncEventStore) -> None:
    """Nobody else waits here, so whoever did wait would do so until lock_timeout."""
    projecting = store.with_projections(CustomerProjector())
    adapter: Any = store.adapter

    def publish(session: Session, customer: str) -> None:
        stream = projecting.within(session).stream(category="payments", stream=f"{customer}-{id(session)}")
        stream.publish(events=[new_event(payload=1)])

    with Session(adapter.bind.engine) as first, Session(adapter.bind.engine) as second:
        first.execute(text("SET LOCAL lock_timeout = '20s'"))
        publish(first, "a")
        publish(second, "b")
        with pytest.raises(LockTimeoutError, match="holds projections 'customer' that this publish updates") as caught:
            publish(first, "b")
        assert caught.value.retryable
        assert not caught.value.must_roll_back
        assert ": make the call again, or run all of the transaction again" in str(caught.value)
        publish(first, "a")
        publish(first, "c")
        second.commit()
        publish(first, "b")
        first.commit()

    assert {each.id: each.state["sum"] for each in SyncProjectionStore(store).search()} == {"a": 2, "b": 2, "c": 1}


@pytest.mark.parametrize("store", ["psycopg"], indirect=True)
def test_transaction_that_holds_no_projections_any_more_waits(store: SyncEventStore) -> None:
    projecting = store.with_projections(CustomerProjector())
    adapter: Any = store.adapter
    engine = adapter.bind.engine

    def publish(session: Session, customer: str) -> None:
        stream = projecting.within(session).stream(category="payments", stream=f"{customer}-{id(session)}")
        stream.publish(events=[new_event(payload=1)])

    with Session(engine) as first, Session(engine) as second, ThreadPoolExecutor(1) as thread:
        publish(second, "b")
        savepoint = first.begin_nested()
        publish(first, "a")
        savepoint.rollback()
        waiting = thread.submit(publish, first, "b")
        wait_for_waiting(Ground(engine))
        second.commit()
        waiting.result()
        first.commit()

    assert {each.id: each.state["sum"] for each in SyncProjectionStore(store).search()} == {"b": 2}


class SameAgainProjector(CustomerProjector):
    """What every event of the other changes, too."""

    name = "same-again"


@pytest.mark.parametrize("way", ["at once", "staged", "of its own"])
@pytest.mark.parametrize("store", ["psycopg"], indirect=True)
def test_publish_to_several_projections_waits_for_each(store: SyncEventStore, way: str) -> None:
    """The second is held: that the publish itself has locked the first is no reason to give up."""
    both = store.with_projections(CustomerProjector(), SameAgainProjector())
    adapter: Any = store.adapter
    engine = adapter.bind.engine

    def publish() -> None:
        if way == "of its own":
            both.stream(category="payments", stream="a-1").publish(events=[new_event(payload=1)])
            return
        with Session(engine) as session:
            stream = both.within(session).stream(category="payments", stream="a-1")
            (stream.stage if way == "staged" else stream.publish)(events=[new_event(payload=1)])
            session.commit()

    with Session(engine) as holder, ThreadPoolExecutor(1) as thread:
        holding = store.with_projections(SameAgainProjector()).within(holder)
        holding.stream(category="payments", stream="a-2").publish(events=[new_event(payload=1)])
        waiting = thread.submit(publish)
        wait_for_waiting(Ground(engine))
        holder.commit()
        waiting.result()

    assert {each.name: each.state["sum"] for each in SyncProjectionStore(store).search()} == {
        "customer": 1,
        "same-again": 2,
    }


@pytest.mark.parametrize("store", ["psycopg"], indirect=True)
def test_publish_whose_handlers_stage_for_a_held_projection_is_done_again(store: SyncEventStore) -> None:
    calls: list[Session] = []
    adapter: Any = store.adapter
    engine = adapter.bind.engine

    with Session(engine) as holder:

        @project(Session)
        class Paying(TableProjection):
            name = "paying"

            def ordered(self, session: Session, _: AnyStoredEvent) -> None:
                calls.append(session)
                if len(calls) == 3:
                    holder.commit()
                stream = store.with_projections(SameAgainProjector()).within(session).stream
                stream(category="payments", stream="a-1").stage(events=[new_event(payload=1)])

        holding = store.with_projections(SameAgainProjector()).within(holder)
        holding.stream(category="payments", stream="a-2").publish(events=[new_event(payload=1)])
        projecting = store.with_projections(CustomerProjector(), Paying())
        projecting.stream(category="orders", stream="a-3").publish(events=[new_event("ordered"), new_event()])

    assert len(calls) == 3
    assert {each.name: each.state["sum"] for each in SyncProjectionStore(store).search()} == {
        "customer": 0,
        "same-again": 2,
    }


def test_one_new_projection_for_all(store: SyncEventStore, rounds: int) -> None:
    projecting = store.with_projections(CustomerProjector())
    customers = [str(number) for number in range(3 * rounds)]

    def work(number: int) -> None:
        for customer in customers:
            projecting.stream(category="orders", stream=f"{customer}-{number}").publish(events=[new_event(payload=1)])

    in_parallel(work)

    sums = {each.id: each.state["sum"] for each in SyncProjectionStore(store).search()}
    assert sums == dict.fromkeys(customers, WRITERS)


def test_batches_of_the_same_events_by_many(store: SyncEventStore, rounds: int) -> None:
    for number in range(20 * rounds):
        store.stream(category="orders", stream=f"{number % 5}-a").publish(events=[new_event(payload=1)])
    events = store.log().read()
    projections = SyncProjectionStore(store)

    def work(number: int) -> None:
        for start in range(0, len(events), 20):
            projections.project(CustomerProjector(), events=events[start : start + 20])

    in_parallel(work)

    assert {each.id: each.state["sum"] for each in projections.search()} == {
        str(number): 4 * rounds for number in range(5)
    }


@pytest.mark.parametrize("store", ["psycopg"], indirect=True)
@pytest.mark.parametrize(("projector", "ids", "locks"), [(OrderProjector(), 3, 1), (CustomerProjector(), 3, 4)])
def test_the_locks_of_projections(store: SyncEventStore, projector: Any, ids: int, locks: int) -> None:
    """Shared on the name; on ids only of projections that several streams feed, there or not."""
    adapter: Any = store.adapter

    def held(session: Session) -> int:
        count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND pid = pg_backend_pid()"
        return session.scalar(text(count)) or 0

    streams: Any = {f"{number}-a": {"events": [new_event()]} for number in range(ids)}
    with Session(adapter.bind.engine) as session:
        store.within(session).category(category="orders").publish(streams=streams)
        without = held(session)
        session.rollback()
        for _ in range(2):
            streams = {name: {"events": [new_event()]} for name in streams}
            store.with_projections(projector).within(session).category(category="orders").publish(streams=streams)
            assert held(session) == without + locks
            session.commit()


@pytest.mark.parametrize("store", ["psycopg"], indirect=True)
def test_a_publish_to_many_projections_takes_one_lock_for_all(store: SyncEventStore, rounds: int) -> None:
    projecting = store.with_projections(CustomerProjector())

    def work(number: int) -> None:
        for turn in range(rounds // 4):
            streams = {f"{customer}-{turn}": {"events": [new_event(payload=1)]} for customer in range(120)}
            projecting.category(category="orders" if number % 2 else "payments").publish(streams=streams)

    in_parallel(work)

    sums = {each.id: each.state["sum"] for each in SyncProjectionStore(store).search()}
    assert sums == {str(customer): WRITERS * (rounds // 4) for customer in range(120)}


def test_a_transaction_of_many_publishes_leaves_room_in_the_lock_table(
    make_postgres_database: Callable[..., PostgresDatabase],
) -> None:
    database = make_postgres_database(prepared_by=install_schema)
    engine = create_engine(database.url("psycopg"))
    held = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
    locks: list[int] = []
    for store in (SyncEventStore(engine), SyncEventStore(engine).with_projections(CustomerProjector())):
        with Session(engine) as session:
            payments = store.within(session).category(category="payments")
            for turn in range(30):
                streams: Any = {f"{turn * 90 + number}-1": {"events": [new_event(payload=1)]} for number in range(90)}
                payments.publish(streams=streams)
            locks.append(session.scalar(held) or 0)
            session.rollback()
    engine.dispose()

    without, with_projections = locks
    assert 900 < with_projections - without <= 1025


class MirrorProjector(OrderProjector):
    """Publishes to the same stream from a handler, with a projection that was loaded with the event that is handled."""

    name = "a-mirror"

    def __init__(self, store: SyncEventStore, session: Session) -> None:
        self._stream = store.with_projections(OrderProjector()).within(session).stream(category="orders", stream="1")

    def something_happened(self, state: dict[str, Any], event: AnyStoredEvent) -> dict[str, Any]:
        self._stream.publish(events=[new_event(payload=10)])
        return super().something_happened(state, event)


@pytest.mark.parametrize("store", ["psycopg"], indirect=True)
def test_projection_that_was_loaded_with_the_events_may_have_changed_since(store: SyncEventStore) -> None:
    adapter: Any = store.adapter
    with Session(adapter.bind.engine) as session:
        mirrored = store.with_projections(MirrorProjector(store, session), OrderProjector()).within(session)
        for _ in range(2):
            mirrored.stream(category="orders", stream="1").publish(events=[new_event(payload=1)])
        session.commit()

    sums = {each.name: each.state["sum"] for each in SyncProjectionStore(store).search()}
    assert sums == {"a-mirror": 2, "order": 22}
    assert len(store.log().read()) == 4

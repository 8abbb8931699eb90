"""What stalled nodes, takeovers and replays do to each other, each driven step by step through storages of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from eventstore_sa import NewEvent, StreamIdentifier, SyncEventStore
from eventstore_sa.contracts.subscriptions import Advance, Definition, Lease, Node, ParkedState, PartitionState
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.subscriptions.storage import SQLSubscriptionStorage
from eventstore_sa.subscriptions import SyncSubscription, SyncSubscriptionRunner, catch_up_sync
from eventstore_sa.testing import clear
from eventstore_sa.testing.postgres import PostgresServer
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.failure_table import row
from tests.hosts import statements_of
from tests.patience import PATIENCE_S, wait_until
from tests.subscribers import install_effects, policy

LONG_S = 3600.0


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[PostgresDatabase]:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_effects)) as database:
        yield database


@pytest.fixture
def engine(database: PostgresDatabase) -> Iterator[Engine]:
    engine = create_engine(database.url("psycopg"), pool_size=10)
    clear(engine)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM effects"))
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> SyncEventStore:
    return SyncEventStore(engine)


@pytest.fixture
def storage(store: SyncEventStore) -> Any:
    return store.adapter.subscription_storage()


def publish(store: SyncEventStore, *streams: str) -> list[Any]:
    stored: list[Any] = []
    for stream in streams:
        stored += store.stream(category="orders", stream=stream).publish(events=[NewEvent(name="placed", payload=1)])
    return stored


def node(storage: SQLSubscriptionStorage, name: str = "billing", *, lease_s: float = LONG_S) -> Node:
    """Register a subscription, and a node that is alive for a while."""
    storage.register(Definition(name, "{}", 1, 0))
    made = Node(uuid4(), "a node", frozenset({name}))
    storage.heartbeat(made, lease_s)
    return made


def taken(storage: SQLSubscriptionStorage, by: Node, name: str = "billing") -> Lease | None:
    (record,) = storage.survey([name]).partitions
    return storage.take(by.id, record)


def expire(engine: Engine, gone: Node) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE es_subscription_nodes SET expires_at = clock_timestamp() WHERE id = :id"), {"id": gone.id}
        )


def test_a_partition_is_taken_only_when_its_owner_has_expired(engine: Engine, storage: Any) -> None:
    first, second = node(storage), node(storage)

    lease = taken(storage, first)
    assert lease is not None
    assert taken(storage, second) is None
    expire(engine, first)
    after = taken(storage, second)

    assert after is not None
    assert (lease.epoch, after.epoch) == (1, 2)


def test_two_nodes_that_reach_for_a_partition_do_not_both_get_it(storage: Any) -> None:
    first, second = node(storage), node(storage)
    (record,) = storage.survey(["billing"]).partitions

    leases = [storage.take(first.id, record), storage.take(second.id, record)]

    assert [lease is None for lease in leases] == [False, True]


def test_a_node_that_was_replaced_moves_no_checkpoint(engine: Engine, store: SyncEventStore, storage: Any) -> None:
    (event,) = publish(store, "1")
    stalled, other = node(storage), node(storage)
    lease = taken(storage, stalled)
    assert lease is not None

    with Session(engine) as session:
        storage.guard(session, lease, longest_s=LONG_S)
        session.execute(text("INSERT INTO effects (number, what) VALUES (1, 'of the stalled node')"))
        expire(engine, stalled)
        # The checkpoint has not moved yet, so nothing is locked, and the stalled transaction is ended.
        assert taken(storage, other) is not None
        with pytest.raises(DBAPIError):
            storage.advance(session, lease, Advance(0, event.sequence_number, 1))
    assert storage.advance(None, lease, Advance(0, event.sequence_number, 1)) is None
    assert storage.set_aside(lease, Advance(0, 1), event, state=ParkedState.PARKED, attempts=1, error="late") is False
    assert storage.stop(lease, "late") is False
    storage.release(lease)

    (record,) = storage.survey(["billing"]).partitions
    assert (record.owner, record.sequence_number, record.state) == (other.id, 0, "running")
    assert storage.parked_events("billing") == []


@row("a process is stopped, and resumed after its lease")
@pytest.mark.parametrize("stuck", ["after the checkpoint", "in a COPY"])
def test_taking_over_ends_the_transaction_of_a_stalled_owner(
    engine: Engine, store: SyncEventStore, storage: Any, stuck: str
) -> None:
    """Which holds the row, or is active to the server, so that neither a timeout nor patience would end it."""
    (event,) = publish(store, "1")
    stalled, other = node(storage), node(storage)
    lease = taken(storage, stalled)
    assert lease is not None
    session = Session(engine)
    storage.guard(session, lease, longest_s=LONG_S)
    session.execute(text("INSERT INTO effects (number, what) VALUES (1, 'of the stalled node')"))
    if stuck == "after the checkpoint":
        storage.advance(session, lease, Advance(0, event.sequence_number, 1))
    else:
        storage.advance(session, lease, Advance(0, event.sequence_number, 1))
        driver: Any = session.connection().connection.driver_connection
        copying = driver.cursor().copy("COPY effects FROM STDIN")
        copying.__enter__()
    expire(engine, stalled)

    found: list[Lease] = []

    def is_taken() -> bool:
        after = taken(storage, other)
        found.extend([after] if after is not None else [])
        return after is not None

    wait_until(is_taken, "the partition is taken over")

    assert (found[0].epoch, found[0].sequence_number) == (2, 0)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM effects")).all() == []
    session.invalidate()
    session.close()


def test_a_process_that_stalls_while_nobody_else_is_there_is_ended_by_the_server(engine: Engine, storage: Any) -> None:
    lease = taken(storage, node(storage))
    assert lease is not None
    with Session(engine) as session:
        storage.guard(session, lease, longest_s=0.05)
        session.execute(text("INSERT INTO effects (number, what) VALUES (1, 'of the stalled node')"))
        locked = text(
            "SELECT count(*) FROM pg_locks WHERE relation = 'effects'::regclass "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )

        def is_gone() -> bool:
            with engine.connect() as connection:
                return connection.execute(locked).scalar_one() == 0

        wait_until(is_gone, "the server has ended the transaction")
        session.invalidate()


def test_a_transaction_may_wait_for_its_handler_as_long_as_the_deadline(engine: Engine, storage: Any) -> None:
    lease = taken(storage, node(storage))
    assert lease is not None
    with Session(engine) as session:
        storage.guard(session, lease, longest_s=12.5)
        said = session.execute(text("SELECT current_setting('idle_in_transaction_session_timeout')")).scalar_one()
    assert said == "12500ms"


def test_pausing_moving_and_changing_the_partitions_take_the_lease(storage: Any) -> None:
    me = node(storage)
    changes: list[Any] = [
        lambda: storage.move("billing", 0),
        lambda: storage.set_state("billing", PartitionState.RUNNING),
        lambda: storage.register(Definition("billing", "{}", 2, 0)),
    ]
    for change in changes:
        lease = taken(storage, me)
        assert lease is not None
        change()
        assert storage.advance(None, lease, Advance(lease.sequence_number, 1)) is None
        assert storage.renewed(lease) is None


def test_a_change_of_partitions_begins_at_the_highest_checkpoint_and_counts_generations(
    store: SyncEventStore, storage: Any
) -> None:
    publish(store, "1", "2", "3")
    storage.register(Definition("billing", "{}", 2, 0))
    me = Node(uuid4(), "a node", frozenset({"billing"}))
    storage.heartbeat(me, LONG_S)
    first, second = (storage.take(me.id, record) for record in storage.survey(["billing"]).partitions)
    assert storage.advance(None, first, Advance(0, 2)) is not None

    storage.register(Definition("billing", "{}", 3, 0))
    assert storage.advance(None, second, Advance(0, 1)) is None
    assert storage.resplit("billing") is False
    records = storage.survey(["billing"]).partitions
    assert [(each.drain_to, each.next_partitions, each.is_free) for each in records] == [(2, 3, False), (2, 3, True)]

    again = storage.take(me.id, records[1])
    assert again.drain_to == 2
    assert storage.advance(None, again, Advance(0, 2)) is not None
    assert storage.resplit("billing") is True

    assert [
        (each.partition, each.partitions, each.generation, each.sequence_number)
        for each in storage.survey(["billing"]).partitions
    ] == [(number, 3, 2, 2) for number in range(3)]


def test_replaying_and_holding_back_do_not_let_events_overtake(engine: Engine, store: SyncEventStore) -> None:
    stored = publish(store, "1")
    may_fail, replaying, may_end = [True], threading.Event(), threading.Event()

    def handle(event: Any, session: Session) -> None:
        if may_fail[0] and event.sequence_number == stored[0].sequence_number:
            raise ValueError("poison")
        if event.sequence_number == stored[0].sequence_number:
            replaying.set()
            may_end.wait(PATIENCE_S)
        session.execute(text("INSERT INTO effects (number) VALUES (:number)"), {"number": event.sequence_number})

    subscription = SyncSubscription(
        "billing",
        store.category(category="orders"),
        handle,
        sessions=sessionmaker(engine),
        on_failure=policy("park"),
    )
    catch_up_sync(subscription)
    may_fail[0] = False

    replay = threading.Thread(target=subscription.replay)
    replay.start()
    replaying.wait(PATIENCE_S)
    with SyncSubscriptionRunner([subscription]):
        stored += publish(store, "1", "2")
        # The partition waits for the stream that is being replayed.
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event_type = 'Lock' AND query LIKE '%parked_streams%'"
        )

        def waits() -> bool:
            with engine.connect() as connection:
                return connection.execute(waiting).scalar_one() > 0

        wait_until(waits, "the partition waits for the replay")
        may_end.set()
        replay.join(PATIENCE_S)
        subscription.wait_for(stored[-1], PATIENCE_S)

    with engine.connect() as connection:
        handled = list(connection.scalars(text("SELECT number FROM effects ORDER BY at")))
    assert handled == [event.sequence_number for event in stored]
    assert subscription.parked() == []


def test_an_idle_node_asks_for_the_last_number_alone(engine: Engine, store: SyncEventStore) -> None:
    subscription = SyncSubscription("billing", store.category(category="orders"), lambda event: None)
    with SyncSubscriptionRunner([subscription]):
        (event,) = publish(store, "1")
        subscription.wait_for(event, PATIENCE_S)
        time.sleep(0.05)
        with statements_of(engine) as statements:
            wait_until(lambda: len([each for each in statements if "last_number_v1" in each]) >= 3, "it polls")
    looks = [each for each in statements[: statements.index(statements[-1])] if "watermark_v1" in each]
    assert len(looks) <= 1


def test_heartbeats_do_not_wait_for_handlers(engine: Engine, store: SyncEventStore, storage: Any) -> None:
    """Although these use all connections of the budget for longer than a lease."""
    publish(store, *(str(number) for number in range(15)))
    handled: list[int] = []

    def handle(event: Any, session: Session) -> None:
        time.sleep(0.15)
        handled.append(event.sequence_number)

    subscription = SyncSubscription(
        "billing",
        store.category(category="orders"),
        handle,
        sessions=sessionmaker(engine),
        deadline_s=0.4,
        commit_every_s=0.5,
    )
    catch_up_sync(subscription, connections=1, lease_s=2.0)

    (record,) = storage.survey(["billing"]).partitions
    # Taken once, and given back: nobody has taken it meanwhile.
    assert (len(handled), record.handled, record.epoch) == (15, 15, 2)


@row("a handler hangs")
def test_a_handler_that_hangs_in_a_thread_loses_its_partition(
    engine: Engine, store: SyncEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventstore_sa.subscriptions.node._SURVEY_EVERY_S", 0.05)
    publish(store, "1")
    hangs, released = [True, True], threading.Event()
    handled: list[int] = []

    def handle(event: Any, session: Session) -> None:
        session.execute(text("INSERT INTO effects (number) VALUES (:number)"), {"number": event.sequence_number})
        if hangs.pop() if hangs else False:
            released.wait(PATIENCE_S)
        handled.append(event.sequence_number)

    subscription = SyncSubscription(
        "billing",
        store.category(category="orders"),
        handle,
        sessions=sessionmaker(engine),
        deadline_s=0.05,
        commit_every_s=0.0,
    )
    # More often than there are connections to use: what hangs does not keep the others from going on.
    catch_up_sync(subscription, connections=1)
    released.set()

    wait_until(lambda: len(handled) == 3, "the threads that hung have gone on")
    with engine.connect() as connection:
        assert list(connection.scalars(text("SELECT number FROM effects"))) == [1]


def test_a_deadline_is_below_the_lease_and_the_pool_large_enough(database: PostgresDatabase) -> None:
    engine = create_engine(database.url("psycopg"), pool_size=2, max_overflow=1)
    subscription = SyncSubscription("billing", SyncEventStore(engine).log(), lambda event: None)

    with pytest.raises(ConfigurationError, match=r"may take 22.0 s .* must be below lease_s=10"):
        SyncSubscriptionRunner([subscription], lease_s=10)
    with pytest.raises(ConfigurationError, match="at most 3 connections, but connections=4 and one more"):
        SyncSubscriptionRunner([subscription])
    SyncSubscriptionRunner([subscription], connections=2)
    engine.dispose()


def test_the_stream_of_a_held_event_that_was_freed_meanwhile_is_not_passed(store: SyncEventStore, storage: Any) -> None:
    """Without a session, nothing is locked while the handler runs: the checkpoint moves up to the event only."""
    first, second, third = publish(store, "1", "1", "2")
    lease = taken(storage, node(storage))
    assert lease is not None
    storage.set_aside(lease, Advance(0, 1), first, state=ParkedState.PARKED, attempts=1, error="poison")
    (parked,) = storage.parked_events("billing", StreamIdentifier("orders", "1"))
    storage.discard(None, parked)

    moved = storage.advance(None, lease, Advance(1, 3, 1), [second])

    assert moved.to == second.sequence_number - 1
    assert storage.parked_events("billing") == []
    assert third.sequence_number == 3


def test_times_are_those_of_the_database(storage: Any) -> None:
    node(storage)
    (record,) = storage.survey(["billing"]).partitions
    assert abs((datetime.now(UTC) - record.moved_at).total_seconds()) < 60

"""`coalesce=True`: publishes that are made at the same time travel together, and nobody can tell but by the statements.

What travels when is in `tests/unit/store/test_publish_queue.py`, what a batch does in `test_append_each.py`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import URL, NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from eventstore_sa import EventStore, EventTypes, NewEvent, SyncEventStore, event_metadata
from eventstore_sa import event as event_type
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import (
    ConfigurationError,
    ConnectionLostError,
    DuplicateEventError,
    StorageError,
    TransactionError,
    UnmetWriteConditionError,
)
from eventstore_sa.persistence.events.storage import EventStorage
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter, SQLAlchemyEventStorageAdapter
from eventstore_sa.store.adapters.coalescing import Coalescing
from tests.awaiting import settled
from tests.blocking import wait_for_waiting
from tests.databases import PostgresDatabase
from tests.hosts import Ground, Host, each_driver, new_event, open_connections, statements_of
from tests.interleaving import install_schema
from tests.patience import PATIENCE_S, wait_until
from tests.projectors import OrderProjector

each_way = each_driver("postgresql+asyncpg", "postgresql+psycopg")
each_async_way = each_driver("postgresql+asyncpg")
each_threaded_way = each_driver("postgresql+psycopg")

Call = Callable[[], Any]


def coalescing_on(bind: Any) -> Any:
    """Make a store that coalesces, on an engine or a URL of an asyncio driver."""
    kind: Any = EventStore if hasattr(bind, "sync_engine") or isinstance(bind, URL) else SyncEventStore
    return kind(bind, coalesce=True)


def with_pool(host: Host, size: int = 10, **options: Any) -> Any:
    """Make an engine that keeps its connections."""
    return host.make_engine(poolclass=None, pool_size=size, max_overflow=0, pool_timeout=PATIENCE_S, **options)


async def at_once(host: Host, calls: Sequence[Call]) -> list[Any]:
    """Make calls at the same time, in tasks or threads; return their results or exceptions."""
    if host.asynchronous:
        return await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    with ThreadPoolExecutor(len(calls)) as threads:
        futures = [threads.submit(call) for call in calls]
        return [future.exception() or future.result() for future in futures]


def publish_to(store: Any, stream: str, *events: NewEvent[Any, Any, Any], **arguments: Any) -> Any:
    """Publish to a stream: at once, or when it is awaited."""
    return store.stream(category="orders", stream=stream).publish(events=events or [new_event(stream)], **arguments)


async def gathered(host: Host, store: Any, calls: Sequence[Call]) -> list[Any]:
    """Make calls while another publish is under way; in tasks of one event loop, they then travel in one batch."""
    first, *others = await at_once(host, [lambda: publish_to(store, "first"), *calls])
    assert not isinstance(first, BaseException), first
    return others


def names_of(statements: list[str]) -> list[str]:
    """Return which functions of ours are called, or what else is done."""
    return [
        next(
            (name for name in ("append_each", "append_v1", "append_guarded") if name in statement), statement.split()[0]
        )
        for statement in statements
    ]


@asynccontextmanager
async def held_stream(ground: Ground, stream: str) -> AsyncIterator[None]:
    """Let a transaction of somebody else hold a stream."""
    with ground.outside.connect() as connection, connection.begin():
        SyncEventStore(connection).stream(category="orders", stream=stream).publish(events=[new_event("held")])
        yield


@each_way
async def test_a_publish_that_is_alone_goes_straight_as_without_the_option(host: Host) -> None:
    engine = with_pool(host)
    plain, store = host.store_on(engine), coalescing_on(engine)
    await settled(publish_to(store, "0"))

    with statements_of(engine) as without:
        await settled(publish_to(plain, "1"))
    with statements_of(engine) as statements:
        await settled(publish_to(store, "2"))
        await settled(publish_to(store, "2"))

    assert statements == without * 2
    await settled(engine.dispose())


@each_async_way
async def test_what_is_published_at_the_same_time_takes_one_statement_and_each_gets_its_own_result(host: Host) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)
    taken = new_event("taken")
    await publish_to(store, "taken", taken)

    with statements_of(engine) as statements:
        outcomes = await gathered(
            host,
            store,
            [
                lambda: publish_to(store, "1", condition=stream_is_empty()),
                lambda: publish_to(store, "1", new_event("unmet"), condition=stream_is_empty()),
                lambda: publish_to(store, "1", new_event("a"), new_event("b"), condition=position_is(0)),
                lambda: publish_to(store, "2"),
                lambda: store.stream(category="orders", stream="3").publish(events=[], condition=position_is(7)),
            ],
        )

    assert names_of(statements) == ["append_v1", "append_each"]
    first, unmet, pair, other, empty = outcomes
    assert [(event.stream, event.position, event.name) for event in (*first, *pair, *other)] == [
        ("1", 0, "1"),
        ("1", 1, "a"),
        ("1", 2, "b"),
        ("2", 0, "2"),
    ]
    assert isinstance(unmet, UnmetWriteConditionError)
    assert unmet.actual_position == 0
    assert isinstance(empty, UnmetWriteConditionError)
    assert empty.actual_position is None

    with statements_of(engine) as statements:
        again, refused, neighbour = await gathered(
            host,
            store,
            [
                lambda: publish_to(store, "taken", taken),
                lambda: publish_to(store, "elsewhere", taken),
                lambda: publish_to(store, "4"),
            ],
        )

    assert names_of(statements)[:2] == ["append_v1", "append_each"]
    assert "append_v1" not in names_of(statements)[2:]  # Looked up, and not published again.
    assert [event.position for event in again] == [0]
    assert isinstance(refused, DuplicateEventError)
    assert [event.position for event in neighbour] == [0]
    await engine.dispose()


@each_way
async def test_each_publish_has_the_metadata_that_is_in_force_where_it_is_made(host: Host) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)

    def publish_as(user: str) -> Call:
        async def publish() -> Any:
            with event_metadata(user=user):
                return await settled(publish_to(store, user))

        def publish_sync() -> Any:
            with event_metadata(user=user):
                return publish_to(store, user)

        return publish if host.asynchronous else publish_sync

    users = [f"user-{number}" for number in range(6)]
    for _ in range(3):
        outcomes = await gathered(host, store, [publish_as(user) for user in users])

        assert [stored[0].metadata["user"] for stored in outcomes] == users
    await settled(engine.dispose())


_REQUEST: ContextVar[str] = ContextVar("request", default="nobody's")


@each_async_way
async def test_a_batch_sees_nobodys_context_variables_and_a_publish_alone_its_callers(host: Host) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)
    seen: list[tuple[str, str]] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def _note(*arguments: Any) -> None:
        if "append" in arguments[2]:
            seen.append((names_of([arguments[2]])[0], _REQUEST.get()))

    async def publish(number: int) -> None:
        _REQUEST.set(f"{number}")
        await publish_to(store, f"{number}")

    await publish(0)
    await asyncio.gather(publish(1), publish(2), publish(3))

    assert seen == [("append_v1", "0"), ("append_v1", "1"), ("append_each", "nobody's")]
    await engine.dispose()


@each_way
async def test_a_stream_that_somebody_holds_holds_up_no_other_and_keeps_its_order(host: Host) -> None:
    engine = with_pool(host, 4)
    store = coalescing_on(engine)
    pending: list[Any] = []
    threads = ThreadPoolExecutor(12)

    def start(call: Call) -> Any:
        pending.append(
            asyncio.ensure_future(call()) if host.asynchronous else asyncio.wrap_future(threads.submit(call))
        )
        return pending[-1]

    async with held_stream(host.ground, "held"):
        for number in range(3):
            start(partial(publish_to, store, "held", new_event(f"held-{number}")))
            # A thread has joined the queue when the next one comes.
            await asyncio.to_thread(wait_until, partial(_knows_more_than, number, store), "it is in the queue")
        await asyncio.to_thread(wait_for_waiting, host.ground)
        for turn in range(3):
            others = await asyncio.gather(
                *(start(partial(publish_to, store, f"free-{turn}-{number}")) for number in range(8))
            )
            assert len(others) == 8
        assert not any(each.done() for each in pending[:3])

    stored = await asyncio.gather(*pending[:3])
    assert [events[0].position for events in stored] == [1, 2, 3]
    threads.shutdown()
    await settled(engine.dispose())


def _known(store: Any) -> int:
    """Return how many publishes are under way or wait."""
    adapter = store.adapter
    carriers: Any = [
        carrier
        for found in adapter._coalescing._carriers.values()
        for carrier in (found.values() if isinstance(found, dict) else [found])
    ]
    return sum(
        len(carrier._queue._waiting)
        + len(carrier._queue._waiting_alone)
        + carrier._queue._batches
        + carrier._queue._alone
        for carrier in carriers
    )


def _knows_more_than(number: int, store: Any) -> bool:
    return _known(store) > number


def refuse_names_of(ground: Ground, name: str, *, sqlstate: str = "P0001") -> None:
    """Let a trigger of the host's refuse events with a name."""
    with ground.outside.begin() as connection:
        connection.execute(
            text(
                f"CREATE OR REPLACE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF new.name = '{name}' THEN RAISE EXCEPTION 'refused' USING ERRCODE = '{sqlstate}'; END IF; "
                "RETURN new; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE OR REPLACE TRIGGER refuse_poison BEFORE INSERT ON es_events "
                "FOR EACH ROW EXECUTE FUNCTION refuse_poison()"
            )
        )


@each_way
@pytest.mark.parametrize(
    ("sqlstate", "error"), [("P0001", StorageError), ("57014", TransactionError)], ids=["refused", "statement_timeout"]
)
async def test_when_the_statement_fails_each_publish_is_made_by_itself(
    host: Host, sqlstate: str, error: type[Exception]
) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)
    refuse_names_of(host.ground, "poison", sqlstate=sqlstate)
    try:
        *stored, refused = await gathered(
            host,
            store,
            [
                lambda: publish_to(store, "1"),
                lambda: publish_to(store, "2"),
                lambda: publish_to(store, "1"),
                lambda: publish_to(store, "3", new_event("poison")),
            ],
        )
    finally:
        with host.ground.outside.begin() as connection:
            connection.execute(text("DROP TRIGGER refuse_poison ON es_events"))

    assert isinstance(refused, error)
    assert sorted((events[0].stream, events[0].position) for events in stored) == [("1", 0), ("1", 1), ("2", 0)]
    await settled(engine.dispose())


@each_async_way
async def test_when_there_is_no_connection_for_a_batch_nobody_waits_for_one_again(host: Host) -> None:
    engine = host.make_engine(poolclass=None, pool_size=1, max_overflow=0, pool_timeout=0.2)
    store = coalescing_on(engine)
    made = EventStorage.publish
    async with engine.connect():
        with patch.object(EventStorage, "publish", autospec=True, side_effect=made) as alone:
            outcomes = await at_once(host, [partial(publish_to, store, f"{number}") for number in range(12)])

    assert {type(outcome) for outcome in outcomes} == {StorageError}
    assert len({id(outcome) for outcome in outcomes}) == 12
    assert "no database connection became free in time" in str(outcomes[-1])
    # What goes straight.
    assert alone.call_count == 1
    assert (await publish_to(store, "1"))[0].position == 0
    await engine.dispose()


@each_way
async def test_a_connection_that_is_lost_costs_nobody_an_event_nor_stores_one_twice(host: Host) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)
    lost: list[str] = []

    @event.listens_for(getattr(engine, "sync_engine", engine), "after_cursor_execute")
    def _lose(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        # The batch is stored, and its answer does not arrive.
        if "append_each" in statement and not lost:
            lost.append(statement)
            raise connection.dialect.loaded_dbapi.OperationalError("the connection is closed")

    for _ in range(20):
        outcomes = await gathered(host, store, [partial(publish_to, store, f"{n}") for n in range(5)])
        assert all(not isinstance(outcome, BaseException) for outcome in outcomes)
        if lost:
            break

    assert lost
    names = host.ground.names()
    assert all(names.count(f"{number}") == names.count("0") for number in range(5))
    await settled(engine.dispose())


@each_async_way
async def test_a_connection_that_is_lost_is_reported_if_no_other_tells_what_became_of_the_events(host: Host) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)
    made = EventStorage.publish

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def _lose(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "append_each" in statement:
            raise connection.dialect.loaded_dbapi.OperationalError("the connection is closed")

    def refuse(storage: EventStorage, parts: Any, **options: Any) -> Any:
        if parts[0].stream.stream != "first":
            raise StorageError("could not connect to the database")
        return made(storage, parts, **options)

    with patch.object(EventStorage, "publish", autospec=True, side_effect=refuse):
        outcomes = await gathered(host, store, [partial(publish_to, store, f"{number}") for number in range(3)])

    assert {type(outcome) for outcome in outcomes} == {ConnectionLostError}
    assert len({id(outcome) for outcome in outcomes}) == 3
    assert {str(outcome.__cause__) for outcome in outcomes} == {"could not connect to the database"}
    await engine.dispose()


@each_async_way
async def test_a_cancelled_caller_is_gone_at_once_and_publishes_again_to_learn_what_became_of_it(host: Host) -> None:
    engine = with_pool(host, 4)
    store = coalescing_on(engine)
    alone, behind = new_event("alone"), new_event("behind")
    async with held_stream(host.ground, "held"):
        # The first goes straight; of the others, which are busy, one waits in the database, and one for that one.
        straight, *cancelled = [
            asyncio.ensure_future(publish_to(store, "free")),
            asyncio.ensure_future(publish_to(store, "held", alone)),
            asyncio.ensure_future(publish_to(store, "held", behind)),
        ]
        await asyncio.to_thread(wait_for_waiting, host.ground)

        for task in cancelled:
            task.cancel()
        outcomes = await asyncio.gather(*cancelled, return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2
        await straight
        # What nobody waits for any more is not waited for in the database either.
        await asyncio.to_thread(wait_until, lambda: _known(store) == 0, "nothing is under way")
        assert (await publish_to(store, "free"))[0].position == 1

    (again,) = await publish_to(store, "held", alone)
    (last,) = await publish_to(store, "held", behind)
    assert [each.id for each in (again, last)] == [alone.id, behind.id]
    assert sorted(host.ground.names()) == ["alone", "behind", "free", "free", "held"]
    await engine.dispose()


@each_async_way
async def test_a_cancelled_caller_takes_nobody_of_its_batch_with_it(host: Host) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)
    await publish_to(store, "0")
    for suspensions in range(6):
        tasks = [asyncio.ensure_future(publish_to(store, f"{number}")) for number in range(6)]
        for _ in range(suspensions):
            await asyncio.sleep(0)
        tasks[2].cancel()

        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

        assert isinstance(outcomes.pop(2), asyncio.CancelledError | list)
        assert all(isinstance(outcome, list) for outcome in outcomes)
    assert _known(store) == 0
    await engine.dispose()


@each_async_way
async def test_a_batch_that_is_cancelled_from_outside_settles_everybody(host: Host) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)
    callers = [asyncio.ensure_future(publish_to(store, f"{number}")) for number in range(4)]
    known = {*callers, asyncio.current_task()}
    batches: set[Any] = set()
    while not batches:
        await asyncio.sleep(0)
        batches = {task for task in asyncio.all_tasks() if task not in known}
    for task in batches:
        task.cancel()

    first, *others = await asyncio.gather(*callers, return_exceptions=True)

    assert isinstance(first, list)
    assert {type(outcome) for outcome in others} == {ConnectionLostError}
    assert await gathered(host, store, [lambda: publish_to(store, "1"), lambda: publish_to(store, "2")])
    assert _known(store) == 0
    await engine.dispose()


@asynccontextmanager
async def batch_that_nobody_waits_for(host: Host, store: Any) -> AsyncIterator[None]:
    """Have a batch wait for the table of events, whose callers have all been cancelled."""
    await publish_to(store, "0")
    with host.ground.outside.connect() as holder:
        holder.execute(text("LOCK TABLE es_events"))
        callers = [asyncio.ensure_future(publish_to(store, f"{number}")) for number in range(4)]
        # One that goes straight, and a batch.
        await asyncio.to_thread(wait_for_waiting, host.ground, 2)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        yield


@each_async_way
async def test_store_that_is_closed_waits_for_the_batch_that_nobody_waits_for(host: Host) -> None:
    store = coalescing_on(host.ground.url(host.driver))
    open_now = open_connections(store.adapter.bind.engine)
    async with batch_that_nobody_waits_for(host, store):
        closing = asyncio.create_task(store.aclose())
        await asyncio.to_thread(wait_for_waiting, host.ground)
        assert not closing.done()
    await closing
    assert open_now == []


@each_async_way
async def test_store_within_a_session_that_is_closed_waits_for_no_batch(host: Host) -> None:
    store = coalescing_on(host.engine)
    async with AsyncSession(host.engine) as session:
        within = store.within(session)
        with patch.object(Coalescing, "end") as end:
            await within.aclose()
    assert not end.called


@each_async_way
async def test_batch_that_nobody_waits_for_leaves_no_connection_in_an_engine_that_is_disposed_of(host: Host) -> None:
    engine = with_pool(host)
    open_now = open_connections(engine.sync_engine)
    async with batch_that_nobody_waits_for(host, coalescing_on(engine)):
        await engine.dispose()
        assert len(open_now) == 1
    await asyncio.to_thread(wait_until, lambda: open_now == [], "its connection is closed")


@each_async_way
async def test_an_event_loop_whose_task_factory_knows_nothing_of_contexts_will_do(host: Host) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, work: asyncio.Task(work, loop=loop))
    try:
        outcomes = await asyncio.wait_for(
            gathered(host, store, [partial(publish_to, store, f"{number}") for number in range(3)]), PATIENCE_S
        )
    finally:
        loop.set_task_factory(None)

    assert all(isinstance(outcome, list) for outcome in outcomes)
    await engine.dispose()


class _Death(BaseException):
    """Ends a thread."""


@each_threaded_way
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_dies_settles_everybody_and_another_takes_over(host: Host) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)
    publish_to(store, "0")
    publish_each = EventStorage.publish_each
    died = threading.Event()

    def die(storage: EventStorage, publishes: Any) -> Any:
        if not died.is_set():
            died.set()
            raise _Death
        return publish_each(storage, publishes)

    settled_: list[Any] = []
    with patch.object(EventStorage, "publish_each", die):
        while not died.is_set():
            settled_ = await at_once(host, [partial(publish_to, store, f"{n}") for n in range(8)])

    lost = [outcome for outcome in settled_ if not isinstance(outcome, list)]
    assert lost
    assert {type(outcome) for outcome in lost} == {ConnectionLostError}
    assert all(isinstance(each, list) for each in await at_once(host, [lambda: publish_to(store, "x")] * 8))
    engine.dispose()


@each_threaded_way
async def test_threads_that_publish_at_the_same_time_share_statements(host: Host) -> None:
    engine = with_pool(host, 16)
    store = coalescing_on(engine)

    def publish_ten(number: int) -> None:
        for turn in range(10):
            publish_to(store, f"{number}", condition=position_is(turn - 1) if turn else stream_is_empty())

    with statements_of(engine) as statements:
        outcomes = await at_once(host, [partial(publish_ten, number) for number in range(12)])

    assert outcomes == [None] * 12
    assert len(statements) < 120
    assert len(host.ground.names()) == 120
    engine.dispose()


@each_threaded_way
async def test_a_forked_process_publishes_with_threads_of_its_own(host: Host) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)
    await at_once(host, [partial(publish_to, store, f"{number}") for number in range(6)])

    child = os.fork()
    if child == 0:
        code = 1
        try:
            engine.dispose(close=False)
            found = asyncio.run(at_once(host, [partial(publish_to, store, f"{number}") for number in range(6)]))
            code = 0 if all(isinstance(each, list) for each in found) else 2
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert len(host.ground.names()) == 12
    assert publish_to(store, "1")[0].position == 2
    engine.dispose()


def test_each_event_loop_has_batches_of_its_own(make_postgres_database: Callable[..., PostgresDatabase]) -> None:
    database = make_postgres_database(prepared_by=install_schema)
    store = EventStore(create_async_engine(database.url("asyncpg"), poolclass=NullPool), coalesce=True)

    async def publish_many(name: str) -> int:
        for turn in range(4):
            await asyncio.gather(*(publish_to(store, f"{name}-{number}", new_event()) for number in range(5)))
            assert (await store.log().latest()) is not None, turn
        return len([event async for event in store.log() if event.stream.startswith(name)])

    # SQLAlchemy guards the very first connection with a lock that knows one loop only.
    assert asyncio.run(publish_many("zero")) == 20
    with ThreadPoolExecutor(3) as threads:
        counts = list(threads.map(lambda name: asyncio.run(publish_many(name)), ("one", "two", "three")))
    assert counts == [20] * 3


@each_way
async def test_within_sessions_and_with_projections_nothing_is_coalesced(host: Host) -> None:
    engine = with_pool(host)
    store = coalescing_on(engine)
    async with host.caller() as (session, _):
        within = store.within(session)
        with statements_of(host.engine) as statements:
            await settled(publish_to(within, "1"))
        assert "append_guarded" in names_of(statements)

    projecting = store.with_projections(OrderProjector())
    with statements_of(engine) as statements:
        outcomes = await at_once(host, [partial(publish_to, projecting, f"{number}") for number in range(4)])
    assert all(isinstance(outcome, list) for outcome in outcomes)
    assert "append_each" not in names_of(statements)
    await settled(engine.dispose())


@event_type("order-placed")
@dataclass
class OrderPlaced:
    total: int


@each_way
async def test_objects_of_event_types_travel_together_too(host: Host) -> None:
    engine = with_pool(host)
    kind: Any = EventStore if host.asynchronous else SyncEventStore
    store = kind(engine, types=EventTypes(OrderPlaced), coalesce=True)

    with patch.object(EventStorage, "publish_each", autospec=True, side_effect=EventStorage.publish_each) as together:
        for _ in range(20):
            outcomes = await at_once(
                host, [partial(publish_to, store, f"{number}", OrderPlaced(number)) for number in range(8)]
            )
            assert [stored[0].payload for stored in outcomes] == [OrderPlaced(number) for number in range(8)]
            if together.called:
                break

    assert together.called
    await settled(engine.dispose())


@each_async_way
async def test_a_default_isolation_level_that_does_not_fit_is_noticed(host: Host) -> None:
    engine = with_pool(host, connect_args={"server_settings": {"default_transaction_isolation": "repeatable read"}})
    store = coalescing_on(engine)

    for position in range(2):
        outcomes = await asyncio.gather(*(publish_to(store, f"{number}") for number in range(5)))

        assert [events[0].position for events in outcomes] == [position] * 5
    await engine.dispose()


@each_driver("sqlite", "sqlite+aiosqlite", "postgresql+asyncpg")
async def test_the_option_is_accepted_where_there_is_nothing_to_gain(host: Host) -> None:
    store = coalescing_on(host.engine)
    memory = EventStore(InMemoryEventStorageAdapter(), coalesce=True)
    for each in (store, memory):
        (stored,) = await settled(publish_to(each, "1", condition=stream_is_empty()))
        assert stored.position == 0

    with pytest.raises(ConfigurationError, match="pass options to the adapter"):
        EventStore(SQLAlchemyEventStorageAdapter("sqlite+aiosqlite://"), coalesce=True)


@each_async_way
async def test_a_session_factory_that_leads_elsewhere_has_batches_of_its_own(
    host: Host, make_postgres_database: Callable[..., PostgresDatabase]
) -> None:
    """As for tenants with databases of their own: what leads to another engine does not travel together."""
    other = make_postgres_database(prepared_by=install_schema)
    engines = {"one": with_pool(host), "two": create_async_engine(other.url("asyncpg"))}
    tenant: ContextVar[str] = ContextVar("tenant")

    class Routing(Session):
        def get_bind(self, *_: Any, **__: Any) -> Any:
            return engines[tenant.get()].sync_engine

    store = EventStore(async_sessionmaker(sync_session_class=Routing), coalesce=True)

    async def publish(name: str, number: int) -> str:
        tenant.set(name)
        (stored,) = await publish_to(store, f"{number}", new_event(name))
        assert stored.position == 0
        return str(stored.name)

    await asyncio.gather(*(publish(name, number) for number in range(5) for name in engines))

    for name, engine in engines.items():
        async with engine.connect() as connection:
            names = (await connection.execute(text("SELECT name FROM es_events"))).scalars().all()
        assert list(names) == [name] * 5
        await engine.dispose()


def test_event_loops_that_have_ended_are_forgotten(make_postgres_database: Callable[..., PostgresDatabase]) -> None:
    """As of workers that run each of their tasks in an event loop of its own."""
    database = make_postgres_database(prepared_by=install_schema)
    engine = create_async_engine(database.url("asyncpg"), poolclass=NullPool)
    store = EventStore(async_sessionmaker(engine), coalesce=True)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def publish(number: int) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(publish_to(store, f"{number}") for _ in range(3)))

    for number in range(3):
        asyncio.run(publish(number))
    gc.collect()

    assert [loop() for loop in loops] == [None] * 3


@each_way
async def test_engines_that_a_session_factory_makes_for_each_call_are_forgotten(host: Host) -> None:
    """As for tenants with schemas of their own."""
    engine = with_pool(host)
    sync_engine = getattr(engine, "sync_engine", engine)
    made: list[weakref.ref[Any]] = []

    class Routing(Session):
        def get_bind(self, *_: Any, **__: Any) -> Any:
            bind = sync_engine.execution_options(schema_translate_map={"tenant": None})
            made.append(weakref.ref(bind))
            return bind

    kind: Any = EventStore if host.asynchronous else SyncEventStore
    factory = async_sessionmaker(sync_session_class=Routing) if host.asynchronous else sessionmaker(class_=Routing)
    store = kind(factory, coalesce=True)
    for number in range(32 + 5):
        await settled(publish_to(store, f"{number}"))
    gc.collect()

    assert sum(each() is not None for each in made) <= 32 + 1
    await settled(engine.dispose())

"""What a process goes through while it has a store: event loops, threads, forks, a small pool, a restarted database."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, StaticPool, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from eventstore_sa import EventStore, NewEvent, SyncEventStore, configure_sqlite
from eventstore_sa.conditions import stream_is_empty
from eventstore_sa.errors import ConfigurationError, StorageError, UnmetWriteConditionError
from eventstore_sa.store.adapters import (
    InMemoryEventStorageAdapter,
    SQLAlchemyEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.testing.postgres import PostgresDriver, PostgresServer, temporary_postgres
from tests.awaiting import collected, entered, settled
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.hosts import (
    KINDS_OF_DRIVERS,
    POSTGRES_DRIVERS,
    SQLITE_DRIVERS,
    Ground,
    Host,
    each_driver,
    each_kind_of_driver,
    install_host,
    open_postgres_ground,
)
from tests.integration.test_lost_connections import small_pool
from tests.interleaving import install_schema
from tests.patience import wait_until

MakeDatabase = Callable[..., PostgresDatabase]

ASYNC_DRIVERS: tuple[PostgresDriver, ...] = ("asyncpg", "psycopg")
SYNC_DRIVERS: tuple[PostgresDriver, ...] = ("psycopg", "psycopg2")


@pytest.fixture
def database(make_postgres_database: MakeDatabase) -> PostgresDatabase:
    return make_postgres_database(prepared_by=install_schema)


def event(name: str = "something-happened") -> NewEvent[str, Any, Any]:
    return NewEvent(name=name, payload=None)


async def publish_and_count(store: EventStore) -> int:
    """Publish an event; return how many there are then."""
    await store.stream(category="orders", stream="1").publish(events=[event()])
    return len(await store.log().read())


# Event loops


def bind_of_engine(engine: AsyncEngine) -> Any:
    return engine


def bind_of_factory(engine: AsyncEngine) -> Any:
    return async_sessionmaker(engine)


@pytest.mark.parametrize("bind", [bind_of_engine, bind_of_factory])
@pytest.mark.parametrize("driver", ASYNC_DRIVERS)
def test_pool_that_is_used_from_a_second_event_loop_is_refused_at_once(
    database: PostgresDatabase, driver: PostgresDriver, bind: Callable[[AsyncEngine], Any]
) -> None:
    engine = create_async_engine(database.url(driver))
    store = EventStore(bind(engine))

    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(publish_and_count(store)) == 1
        with pytest.raises(ConfigurationError, match="another event loop"):
            second.run(publish_and_count(store))
        assert first.run(publish_and_count(store)) == 2
        first.run(engine.dispose())
        assert second.run(publish_and_count(store)) == 3
        second.run(engine.dispose())


@pytest.mark.parametrize("bind", [bind_of_engine, bind_of_factory])
@pytest.mark.parametrize("driver", ASYNC_DRIVERS)
def test_engine_without_a_pool_serves_one_event_loop_after_the_other(
    database: PostgresDatabase, driver: PostgresDriver, bind: Callable[[AsyncEngine], Any]
) -> None:
    store = EventStore(bind(create_async_engine(database.url(driver), poolclass=NullPool)))

    assert [asyncio.run(publish_and_count(store)) for _ in range(3)] == [1, 2, 3]


def test_engine_without_a_pool_serves_several_event_loops_at_once(database: PostgresDatabase) -> None:
    """Once it has connected: SQLAlchemy guards the very first connection with a lock that knows one loop only."""
    store = EventStore(create_async_engine(database.url("asyncpg"), poolclass=NullPool))
    assert asyncio.run(publish_and_count(store)) == 1

    def publish_ten() -> None:
        async def work() -> None:
            for _ in range(10):
                await publish_and_count(store)

        asyncio.run(work())

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(publish_ten) for _ in range(3)]:
            done.result()

    assert asyncio.run(publish_and_count(store)) == 32


def test_store_in_memory_serves_one_event_loop_after_the_other() -> None:
    store = EventStore(InMemoryEventStorageAdapter())

    assert [asyncio.run(publish_and_count(store)) for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_synchronous_store_serves_any_event_loop(database: PostgresDatabase, driver: PostgresDriver) -> None:
    engine = create_engine(database.url(driver))
    store = SyncEventStore(engine)

    async def in_a_thread() -> int:
        publish = store.stream(category="orders", stream="1").publish
        await asyncio.to_thread(publish, events=[event()])
        return len(await asyncio.to_thread(store.log().read))

    assert [asyncio.run(in_a_thread()) for _ in range(3)] == [1, 2, 3]
    engine.dispose()


async def test_connection_that_all_tasks_share_is_used_in_turn_through_a_factory_too() -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    configure_sqlite(engine)
    store = EventStore(async_sessionmaker(engine))
    await store.create_schema()

    await asyncio.gather(*(publish_and_count(store) for _ in range(20)))

    assert [event.position for event in await store.log().read()] == list(range(20))
    await engine.dispose()


# Threads


@each_driver("sqlite", "postgresql+psycopg", "postgresql+psycopg2")
async def test_threads_share_a_store(host: Host) -> None:
    engine = host.make_engine(poolclass=None)
    store = host.store_on(engine)

    def publish_ten(stream: str) -> None:
        for _ in range(10):
            store.stream(category="orders", stream=stream).publish(events=[event()])

    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(publish_ten, str(number % 3)) for number in range(6)]:
            done.result()

    for stream in "012":
        positions = [event.position for event in store.stream(category="orders", stream=stream).read()]
        assert positions == list(range(20))
    assert len(store.log().read()) == 60
    engine.dispose()


# Forks


def in_child(work: Callable[[], object]) -> None:
    """Do something in a forked process, and fail if it fails there."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_store_goes_on_in_a_forked_process_and_in_its_parent(
    database: PostgresDatabase, driver: PostgresDriver
) -> None:
    """SQLAlchemy's pools do not notice: the child would talk into its parent's connection."""
    engine = create_engine(database.url(driver), pool_size=1, max_overflow=0)
    store = SyncEventStore(engine)
    stream = store.stream(category="orders", stream="1")
    stream.publish(events=[event("before")])
    with engine.connect() as connection:
        parents = connection.scalar(text("SELECT pg_backend_pid()"))

    def in_the_child() -> None:
        with pytest.raises(ConfigurationError, match=r"engine.dispose\(close=False\)"):
            stream.publish(events=[event("refused")])
        engine.dispose(close=False)
        for _ in range(3):
            stream.publish(events=[event("in child")])
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT pg_backend_pid()")) != parents

    in_child(in_the_child)

    stream.publish(events=[event("in parent")])
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) == parents
    names = [stored.name for stored in store.log().read()]
    engine.dispose()
    assert names == ["before", *["in child"] * 3, "in parent"]


@pytest.mark.parametrize("driver", SYNC_DRIVERS)
def test_engine_that_belongs_to_the_store_needs_no_care_in_a_forked_process(
    database: PostgresDatabase, driver: PostgresDriver
) -> None:
    with SyncEventStore(database.url(driver)) as store:
        stream = store.stream(category="orders", stream="1")
        stream.publish(events=[event("before")])

        in_child(lambda: [stream.publish(events=[event("in child")]) for _ in range(3)])

        stream.publish(events=[event("in parent")])
        names = [stored.name for stored in store.log().read()]
    assert names == ["before", *["in child"] * 3, "in parent"]


def test_engine_without_a_pool_needs_no_care_in_a_forked_process(database: PostgresDatabase) -> None:
    store = SyncEventStore(create_engine(database.url("psycopg"), poolclass=NullPool))
    stream = store.stream(category="orders", stream="1")
    stream.publish(events=[event("before")])

    in_child(lambda: stream.publish(events=[event("in child")]))

    assert [stored.name for stored in store.log().read()] == ["before", "in child"]


# A small pool


CALLS: dict[str, Callable[[Any], Any]] = {
    "publish": lambda store: store.stream(category="orders", stream="2").publish(events=[event()]),
    "publish to many": lambda store: store.category(category="orders").publish(
        streams={"2": {"events": [event()]}, "3": {"events": [event()], "condition": stream_is_empty()}}
    ),
    "repeated publish": lambda store: store.stream(category="orders", stream="1").publish(
        events=[REPEATED], condition=stream_is_empty()
    ),
    "latest": lambda store: store.log().latest(),
    "read": lambda store: store.log().read(),
    "read of a stream": lambda store: store.stream(category="orders", stream="1").read(),
    "watermark": lambda store: store.watermark(),
    "streams": lambda store: collected(store.streams()),
    "categories": lambda store: collected(store.categories()),
    "create_schema": lambda store: store.create_schema(),
}
REPEATED = event("repeated")


@in_turn("call", list(CALLS))
@each_kind_of_driver()
async def test_no_call_needs_a_second_connection(host: Host, call: str) -> None:
    host.ground.empty()
    engine = small_pool(host)
    store = host.store_on(engine)
    await settled(store.stream(category="orders", stream="1").publish(events=[REPEATED]))

    for _ in range(2):
        try:
            await settled(CALLS[call](store))
        except UnmetWriteConditionError:
            assert call == "publish to many"

    assert engine.pool.checkedout() == 0
    await settled(engine.dispose())


@each_kind_of_driver()
async def test_scan_holds_no_connection_between_its_pages(host: Host) -> None:
    engine = small_pool(host)
    kind: Any = SQLAlchemyEventStorageAdapter if host.asynchronous else SyncSQLAlchemyEventStorageAdapter
    store: Any = (EventStore if host.asynchronous else SyncEventStore)(kind(engine, page_size=2))
    for number in range(6):
        await host.publish(store, f"event-{number}")
    seen: list[str] = []

    if host.asynchronous:
        async for stored in store.log().iterate():
            await host.publish(store, "meanwhile", stream="2")
            seen.append(stored.name)
    else:
        for stored in store.log().iterate():
            await host.publish(store, "meanwhile", stream="2")
            seen.append(stored.name)

    await settled(engine.dispose())
    assert seen[:6] == [f"event-{number}" for number in range(6)]


@each_kind_of_driver()
async def test_publish_that_finds_no_connection_free_says_so(host: Host) -> None:
    engine = small_pool(host)
    store = host.store_on(engine)
    async with entered(host.session(engine)) as caller:
        await host.execute(caller, "SELECT 1")

        with pytest.raises(StorageError, match="pool_size"):
            await host.publish(store)

    await host.publish(store)
    await settled(engine.dispose())
    assert host.ground.names() == ["mine"]


# A restarted database

each_kind_of_postgres_driver = pytest.mark.parametrize(
    "driver", [driver for driver in KINDS_OF_DRIVERS if driver not in SQLITE_DRIVERS]
)


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that nobody else uses, because it is going to crash."""
    with temporary_postgres(source="local", durable=True) as server:
        yield server


@pytest.fixture(scope="module")
def own_templates(own_server: PostgresServer) -> PostgresTemplates:
    return PostgresTemplates(own_server)


@pytest.fixture
def crashing_ground(own_server: PostgresServer, own_templates: PostgresTemplates) -> Iterator[Ground]:
    with (
        fresh_database(own_server, own_templates.prepared_by(install_host)) as database,
        open_postgres_ground(database) as ground,
    ):
        yield ground


def restart(ground: Ground) -> None:
    """Kill a server process, so that the server ends all others, recovers and starts again; return when it has."""
    with ground.outside.connect() as victim, ground.outside.connect() as witness:
        os.kill(victim.scalar(text("SELECT pg_backend_pid()")), signal.SIGKILL)
        with pytest.raises(OperationalError):
            witness.execute(text("SELECT pg_sleep(600)"))
        victim.invalidate()
    wait_for_connection(ground.outside)


def wait_for_connection(engine: Engine) -> None:
    def connects() -> bool:
        try:
            with engine.connect():
                return True
        except OperationalError:
            return False

    # Seldom: each attempt costs the server a process, while it recovers.
    wait_until(connects, "the server is back", interval_s=0.05)


@each_kind_of_postgres_driver
async def test_database_may_restart_between_two_calls(crashing_ground: Ground, driver: str) -> None:
    host = Host(crashing_ground, driver, poolclass=None, pool_size=2)
    await host.publish(host.store, "before")

    restart(crashing_ground)
    await host.publish(host.store, "after")
    restart(crashing_ground)
    latest = await settled(host.store.log().latest())

    assert latest.name == "after"
    await host.aclose()
    assert crashing_ground.names() == ["before", "after"]


@pytest.fixture
def collected_sockets() -> Iterator[None]:
    """Have what psycopg 3.1 leaves open when a server refuses it collected in this test, not in a later one."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("collected_sockets")
@each_kind_of_postgres_driver
async def test_database_may_restart_in_the_middle_of_a_scan(crashing_ground: Ground, driver: str) -> None:
    host = Host(crashing_ground, driver, poolclass=None, pool_size=2)
    kind: Any = SQLAlchemyEventStorageAdapter if host.asynchronous else SyncSQLAlchemyEventStorageAdapter
    store = host.store_on(kind(host.engine, page_size=2))
    expected = [f"event-{number}" for number in range(7)]
    for name in expected:
        await host.publish(store, name)

    seen: list[str] = []
    events = store.log().iterate()
    while (stored := await next_of(events)) is not None:
        seen.append(stored.name)
        if len(seen) == 4:
            restart(crashing_ground)

    await host.aclose()
    assert seen == expected


async def next_of(events: Any) -> Any:
    """Return the next event of an iterator of either kind, or None."""
    if hasattr(events, "__anext__"):
        return await anext(events, None)
    return next(events, None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("collected_sockets")
@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
async def test_database_that_is_not_there_is_an_error_of_the_library(
    host_database: PostgresDatabase, driver: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ground = Ground(create_engine(host_database.url("psycopg").set(port=taken.getsockname()[1])))
        host = Host(ground, driver)

        for call in CALLS.values():
            with pytest.raises(StorageError, match="could not connect"):
                await settled(call(host.store))
        await host.aclose()

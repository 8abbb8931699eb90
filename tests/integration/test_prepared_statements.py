"""Statements of the library's own that are executed without SQLAlchemy's results: only unseen, and with the same errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import asyncpg
import pytest
from sqlalchemy import AsyncAdaptedQueuePool, Connection, Engine, QueuePool, StaticPool, event, text

from eventstore_sa import (
    EventQuery,
    Projection,
    ProjectionStore,
    QueryItem,
    StreamIdentifier,
    SyncProjectionStore,
)
from eventstore_sa.conditions import stream_is_empty
from eventstore_sa.errors import ConcurrencyError, ConfigurationError, LockTimeoutError, SchemaError, StorageError
from eventstore_sa.persistence.events.dialects import sqlite
from eventstore_sa.persistence.transactions.prepared import PreparedStatement
from tests.awaiting import entered, settled
from tests.blocking import terminate_others, wait_for_waiting
from tests.hosts import POSTGRES_DRIVERS, Host, each_driver, each_kind_of_driver, new_event
from tests.patience import wait_until

ORDER = StreamIdentifier("orders", "1")


def projections(host: Host, bind: Any = None) -> Any:
    kind: Any = ProjectionStore if host.asynchronous else SyncProjectionStore
    return kind(host.engine if bind is None else bind)


def pooled(host: Host, **options: Any) -> Any:
    pool = AsyncAdaptedQueuePool if host.asynchronous else QueuePool
    return host.make_engine(poolclass=pool, pool_size=1, max_overflow=0, **options)


def order(state: object) -> Projection[Any, Any]:
    return Projection(id="1", name="orders", source=ORDER, state=state, metadata=None)


async def saved(store: Any, state: object = 1) -> int:
    version: int = await settled(store.save(projection=order(state)))
    return version


async def loaded(store: Any) -> Any:
    found = await settled(store.load(name="orders", id="1"))
    return None if found is None else found.state


CALLS: Sequence[Callable[[Host], Any]] = (
    lambda host: saved(projections(host)),
    lambda host: host.store.stream(category="orders", stream="1").publish(events=[new_event()]),
    lambda host: host.store.stream(category="orders", stream="1").latest(),
)
"""One statement each."""


@pytest.fixture
async def pooled_host(host: Host) -> AsyncIterator[Host]:
    """Provide the host with a pool."""
    pooled = Host(host.ground, host.driver, poolclass=None)
    yield pooled
    await pooled.aclose()


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collect what goes through `Connection.execute`."""
    statements: list[object] = []
    execute = Connection.execute

    def note(connection: Connection, statement: Any, *arguments: Any, **options: Any) -> Any:
        statements.append(statement)
        return execute(connection, statement, *arguments, **options)

    monkeypatch.setattr(Connection, "execute", note)
    return statements


@each_driver()
async def test_what_nobody_sees_is_executed_directly(pooled_host: Host, executed: list[object]) -> None:
    await used(pooled_host)
    executed.clear()

    assert await saved(projections(pooled_host)) == 1
    assert await loaded(projections(pooled_host)) == 1
    await used(pooled_host)

    assert executed == []


async def used(host: Host) -> None:
    """Publish and read events in every way that needs no statement made for the occasion."""
    stream = host.store.stream(category="orders", stream="1")
    [published] = await settled(stream.publish(events=[new_event(tags=["a", "b"])]))
    for source in (
        stream,
        host.store.category(category="orders"),
        host.store.log(),
        host.store.log().partitions(1)[0],
        host.store.tag("a"),
        host.store.query(EventQuery([QueryItem(tags=["a"]), QueryItem(tags=["b"])])),
    ):
        assert await settled(source.latest()) == published
        assert (await settled(source.read(backwards=True, limit=2)))[0] == published
    await settled(host.store.watermark())


@each_kind_of_driver()
async def test_listeners_see_every_statement(pooled_host: Host) -> None:
    await used(pooled_host)  # the first use of a store compares its mode of locking
    engine = getattr(pooled_host.engine, "sync_engine", pooled_host.engine)
    seen: list[str] = []
    event.listen(engine, "before_execute", lambda *_: seen.append("before_execute"))
    event.listen(engine, "after_execute", lambda *_: seen.append("after_execute"))

    for call in CALLS:
        seen.clear()
        await settled(call(pooled_host))

        assert seen == ["before_execute", "after_execute"]


@each_kind_of_driver()
async def test_listeners_see_every_transaction(pooled_host: Host) -> None:
    await used(pooled_host)
    engine = getattr(pooled_host.engine, "sync_engine", pooled_host.engine)
    seen: list[str] = []
    event.listen(engine, "begin", lambda *_: seen.append("begin"))
    event.listen(engine, "commit", lambda *_: seen.append("commit"))

    await settled(pooled_host.store.stream(category="orders", stream="1").publish(events=[new_event()]))

    assert seen == ["begin", "commit"]


@each_driver("sqlite+aiosqlite", "sqlite")
async def test_publish_does_not_join_what_is_begun_on_a_connection_that_all_share(host: Host) -> None:
    engine = host.make_engine(poolclass=StaticPool)
    store = host.store_on(engine)
    async with entered(engine.connect()) as connection:
        await settled(connection.execute(text("INSERT INTO notes (note) VALUES ('mine')")))
        with pytest.raises(StorageError):
            await settled(store.stream(category="orders", stream="1").publish(events=[new_event()]))
        await settled(connection.rollback())

    assert await settled(store.stream(category="orders", stream="1").read()) == []
    await settled(engine.dispose())


async def test_publish_is_repeated_if_its_stream_changes_before_the_look_at_its_condition(
    sqlite_ground: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing holds SQLite's lock between the two statements."""
    host = Host(sqlite_ground, "sqlite")
    insertion, unmet = sqlite._insertion, [True]

    def insertion_at_first_unmet(prefix: str, schema: str | None) -> Any:
        return (
            PreparedStatement(text("SELECT 1 WHERE 0 AND :document"))
            if unmet and unmet.pop()
            else insertion(prefix, schema)
        )

    monkeypatch.setattr(sqlite, "_insertion", insertion_at_first_unmet)
    host.store.stream(category="orders", stream="1").publish(events=[new_event()], condition=stream_is_empty())

    assert unmet == []
    assert sqlite_ground.names() == ["something-happened"]
    await host.aclose()


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_listeners_for_all_engines_see_every_statement(
    pooled_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await used(pooled_host)
    monkeypatch.setattr(Engine, "_has_events", False)  # to be as it was afterwards, which SQLAlchemy does not see to
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        for call in CALLS:
            await settled(call(pooled_host))
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    seen = [statement for statement in seen if not statement.startswith("BEGIN")]
    assert [statement.split()[0] for statement in seen] == ["INSERT", "SELECT", "SELECT"]


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_echo_shows_every_statement(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    engine = host.make_engine()
    with caplog.at_level(logging.INFO, logger="sqlalchemy.engine"):
        await saved(projections(host, engine))
        stream = host.store_on(engine).stream(category="orders", stream="1")
        await settled(stream.publish(events=[new_event()]))
        await settled(stream.latest())
    await settled(engine.dispose())

    for part in ("INSERT INTO es_projections", "es_append_v1", "FROM es_events"):
        assert any(part in record.getMessage() for record in caplog.records)


@each_driver(*POSTGRES_DRIVERS)
async def test_host_sees_the_statements_of_its_transaction(host: Host, executed: list[object]) -> None:
    async with host.caller() as (session, _):
        assert await saved(projections(host).within(session)) == 1
        await settled(session.commit())

    assert len(executed) == 1


@each_driver(*POSTGRES_DRIVERS)
async def test_missing_tables_are_reported_as_ever(host: Host) -> None:
    engine = pooled(host, execution_options={"schema_translate_map": {None: "nowhere"}})
    with pytest.raises(SchemaError):
        await saved(projections(host, engine))
    await settled(engine.dispose())
    with host.ground.outside.begin() as connection:
        connection.execute(text("ALTER TABLE es_projections RENAME TO elsewhere"))
    try:
        with pytest.raises(SchemaError):
            await saved(projections(host))
    finally:
        with host.ground.outside.begin() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO es_projections"))
    assert await saved(projections(host)) == 1


@each_driver(*POSTGRES_DRIVERS)
async def test_connection_that_was_lost_in_the_pool_is_replaced(host: Host) -> None:
    engine = pooled(host)
    store = projections(host, engine)
    await saved(store)
    terminate_others(host.ground)

    assert await saved(store, 2) == 2
    assert await loaded(store) == 2
    await settled(engine.dispose())


@each_driver(*POSTGRES_DRIVERS)
async def test_refused_statement_leaves_the_connection_usable(host: Host) -> None:
    engine = pooled(host, connect_args=_with_timeout(host.driver))
    store = projections(host, engine)
    await saved(store)
    with host.ground.outside.begin() as connection:
        connection.execute(text("SELECT FROM es_projections FOR UPDATE"))
        with pytest.raises(LockTimeoutError):
            await saved(store, 2)

    assert await saved(store, 3) == 2
    await settled(engine.dispose())


@each_driver("postgresql+asyncpg", "postgresql+psycopg_async")
async def test_cancelled_statement_gives_its_place_in_the_pool_back(host: Host) -> None:
    engine = pooled(host)
    store = projections(host, engine)
    await saved(store)
    with host.ground.outside.begin() as connection:
        connection.execute(text("SELECT FROM es_projections FOR UPDATE"))
        saving = asyncio.ensure_future(saved(store, 2))
        await asyncio.to_thread(wait_for_waiting, host.ground)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving

    assert await asyncio.wait_for(saved(store, 3), 20) in (2, 3)
    assert engine.pool.checkedout() == 0
    await settled(engine.dispose())


async def test_statement_is_prepared_anew_after_the_table_was_altered(postgres_ground: Any) -> None:
    """By others, so that SQLAlchemy does not know: asyncpg refuses the statement once, and it is repeated."""
    host = Host(postgres_ground, "postgresql+asyncpg")
    engine = pooled(host)
    store = projections(host, engine)
    await saved(store)
    try:
        with postgres_ground.outside.begin() as connection:
            connection.execute(text("ALTER TABLE es_projections ALTER COLUMN version TYPE integer"))
        outcomes = [await _outcome(saved(store)) for _ in range(3)]
    finally:
        with postgres_ground.outside.begin() as connection:
            connection.execute(text("ALTER TABLE es_projections ALTER COLUMN version TYPE bigint"))
        await settled(engine.dispose())
        await host.aclose()

    assert outcomes == [2, 3, 4]


async def test_refused_publish_leaves_the_prepared_statements_of_the_pool(postgres_ground: Any) -> None:
    """A repeated publish is refused by the unique key of ids, which says nothing about statements."""
    host = Host(postgres_ground, "postgresql+asyncpg")
    engine = pooled(host)
    stream = host.store_on(engine).stream(category="orders", stream="1")
    repeated = new_event("placed")
    for _ in range(2):
        await stream.publish(events=[repeated])

    with patch.object(asyncpg.Connection, "prepare", autospec=True, side_effect=asyncpg.Connection.prepare) as prepare:
        for _ in range(2):
            await stream.publish(events=[repeated])

    assert prepare.call_count == 0
    await settled(engine.dispose())
    await host.aclose()


async def test_statements_that_are_gone_from_a_session_are_prepared_anew(postgres_ground: Any) -> None:
    """As after a DISCARD ALL of the host's, of which neither SQLAlchemy nor asyncpg knows: one is refused."""
    host = Host(postgres_ground, "postgresql+asyncpg")
    engine = pooled(host)
    stream = host.store_on(engine).stream(category="orders", stream="1")
    await stream.publish(events=[new_event("1")])
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        await driver.execute("DISCARD ALL")
    with pytest.raises(ConfigurationError, match="prepared statement"):
        await stream.publish(events=[new_event("2")])

    (stored,) = await stream.publish(events=[new_event("2")])

    assert stored.position == 1
    await settled(engine.dispose())
    await host.aclose()


async def test_pool_is_not_drained_by_statements(postgres_ground: Any) -> None:
    host = Host(postgres_ground, "postgresql+psycopg_async")
    engine = pooled(host)
    store = projections(host, engine)
    await asyncio.gather(*(saved(store) for _ in range(20)))

    wait_until(lambda: engine.pool.checkedout() == 0, "all connections are back in the pool")
    assert await loaded(store) == 1
    await settled(engine.dispose())
    await host.aclose()


async def _outcome(call: Any) -> object:
    try:
        return await call
    except StorageError as error:
        return error


def _with_timeout(driver: str) -> dict[str, Any]:
    if driver.endswith("asyncpg"):
        return {"server_settings": {"lock_timeout": "100ms"}}
    return {"options": "-c lock_timeout=100ms"}


async def test_session_of_its_own_is_not_taken_for_a_connection_of_ours(
    postgres_ground: Any, executed: list[object]
) -> None:
    """A connection that has begun nothing would be left in a transaction that SQLAlchemy knows nothing of."""
    host = Host(postgres_ground, "postgresql+psycopg")
    async with entered(host.engine.connect()) as connection:
        assert await loaded(projections(host, connection)) is None
        assert connection.in_transaction()
    await host.aclose()

    assert len(executed) == 1


@contextmanager
def altered_events(host: Host) -> Generator[None]:
    """Do what a migration of the application may do while it runs: results of statements have another type then."""

    def alter(kind: str) -> None:
        with host.ground.outside.begin() as connection:
            connection.execute(text(f'ALTER TABLE es_events ALTER COLUMN name TYPE {kind} COLLATE "C"'))

    alter("varchar(500)")
    try:
        yield
    finally:
        alter("text")


@each_driver(*POSTGRES_DRIVERS)
async def test_reads_and_publishes_survive_that_a_column_gets_another_type(host: Host) -> None:
    size = 5  # more than there are tries
    engine = host.make_engine(poolclass=AsyncAdaptedQueuePool if host.asynchronous else QueuePool, pool_size=size)
    store = host.store_on(engine)
    stream = store.stream(category="orders", stream="1")
    calls: Sequence[Callable[[], Any]] = (
        stream.read,
        stream.latest,
        store.log().read,
        lambda: stream.publish(events=[new_event()]),
    )
    held = [await settled(engine.connect()) for _ in range(size)]
    for connection in held:
        await settled(connection.close())
    for call in calls:
        # The connections of the pool take turns, until each has prepared the statement.
        for _ in range(size * 8):
            await settled(call())

    with altered_events(host):
        for call in calls:
            for _ in range(size + 1):
                await settled(call())

    await settled(engine.dispose())


@each_driver("postgresql+asyncpg", "postgresql+psycopg_async", "postgresql+psycopg")  # psycopg2 prepares nothing
async def test_transaction_of_the_host_that_meets_an_altered_column_can_be_repeated(host: Host) -> None:
    engine = pooled(host)
    connection = await settled(engine.connect())
    stream = host.store_on(connection).stream(category="orders", stream="1")
    for _ in range(8):
        await settled(stream.read())
        await settled(connection.commit())

    with altered_events(host):
        with pytest.raises(ConcurrencyError, match="a table was altered after the driver had prepared") as refused:
            await settled(stream.read())
        await settled(connection.rollback())
        again = await settled(stream.read())
        await settled(connection.close())
    await settled(engine.dispose())

    assert refused.value.must_roll_back
    assert again == []

"""Conditions of the application's own: SQL expressions and callables, their scopes, alone and combined."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import ColumnElement, Connection, Engine, create_engine, event, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from eventstore_sa import EventStore, NewEvent, SyncEventStore, configure_sqlite
from eventstore_sa.conditions import (
    ConditionScope,
    NoCondition,
    WriteCondition,
    position_is,
    stream_exists,
    stream_is_empty,
)
from eventstore_sa.errors import ConfigurationError, LockTimeoutError, TransactionError, UnmetWriteConditionError
from eventstore_sa.persistence.events.conditions import ConditionContext
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import CategoryIdentifier, LogIdentifier
from tests.databases import PostgresDatabase
from tests.patience import PATIENCE_S
from tests.stores import install_schema


class FewerInCategory(WriteCondition, frozen=True):
    """Fewer than `amount` events are in the category."""

    scope: ClassVar[ConditionScope] = ConditionScope.CATEGORY
    amount: int

    def to_expression(self, context: ConditionContext) -> ColumnElement[bool]:
        events = context.events
        counted = select(func.count()).where(events.c.category == context.stream.category)
        return counted.scalar_subquery() < self.amount


class FewerInLog(WriteCondition, frozen=True):
    """Fewer than `amount` events are in the log."""

    scope: ClassVar[ConditionScope] = ConditionScope.LOG
    amount: int

    def to_expression(self, context: ConditionContext) -> ColumnElement[bool]:
        return select(func.count()).select_from(context.events).scalar_subquery() < self.amount


class LatestIs(WriteCondition, frozen=True):
    """The last event of the stream has that name."""

    name: str


class Unknown(WriteCondition, frozen=True):
    """Nobody knows how to check this."""


def latest_is(condition: LatestIs, context: Any) -> bool:
    return context.latest is not None and context.latest.name == condition.name


def registered(store: EventStore) -> EventStore:
    adapter: Any = store.adapter
    adapter.register_condition(LatestIs, latest_is)
    if isinstance(adapter, InMemoryEventStorageAdapter):
        adapter.register_condition(
            FewerInCategory,
            lambda condition, context: (
                len(list(context.scan(CategoryIdentifier(context.stream.category)))) < condition.amount
            ),
        )
        adapter.register_condition(
            FewerInLog, lambda condition, context: len(list(context.scan(LogIdentifier()))) < condition.amount
        )
    return store


@asynccontextmanager
async def engine_for(
    driver: str, tmp_path: Path, make_postgres_database: Callable[..., PostgresDatabase]
) -> AsyncIterator[AsyncEngine]:
    if driver == "sqlite":
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/events.db")
        configure_sqlite(engine)
        await EventStore(engine).create_schema()
    else:
        engine = create_async_engine(make_postgres_database(prepared_by=install_schema).url(driver))
    yield engine
    await engine.dispose()


@pytest.fixture(params=["sqlite", "asyncpg", "psycopg"])
async def engine(
    request: pytest.FixtureRequest, tmp_path: Path, make_postgres_database: Callable[..., PostgresDatabase]
) -> AsyncIterator[AsyncEngine]:
    async with engine_for(request.param, tmp_path, make_postgres_database) as engine:
        yield engine


@pytest.fixture(params=["memory", "sqlite", "asyncpg", "psycopg"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, make_postgres_database: Callable[..., PostgresDatabase]
) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        yield registered(EventStore(InMemoryEventStorageAdapter()))
        return
    async with engine_for(request.param, tmp_path, make_postgres_database) as engine:
        yield registered(EventStore(engine))


def new_event(name: str = "happened") -> NewEvent[str, int, None]:
    return NewEvent(name=name, payload=1)


async def test_an_expression_decides(store: EventStore) -> None:
    stream = store.stream(category="orders", stream="1")
    await stream.publish(events=[new_event()], condition=FewerInCategory(1))

    with pytest.raises(UnmetWriteConditionError, match=r"FewerInCategory\(amount=1\)") as caught:
        await stream.publish(events=[new_event()], condition=FewerInCategory(1))

    assert caught.value.condition == FewerInCategory(1)
    assert caught.value.actual_position == 0
    assert len(await store.log().read()) == 1


async def test_a_callable_decides_by_the_latest_event(store: EventStore) -> None:
    stream = store.stream(category="orders", stream="1")
    with pytest.raises(UnmetWriteConditionError):
        await stream.publish(events=[new_event("paid")], condition=LatestIs("placed"))

    await stream.publish(events=[new_event("placed")])
    await stream.publish(events=[new_event("paid")], condition=LatestIs("placed"))

    assert [event.name for event in await stream.read()] == ["placed", "paid"]


@in_turn(
    "category, condition, met",
    {
        "three": ("a", LatestIs("placed") & FewerInCategory(2) & FewerInLog(2), True),
        "callable and position": ("b", LatestIs("placed") & position_is(0), True),
        "callable and unmet position": ("c", LatestIs("placed") & position_is(1), False),
        "unmet callable and existence": ("d", LatestIs("other") & stream_exists(), False),
        "unmet callable or existence": ("e", LatestIs("other") | stream_exists(), True),
        "unmet callable or absence": ("f", LatestIs("other") | stream_is_empty(), False),
        "nested": ("g", LatestIs("placed") & (FewerInCategory(1) | position_is(0)), True),
        "unmet or none": ("h", FewerInLog(1) | NoCondition(), True),
    },
)
async def test_they_combine_with_each_other_and_with_built_in_ones(
    store: EventStore, category: str, condition: WriteCondition, met: bool
) -> None:
    stream = store.stream(category=category, stream="1")
    await stream.publish(events=[new_event("placed")])

    for events in ([], [new_event()]):
        if met:
            await stream.publish(events=events, condition=condition)
        else:
            with pytest.raises(UnmetWriteConditionError):
                await stream.publish(events=events, condition=condition)

    assert len(await stream.read()) == (2 if met else 1)


async def test_each_stream_of_a_publish_to_many_has_its_own(store: EventStore) -> None:
    category = store.category(category="orders")
    await category.stream(stream="1").publish(events=[new_event("placed")])

    with pytest.raises(UnmetWriteConditionError) as caught:
        await category.publish(
            streams={
                "1": {"events": [new_event()], "condition": LatestIs("placed")},
                "2": {"events": [new_event()], "condition": LatestIs("placed")},
            }
        )

    assert caught.value.stream is not None
    assert caught.value.stream.stream == "2"
    assert len(await category.read()) == 1


async def test_one_that_nobody_can_check_is_refused(store: EventStore) -> None:
    with pytest.raises(ConfigurationError, match="register_condition"):
        await store.stream(category="orders", stream="1").publish(
            events=[new_event()], condition=Unknown() | NoCondition()
        )

    assert await store.log().read() == []


async def test_a_repeated_publish_returns_what_is_stored_whatever_its_condition(store: EventStore) -> None:
    stream, events = store.stream(category="orders", stream="1"), [new_event()]
    stored = await stream.publish(events=events, condition=FewerInLog(1))

    assert await stream.publish(events=events, condition=FewerInLog(1)) == stored


async def test_a_scope_of_a_category_or_the_log_keeps_concurrent_publishers_apart(store: EventStore) -> None:
    for category, condition in (("orders", FewerInCategory(3)), ("invoices", FewerInLog(5))):
        outcomes = await asyncio.gather(
            *(
                store.stream(category=category, stream=str(number)).publish(events=[new_event()], condition=condition)
                for number in range(10)
            ),
            return_exceptions=True,
        )
        refusals = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert all(isinstance(refusal, UnmetWriteConditionError) for refusal in refusals), refusals

    assert len(await store.category(category="orders").read()) == 3
    assert len(await store.log().read()) == 5


async def test_lock_evaluate_and_append_are_three_statements(engine: AsyncEngine) -> None:
    store = registered(EventStore(engine))
    await store.stream(category="orders", stream="1").publish(events=[new_event()])
    statements: list[str] = []

    def count(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("BEGIN", "SAVEPOINT", "RELEASE")):
            statements.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", count)
    await store.category(category="orders").publish(
        streams={
            str(number): {"events": [new_event()], "condition": FewerInCategory(9) & FewerInLog(9)}
            for number in range(5)
        }
    )

    assert len(statements) <= 3, statements


async def test_an_unmet_one_leaves_the_host_transaction_usable(engine: AsyncEngine) -> None:
    store = registered(EventStore(engine))
    async with AsyncSession(engine) as session, session.begin():
        stream = store.within(session).stream(category="orders", stream="1")
        await stream.publish(events=[new_event()])
        with pytest.raises(UnmetWriteConditionError):
            await stream.publish(events=[new_event()], condition=FewerInCategory(1))
        await stream.publish(events=[new_event()], condition=FewerInCategory(2))

    assert len(await store.log().read()) == 2


async def test_an_evaluator_that_runs_out_of_time_raises_what_it_raises(engine: AsyncEngine) -> None:
    store = EventStore(engine)

    def out_of_time(_condition: LatestIs, _context: ConditionContext) -> bool:
        raise TimeoutError("of the application")

    adapter: Any = store.adapter
    adapter.register_condition(LatestIs, out_of_time)
    with pytest.raises(TimeoutError, match="of the application"):
        await store.stream(category="orders", stream="1").publish(events=[new_event()], condition=LatestIs("x"))


async def test_an_evaluator_that_fails_leaves_the_host_transaction_usable(engine: AsyncEngine) -> None:
    store = EventStore(engine)

    def fail(_condition: LatestIs, context: ConditionContext) -> bool:
        context.connection.execute(text("SELECT * FROM nowhere"))
        return True

    adapter: Any = store.adapter
    adapter.register_condition(LatestIs, fail)
    async with AsyncSession(engine) as session, session.begin():
        stream = store.within(session).stream(category="orders", stream="1")
        with pytest.raises(Exception, match="nowhere"):
            await stream.publish(events=[new_event()], condition=LatestIs("x"))
        await stream.publish(events=[new_event()])

    assert len(await store.log().read()) == 1


async def until_somebody_waits(engine: AsyncEngine) -> None:
    """Return when a connection waits for an advisory lock, be it for a moment."""
    waiting = text(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory' "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    async with asyncio.timeout(PATIENCE_S), engine.connect() as connection:
        while not await connection.scalar(waiting):
            pass


class TestOnPostgreSQL:
    @pytest.fixture
    async def engine(self, make_postgres_database: Callable[..., PostgresDatabase]) -> AsyncIterator[AsyncEngine]:
        url = make_postgres_database(prepared_by=install_schema).url("asyncpg")
        engine = create_async_engine(url, poolclass=NullPool)
        yield engine
        await engine.dispose()

    async def test_a_wide_lock_that_is_not_to_be_had_names_its_holder_and_stops_nobody(
        self, engine: AsyncEngine
    ) -> None:
        store = registered(EventStore(engine))
        async with AsyncSession(engine) as session, session.begin():
            await store.within(session).stream(category="orders", stream="held").publish(events=[new_event()])
            async with AsyncSession(engine) as other, other.begin():
                stream = store.within(other).stream(category="orders", stream="1")
                await other.execute(text("SET LOCAL lock_timeout = '50ms'"))
                with pytest.raises(LockTimeoutError, match=r"category 'orders'.*held by process"):
                    await stream.publish(events=[new_event()], condition=FewerInCategory(99))
                assert (await other.execute(text("SELECT 1"))).scalar() == 1

                await other.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE_S:.0f}s'"))
                waiting = asyncio.create_task(stream.publish(events=[new_event()], condition=FewerInCategory(99)))
                await until_somebody_waits(engine)
                for number in range(20):
                    await store.stream(category="orders", stream=f"free-{number}").publish(events=[new_event()])
                assert not waiting.done()
                await session.rollback()
                assert len(await waiting) == 1

    async def test_it_is_refused_where_an_older_snapshot_would_mislead_it(self, engine: AsyncEngine) -> None:
        store = registered(EventStore(engine))
        repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
        async with AsyncSession(repeatable) as session, session.begin():
            stream = store.within(session).stream(category="orders", stream="1")
            with pytest.raises(TransactionError, match="READ COMMITTED"):
                await stream.publish(events=[new_event()], condition=FewerInCategory(9))
            await stream.publish(events=[new_event()], condition=stream_is_empty())

        assert len(await store.log().read()) == 1

    async def test_a_session_factory_that_moves_to_a_connection_keeps_its_isolation_level(
        self, engine: AsyncEngine
    ) -> None:
        sessions = async_sessionmaker(engine)
        store = registered(EventStore(sessions))
        stream = store.stream(category="orders", stream="1")
        await stream.publish(events=[new_event()], condition=FewerInCategory(9))
        async with engine.execution_options(isolation_level="REPEATABLE READ").connect() as connection:
            sessions.configure(bind=connection)
            with pytest.raises(TransactionError, match="use isolation level READ COMMITTED") as caught:
                await stream.publish(events=[new_event()], condition=FewerInCategory(9))

        assert not caught.value.retryable


def test_an_engine_without_configuration_takes_its_place_before_it_evaluates(tmp_path: Path) -> None:
    engine: Engine = create_engine(f"sqlite:///{tmp_path}/events.db")
    store = SyncEventStore(engine)
    store.create_schema()

    store.stream(category="orders", stream="1").publish(events=[new_event()], condition=FewerInCategory(1))

    assert len(store.log().read()) == 1
    engine.dispose()

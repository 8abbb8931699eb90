"""Functions that are called after the commit: when it is durable, with what was stored, and without a say in it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from eventstore_sa.errors import ConfigurationError, TransactionError
from eventstore_sa.session.outcome import call_when_durable
from tests.awaiting import entered, settled
from tests.hosts import Host, each_driver, each_kind_of_driver, new_event

pytestmark = pytest.mark.keeps_connections

each_join_mode = pytest.mark.parametrize(
    "join_mode", ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"]
)


def names(events: Sequence[Any]) -> list[str]:
    return [event.name for event in events]


def stage(store: Any, name: str) -> None:
    store.stream(category="orders", stream="1").stage(events=[new_event(name)])


@each_kind_of_driver()
async def test_callback_gets_what_was_stored(host: Host) -> None:
    called: list[list[str]] = []
    async with host.caller() as (caller, store):
        stage(store, "staged before")
        store.after_commit(lambda events: called.append(names(events)))
        await host.publish(store, "published at once")
        savepoint = await settled(caller.begin_nested())
        stage(store, "staged in a savepoint")
        await settled(savepoint.commit())
        assert called == []
        await settled(caller.commit())
        assert called == [["staged before", "published at once", "staged in a savepoint"]]
        await host.publish(store, "of the next transaction")
        await settled(caller.commit())

    assert len(called) == 1


@each_kind_of_driver()
async def test_callback_is_not_called_for_what_was_rolled_back(host: Host) -> None:
    called: list[list[str]] = []
    async with host.caller() as (caller, store):
        store.after_commit(lambda events: called.append(names(events)))
        stage(store, "dropped")
        await settled(caller.rollback())
        await host.publish(store, "other")
        await settled(caller.commit())
        assert called == []

        store.after_commit(lambda events: called.append(names(events)))
        await host.publish(store, "kept")
        savepoint = await settled(caller.begin_nested())
        await host.publish(store, "undone")
        await settled(savepoint.rollback())
        await settled(caller.commit())

    assert called == [["kept"]]


@each_kind_of_driver()
async def test_events_are_committed_and_the_connection_is_free_when_it_is_called(host: Host) -> None:
    seen: list[list[str]] = []
    engine = host.make_engine()
    async with entered(host.session(engine)) as session:
        store = host.store_on(session)
        store.after_commit(lambda _: seen.append(host.ground.names()))
        stage(store, "staged")
        await settled(session.commit())
    await settled(engine.dispose())

    assert seen == [["staged"]]


@each_kind_of_driver()
async def test_failing_callback_is_logged_and_undoes_nothing(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    called: list[str] = []

    def fail(_: Sequence[Any]) -> None:
        raise ValueError("a mistake in the callback")

    async with host.caller() as (caller, store):
        store.after_commit(fail)
        store.after_commit(lambda _: called.append("second"))
        stage(store, "staged")
        with caplog.at_level(logging.ERROR, "eventstore_sa"):
            await settled(caller.commit())

    assert host.ground.names() == ["staged"]
    assert called == ["second"]
    assert "a mistake in the callback" in caplog.text


@each_driver("sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg_async")
async def test_async_callback_is_awaited_before_commit_returns(host: Host) -> None:
    counted: list[int] = []

    async def count(_: Sequence[Any]) -> None:
        counted.append(len([event async for event in host.store.log()]))

    async with host.caller() as (caller, store):
        store.after_commit(count)
        stage(store, "staged")
        await settled(caller.commit())

    assert counted == [1]


@each_driver("sqlite", "postgresql+psycopg")
async def test_async_callback_needs_an_async_session(host: Host) -> None:
    async def count(_: Sequence[Any]) -> None:
        raise AssertionError

    async with host.caller() as (_, store):
        with pytest.raises(ConfigurationError, match="without asyncio"):
            store.after_commit(count)
    with pytest.raises(TransactionError, match=r"store\.within"):
        host.store.after_commit(print)


@each_join_mode
@each_kind_of_driver()
async def test_session_that_joined_an_outer_transaction_calls_after_the_outer_commit(
    host: Host, join_mode: str
) -> None:
    called: list[list[str]] = []
    async with entered(host.engine.connect()) as connection:
        outer = await settled(connection.begin())
        async with entered(host.session(connection, join_transaction_mode=join_mode)) as session:
            store = host.store_on(session)
            store.after_commit(lambda events: called.append(names(events)))
            stage(store, "staged")
            await settled(session.commit())
        if join_mode == "control_fully":
            assert called == [["staged"]]
        else:
            assert called == []
            await settled(outer.commit())

    assert called == [["staged"]]
    assert host.ground.names() == ["staged"]


def test_engines_that_come_and_go_each_have_their_callbacks_called() -> None:
    """A new pool is often where a collected one was, and must not be taken for it."""
    called: list[int] = []
    for number in range(200):
        engine = create_engine("sqlite://", poolclass=NullPool)
        with engine.connect() as connection, connection.begin():
            call_when_durable([connection], [lambda _, number=number: called.append(number)], [])
        engine.dispose()
        del engine, connection

    assert called == list(range(200))


@each_join_mode
@each_kind_of_driver()
async def test_fixture_that_rolls_back_an_outer_transaction_leaves_nothing(host: Host, join_mode: str) -> None:
    called: list[object] = []
    async with entered(host.engine.connect()) as connection:
        outer = await settled(connection.begin())
        async with entered(host.session(connection, join_transaction_mode=join_mode)) as session:
            store = host.store_on(session)
            store.after_commit(called.append)
            stage(store, "staged")
            await host.write(session)
            await settled(session.flush())
            assert await settled(store.log().read()) == []
            await settled(store.flush())
            assert names(await settled(store.log().read())) == ["staged"]
            if join_mode != "control_fully":
                await settled(session.commit())
        if join_mode != "control_fully":
            await settled(outer.rollback())

    assert called == []
    assert host.ground.names() == []
    assert host.ground.notes() == []

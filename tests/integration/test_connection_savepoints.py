"""Savepoints of a connection, of which its session knows nothing: staged events and calls after the commit follow them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.exc import DBAPIError, SAWarning

from eventstore_sa.errors import DroppedEventsWarning, TransactionError
from eventstore_sa.session.connection_watch import watch
from tests import awaiting
from tests.awaiting import entered, settled
from tests.hosts import Host, Note, each_driver, new_event

pytestmark = pytest.mark.keeps_connections

some_drivers = each_driver("sqlite+aiosqlite", "sqlite", "postgresql+asyncpg", "postgresql+psycopg")

WATCHED = ("begin", "savepoint", "release_savepoint", "rollback_savepoint", "commit", "rollback")


def stage(store: Any, name: str) -> Any:
    return store.stream(category="orders", stream="1").stage(events=[new_event(name)])


def names(events: Sequence[Any]) -> list[str]:
    return [event.name for event in events]


@some_drivers
async def test_what_is_staged_and_flushed_in_a_savepoint_of_the_connection_is_rolled_back_with_it(host: Host) -> None:
    called: list[list[str]] = []
    async with host.caller() as (caller, store):
        store.after_commit(lambda events: called.append(names(events)))
        outside = stage(store, "outside")
        savepoint = await settled((await settled(caller.connection())).begin_nested())
        flushed = stage(store, "flushed")
        await settled(store.flush())
        waiting = stage(store, "waiting")
        await host.publish(store, "at once")
        await settled(savepoint.rollback())
        for handle in (flushed, waiting):
            assert repr(handle) == "<StagedPublish: rolled back>"
            with pytest.raises(TransactionError, match="rolled back"):
                _ = handle.events
        await settled(caller.commit())

        assert names(outside.events) == ["outside"]
        with pytest.raises(TransactionError, match="rolled back"):
            _ = flushed.events
    assert host.ground.names() == ["outside"]
    assert called == [["outside"]]


@some_drivers
async def test_what_is_staged_in_a_released_savepoint_of_the_connection_belongs_to_the_one_around_it(
    host: Host,
) -> None:
    async with host.caller() as (caller, store):
        connection = await settled(caller.connection())
        undone = await settled(connection.begin_nested())
        inner = await settled(connection.begin_nested())
        stage(store, "gone")
        await settled(inner.commit())
        await settled(undone.rollback())
        kept = await settled(connection.begin_nested())
        stage(store, "kept")
        await settled(store.flush())
        await settled(kept.commit())
        other = await settled(connection.begin_nested())
        await settled(other.rollback())
        await settled(caller.commit())

    assert host.ground.names() == ["kept"]


@some_drivers
async def test_savepoint_of_the_connection_that_a_listener_of_the_commit_rolls_back_is_written_again(
    host: Host,
) -> None:
    async with host.caller() as (caller, store):
        session = getattr(caller, "sync_session", caller)

        def try_out(_: Any) -> None:
            with session.connection().begin_nested() as savepoint:
                for publish in ("one", "two"):
                    stage(store, publish)
                savepoint.rollback()

        staged = stage(store, "staged")
        event.listen(session, "before_commit", try_out)
        await settled(caller.commit())

        assert names(staged.events) == ["staged"]
    assert host.ground.names() == ["staged"]


@some_drivers
async def test_callback_outlives_a_savepoint_that_is_begun_after_the_commit_and_rolled_back(host: Host) -> None:
    called: list[list[str]] = []
    async with entered(host.engine.connect()) as connection:
        outer = await settled(connection.begin())
        async with entered(host.session(connection, join_transaction_mode="rollback_only")) as session:
            store = host.store_on(session)
            store.after_commit(lambda events: called.append(names(events)))
            stage(store, "staged")
            await settled(session.commit())
        savepoint = await settled(connection.begin_nested())
        await settled(savepoint.rollback())
        kept = await settled(connection.begin_nested())
        await settled(kept.commit())
        assert called == []
        await settled(outer.commit())

    assert called == [["staged"]]


@some_drivers
async def test_callback_is_dropped_with_the_savepoint_that_the_session_has_joined(host: Host) -> None:
    called: list[list[str]] = []
    async with entered(host.engine.connect()) as connection:
        outer = await settled(connection.begin())
        for fate in ("undone", "kept"):
            savepoint = await settled(connection.begin_nested())
            inner = await settled(connection.begin_nested())
            async with entered(host.session(connection, join_transaction_mode="rollback_only")) as session:
                store = host.store_on(session)
                store.after_commit(lambda events: called.append(names(events)))
                stage(store, fate)
                await settled(session.commit())
            await settled(inner.commit())
            await settled(savepoint.rollback() if fate == "undone" else savepoint.commit())
        await settled(outer.commit())

    assert called == [["kept"]]
    assert host.ground.names() == ["kept"]


@each_driver("postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2")
async def test_callback_is_not_called_for_a_commit_that_the_database_refuses(host: Host) -> None:
    called: list[object] = []
    with host.ground.outside.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS checked_late"))
        connection.execute(text("CREATE TABLE checked_late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
    async with entered(host.engine.connect()) as connection:
        outer = await settled(connection.begin())
        async with entered(host.session(connection, join_transaction_mode="rollback_only")) as session:
            store = host.store_on(session)
            store.after_commit(called.append)
            stage(store, "staged")
            await host.execute(session, "INSERT INTO checked_late VALUES (1), (1)")
            await settled(session.commit())
        with pytest.raises(DBAPIError):
            await settled(outer.commit())

    assert called == []
    assert host.ground.names() == []


@each_driver("sqlite", "postgresql+psycopg")
async def test_connection_has_one_set_of_listeners_however_often_it_is_watched(host: Host) -> None:
    called: list[str] = []
    with host.engine.connect() as connection:
        watched = watch(connection)
        before = {name: len(list(getattr(connection.dispatch, name))) for name in WATCHED}
        for number in range(50):
            with connection.begin(), host.session(connection, join_transaction_mode="rollback_only") as session:
                store = host.store_on(session)
                store.after_commit(lambda events: called.extend(names(events)))
                savepoint = connection.begin_nested()
                stage(store, str(number))
                store.flush()
                savepoint.commit()
                session.commit()
        assert watch(connection) is watched
        assert {name: len(list(getattr(connection.dispatch, name))) for name in WATCHED} == before

    assert called == [str(number) for number in range(50)]


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("join_mode", ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"])
@some_drivers
async def test_close_without_commit_warns_where_rows_outlive_their_events(
    host: Host, join_mode: str, flushed: bool
) -> None:
    async with entered(host.engine.connect()) as connection:
        outer = await settled(connection.begin())
        session = host.session(connection, join_transaction_mode=join_mode)
        session.add(Note(note="mine"))
        if flushed:
            await settled(session.flush())
        stage(host.store_on(session), "dropped")
        survives = flushed and join_mode in ("conditional_savepoint", "rollback_only")
        if survives:
            with pytest.warns(DroppedEventsWarning, match="one staged or recorded publish was dropped"):
                await settled(session.close())
        else:
            await settled(session.close())
        if outer.is_active:
            await settled(outer.commit())

    assert host.ground.names() == []
    assert host.ground.notes() == (["mine"] if survives else [])


@pytest.mark.parametrize("written_by", ["statement", "bulk operation"])
@some_drivers
async def test_close_without_commit_warns_however_rows_were_written(host: Host, written_by: str) -> None:
    async with entered(host.engine.connect()) as connection:
        outer = await settled(connection.begin())
        session = host.session(connection)
        if written_by == "statement":
            await settled(session.execute(insert(Note).values(note="mine")))
        elif host.asynchronous:
            await session.run_sync(lambda sync: sync.bulk_save_objects([Note(note="mine")]))
        else:
            session.bulk_save_objects([Note(note="mine")])
        for name in ("dropped", "dropped too"):
            stage(host.store_on(session), name)
        with pytest.warns(DroppedEventsWarning, match="2 staged or recorded publishes were dropped") as warned:
            await settled(session.close())
        await settled(outer.commit())

    # `settled` awaits what has been called here.
    assert warned[0].filename in (__file__, awaiting.__file__)
    assert host.ground.notes() == ["mine"]


@pytest.mark.parametrize("end", ["rollback", "commit"])
@each_driver("sqlite", "postgresql+psycopg")
async def test_savepoint_that_ends_takes_along_those_that_are_open_in_it(host: Host, end: str) -> None:
    with host.session() as session:
        connection = session.connection()
        stage(host.store_on(session), "around")
        outer = connection.begin_nested()
        stage(host.store_on(session), "in the outer")
        session.execute(insert(Note).values(note="mine"))
        connection.begin_nested()
        stage(host.store_on(session), "in the inner")
        with pytest.warns(SAWarning, match="already deassociated"):
            getattr(outer, end)()
        session.commit()

    kept = end == "commit"
    assert host.ground.names() == ["around", *(["in the outer", "in the inner"] if kept else [])]
    assert host.ground.notes() == (["mine"] if kept else [])


@some_drivers
async def test_close_without_commit_does_not_warn_of_what_was_written_with_the_rows(host: Host) -> None:
    async with entered(host.engine.connect()) as connection:
        outer = await settled(connection.begin())
        session = host.session(connection)
        session.add(Note(note="mine"))
        within = host.store_on(session)
        within.after_commit(list)
        await settled(within.stream(category="orders", stream="1").publish(events=[new_event("published")]))
        stage(within, "staged")
        await settled(within.flush())
        await settled(session.close())
        await settled(outer.commit())

    assert host.ground.names() == ["published", "staged"]
    assert host.ground.notes() == ["mine"]


@some_drivers
async def test_rollback_and_commit_of_a_joined_session_do_not_warn(host: Host) -> None:
    async with entered(host.engine.connect()) as connection:
        outer = await settled(connection.begin())
        savepoint = await settled(connection.begin_nested())
        for end in ("commit", "rollback"):
            session = host.session(connection, join_transaction_mode="rollback_only")
            stage(host.store_on(session), end)
            session.add(Note(note=end))
            await settled(session.flush())
            await settled(getattr(session, end)())
            await settled(session.close())
        assert not savepoint.is_active
        await settled(outer.commit())

    assert host.ground.names() == host.ground.notes() == []

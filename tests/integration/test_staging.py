"""Staged publishes: written with the commit of the outermost transaction, and dropped with whatever was rolled back."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from eventstore_sa import EventStore, NewEvent, StreamIdentifier, SyncEventStore
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import SerialisationError, TransactionError, UnmetWriteConditionError
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from tests.awaiting import settled
from tests.hosts import Host, Note, each_driver, each_kind_of_driver, new_event, statements_of

pytestmark = pytest.mark.keeps_connections

SESSIONS = pytest.mark.parametrize("kind", ["within session", "within scoped", "on session", "on scoped"])


def stage(store: Any, name: str = "staged", *, stream: str = "1", **arguments: Any) -> Any:
    return store.stream(category="orders", stream=stream).stage(events=[new_event(name)], **arguments)


@SESSIONS
@each_kind_of_driver()
async def test_staged_events_are_stored_with_the_commit(host: Host, kind: str) -> None:
    async with host.caller(kind) as (caller, store):
        staged = stage(store)
        await host.write(caller)
        assert host.ground.names() == []
        await settled(caller.commit())

    (stored,) = staged.events
    assert (stored.name, stored.position) == ("staged", 0)
    assert host.ground.names() == ["staged"]
    assert host.ground.notes() == ["mine"]


@SESSIONS
@each_kind_of_driver()
async def test_what_is_staged_before_any_sql_is_dropped_by_a_rollback(host: Host, kind: str) -> None:
    async with host.caller(kind) as (caller, store):
        staged = stage(store)
        await settled(caller.rollback())
        await host.write(caller)
        await settled(caller.commit())

        with pytest.raises(TransactionError, match="rolled back"):
            _ = staged.events
    assert host.ground.names() == []
    assert host.ground.notes() == ["mine"]


@each_kind_of_driver()
async def test_close_drops_what_is_staged(host: Host) -> None:
    async with host.caller() as (caller, store):
        stage(store)
        await settled(caller.close())
        await host.write(caller)
        await settled(caller.commit())

    assert host.ground.names() == []


@each_kind_of_driver()
async def test_events_cannot_be_had_before_the_commit(host: Host) -> None:
    async with host.caller() as (_, store):
        staged = stage(store)

        with pytest.raises(TransactionError, match=r"after session\.commit"):
            _ = staged.events
        assert repr(staged) == "<StagedPublish: staged>"


@each_kind_of_driver()
async def test_savepoints_keep_and_drop_what_is_staged_in_them(host: Host) -> None:
    async with host.caller() as (caller, store):
        stage(store, "outside")
        kept = await settled(caller.begin_nested())
        stage(store, "kept")
        inner = await settled(caller.begin_nested())
        dropped = stage(store, "dropped")
        await settled(inner.rollback())
        stage(store, "kept too")
        await settled(kept.commit())
        undone = await settled(caller.begin_nested())
        released = await settled(caller.begin_nested())
        gone_with_its_parent = stage(store, "gone with its parent")
        await settled(released.commit())
        await settled(undone.rollback())
        await settled(caller.commit())

        for handle in (dropped, gone_with_its_parent):
            with pytest.raises(TransactionError, match="rolled back"):
                _ = handle.events
    assert host.ground.names() == ["outside", "kept", "kept too"]


@each_kind_of_driver()
async def test_commit_of_the_outermost_transaction_with_a_savepoint_open_stores_all(host: Host) -> None:
    async with host.caller() as (caller, store):
        transaction = await settled(caller.begin())
        stage(store, "outside")
        await settled(caller.begin_nested())
        await settled(caller.begin_nested())
        staged = stage(store, "inside")
        await settled(transaction.commit())

        assert [stored.name for stored in staged.events] == ["inside"]
    assert host.ground.names() == ["outside", "inside"]


@each_kind_of_driver()
async def test_what_was_flushed_in_a_savepoint_that_is_rolled_back_is_written_again(host: Host) -> None:
    async with host.caller() as (caller, store):
        outside = stage(store, "outside")
        savepoint = await settled(caller.begin_nested())
        stage(store, "inside")
        await settled(store.flush())
        await settled(savepoint.rollback())
        await settled(caller.commit())

        assert [stored.position for stored in outside.events] == [0]
    assert host.ground.names() == ["outside"]


@each_kind_of_driver()
async def test_conditions_see_what_was_staged_before(host: Host) -> None:
    host.ground.publish("earlier")
    async with host.caller() as (caller, store):
        stage(store, "first", condition=position_is(0))
        stage(store, "of another stream", stream="2", condition=stream_is_empty())
        stage(store, "second", condition=position_is(1))
        await settled(caller.commit())

    assert host.ground.names() == ["earlier", "first", "of another stream", "second"]


@each_kind_of_driver()
async def test_unmet_condition_fails_the_commit_and_can_be_rolled_back(host: Host) -> None:
    async with host.caller() as (caller, store):
        await host.write(caller)
        stage(store, "first")
        stage(store, "second", condition=position_is(7))
        with pytest.raises(UnmetWriteConditionError, match="position 7"):
            await settled(caller.commit())
        await settled(caller.rollback())
        await host.write(caller, "later")
        await settled(caller.commit())

    assert host.ground.names() == []
    assert host.ground.notes() == ["later"]


@each_kind_of_driver()
async def test_failed_commit_is_repeated_and_writes_once(host: Host) -> None:
    async with host.caller() as (caller, store):
        await host.write(caller)
        first = stage(store, "first", stream="2")
        late = stage(store, "late", condition=position_is(0))
        with pytest.raises(UnmetWriteConditionError):
            await settled(caller.commit())
        await host.publish(store, "makes it true")
        await settled(caller.commit())

        assert [stored.position for stored in first.events] == [0]
        assert [stored.position for stored in late.events] == [1]
    assert sorted(host.ground.names()) == ["first", "late", "makes it true"]
    assert host.ground.notes() == ["mine"]


@each_kind_of_driver()
async def test_commit_that_another_listener_fails_writes_once_when_repeated(host: Host) -> None:
    failures = [RuntimeError("not yet")]

    def fail(session: Session) -> None:
        if failures:
            raise failures.pop()

    async with host.caller() as (caller, store):
        staged = stage(store)
        sqlalchemy_event.listen(getattr(caller, "sync_session", caller), "before_commit", fail)
        with pytest.raises(RuntimeError, match="not yet"):
            await settled(caller.commit())
        later = stage(store, "later")
        await settled(caller.commit())

        assert [stored.position for stored in staged.events] == [0]
        assert [stored.position for stored in later.events] == [1]
    assert host.ground.names() == ["staged", "later"]


@each_kind_of_driver()
async def test_what_listeners_stage_during_the_commit_is_stored_too(host: Host) -> None:
    async with host.caller() as (caller, store):
        session = getattr(caller, "sync_session", caller)

        def stage_at_commit(_: Session) -> None:
            stage(store, "at commit")
            session.add(Note(note="of the listener"))

        def stage_at_flush(_: Session, __: Any) -> None:
            if session.new:
                stage(store, "at flush")

        stage(store, "first")
        sqlalchemy_event.listen(session, "before_commit", stage_at_commit)
        sqlalchemy_event.listen(session, "after_flush", stage_at_flush)
        await settled(caller.commit())

    assert sorted(host.ground.names()) == ["at commit", "at flush", "first"]
    assert host.ground.notes() == ["of the listener"]


@each_kind_of_driver()
async def test_repetition_of_a_stored_publish_is_found_among_others(host: Host) -> None:
    known = new_event("known")
    async with host.caller() as (caller, store):
        stream = store.stream(category="orders", stream="1")
        stream.stage(events=[known], condition=stream_is_empty())
        await settled(caller.commit())

        again = stream.stage(events=[known], condition=stream_is_empty())
        stage(store, "new", stream="2")
        await settled(caller.commit())

        assert [stored.position for stored in again.events] == [0]
    assert host.ground.names() == ["known", "new"]


@each_kind_of_driver()
async def test_event_that_is_staged_twice_is_stored_once(host: Host) -> None:
    same = new_event("same")
    async with host.caller() as (caller, store):
        handles = [store.stream(category="orders", stream="1").stage(events=[same]) for _ in range(2)]
        await settled(caller.commit())

    assert handles[0].events == handles[1].events
    assert host.ground.names() == ["same"]


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_unmet_condition_does_not_try_the_publishes_one_by_one(host: Host) -> None:
    """It would take the locks in the order of staging, and nothing could come of it."""
    async with host.caller() as (caller, store):
        stage(store, "first", stream="2")
        stage(store, "second", condition=position_is(7))
        await host.write(caller)
        with statements_of(host.engine) as statements, pytest.raises(UnmetWriteConditionError):
            await settled(caller.commit())

    assert sum("append" in statement for statement in statements) == 1


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_publishes_one_by_one_have_their_locks_in_one_order(host: Host) -> None:
    """One that repeats what is stored makes the others go alone; two such sessions must not wait for each other."""
    known = new_event("known")
    async with host.caller() as (caller, store):
        store.stream(category="orders", stream="known").stage(events=[known])
        await settled(caller.commit())
        for stream in ("2", "1"):
            stage(store, stream=stream)
        store.stream(category="orders", stream="known").stage(events=[known])
        with statements_of(host.engine) as statements:
            await settled(caller.commit())

    appends = [statement for statement in statements if "append" in statement]
    assert len(appends) == 1 + 1 + 3  # all at once, the locks, and each on its own


@each_driver("sqlite+aiosqlite", "sqlite", "postgresql+asyncpg", "postgresql+psycopg")
async def test_autocommit_is_refused_before_a_row_is_written(host: Host) -> None:
    async with host.caller(isolation_level="AUTOCOMMIT") as (caller, store):
        caller.add(Note(note="would stay"))
        stage(store)
        with pytest.raises(TransactionError):
            await settled(caller.commit())
        await settled(caller.rollback())

    assert host.ground.notes() == []


@each_kind_of_driver()
async def test_nothing_is_staged_in_a_transaction_that_can_only_be_rolled_back(host: Host) -> None:
    async with host.caller() as (caller, store):
        await host.write(caller)
        caller.add(Note(note="mine"))
        with pytest.raises(IntegrityError):
            await settled(caller.flush())
        with pytest.raises(TransactionError, match="roll back"):
            stage(store)
        await settled(caller.rollback())
        stage(store)
        await settled(caller.commit())

    assert host.ground.names() == ["staged"]


@each_kind_of_driver()
async def test_publishes_to_many_streams_keep_their_shape(host: Host) -> None:
    async with host.caller() as (caller, store):
        of_category = store.category(category="orders").stage(
            streams={"1": {"events": [new_event()]}, "2": {"events": []}}
        )
        of_log = store.stage(streams={StreamIdentifier("other", "1"): {"events": [new_event("x"), new_event("y")]}})
        await settled(caller.commit())

    assert {stream: len(events) for stream, events in of_category.events.items()} == {"1": 1, "2": 0}
    assert [stored.name for stored in of_log.events[StreamIdentifier("other", "1")]] == ["x", "y"]


@each_kind_of_driver()
async def test_what_cannot_be_stored_is_refused_when_it_is_staged(host: Host) -> None:
    async with host.caller() as (caller, store):
        with pytest.raises(SerialisationError):
            store.stream(category="orders", stream="1").stage(events=[new_event(payload=float("nan"))])
        await settled(caller.commit())

    assert host.ground.names() == []


@each_kind_of_driver()
async def test_session_without_autobegin_needs_a_transaction_to_stage_in(host: Host) -> None:
    session = host.session(autobegin=False)
    with pytest.raises(TransactionError, match=r"session\.begin"):
        stage(host.store.within(session))
    await settled(session.close())


@each_driver("sqlite", "sqlite+aiosqlite")
async def test_staging_outside_of_a_session_is_refused(host: Host) -> None:
    with pytest.raises(TransactionError, match=r"store\.within"):
        stage(host.store)
    in_memory = InMemoryEventStorageAdapter()
    for store in (EventStore(in_memory), SyncEventStore(in_memory)):
        with pytest.raises(TransactionError, match=r"store\.within"):
            stage(store)


@pytest.mark.parametrize("publishes", [1, 50])
@each_kind_of_driver()
async def test_all_that_is_staged_is_one_statement(host: Host, publishes: int) -> None:
    await settled(host.store.log().latest())  # the first use of a store compares its mode of locking
    async with host.caller() as (caller, store):
        await host.write(caller)
        for number in range(publishes):
            stage(store, stream=str(number % 7))
        with statements_of(host.engine) as statements:
            await settled(caller.commit())

    assert len(statements) == 1
    assert len(host.ground.names()) == publishes


@each_kind_of_driver()
async def test_a_staged_payload_is_serialised_once_and_stored_as_it_was_then(host: Host) -> None:
    class Payload:
        calls = 0

        def serialise(self) -> list[int]:
            Payload.calls += 1
            return [Payload.calls]

    plain = {"items": [1]}
    async with host.caller() as (caller, store):
        stream = store.stream(category="orders", stream="1")
        stream.stage(events=[NewEvent(name="own", payload=Payload()), NewEvent(name="plain", payload=plain)])
        plain["items"].append(2)
        await settled(caller.commit())

    read = await settled(stream_of(host).read())
    assert [event.payload for event in read] == [[1], {"items": [1]}]
    assert Payload.calls == 1


@each_kind_of_driver()
async def test_a_staged_repetition_is_recognised_by_what_was_staged(host: Host) -> None:
    payload: dict[str, Any] = {"items": [1]}
    event = NewEvent(name="plain", payload=payload)
    (stored,) = await settled(stream_of(host).publish(events=[event]))

    async with host.caller() as (caller, store):
        staged = store.stream(category="orders", stream="1").stage(events=[event])
        payload["items"].append(object())
        await settled(caller.commit())

    (repeated,) = staged.events
    assert (repeated.position, repeated.payload) == (stored.position, payload)


def stream_of(host: Host) -> Any:
    return host.store.stream(category="orders", stream="1")

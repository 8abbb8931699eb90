"""A publish that fails within a transaction of the host's costs that publish and nothing else.

The transaction can go on, nothing of the publish is stored, and no lock of it is left. How transactions come about is in
`test_host_transactions`; isolation levels and what they refuse are in `test_host_isolation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from eventstore_sa import StreamIdentifier
from eventstore_sa.conditions import position_is, stream_exists, stream_is_empty
from eventstore_sa.errors import (
    DuplicateEventError,
    EventStoreError,
    LockTimeoutError,
    SerialisationError,
    StorageError,
    TransactionError,
    UnmetWriteConditionError,
)
from tests.awaiting import collected, settled
from tests.blocking import outcome_while_waiting, wait_for_waiting
from tests.hosts import POSTGRES_DRIVERS, Ground, Host, each_driver, new_event

pytestmark = pytest.mark.keeps_connections

each_postgres_driver = each_driver(*POSTGRES_DRIVERS)

KNOWN = UUID("01900000-0000-7000-8000-000000000001")


def to_stream(**arguments: Any) -> Callable[[Any], Awaitable[Any]]:
    """Make a publish of two new events, or of others, to stream 1."""

    async def publish(store: Any) -> Any:
        events = arguments.pop("events", None) or [new_event("refused"), new_event("refused")]
        return await settled(store.stream(category="orders", stream="1").publish(events=events, **arguments))

    return publish


def to_many(*definitions: tuple[str, Any]) -> Callable[[Any], Awaitable[Any]]:
    """Make a publish to several streams."""

    async def publish(store: Any) -> Any:
        streams = {StreamIdentifier("orders", name): definition for name, definition in definitions}
        return await settled(store.publish(streams=streams))

    return publish


FAILURES: dict[str, tuple[type[EventStoreError], Callable[[], Callable[[Any], Awaitable[Any]]]]] = {
    "unmet condition": (UnmetWriteConditionError, lambda: to_stream(condition=stream_is_empty())),
    "unmet position": (UnmetWriteConditionError, lambda: to_stream(condition=position_is(7))),
    "unmet condition without events": (
        UnmetWriteConditionError,
        lambda: to_many(("2", {"events": [], "condition": stream_exists()})),
    ),
    "unmet condition of the last of many": (
        UnmetWriteConditionError,
        lambda: to_many(
            ("2", {"events": [new_event("refused")]}),
            ("3", {"events": [new_event("refused")], "condition": stream_exists()}),
        ),
    ),
    "id of another stream": (DuplicateEventError, lambda: to_many(("2", {"events": [new_event("refused", id=KNOWN)]}))),
    "id among new ones": (
        DuplicateEventError,
        lambda: to_stream(events=[new_event("refused"), new_event("refused", id=KNOWN)]),
    ),
    "value that cannot be stored": (
        SerialisationError,
        lambda: to_stream(events=[new_event("refused"), new_event("refused", payload=float("nan"))]),
    ),
    "row that a trigger of the host refuses": (StorageError, lambda: to_stream(events=[new_event("abhorred")])),
}


async def abhor(host: Host) -> None:
    """Let a trigger of the host's refuse some events."""
    if host.postgres:
        await host_sql(
            host,
            "CREATE OR REPLACE FUNCTION abhor() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'abhorrent'; END$$",
            "CREATE OR REPLACE TRIGGER abhor AFTER INSERT ON es_events FOR EACH ROW "
            "WHEN (NEW.name = 'abhorred') EXECUTE FUNCTION abhor()",
        )
    else:
        await host_sql(
            host,
            "CREATE TRIGGER abhor AFTER INSERT ON es_events WHEN NEW.name = 'abhorred' "
            "BEGIN SELECT RAISE(ABORT, 'abhorrent'); END",
        )


async def host_sql(host: Host, *statements: str) -> None:
    """Execute statements from outside of the host, and commit them."""
    with host.ground.outside.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize("failure", FAILURES)
@each_driver()
async def test_failure_leaves_the_transaction_usable_and_no_lock(host: Host, failure: str) -> None:
    kind, make = FAILURES[failure]
    await abhor(host)
    host.ground.publish("known", id=KNOWN)
    async with host.caller() as (caller, store):
        await host.write(caller, "before")

        with pytest.raises(kind):
            await make()(store)

        assert await host.locks(caller) == 0
        await host.write(caller, "after")
        await host.publish(store, "after", condition=position_is(0))
        await settled(caller.commit())

    assert host.ground.notes() == ["after", "before"]
    assert host.ground.names() == ["known", "after"]


@pytest.mark.parametrize("failure", FAILURES)
@each_driver()
async def test_failure_keeps_what_was_published_before(host: Host, failure: str) -> None:
    kind, make = FAILURES[failure]
    await abhor(host)
    host.ground.publish("known", id=KNOWN)
    async with host.caller() as (caller, store):
        await host.publish(store, "before", condition=position_is(0))
        locks = await host.locks(caller)

        with pytest.raises(kind):
            await make()(store)

        assert await host.locks(caller) == locks
        assert [stored.name for stored in await collected(store.log().iterate())] == ["known", "before"]
        await host.publish(store, "after", condition=position_is(1))
        await settled(caller.commit())

    assert host.ground.names() == ["known", "before", "after"]


@each_driver()
async def test_failure_inside_a_savepoint_leaves_savepoint_and_transaction_usable(host: Host) -> None:
    async with host.caller() as (caller, store):
        await host.publish(store, "before")
        savepoint = await settled(caller.begin_nested())
        await host.publish(store, "inside")
        with pytest.raises(UnmetWriteConditionError):
            await host.publish(store, "refused", condition=stream_is_empty())
        await host.publish(store, "inside as well", condition=position_is(1))
        await settled(savepoint.commit())
        await settled(caller.commit())

    assert host.ground.names() == ["before", "inside", "inside as well"]


@each_driver()
async def test_fifty_failures_in_one_transaction_do_it_no_harm(host: Host) -> None:
    host.ground.publish("known")
    async with host.caller() as (caller, store):
        for number in range(50):
            with pytest.raises(UnmetWriteConditionError):
                await host.publish(store, "refused", stream=str(number), condition=position_is(9))
        assert await host.locks(caller) == 0
        await host.publish(store)
        await settled(caller.commit())

    assert host.ground.names() == ["known", "mine"]


def begin_outside(ground: Ground) -> Any:
    connection = ground.outside.connect()
    connection.begin()
    return connection


def insert_raw(connection: Any, *, position: int, event_id: str = "01900000-0000-7000-8000-00000000000a") -> None:
    """Insert an event past the library, without the stream's lock."""
    connection.execute(
        text(
            "INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at) "
            f"VALUES ('{event_id}', 'orders', '1', {position}, 'raw', '1', now(), now())"
        )
    )


async def outcome_once_released(host: Host, work: Callable[[], Awaitable[Any]], release: Callable[[], None]) -> Any:
    """Start something that is going to wait for a lock, then release it; return what comes of it."""

    def release_later() -> None:
        wait_for_waiting(host.ground)
        release()

    return await outcome_while_waiting(work, release_later)


@each_postgres_driver
async def test_position_that_a_raw_insert_took_meanwhile_is_a_lost_race(host: Host) -> None:
    with begin_outside(host.ground) as outside:
        insert_raw(outside, position=0)
        async with host.caller() as (caller, store):
            await host.write(caller, "before")

            outcome = await outcome_once_released(host, lambda: host.publish(store), outside.commit)

            assert isinstance(outcome, TransactionError)
            assert outcome.retryable
            assert await host.locks(caller) == 0
            await host.write(caller, "after")
            await host.publish(store, "after", condition=position_is(0))
            await settled(caller.commit())

    assert host.ground.names() == ["raw", "after"]
    assert host.ground.notes() == ["after", "before"]


@each_postgres_driver
async def test_id_that_another_transaction_has_just_stored_is_a_duplicate(host: Host) -> None:
    with begin_outside(host.ground) as outside:
        insert_raw(outside, position=0, event_id=str(KNOWN))
        async with host.caller() as (caller, store):
            publish = to_many(("2", {"events": [new_event("refused", id=KNOWN)]}))

            outcome = await outcome_once_released(host, lambda: publish(store), outside.commit)

            assert isinstance(outcome, DuplicateEventError)
            assert outcome.event_ids == (KNOWN,)
            assert await host.locks(caller) == 0
            await host.publish(store, "after", stream="2")
            await settled(caller.commit())

    assert host.ground.names() == ["raw", "after"]


@each_postgres_driver
async def test_lock_that_cannot_be_had_in_time_costs_the_publish_alone(host: Host) -> None:
    async with host.caller() as (holder, store_of_holder):
        await host.publish(store_of_holder, "holder's")
        async with host.caller() as (caller, store):
            await host.execute(caller, "SET LOCAL lock_timeout = '50ms'")
            await host.write(caller)

            with pytest.raises(LockTimeoutError) as caught:
                await host.publish(store, "refused")

            assert caught.value.retryable
            assert await host.locks(caller) == 0
            await host.publish(store, "elsewhere", stream="2")
            await settled(caller.commit())
        await settled(holder.commit())

    assert sorted(host.ground.names()) == ["elsewhere", "holder's"]
    assert host.ground.notes() == ["mine"]


@each_postgres_driver
async def test_deadlock_costs_the_publish_alone(host: Host) -> None:
    """The host waits for stream 1, whose holder waits for stream 2, which the host has."""
    other = Host(host.ground, "postgresql+psycopg")
    with ThreadPoolExecutor(1) as threads:
        async with other.caller() as (holder, store_of_holder), host.caller() as (caller, store):
            holder.execute(text("SET LOCAL deadlock_timeout = '10min'"))
            await host.execute(caller, "SET LOCAL deadlock_timeout = '50ms'")
            await other.publish(store_of_holder, "first of holder", stream="1")
            await host.publish(store, "first", stream="2")
            locks = await host.locks(caller)
            target = store_of_holder.stream(category="orders", stream="2")
            waiting = threads.submit(target.publish, events=[new_event("second of holder")])
            await asyncio.to_thread(wait_for_waiting, host.ground)

            with pytest.raises(TransactionError) as caught:
                await host.publish(store, "refused", stream="1")

            assert caught.value.retryable
            assert await host.locks(caller) == locks
            await host.write(caller)
            await settled(caller.commit())
            await asyncio.wrap_future(waiting)
            holder.commit()

    assert host.ground.names() == ["first of holder", "first", "second of holder"]
    assert host.ground.notes() == ["mine"]


@each_postgres_driver
async def test_transaction_that_the_host_itself_has_broken_is_named_as_such(host: Host) -> None:
    async with host.caller() as (caller, store):
        with pytest.raises(Exception, match="division"):
            await host.execute(caller, "SELECT 1 / 0")

        for attempt in (lambda: host.publish(store), lambda: settled(store.log().latest())):
            with pytest.raises(TransactionError, match="roll back"):
                await attempt()

        await settled(caller.rollback())
        await host.publish(store)
        await settled(caller.commit())

    assert host.ground.names() == ["mine"]


@each_driver()
async def test_session_whose_flush_has_failed_is_named_as_such(host: Host) -> None:
    host.ground.publish("known")
    async with host.caller() as (caller, store):
        record = host.store.adapter.schema.EventRecord
        known = host.ground.publish("known as well")
        caller.add(record(id=known.id, category="orders", stream="9", position=0, name="x", payload=1))
        with pytest.raises(Exception, match=r"(?i)constraint"):
            await settled(caller.flush())

        with pytest.raises(TransactionError, match="roll back"):
            await host.publish(store)

        await settled(caller.rollback())
        await host.publish(store)
        await settled(caller.commit())

    assert host.ground.names() == ["known", "known as well", "mine"]


@each_postgres_driver
async def test_a_session_in_autocommit_mode_is_refused(host: Host) -> None:
    async with host.caller(isolation_level="AUTOCOMMIT") as (_, store):
        with pytest.raises(TransactionError, match="autocommit"):
            await host.publish(store)

    assert host.ground.names() == []

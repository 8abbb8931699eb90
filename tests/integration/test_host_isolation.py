"""Isolation levels: what REPEATABLE READ and SERIALIZABLE allow a host to do, and what the store asks for on its own.

The rule: streams that the publish writes may have conditions, because the unique key decides races there; a condition on
any other stream, and nothing else, is refused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import text

from eventstore_sa import StreamIdentifier
from eventstore_sa.conditions import position_is, stream_exists, stream_is_empty
from eventstore_sa.errors import ConcurrencyError, LockTimeoutError, TransactionError, UnmetWriteConditionError
from tests.awaiting import collected, entered, settled
from tests.blocking import outcome_while_waiting, wait_for_waiting
from tests.hosts import POSTGRES_DRIVERS, Host, each_driver, new_event
from tests.integration.test_lost_connections import hold_stream, small_pool

each_postgres_driver = each_driver(*POSTGRES_DRIVERS)
each_level = pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])


@asynccontextmanager
async def with_snapshot(host: Host, level: str) -> AsyncGenerator[tuple[Any, Any]]:
    """Open a session of the host's whose snapshot is taken."""
    async with host.caller(isolation_level=level) as (caller, store):
        await host.execute(caller, "SELECT count(*) FROM notes")
        yield caller, store


@each_level
@each_postgres_driver
async def test_publish_with_conditions_on_its_own_streams_is_allowed(host: Host, level: str) -> None:
    host.ground.publish("before")
    async with with_snapshot(host, level) as (caller, store):
        await host.publish(store, "mine", condition=position_is(0))
        await host.publish(store, "mine too", condition=position_is(1))
        with pytest.raises(UnmetWriteConditionError):
            await host.publish(store, "refused", condition=stream_is_empty())
        await host.write(caller)
        await settled(caller.commit())

    assert host.ground.names() == ["before", "mine", "mine too"]
    assert host.ground.notes() == ["mine"]


@each_level
@each_postgres_driver
async def test_race_that_the_snapshot_hides_is_lost_and_told(host: Host, level: str) -> None:
    async with with_snapshot(host, level) as (caller, store):
        host.ground.publish("faster")

        with pytest.raises(ConcurrencyError) as caught:
            await host.publish(store, "refused", condition=stream_is_empty())

        assert caught.value.retryable
        await settled(caller.rollback())
        with pytest.raises(UnmetWriteConditionError):
            await host.publish(store, "refused", condition=stream_is_empty())
        await host.publish(store, "second", condition=position_is(0))
        await settled(caller.commit())

    assert host.ground.names() == ["faster", "second"]


@each_level
@each_postgres_driver
async def test_condition_on_a_stream_that_is_not_written_is_refused(host: Host, level: str) -> None:
    async with with_snapshot(host, level) as (caller, store):
        streams: dict[StreamIdentifier, Any] = {
            StreamIdentifier("orders", "1"): {"events": [new_event("refused")]},
            StreamIdentifier("orders", "2"): {"events": [], "condition": stream_is_empty()},
        }
        with pytest.raises(TransactionError, match="READ COMMITTED") as caught:
            await settled(store.publish(streams=streams))

        assert not caught.value.retryable
        await host.publish(store)
        await settled(caller.commit())

    assert host.ground.names() == ["mine"]


@each_level
@each_postgres_driver
async def test_database_whose_default_is_another_level_changes_nothing_for_the_store(host: Host, level: str) -> None:
    engine = small_pool(host)
    await set_default_isolation(host, level)
    try:
        store = host.store_on(engine)
        for number in range(3):
            await host.publish(store, f"event-{number}")
        with pytest.raises(UnmetWriteConditionError):
            await host.publish(store, "refused", condition=position_is(7))
        with host.ground.outside.connect() as outside:
            hold_stream(outside)
            waited = await outcome_while_waiting(
                lambda: host.publish(store, "after the lock", condition=stream_exists()),
                lambda: (wait_for_waiting(host.ground), outside.commit()),
            )
        assert waited.position == 4
        assert (await settled(store.stream(category="orders", stream="1").latest())).position == 4
        async with entered(host.session(engine)) as session:
            assert await host.execute(session, "SHOW transaction_isolation") == level.lower()
    finally:
        await settled(engine.dispose())
        await set_default_isolation(host, None)

    assert host.ground.names() == ["event-0", "event-1", "event-2", "of-holder", "after the lock"]


@each_postgres_driver
async def test_reads_need_no_default_of_the_database(host: Host) -> None:
    engine = small_pool(host)
    await set_default_isolation(host, "REPEATABLE READ")
    try:
        await host.publish(host.store_on(engine))
        outcome = await reading_outcome(host.store_on(engine))
    finally:
        await settled(engine.dispose())
        await set_default_isolation(host, None)

    assert outcome == ["mine"]


async def reading_outcome(store: Any) -> Any:
    return [event.name for event in await collected(store.log().iterate())]


async def set_default_isolation(host: Host, level: str | None) -> None:
    """Set the default of the database; it holds for connections that are made afterwards."""
    database = host.ground.outside.url.database
    change = (
        "RESET default_transaction_isolation" if level is None else f"SET default_transaction_isolation = '{level}'"
    )
    with host.ground.outside.begin() as connection:
        connection.execute(text(f'ALTER DATABASE "{database}" {change}'))
    host.ground.outside.dispose()


# Publishes of their own


async def publish_in_time(store: Any, name: str) -> None:
    """Publish until the limit of the driver has left the machine enough time."""
    events = [new_event(name)]
    for _ in range(1000):
        with suppress(TransactionError):
            await store.stream(category="orders", stream="2").publish(events=events)
            return
    pytest.fail("the limit of the driver never left enough time")


@each_driver("postgresql+asyncpg")
async def test_time_limit_of_the_driver_is_typed(host: Host) -> None:
    engine = small_pool(host, connect_args={"command_timeout": 0.2})
    store = host.store_on(engine)
    await publish_in_time(store, "first")
    with host.ground.outside.connect() as outside:
        hold_stream(outside)

        with pytest.raises(TransactionError, match="command_timeout") as caught:
            await host.publish(store, "refused")

        outside.rollback()
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, TimeoutError)
    await publish_in_time(store, "second")
    assert host.ground.names() == ["first", "second"]
    await settled(engine.dispose())


@each_postgres_driver
async def test_lock_and_statement_timeouts_of_a_publish_of_its_own_are_typed(host: Host) -> None:
    with host.ground.outside.connect() as outside:
        hold_stream(outside)
        for setting, kind in (("lock_timeout", LockTimeoutError), ("statement_timeout", TransactionError)):
            engine = small_pool(host)
            async with entered(engine.connect()) as connection:
                await host.execute(connection, f"SET {setting} = '50ms'")
                await settled(connection.commit())

            with pytest.raises(kind) as caught:
                await host.publish(host.store_on(engine), "refused")

            assert caught.value.retryable
            async with entered(engine.connect()) as connection:
                await host.execute(connection, f"SET {setting} = 0")
                await settled(connection.commit())
            await host.publish(host.store_on(engine), setting, stream="2")
            await settled(engine.dispose())
        outside.rollback()

    assert host.ground.names() == ["lock_timeout", "statement_timeout"]


@each_postgres_driver
async def test_publish_of_its_own_that_the_server_is_told_to_cancel_is_a_typed_error(host: Host) -> None:
    engine = small_pool(host)
    store = host.store_on(engine)
    with host.ground.outside.connect() as outside:
        hold_stream(outside)

        outcome = await outcome_while_waiting(lambda: host.publish(store, "refused"), lambda: cancel_waiting(host))

        assert isinstance(outcome, TransactionError)
        assert outcome.retryable
        outside.rollback()
    await host.publish(store)
    await settled(engine.dispose())
    assert host.ground.names() == ["mine"]


def cancel_waiting(host: Host) -> None:
    wait_for_waiting(host.ground)
    with host.ground.outside.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_cancel_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
                "WHERE NOT l.granted AND a.datname = current_database()"
            )
        )


@pytest.mark.parametrize(
    ("sqlstate", "failures", "stored"), [("40P01", 3, True), ("40001", 3, True), ("40P01", 4, False)]
)
@each_postgres_driver
async def test_publish_of_its_own_is_tried_four_times_when_others_get_in_the_way(
    host: Host, sqlstate: str, failures: int, stored: bool
) -> None:
    """The server counts with a sequence, which no rollback takes back."""
    await in_outside(
        host,
        "CREATE SEQUENCE attempts",
        f"""CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
          IF nextval('attempts') <= {failures} THEN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END IF;
          RETURN NULL;
        END$$""",
        "CREATE TRIGGER fail AFTER INSERT ON es_events FOR EACH STATEMENT EXECUTE FUNCTION fail()",
    )
    engine = small_pool(host)
    store = host.store_on(engine)
    try:
        if stored:
            assert (await host.publish(store)).position == 0
        else:
            with pytest.raises(ConcurrencyError):
                await host.publish(store)
        with host.ground.outside.connect() as outside:
            assert outside.scalar(text("SELECT last_value FROM attempts")) == min(failures + 1, 4)
    finally:
        await in_outside(host, "DROP FUNCTION fail CASCADE", "DROP SEQUENCE attempts")
        await settled(engine.dispose())

    assert host.ground.names() == (["mine"] if stored else [])


@each_postgres_driver
async def test_publish_in_a_transaction_of_the_host_is_never_tried_again(host: Host) -> None:
    await in_outside(
        host,
        "CREATE SEQUENCE attempts",
        """CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
          PERFORM nextval('attempts'); RAISE EXCEPTION USING ERRCODE = '40P01';
        END$$""",
        "CREATE TRIGGER fail AFTER INSERT ON es_events FOR EACH STATEMENT EXECUTE FUNCTION fail()",
    )
    try:
        async with host.caller() as (caller, store):
            with pytest.raises(ConcurrencyError):
                await host.publish(store)
            await host.write(caller)
            await settled(caller.commit())
        with host.ground.outside.connect() as outside:
            assert outside.scalar(text("SELECT last_value FROM attempts")) == 1
    finally:
        await in_outside(host, "DROP FUNCTION fail CASCADE", "DROP SEQUENCE attempts")

    assert host.ground.notes() == ["mine"]


async def in_outside(host: Host, *statements: str) -> None:
    with host.ground.outside.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))

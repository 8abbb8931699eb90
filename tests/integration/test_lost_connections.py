"""A connection that is lost costs what was under way on it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text, true
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from eventstore_sa import EventStore, EventStoreSchema, SyncEventStore
from eventstore_sa.conditions import ConditionScope, WriteCondition
from eventstore_sa.errors import ConnectionLostError, SchemaError, StorageError, TransactionError
from eventstore_sa.persistence.events.conditions import ConditionContext
from eventstore_sa.persistence.transactions.databases import database_named
from eventstore_sa.persistence.transactions.failures import FailureKind
from eventstore_sa.store.adapters import SQLAlchemyEventStorageAdapter, SyncSQLAlchemyEventStorageAdapter
from eventstore_sa.store.sync_streams import SyncEventStream
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.testing.postgres import PostgresDriver
from tests.awaiting import collected, entered, settled
from tests.blocking import outcome_while_waiting, terminate_others, terminate_waiting
from tests.databases import PostgresDatabase
from tests.hosts import POSTGRES_DRIVERS, Host, each_driver
from tests.integration.test_decisions import Count, course, enrolment, joined
from tests.interleaving import event as new_event
from tests.interleaving import install_schema, names

DRIVERS: tuple[PostgresDriver, ...] = ("psycopg", "psycopg2")

each_postgres_driver = each_driver(*POSTGRES_DRIVERS)


@pytest.fixture
def database(make_postgres_database: Callable[..., PostgresDatabase]) -> PostgresDatabase:
    return make_postgres_database(prepared_by=install_schema)


@pytest.fixture
def killer(database: PostgresDatabase) -> Iterator[Engine]:
    engine = create_engine(database.url("psycopg"), isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def small_pool(host: Host, **options: Any) -> Any:
    """Make an engine with a single connection, which is lost for good if anybody loses it."""
    return host.make_engine(poolclass=None, pool_size=1, max_overflow=0, pool_timeout=0.1, **options)


@pytest.mark.parametrize("driver", DRIVERS)
def test_connection_that_is_lost_after_its_statement_costs_no_place_in_the_pool(
    database: PostgresDatabase, killer: Engine, driver: PostgresDriver
) -> None:
    engine = create_engine(database.url(driver), pool_size=1, max_overflow=0, pool_timeout=0.1)
    stream = SyncEventStore(engine).stream(category="orders", stream="1")
    statements = count(1)

    @event.listens_for(engine, "after_cursor_execute")
    def _kill(connection: object, cursor: object, statement: str, *_: object) -> None:
        # Every second one: what a driver says on the way back to the pool may depend on what the connection was used for.
        if "es_append" in statement and next(statements) % 2 == 0:
            pid = cursor.connection.info.backend_pid  # type: ignore[attr-defined]
            with killer.connect() as own:
                own.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})

    for number in range(6):
        _publish_until_known(stream, f"event-{number}")

    unharmed = SyncEventStore(killer).stream(category="orders", stream="1")
    assert names(unharmed.iterate()) == [f"event-{number}" for number in range(6)]
    engine.dispose()


def _publish_until_known(stream: SyncEventStream, name: str) -> None:
    """Publish as one does: what is not known to be stored is published again, with the same id."""
    events = [new_event(name)]
    for _ in range(3):
        try:
            stream.publish(events=events)
        except StorageError:
            continue
        else:
            return
    pytest.fail("the connection was lost three times in a row")


@pytest.mark.parametrize("driver", DRIVERS)
def test_connection_that_the_driver_closes_before_it_is_given_back_costs_no_place_in_the_pool(
    database: PostgresDatabase, driver: PostgresDriver
) -> None:
    engine = create_engine(database.url(driver), pool_size=1, max_overflow=0, pool_timeout=0.1)
    stream = SyncEventStore(engine).stream(category="orders", stream="1")

    @event.listens_for(engine, "commit", once=True)
    def _close(connection: Any) -> None:
        connection.connection.dbapi_connection.close()

    for number in range(3):
        _publish_until_known(stream, f"event-{number}")

    assert names(stream.iterate()) == ["event-0", "event-1", "event-2"]
    engine.dispose()


async def driver_connection_of(host: Host, connection: Any) -> Any:
    raw = await settled(connection.get_raw_connection()) if host.asynchronous else connection.connection
    return raw.driver_connection


async def close(driver: Any) -> None:
    """Close a driver's connection without SQLAlchemy."""
    await settled((driver.terminate if hasattr(driver, "terminate") else driver.close)())


@each_postgres_driver
async def test_call_on_a_pooled_connection_that_was_closed_on_our_side_is_made_again(host: Host) -> None:
    engine = small_pool(host)
    store = host.store_on(engine)
    await host.publish(store, "before")

    for call in (
        lambda: host.publish(store, "after"),
        lambda: settled(store.log().latest()),
        lambda: collected(store.log().iterate()),
    ):
        async with entered(engine.connect()) as connection:
            driver = await driver_connection_of(host, connection)
        await close(driver)
        assert await call()

    await settled(engine.dispose())
    assert host.ground.names() == ["before", "after"]


@each_postgres_driver
async def test_connection_of_the_host_that_was_closed_on_our_side_is_a_lost_one(host: Host) -> None:
    async with host.caller() as (caller, store):
        await host.execute(caller, "SELECT 1")
        connection = await settled(caller.connection())
        await close(await driver_connection_of(host, connection))

        with pytest.raises(ConnectionLostError) as caught:
            await host.publish(store)

        assert caught.value.must_roll_back
        await settled(caller.rollback())
        await host.publish(store)
        await settled(caller.commit())
    assert host.ground.names() == ["mine"]


@each_postgres_driver
async def test_nothing_is_said_to_the_server_after_the_one_statement(host: Host) -> None:
    engine = small_pool(host)
    store = host.store_on(engine)
    for _ in range(3):
        await host.publish(store)

    with host.ground.outside.connect() as outside:
        last_words = outside.execute(
            text(
                "SELECT query FROM pg_stat_activity WHERE datname = current_database() "
                "AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND query LIKE '%es_append_v1%'"
            )
        ).all()
    await settled(engine.dispose())

    assert len(last_words) == 1


@pytest.mark.parametrize("isolation_level", ["READ COMMITTED", "REPEATABLE READ", "AUTOCOMMIT"])
@each_postgres_driver
async def test_connections_go_back_to_the_host_as_they_came(host: Host, isolation_level: str) -> None:
    engine = small_pool(host, isolation_level=isolation_level)
    store = host.store_on(engine)
    async with entered(host.session(engine)) as session:
        before = await isolation_of(host, session)

    await host.publish(store)
    await collected(store.log().iterate())

    async with entered(host.session(engine)) as session:
        assert await isolation_of(host, session) == before
        await host.write(session)
        await settled(session.rollback())
    await settled(engine.dispose())
    assert host.ground.notes() == (["mine"] if isolation_level == "AUTOCOMMIT" else [])


async def isolation_of(host: Host, session: Any) -> Any:
    level = await host.execute(session, "SHOW transaction_isolation")
    await settled(session.rollback())
    return level


@each_postgres_driver
async def test_call_on_a_connection_that_was_lost_meanwhile_is_made_again(host: Host) -> None:
    engine = small_pool(host)
    store = host.store_on(engine)
    await host.publish(store, "before")

    for call in (
        lambda: host.publish(store, "after"),
        lambda: settled(store.log().latest()),
        lambda: collected(store.log().iterate()),
        lambda: collected(store.categories()),
        lambda: collected(store.streams(category="orders")),
        lambda: settled(store.watermark()),
    ):
        terminate_others(host.ground)
        assert await call()

    await settled(engine.dispose())
    assert host.ground.names() == ["before", "after"]


@each_postgres_driver
async def test_publish_that_loses_its_connection_while_it_waits_is_stored_once(host: Host) -> None:
    engine = small_pool(host)
    store = host.store_on(engine)
    with host.ground.outside.connect() as outside:
        hold_stream(outside)

        def lose_twice() -> None:
            terminate_waiting(host.ground)
            terminate_waiting(host.ground)
            outside.rollback()

        await outcome_while_waiting(lambda: host.publish(store), lose_twice)

    await host.publish(store, "after")
    await settled(engine.dispose())
    assert host.ground.names() == ["mine", "after"]


@each_postgres_driver
async def test_publish_that_loses_every_connection_is_not_known_to_be_stored(host: Host) -> None:
    engine = small_pool(host)
    store = host.store_on(engine)
    with host.ground.outside.connect() as outside:
        hold_stream(outside)

        def lose_always() -> None:
            for _ in range(4):
                terminate_waiting(host.ground)

        outcome = await outcome_while_waiting(lambda: host.publish(store), lose_always)

    assert isinstance(outcome, ConnectionLostError)
    assert "not known whether the events were stored" in str(outcome)
    await host.publish(store, "after")
    await settled(engine.dispose())
    assert host.ground.names() == ["after"]


def hold_stream(connection: Any) -> None:
    """Publish to stream 1 in a transaction that stays open."""
    adapter = SyncSQLAlchemyEventStorageAdapter(connection)
    SyncEventStore(adapter).stream(category="orders", stream="1").publish(events=[new_event("of-holder")])


@each_postgres_driver
async def test_read_that_loses_its_connection_in_a_transaction_of_the_host_says_nothing_of_storing(host: Host) -> None:
    async with host.caller() as (caller, store):
        await host.execute(caller, "SELECT 1")
        terminate_others(host.ground)

        with pytest.raises(ConnectionLostError) as caught:
            await settled(store.log().latest())

        await settled(caller.rollback())
        await host.publish(store)
        await settled(caller.commit())
    assert "stored" not in str(caught.value)
    assert host.ground.names() == ["mine"]


@each_postgres_driver
async def test_publish_in_a_transaction_of_the_host_is_not_made_again_on_another_connection(host: Host) -> None:
    async with host.caller() as (caller, store):
        await host.write(caller, "lost")
        terminate_others(host.ground)

        with pytest.raises(ConnectionLostError):
            await host.publish(store, "lost")

        await settled(caller.rollback())
        await host.write(caller, "kept")
        await host.publish(store, "kept")
        await settled(caller.commit())
    assert host.ground.names() == ["kept"]
    assert host.ground.notes() == ["kept"]


@each_postgres_driver
async def test_decision_that_loses_its_connection_is_not_made_again_with_new_events(host: Host) -> None:
    seen: list[int] = []
    async with host.caller() as (_, store):

        def decide(state: int) -> Any:
            seen.append(state)
            terminate_others(host.ground)
            return {enrolment(): {"events": [joined()]}}

        with pytest.raises(ConnectionLostError):
            await settled(store.update_decision(course(), Count(), decide=decide))

    assert len(seen) == 1
    assert host.ground.names() == []


def test_attempt_that_was_lost_stays_unknown_when_the_next_cannot_connect(database: PostgresDatabase) -> None:
    engine = create_engine(database.url("psycopg"), pool_size=1, max_overflow=0)
    store = SyncEventStore(engine)
    stream = store.stream(category="orders", stream="1")
    stream.publish(events=[new_event("before")])
    attempts: list[str] = []

    @event.listens_for(engine, "after_cursor_execute")
    def _lose(connection: Any, cursor: Any, statement: str, *_: object) -> None:
        attempts.append(statement)
        connection.invalidate()
        raise OperationalError(statement, None, RuntimeError("gone"), connection_invalidated=True)

    @event.listens_for(engine, "do_connect")
    def _refuse(*_: object) -> None:
        raise engine.dialect.loaded_dbapi.OperationalError("connection refused")

    with pytest.raises(ConnectionLostError, match="not known"):
        stream.publish(events=[new_event("lost")])

    assert len(attempts) == 1
    engine.dispose()


@each_driver()
async def test_schema_that_cannot_be_made_or_dropped_raises_an_error_of_the_library(host: Host) -> None:
    engine = host.make_engine()
    other = host.store_on(engine, schema=EventStoreSchema(prefix="other_"))

    @event.listens_for(getattr(engine, "sync_engine", engine), "before_cursor_execute", retval=True)
    def _refuse(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> tuple[str, object]:
        refused = statement.lstrip().startswith(("CREATE TABLE", "DROP TABLE"))
        return ("SELECT refused FROM nowhere" if refused else statement), parameters

    for call in (other.create_schema, host.store_on(engine).drop_schema):
        with pytest.raises(SchemaError, match="nowhere"):
            await settled(call())

    await settled(engine.dispose())
    await host.publish(host.store)
    assert host.ground.names() == ["mine"]


@in_turn(
    "kind, sqlstate, said, expected",
    [
        (OperationalError, None, "sending query failed: another command is already in progress", True),
        (OperationalError, None, "server closed the connection unexpectedly", True),
        (OperationalError, None, "consuming input failed: connection socket closed", True),
        (OperationalError, None, "the connection is closed", True),
        (InterfaceError, None, "the connection is closed", True),
        (InterfaceError, None, "connection already closed", True),
        (InterfaceError, None, "cannot perform operation: connection is closed", True),
        (DBAPIError, "08003", "connection was closed in the middle of operation", True),
        (OperationalError, "08006", "connection failure", True),
        (OperationalError, "57P01", "terminating connection due to administrator command", True),
        (OperationalError, "57P02", "terminating connection because of crash of another server process", True),
        (OperationalError, "57P03", "the database system is shutting down", True),
        (InterfaceError, None, "the cursor is closed", False),
        (InterfaceError, None, "cannot perform operation: another operation is in progress", False),
        (OperationalError, "53200", "out of memory", False),
        (OperationalError, "55P03", "canceling statement due to lock timeout", False),
        (DBAPIError, None, "connection is closed, said somebody", False),
    ],
)
def test_what_drivers_say_of_a_lost_connection_is_understood(
    kind: type[DBAPIError], sqlstate: str | None, said: str, expected: bool
) -> None:
    class DriverError(Exception):
        pass

    driver_error = DriverError(said)
    driver_error.sqlstate = sqlstate  # type: ignore[attr-defined]
    driver_error.diag = SimpleNamespace(message_primary=None)  # type: ignore[attr-defined]

    failure = database_named("postgresql").failure_of(kind("SELECT", None, driver_error))

    assert (failure.kind is FailureKind.DISCONNECTED) is expected


@each_driver("postgresql+asyncpg")
async def test_socket_that_fails_below_asyncpg_is_a_lost_connection(host: Host) -> None:
    engine = small_pool(host)
    store = EventStore(SQLAlchemyEventStorageAdapter(engine))
    await host.publish(store, "before")
    broken = count()

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def _break(connection: Any, *_: object) -> None:
        if next(broken) == 0:
            # What the event loop tells the driver when the network goes down.
            driver = connection.connection.driver_connection
            driver.terminate()
            raise ConnectionResetError("connection reset by peer")

    await host.publish(store, "after")

    assert next(broken) == 2
    await settled(engine.dispose())
    assert host.ground.names() == ["before", "after"]


class Always(WriteCondition, frozen=True):
    """A condition of the application's own, so that the publish is a transaction with BEGIN and COMMIT."""

    scope = ConditionScope.STREAM

    def to_expression(self, context: ConditionContext) -> Any:
        return true()


@contextmanager
def waiting_commits(host: Host) -> Iterator[Connection]:
    """Let commits of events wait until the transaction of the connection ends that this gives."""
    with host.ground.outside.connect() as holder:
        holder.execute(
            text(
                "CREATE OR REPLACE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS "
                "$$BEGIN PERFORM pg_advisory_xact_lock(7777); RETURN NULL; END$$"
            )
        )
        holder.execute(
            text(
                "CREATE CONSTRAINT TRIGGER wait_at_commit AFTER INSERT ON es_events DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION wait_at_commit()"
            )
        )
        holder.commit()
        holder.execute(text("SELECT pg_advisory_xact_lock(7777)"))
        try:
            yield holder
        finally:
            holder.rollback()
            holder.execute(text("DROP TRIGGER wait_at_commit ON es_events"))
            holder.commit()


@each_driver("postgresql+asyncpg")
async def test_commit_that_the_driver_gives_up_waiting_for_leaves_it_unknown_what_was_stored(host: Host) -> None:
    engine = small_pool(host, connect_args={"command_timeout": 2})
    store = host.store_on(engine)
    with waiting_commits(host), pytest.raises(TransactionError, match=r"not known.*with the same ids") as caught:
        await host.publish(store, condition=Always())

    assert caught.value.retryable
    assert not caught.value.must_roll_back
    await host.publish(store, "after", condition=Always())
    await settled(engine.dispose())
    assert host.ground.names() == ["after"]


@each_postgres_driver
async def test_commit_that_loses_its_connection_is_made_again_and_stored_once(host: Host) -> None:
    engine = small_pool(host)
    store = host.store_on(engine)
    with waiting_commits(host) as holder:

        def lose_once() -> None:
            terminate_waiting(host.ground)
            holder.rollback()

        outcome = await outcome_while_waiting(lambda: host.publish(store, condition=Always()), lose_once)

    await settled(engine.dispose())
    assert outcome.name == "mine"
    assert host.ground.names() == ["mine"]

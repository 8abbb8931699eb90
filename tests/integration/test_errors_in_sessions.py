"""Every kind of error tells one truth about the session in which it was raised: it is usable, or must be rolled back.

Each is provoked on each driver, and then the session is used accordingly. That a publish that was refused leaves no lock is
in `test_host_failures`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final
from uuid import UUID

import pytest
from msgspec import Struct
from sqlalchemy import event, func, literal_column, text
from sqlalchemy.exc import PendingRollbackError

from eventstore_sa import EventStoreSchema, Projection, ProjectionStore, StreamIdentifier, SyncProjectionStore
from eventstore_sa.conditions import ConditionScope, WriteCondition, position_is, stream_exists, stream_is_empty
from eventstore_sa.errors import (
    ConcurrencyError,
    ConnectionLostError,
    DuplicateEventError,
    EventStoreError,
    LockTimeoutError,
    SchemaError,
    SerialisationError,
    StorageError,
    TransactionError,
    UnmetWriteConditionError,
)
from eventstore_sa.persistence.events.conditions import ConditionContext
from eventstore_sa.types import LogIdentifier
from tests.awaiting import settled
from tests.blocking import outcome_while_waiting, terminate_others, terminate_waiting, wait_for_waiting
from tests.hosts import ASYNC_DRIVERS, POSTGRES_DRIVERS, SQLITE_DRIVERS, Host, each_driver, new_event

KNOWN: Final = UUID("01900000-0000-7000-8000-000000000001")
REFUSED: Final = "refused"
COMMAND_TIMEOUT_S: Final = 2

Provoke = Callable[[Host, Any, Any], Awaitable[Any]]

# A trigger of the host's: events whose name is raise-12345 raise that SQLSTATE, and others wait, or cancel themselves.
_TRIGGER: Final = """
CREATE OR REPLACE FUNCTION misbehave() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.name = 'wait' THEN
    PERFORM pg_sleep(600);
  ELSIF NEW.name = 'cancel' THEN
    PERFORM pg_cancel_backend(pg_backend_pid());
    PERFORM pg_sleep(600);
  ELSIF NEW.name LIKE 'raise-%' THEN
    RAISE EXCEPTION USING ERRCODE = substr(NEW.name, 7), MESSAGE = 'as the test wants it';
  END IF;
  RETURN NULL;
END $$
"""
_TOO_LARGE: Final = """
CREATE OR REPLACE FUNCTION refuse_large(document jsonb, OUT outcome text, OUT item int, OUT last_position bigint,
  OUT last_positions bigint[], OUT sequence_numbers bigint[], OUT problem jsonb) LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION USING ERRCODE = '54000', MESSAGE = 'total size of jsonb array elements exceeds the maximum'; END $$
"""


class Breaks(WriteCondition, frozen=True):
    """A condition of the application's own that the database fails at."""

    scope = ConditionScope.CATEGORY
    how: str

    def to_expression(self, context: ConditionContext) -> Any:
        if self.how == "cancel":
            return func.pg_cancel_backend(func.pg_backend_pid()).is_(None) | func.pg_sleep(600).is_(None)
        # So that it is not computed when the statement is planned.
        return literal_column("1") / func.coalesce(func.max(context.events.c.position), 0) == 1


class Case(Struct, frozen=True):
    """One error.

    Attributes:
        drivers: The drivers on which it can be raised.
        kind: Its class.
        provoke: Raises it, within a session in which a row was written.
        ended: Whether the database itself refuses everything until the rollback.
        writes_before: Whether the session can write before the error.
        writes_after: Whether it could write after it, were it usable.
        options: Of the engine.
    """

    drivers: tuple[str, ...]
    kind: type[EventStoreError]
    provoke: Provoke
    ended: bool = True
    writes_before: bool = True
    writes_after: bool = True
    options: dict[str, Any] = {}


def publish(name: str = REFUSED, **arguments: Any) -> Provoke:
    return lambda host, _, store: host.publish(store, name, **arguments)


async def publish_elsewhere(host: Host, caller: Any, store: Any) -> None:
    """Publish to an event store that is not there."""
    other = host.store_on(host.engine, schema=EventStoreSchema(prefix="other_"))
    await host.publish(other.within(caller), REFUSED)


def publish_events(**fields: Any) -> Provoke:
    async def provoke(host: Host, caller: Any, store: Any) -> None:
        events = [new_event(REFUSED), new_event(REFUSED, **fields)]
        await settled(store.stream(category="orders", stream="2").publish(events=events))

    return provoke


async def publish_beyond_statement_timeout(host: Host, caller: Any, store: Any) -> None:
    await host.execute(caller, "SET LOCAL statement_timeout = '50ms'")
    await host.publish(store, "wait")


def read_the_locked_log(setting: str) -> Provoke:
    async def provoke(host: Host, caller: Any, store: Any) -> None:
        with host.ground.outside.begin() as outside:
            outside.execute(text("LOCK TABLE es_events IN ACCESS EXCLUSIVE MODE"))
            await host.execute(caller, f"SET LOCAL {setting} = '50ms'")
            await settled(store.log().latest())

    return provoke


async def publish_on_a_lost_connection(host: Host, caller: Any, store: Any) -> None:
    terminate_others(host.ground)
    await host.publish(store, REFUSED)


async def decide_on_a_lost_connection(host: Host, caller: Any, store: Any) -> None:
    terminate_others(host.ground)
    await host.publish(store, REFUSED, condition=Breaks(how="division"))


async def read_on_a_lost_connection(host: Host, caller: Any, store: Any) -> None:
    terminate_others(host.ground)
    await settled(store.log().latest())


def while_another_holds_the_stream(meanwhile: Callable[[Host], object]) -> Provoke:
    async def provoke(host: Host, caller: Any, store: Any) -> None:
        other = Host(host.ground, "postgresql+psycopg")
        async with other.caller() as (_, store_of_holder):
            await other.publish(store_of_holder, "of-holder", stream="9")
            outcome = await outcome_while_waiting(
                lambda: host.publish(store, REFUSED, stream="9"), lambda: meanwhile(host)
            )
        if isinstance(outcome, EventStoreError):
            raise outcome

    return provoke


def cancel_waiting(host: Host) -> None:
    wait_for_waiting(host.ground)
    with host.ground.outside.execution_options(isolation_level="AUTOCOMMIT").connect() as outside:
        outside.execute(
            text(
                "SELECT pg_cancel_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
                "WHERE NOT l.granted AND a.datname = current_database()"
            )
        )


async def publish_beyond_lock_timeout(host: Host, caller: Any, store: Any) -> None:
    await host.execute(caller, "SET LOCAL lock_timeout = '50ms'")
    await while_another_holds_the_stream(lambda _: None)(host, caller, store)


async def publish_after_an_error_of_the_host(host: Host, caller: Any, store: Any) -> None:
    with pytest.raises(Exception, match="division"):
        await host.execute(caller, "SELECT 1 / 0")
    await host.publish(store, REFUSED)


async def decide_after_an_error_of_the_host(host: Host, caller: Any, store: Any) -> None:
    with pytest.raises(Exception, match="division"):
        await host.execute(caller, "SELECT 1 / 0")
    await host.publish(store, REFUSED, condition=Breaks(how="division"))


async def publish_after_a_failed_flush(host: Host, caller: Any, store: Any) -> None:
    host.ground.publish("known", id=KNOWN)
    record = host.store.adapter.schema.EventRecord
    caller.add(record(id=KNOWN, category="orders", stream="9", position=0, name="x", payload=1))
    with pytest.raises(Exception, match=r"(?i)constraint"):
        await settled(caller.flush())
    await host.publish(store, REFUSED)


async def publish_a_known_event(host: Host, caller: Any, store: Any) -> None:
    host.ground.publish("known", id=KNOWN)
    await publish_events(id=KNOWN)(host, caller, store)


async def publish_in_a_read_only_transaction(host: Host, caller: Any, store: Any) -> None:
    await host.execute(caller, "SET TRANSACTION READ ONLY" if host.postgres else "PRAGMA query_only = ON")
    await host.publish(store, REFUSED)


async def publish_too_much(host: Host, caller: Any, store: Any) -> None:
    """Have the server refuse the document before the function of ours sees it, as it does above 256 MB."""
    with host.ground.outside.begin() as outside:
        outside.execute(text(_TOO_LARGE))
    engine = getattr(host.engine, "sync_engine", host.engine)

    def refuse(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> tuple[str, object]:
        return statement.replace('"es_append_guarded_v1"', "refuse_large"), parameters

    event.listen(engine, "before_cursor_execute", refuse, retval=True)
    try:
        await host.publish(store, REFUSED)
    finally:
        event.remove(engine, "before_cursor_execute", refuse)


async def decide_with_an_old_snapshot(host: Host, caller: Any, store: Any) -> None:
    await settled(caller.rollback())
    await host.execute(caller, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await host.write(caller, "before")
    streams = {
        StreamIdentifier("orders", "2"): {"events": [new_event(REFUSED)]},
        StreamIdentifier("orders", "3"): {"events": [], "condition": stream_exists()},
    }
    await settled(store.publish(streams=streams))


async def lose_a_race_with_an_old_snapshot(host: Host, caller: Any, store: Any) -> None:
    await settled(caller.rollback())
    await host.execute(caller, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await host.write(caller, "before")
    host.ground.publish("faster", stream="3")
    await host.publish(store, REFUSED, stream="3")


async def save_a_projection_with_a_trigger_in_the_way(host: Host, caller: Any, store: Any) -> None:
    refusal = (
        "CREATE OR REPLACE TRIGGER misbehave BEFORE INSERT ON es_projections FOR EACH STATEMENT "
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        if host.postgres
        else "CREATE TRIGGER misbehave BEFORE INSERT ON es_projections BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    if host.postgres:
        with host.ground.outside.begin() as outside:
            outside.execute(text(refusal))
    else:
        await host.execute(caller, refusal)
    kind: Any = ProjectionStore if host.asynchronous else SyncProjectionStore
    projection = Projection(id="1", name="orders", source=LogIdentifier(), state=1, metadata=None)
    try:
        await settled(kind(host.engine).within(caller).save(projection=projection))
    finally:
        if host.postgres:
            # Its lock outlives the error, but not the connection's transaction.
            host.ground.outside.dispose()


async def publish_from_a_stale_snapshot(host: Host, caller: Any, store: Any) -> None:
    await settled(store.log().latest())
    host.ground.publish("faster", stream="3")
    await host.publish(store, REFUSED)


async def publish_beside_another_writer(host: Host, caller: Any, store: Any) -> None:
    with host.ground.outside.begin() as outside:
        outside.execute(text("INSERT INTO notes VALUES ('of another')"))
        outside.execute(text("DELETE FROM notes"))
        await host.publish(store, REFUSED)


def publish_past_a_trigger(action: str) -> Provoke:
    async def provoke(host: Host, caller: Any, store: Any) -> None:
        with_trigger = (
            f"CREATE TRIGGER misbehave AFTER INSERT ON es_events WHEN NEW.name = '{REFUSED}' "
            f"BEGIN SELECT RAISE({action}, 'as the test wants it'); END"
        )
        await host.execute(caller, with_trigger)
        await host.publish(store, REFUSED)

    return provoke


def begun_by_the_host(host: Host) -> None:
    """Begin transactions as SQLAlchemy's documentation recommends, without a place among the writers."""
    engine = getattr(host.engine, "sync_engine", host.engine)

    @event.listens_for(engine, "connect")
    def _connect(dbapi_connection: Any, _: object) -> None:
        dbapi_connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")


ON_EACH: Final = (*SQLITE_DRIVERS, *POSTGRES_DRIVERS)
PG: Final = POSTGRES_DRIVERS

USABLE: Final[dict[str, Case]] = {
    "unmet condition": Case(ON_EACH, UnmetWriteConditionError, publish(condition=stream_exists())),
    "unmet position": Case(ON_EACH, UnmetWriteConditionError, publish(condition=position_is(7))),
    "known id": Case(PG, DuplicateEventError, publish_a_known_event),
    "value that cannot be stored": Case(ON_EACH, SerialisationError, publish_events(payload=float("nan"))),
    "lock timeout": Case(PG, LockTimeoutError, publish_beyond_lock_timeout),
    "deadlock": Case(PG, ConcurrencyError, publish("raise-40P01")),
    "refusal of the host's": Case(PG, StorageError, publish("raise-P0001")),
    "read-only transaction": Case(
        ON_EACH, TransactionError, publish_in_a_read_only_transaction, writes_before=False, writes_after=False
    ),
    "condition elsewhere with an old snapshot": Case(PG, TransactionError, decide_with_an_old_snapshot),
    "race lost with an old snapshot": Case(PG, ConcurrencyError, lose_a_race_with_an_old_snapshot),
    "failure of a condition": Case(PG, StorageError, publish(condition=Breaks(how="division"))),
    "cancelled condition": Case(PG, TransactionError, publish(condition=Breaks(how="cancel"))),
    "missing tables": Case(SQLITE_DRIVERS, SchemaError, publish_elsewhere),
    "trigger that aborts": Case(SQLITE_DRIVERS, StorageError, publish_past_a_trigger("ABORT")),
    "refused projection": Case(SQLITE_DRIVERS, StorageError, save_a_projection_with_a_trigger_in_the_way),
    "another writer": Case(SQLITE_DRIVERS, LockTimeoutError, publish_beside_another_writer, writes_before=False),
}

BROKEN: Final[dict[str, Case]] = {
    "statement timeout": Case(PG, TransactionError, publish_beyond_statement_timeout),
    "statement timeout of a read": Case(PG, TransactionError, read_the_locked_log("statement_timeout")),
    "lock timeout of a read": Case(PG, LockTimeoutError, read_the_locked_log("lock_timeout")),
    "cancelled query": Case(PG, TransactionError, publish("cancel")),
    "query that is cancelled while it waits": Case(
        PG, TransactionError, while_another_holds_the_stream(cancel_waiting)
    ),
    "command_timeout": Case(
        ("postgresql+asyncpg",),
        TransactionError,
        publish("wait"),
        options={"connect_args": {"command_timeout": COMMAND_TIMEOUT_S}},
    ),
    "lost connection": Case(PG, ConnectionLostError, publish_on_a_lost_connection),
    "lost connection of a read": Case(PG, ConnectionLostError, read_on_a_lost_connection),
    "lost connection of a savepoint": Case(PG, ConnectionLostError, decide_on_a_lost_connection),
    "connection that is lost while it waits": Case(
        PG, ConnectionLostError, while_another_holds_the_stream(lambda host: terminate_waiting(host.ground))
    ),
    "oversized document": Case(PG, SerialisationError, publish_too_much),
    "missing schema": Case(PG, SchemaError, publish_elsewhere),
    "refused projection": Case(PG, StorageError, save_a_projection_with_a_trigger_in_the_way),
    "serialisation failure": Case(PG, ConcurrencyError, publish("raise-40001"), ended=False),
    "error of the host's": Case(PG, TransactionError, publish_after_an_error_of_the_host),
    "error of the host's before a savepoint": Case(PG, TransactionError, decide_after_an_error_of_the_host),
    "failed flush": Case(PG, TransactionError, publish_after_a_failed_flush),
    "stale snapshot": Case(SQLITE_DRIVERS, ConcurrencyError, publish_from_a_stale_snapshot, writes_before=False),
    "trigger that rolls back": Case(SQLITE_DRIVERS, StorageError, publish_past_a_trigger("ROLLBACK"), ended=False),
}


def on_drivers(cases: dict[str, Case]) -> pytest.MarkDecorator:
    """Run a test for each case on each driver that it can be raised on."""
    pairs = [(driver, name) for name, case in cases.items() for driver in case.drivers]
    return pytest.mark.parametrize(("host", "name"), pairs, indirect=["host"])


@asynccontextmanager
async def prepared(host: Host, name: str, case: Case) -> Any:
    """Give a host whose engine and database are as the case wants them."""
    if host.postgres:
        with host.ground.outside.begin() as outside:
            outside.execute(text("DROP TRIGGER IF EXISTS misbehave ON es_projections"))
            outside.execute(text(_TRIGGER))
            outside.execute(
                text(
                    "CREATE OR REPLACE TRIGGER misbehave AFTER INSERT ON es_events FOR EACH ROW "
                    "EXECUTE FUNCTION misbehave()"
                )
            )
    made = Host(host.ground, host.driver, configured=name != "stale snapshot", poolclass=None, **case.options)
    if name == "stale snapshot":
        begun_by_the_host(made)
    if name == "another writer":

        @event.listens_for(getattr(made.engine, "sync_engine", made.engine), "connect")
        def _no_patience(dbapi_connection: Any, _: object) -> None:
            cursor = dbapi_connection.cursor()
            cursor.execute("PRAGMA busy_timeout = 0")
            cursor.close()

    yield made
    await made.aclose()


async def provoked(host: Host, caller: Any, store: Any, case: Case, *, must_roll_back: bool) -> None:
    if case.writes_before:
        await host.write(caller, "before")
    with pytest.raises(case.kind) as caught:
        await case.provoke(host, caller, store)
    assert type(caught.value) is case.kind
    assert caught.value.must_roll_back is must_roll_back
    assert ("roll back" in str(caught.value)) is must_roll_back


@on_drivers(USABLE)
async def test_session_goes_on_where_an_error_says_nothing_of_rolling_back(host: Host, name: str) -> None:
    case = USABLE[name]
    async with _prepared(host, name, case) as host, host.caller() as (caller, store):
        await provoked(host, caller, store, case, must_roll_back=False)

        if case.writes_after:
            await host.write(caller, "after")
            await host.publish(store, "after", stream="after")
        await host.execute(caller, "SELECT 1")
        await settled(caller.commit())

        assert host.ground.notes() == (["after"] * case.writes_after + ["before"] * case.writes_before)
        assert set(host.ground.names()) - {"known", "faster"} == ({"after"} if case.writes_after else set())


@on_drivers(BROKEN)
async def test_session_has_to_be_rolled_back_where_an_error_says_so_and_is_fit_again(host: Host, name: str) -> None:
    case = BROKEN[name]
    async with _prepared(host, name, case) as host, host.caller() as (caller, store):
        await provoked(host, caller, store, case, must_roll_back=True)

        if case.ended:
            with pytest.raises(Exception):  # noqa: B017, PT011 - each driver has its own
                await host.write(caller, "lost")
        await settled(caller.rollback())
        await host.write(caller, "after")
        await host.publish(store, "after", stream="after")
        await settled(caller.commit())

        assert host.ground.notes() == ["after"]
        assert set(host.ground.names()) - {"known", "faster"} == {"after"}


def _prepared(host: Host, name: str, case: Case) -> AbstractAsyncContextManager[Host]:
    made: AbstractAsyncContextManager[Host] = prepared(host, name, case)
    return made


@each_driver(*(driver for driver in ASYNC_DRIVERS if driver in POSTGRES_DRIVERS))
async def test_session_whose_publish_was_cancelled_takes_a_rollback_alone(host: Host) -> None:
    other = Host(host.ground, "postgresql+psycopg")
    async with other.caller() as (_, store_of_holder), host.caller() as (caller, store):
        await other.publish(store_of_holder, "of-holder", stream="9")
        await host.write(caller, "before")
        publishing = asyncio.ensure_future(host.publish(store, REFUSED, stream="9"))
        await asyncio.to_thread(wait_for_waiting, host.ground)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing

        with pytest.raises(PendingRollbackError):
            await host.write(caller, "lost")
        with pytest.raises(TransactionError, match="roll back") as caught:
            await host.publish(store, REFUSED)
        assert caught.value.must_roll_back
        await settled(caller.rollback())
        await host.write(caller, "after")
        await host.publish(store, "after")
        await settled(caller.commit())

    assert host.ground.notes() == ["after"]
    assert host.ground.names() == ["after"]


@each_driver()
async def test_commit_that_fails_on_a_staged_publish_leaves_a_session_that_goes_on(host: Host) -> None:
    async with host.caller() as (caller, store):
        await host.write(caller, "before")
        store.stream(category="orders", stream="1").stage(events=[new_event("staged")], condition=stream_exists())
        with pytest.raises(UnmetWriteConditionError) as caught:
            await settled(caller.commit())
        assert not caught.value.must_roll_back

        await host.publish(store, "after", stream="1")
        await settled(caller.commit())

    assert host.ground.notes() == ["before"]
    assert host.ground.names() == ["after", "staged"]


@each_driver(*POSTGRES_DRIVERS)
async def test_commit_whose_staged_publish_is_cancelled_leaves_a_session_to_be_rolled_back(host: Host) -> None:
    case = BROKEN["cancelled query"]
    async with _prepared(host, "staged", case) as made, made.caller() as (caller, store):
        await made.write(caller, "before")
        store.stream(category="orders", stream="1").stage(events=[new_event("cancel")])
        with pytest.raises(TransactionError, match="roll back") as caught:
            await settled(caller.commit())
        assert caught.value.must_roll_back

        await settled(caller.rollback())
        await made.write(caller, "after")
        store.stream(category="orders", stream="1").stage(events=[new_event("after")])
        await settled(caller.commit())

    assert host.ground.notes() == ["after"]
    assert host.ground.names() == ["after"]


@each_driver(*POSTGRES_DRIVERS)
async def test_lost_connection_in_a_session_is_known_to_have_stored_nothing(host: Host) -> None:
    async with host.caller() as (caller, store):
        await host.write(caller, "before")
        with pytest.raises(ConnectionLostError) as caught:
            await publish_on_a_lost_connection(host, caller, store)

    assert "nothing was stored" in str(caught.value)
    assert "run all of the transaction again" in str(caught.value)
    assert "not known" not in str(caught.value)


@each_driver()
async def test_a_store_on_an_engine_asks_for_no_rollback(host: Host) -> None:
    elsewhere = host.store_on(host.engine, schema=EventStoreSchema(prefix="other_"))
    await host.publish(host.store, "known")

    for store, condition in ((host.store, stream_is_empty()), (elsewhere, None)):
        with pytest.raises(EventStoreError) as caught:
            await host.publish(store, condition=condition)
        assert not caught.value.must_roll_back
        assert "roll back" not in str(caught.value)


@each_driver(*POSTGRES_DRIVERS)
async def test_refusal_without_an_error_of_the_driver_names_sqlstate_and_constraint(host: Host) -> None:
    with host.ground.outside.begin() as connection:
        connection.execute(text("ALTER TABLE es_events ADD CONSTRAINT host_check CHECK (name <> 'bad')"))
    try:
        async with host.caller() as (caller, store):
            with pytest.raises(
                StorageError, match=r"\[23514, constraint host_check\]\): look for a constraint"
            ) as caught:
                await host.publish(store, "bad")
            assert caught.value.__cause__ is None
            assert "__cause__" not in str(caught.value)
            await host.publish(store)
            await settled(caller.commit())
        with pytest.raises(StorageError, match=r"\[23514, constraint host_check\]\): see the driver's error") as caught:
            await host.publish(host.store, "bad")
        assert caught.value.__cause__ is not None
    finally:
        with host.ground.outside.begin() as connection:
            connection.execute(text("ALTER TABLE es_events DROP CONSTRAINT host_check"))

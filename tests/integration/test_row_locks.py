"""Row locks between real connections: who waits for whom, what a host's transaction is left with, and old snapshots.

On PostgreSQL, and on MariaDB where a server is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import pytest
from sqlalchemy import ColumnElement, Engine, bindparam, create_engine, event, func, select, text
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.orm import Session

from eventstore_sa import NewEvent, SyncEventStore
from eventstore_sa.conditions import ConditionScope, WriteCondition, position_is, stream_is_empty
from eventstore_sa.errors import (
    ConcurrencyError,
    ConfigurationError,
    DuplicateEventError,
    TransactionError,
    UnmetWriteConditionError,
)
from eventstore_sa.persistence.events.conditions import ConditionContext
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee, LockingMode
from eventstore_sa.sources.constraints import position_after, sequence_number_after
from eventstore_sa.types import StreamNamePrefixPartitionIdentifier
from tests.databases import PostgresDatabase
from tests.mariadb import NEEDS_MARIADB, fresh_mariadb_database
from tests.patience import PATIENCE_S, wait_until
from tests.stores import install_schema, record_locking

LOG, CATEGORY, STREAM = EventSerialisationGuarantee
LEVELS = pytest.mark.parametrize("level", EventSerialisationGuarantee)
DATABASES = ["postgresql", pytest.param("mariadb", marks=NEEDS_MARIADB)]
ONLY_MARIADB = pytest.mark.parametrize("engine", DATABASES[1:], indirect=True)
ONLY_POSTGRESQL = pytest.mark.parametrize("engine", DATABASES[:1], indirect=True)

WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
    "mariadb": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
}


@pytest.fixture(params=DATABASES)
def engine(request: pytest.FixtureRequest, make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Engine]:
    """Provide an engine on an empty database with the tables in it."""
    with opened(request.param, make_postgres_database) as engine:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE notes (note int PRIMARY KEY)"))
        yield engine
        engine.dispose()


@contextmanager
def opened(database: str, make_postgres_database: Callable[..., PostgresDatabase]) -> Generator[Engine]:
    options: dict[str, Any] = {"pool_size": 20, "max_overflow": 20}
    if database == "postgresql":
        yield create_engine(make_postgres_database(prepared_by=install_schema).url("psycopg"), **options)
        return
    with fresh_mariadb_database() as url:
        yield create_engine(url, **options)


def row_store(engine: Engine, level: EventSerialisationGuarantee = LOG) -> SyncEventStore:
    store = SyncEventStore(engine, locking="row", serialisation_guarantee=level)
    if engine.dialect.name == "postgresql":
        record_locking(engine, LockingMode("row", level.value))
    store.create_schema()
    return store


def publish(store: SyncEventStore, category: str = "orders", stream: str = "1", **arguments: Any) -> Any:
    events = arguments.pop("events", None) or [NewEvent(name="happened", payload=1)]
    return store.stream(category=category, stream=stream).publish(events=events, **arguments)


def wait_until_blocked(engine: Engine, *, writers: int = 1) -> None:
    """Wait until so many connections wait for a lock."""
    with engine.connect() as connection:

        def blocked() -> bool:
            connection.rollback()
            return connection.scalar(text(WAITING[engine.dialect.name])) >= writers

        # MariaDB shows the same picture to whoever looks again within a tenth of a second.
        wait_until(blocked, f"{writers} connections wait for a lock", interval_s=0.12)


@contextmanager
def at_once() -> Iterator[Callable[..., Future[Any]]]:
    """Run calls in threads; enter it before sessions that they may wait for, which then end first."""
    with ThreadPoolExecutor(16) as threads:
        yield threads.submit


BESIDE = [("orders", "1"), ("orders", "2"), ("invoices", "1")]
"""The same stream, another of the category, another category."""


@LEVELS
def test_a_publish_waits_for_an_open_one_within_the_level_of_the_guarantee(
    engine: Engine, level: EventSerialisationGuarantee
) -> None:
    store = row_store(engine, level)
    for category, stream in BESIDE:
        publish(store, category, stream)
    waits = {LOG: BESIDE, CATEGORY: BESIDE[:2], STREAM: BESIDE[:1]}[level]

    with at_once() as submit, Session(engine) as session:
        (held,) = publish(store.within(session))
        for category, stream in [place for place in BESIDE if place not in waits]:
            submit(publish, store, category, stream).result(timeout=PATIENCE_S)
        blocked = [submit(publish, store, category, stream) for category, stream in waits]
        wait_until_blocked(engine, writers=len(waits))
        session.commit()
        numbers = [stored.sequence_number for future in blocked for stored in future.result(timeout=PATIENCE_S)]

    assert min(numbers) > held.sequence_number


@LEVELS
def test_the_first_publishes_of_a_stream_follow_one_another(engine: Engine, level: EventSerialisationGuarantee) -> None:
    store = row_store(engine, level)

    with at_once() as submit, Session(engine) as session:
        publish(store.within(session))
        others = [submit(publish, store) for _ in range(4)]
        demanding = submit(publish, store, condition=stream_is_empty())
        wait_until_blocked(engine, writers=5)
        session.commit()
        positions = sorted(stored.position for other in others for stored in other.result(timeout=PATIENCE_S))
        with pytest.raises(UnmetWriteConditionError):
            demanding.result(timeout=PATIENCE_S)

    assert positions == [1, 2, 3, 4]


@LEVELS
def test_publishes_to_the_same_new_streams_in_opposite_orders_do_not_deadlock(
    engine: Engine, level: EventSerialisationGuarantee
) -> None:
    store = row_store(engine, level)
    one = SyncEventStore(store.adapter)
    names = [str(number) for number in range(8)]

    def publish_all(round_: int, *, backwards: bool) -> None:
        streams = {name: {"events": [NewEvent(name="e", payload=1)]} for name in names[:: -1 if backwards else 1]}
        one.category(category=f"round-{round_}").publish(streams=streams)

    failed: list[str] = []
    event.listen(engine, "handle_error", lambda context: failed.append(str(context.original_exception)))
    with at_once() as submit:
        for round_ in range(5):
            futures = [submit(publish_all, round_, backwards=bool(number % 2)) for number in range(8)]
            for future in futures:
                future.result(timeout=PATIENCE_S)

    # Publishes of our own are tried again after a deadlock, so the outcome would not show it.
    assert failed == []
    for round_ in range(5):
        for name in names:
            positions = [stored.position for stored in store.stream(category=f"round-{round_}", stream=name).read()]
            assert positions == list(range(8))


@pytest.mark.parametrize(("level", "target"), [(LOG, None), (CATEGORY, "orders")])
def test_readers_see_no_hole_within_the_guarantee(
    engine: Engine, level: EventSerialisationGuarantee, target: str | None
) -> None:
    store = row_store(engine, level)
    source: Any = store.log() if target is None else store.category(category=target)

    def write(stream: str) -> None:
        stored = 0
        while stored < 25:
            # MariaDB may end one of several transactions that are the first to lock something.
            with suppress(ConcurrencyError), Session(engine) as session:
                publish(store.within(session), "orders", stream)
                # Long enough for others to draw numbers, if they could.
                session.execute(text("SELECT 1"))
                session.commit()
                stored += 1

    with at_once() as submit:
        writers = [submit(write, str(number)) for number in range(4)]
        seen: list[int] = []
        while True:
            done = all(writer.done() for writer in writers)
            found = [stored.sequence_number for stored in source.read(constraints=after(seen))]
            seen += found
            if done:
                break
        for writer in writers:
            writer.result()

    assert seen == [stored.sequence_number for stored in source.read()]
    assert len(seen) == 100


def kept_apart(engine: Engine) -> None:
    """Move all events to a table of their own, from which a test commits them in the order that it wants."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept AS SELECT * FROM es_events"))
        # Unlike DELETE, it fires no trigger.
        connection.execute(text("TRUNCATE es_events"))


def put_back(engine: Engine, *numbers: int) -> None:
    with engine.begin() as connection:
        statement = text("INSERT INTO es_events SELECT * FROM kept WHERE sequence_number IN :numbers")
        connection.execute(statement.bindparams(bindparam("numbers", expanding=True)), {"numbers": numbers})


def put_back_before_page(engine: Engine, reader: Engine, *numbers: int) -> None:
    """Put events back just before the reader reads the next page: between its snapshots, if it takes more than one."""
    left = [numbers]

    def before(*arguments: Any) -> None:
        if "payload" in arguments[2] and left:
            put_back(engine, *left.pop())

    event.listen(reader, "before_cursor_execute", before)


SOURCES: dict[str, tuple[EventSerialisationGuarantee, Callable[[SyncEventStore], Any]]] = {
    "log": (LOG, lambda store: store.log()),
    "category": (CATEGORY, lambda store: store.category(category="orders")),
    "part of a category": (
        CATEGORY,
        lambda store: store.partition(StreamNamePrefixPartitionIdentifier("orders", "1")),
    ),
    "stream": (STREAM, lambda store: store.stream(category="orders", stream="1")),
}


@ONLY_MARIADB
@pytest.mark.parametrize("source", SOURCES)
def test_a_read_survives_a_snapshot_that_shows_the_second_of_two_commits_without_the_first(
    engine: Engine, source: str
) -> None:
    level, source_of = SOURCES[source]
    store = row_store(engine, level)
    for _ in range(3):
        publish(store)
    kept_apart(engine)
    put_back(engine, 2)
    reader = create_engine(engine.url)
    put_back_before_page(engine, reader, 1, 3)

    found = source_of(row_store(reader, level)).read()

    # The first is read in a later snapshot, and the third is left to the next read: who knows what that one hides.
    assert [stored.sequence_number for stored in found] == [1, 2]
    reader.dispose()


@ONLY_MARIADB
def test_a_stream_is_whole_in_a_session_that_reads_what_is_committed(engine: Engine) -> None:
    store = row_store(engine, STREAM)
    for _ in range(3):
        publish(store)
    kept_apart(engine)
    put_back(engine, 2)
    reader = create_engine(engine.url, isolation_level="READ COMMITTED")
    put_back_before_page(engine, reader, 1, 3)

    with Session(reader) as session:
        found = store.within(session).stream(category="orders", stream="1").read()

    assert [stored.position for stored in found] == [0, 1]
    reader.dispose()


@ONLY_MARIADB
@pytest.mark.parametrize("arguments", [{}, {"constraints": {position_after(0)}}, {"limit": 2}])
def test_a_stream_that_is_not_whole_in_the_snapshot_of_a_session_is_refused(
    engine: Engine, arguments: dict[str, Any]
) -> None:
    store = row_store(engine, STREAM)
    for _ in range(3):
        publish(store)
    kept_apart(engine)
    put_back(engine, 1, 3)

    with Session(repeatable_read(engine)) as session:
        stream = store.within(session).stream(category="orders", stream="1")
        session.execute(text("SELECT * FROM es_events"))
        put_back(engine, 2)
        with pytest.raises(ConcurrencyError, match=r"event 1 of stream 'orders/1', which is missing") as refused:
            stream.read(**arguments)
        session.rollback()
        again = stream.read()

    assert refused.value.must_roll_back
    assert [stored.position for stored in again] == [0, 1, 2]


@ONLY_MARIADB
def test_a_stream_of_which_events_were_deleted_is_read_in_a_session(engine: Engine) -> None:
    store = row_store(engine, STREAM)
    for _ in range(3):
        publish(store)
    kept_apart(engine)
    put_back(engine, 1, 3)

    with Session(repeatable_read(engine)) as session:
        stream = store.within(session).stream(category="orders", stream="1")
        forwards, backwards = stream.read(), [*stream.iterate(backwards=True)]
        later = stream.read(constraints={position_after(0)})

    assert [stored.position for stored in forwards] == [0, 2]
    assert [stored.position for stored in backwards] == [2, 0]
    assert [stored.position for stored in later] == [2]


def after(seen: list[int]) -> Any:
    return {sequence_number_after(seen[-1])} if seen else set()


@pytest.mark.parametrize(("level", "statements"), [(LOG, 3), (CATEGORY, 4), (STREAM, 4)])
def test_a_publish_takes_few_statements(engine: Engine, level: EventSerialisationGuarantee, statements: int) -> None:
    store = row_store(engine, level)
    publish(store)
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))

    publish(store)

    assert len(seen) == statements, seen


@ONLY_POSTGRESQL
def test_what_goes_wrong_leaves_the_host_its_transaction_and_no_lock(engine: Engine) -> None:
    store = row_store(engine)
    (known,) = publish(store)

    with Session(engine) as session, session.begin():
        session.execute(text("INSERT INTO notes VALUES (1)"))
        within = store.within(session)
        with pytest.raises(UnmetWriteConditionError):
            publish(within, condition=position_is(5))
        with pytest.raises(DuplicateEventError):
            publish(within, stream="2", events=[NewEvent(name="again", payload=1, id=known.id)])
        # It would wait for ever for a lock that is held here.
        with at_once() as submit:
            submit(publish, store).result(timeout=PATIENCE_S)
        (stored,) = publish(within)

    assert stored.position == 2
    with engine.connect() as connection:
        assert list(connection.scalars(text("SELECT note FROM notes"))) == [1]


@ONLY_MARIADB
def test_what_goes_wrong_leaves_the_host_its_transaction(engine: Engine) -> None:
    store = row_store(engine)
    (known,) = publish(store)

    with Session(engine) as session, session.begin():
        session.execute(text("INSERT INTO notes VALUES (1)"))
        within = store.within(session)
        with pytest.raises(UnmetWriteConditionError):
            publish(within, condition=position_is(5))
        with pytest.raises(DuplicateEventError):
            publish(within, stream="2", events=[NewEvent(name="again", payload=1, id=known.id)])
        (stored,) = publish(within)

    assert stored.position == 1
    with engine.connect() as connection:
        assert list(connection.scalars(text("SELECT note FROM notes"))) == [1]


def deadlock(engine: Engine, store: SyncEventStore, session: Session) -> ConcurrencyError:
    """Publish in a transaction that has a row which the holder of the lock is about to want; return what comes of it."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO notes VALUES (1)"))
    with at_once() as submit, Session(engine) as other:
        session.execute(text("INSERT INTO notes VALUES (2)"))
        publish(store.within(other))
        publishing = submit(publish, store.within(session))
        wait_until_blocked(engine)
        other.execute(text("INSERT INTO notes VALUES (2) " + IGNORING[engine.dialect.name]))
        other.commit()
        error = publishing.exception(timeout=PATIENCE_S)
    assert isinstance(error, ConcurrencyError)
    return error


IGNORING = {"postgresql": "ON CONFLICT DO NOTHING", "mariadb": "ON DUPLICATE KEY UPDATE note = note"}


@ONLY_MARIADB
def test_after_a_deadlock_the_host_can_do_nothing_but_roll_back(engine: Engine) -> None:
    store = row_store(engine)
    publish(store)

    with Session(engine) as session:
        # More rows: the server gives up the transaction that has changed less.
        error = deadlock(engine, store, session)
        with pytest.raises(PendingRollbackError):
            session.execute(text("INSERT INTO notes VALUES (3)"))
        with pytest.raises(PendingRollbackError):
            session.commit()
        session.rollback()
        publish(store.within(session))
        session.commit()

    assert "whole transaction" in str(error)
    with engine.connect() as connection:
        assert list(connection.scalars(text("SELECT note FROM notes ORDER BY note"))) == [1, 2]
    assert len(store.log().read()) == 3


def repeatable_read(engine: Engine) -> Engine:
    return engine.execution_options(isolation_level="REPEATABLE READ")


@ONLY_POSTGRESQL
def test_an_old_snapshot_makes_a_publish_fail_on_postgresql(engine: Engine) -> None:
    store = row_store(engine)
    publish(store)

    with Session(repeatable_read(engine)) as session:
        session.execute(text("SELECT 1"))
        publish(store)
        with pytest.raises(ConcurrencyError):
            publish(store.within(session), condition=position_is(0))
        session.rollback()
        publish(store.within(session), condition=position_is(1))
        session.commit()

    assert len(store.log().read()) == 3


@ONLY_MARIADB
def test_an_old_snapshot_does_not_mislead_a_publish_on_mariadb(engine: Engine) -> None:
    store = row_store(engine)
    publish(store)

    with Session(repeatable_read(engine)) as session:
        assert len(store.within(session).log().read()) == 1
        publish(store)
        publish(store, stream="2")
        assert len(store.within(session).log().read()) == 1
        with pytest.raises(UnmetWriteConditionError):
            publish(store.within(session), condition=position_is(0))
        with pytest.raises(UnmetWriteConditionError):
            publish(store.within(session), stream="2", condition=stream_is_empty())
        publish(store.within(session), condition=position_is(1))
        session.commit()

    assert len(store.log().read()) == 4


class FewerIn(WriteCondition, frozen=True):
    """Fewer than `amount` events are stored."""

    amount: int

    def to_expression(self, context: ConditionContext) -> ColumnElement[bool]:
        return select(func.count()).select_from(context.events).scalar_subquery() < self.amount


class FewerInLog(FewerIn, frozen=True):
    scope: ClassVar[ConditionScope] = ConditionScope.LOG


class FewerInCategory(FewerIn, frozen=True):
    scope: ClassVar[ConditionScope] = ConditionScope.CATEGORY


@pytest.mark.parametrize(
    ("level", "condition"), [(CATEGORY, FewerInLog(9)), (STREAM, FewerInLog(9)), (STREAM, FewerInCategory(9))]
)
def test_a_condition_that_looks_at_more_than_is_locked_is_refused(
    engine: Engine, level: EventSerialisationGuarantee, condition: WriteCondition
) -> None:
    store = row_store(engine, level)

    with pytest.raises(ConfigurationError, match="use serialisation_guarantee="):
        publish(store, condition=condition)


def test_a_condition_on_the_log_is_decided_under_its_lock(engine: Engine) -> None:
    store = row_store(engine)

    with at_once() as submit:
        futures = [submit(publish, store, stream=str(number), condition=FewerInLog(3)) for number in range(8)]
        errors = [error for future in futures if (error := future.exception(timeout=PATIENCE_S)) is not None]

    assert {type(error) for error in errors} == {UnmetWriteConditionError}
    assert len(errors) == 5
    assert len(store.log().read()) == 3


def test_a_condition_of_the_application_is_refused_where_an_old_snapshot_would_mislead_it(engine: Engine) -> None:
    store = row_store(engine)

    with Session(repeatable_read(engine)) as session, pytest.raises(TransactionError, match="READ COMMITTED"):
        publish(store.within(session), condition=FewerInLog(9))


def test_lock_rows_begin_where_another_mode_has_left_the_streams(engine: Engine) -> None:
    store = row_store(engine)
    publish(store)
    publish(store)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM es_locks"))

    (stored,) = publish(store, condition=position_is(1))

    assert stored.position == 2


@pytest.mark.parametrize("level", [EventSerialisationGuarantee.LOG, EventSerialisationGuarantee.STREAM])
def test_a_publish_may_go_to_more_streams_than_one_statement_locks(
    engine: Engine, level: EventSerialisationGuarantee
) -> None:
    store = row_store(engine, level)
    streams = {f"{number:04}": {"events": [NewEvent(name="e", payload=number)]} for number in range(1010)}
    category: Any = store.category(category="orders")

    first = category.publish(streams=streams)
    second = category.publish(
        streams={
            name: {"events": [NewEvent(name="e", payload=1)], "condition": position_is(0)} for name in reversed(streams)
        }
    )

    assert list(second) == list(reversed(streams))
    numbers = [stored.sequence_number for result in (first, second) for (stored,) in result.values()]
    assert numbers == sorted(numbers)
    assert {stored.position for (stored,) in second.values()} == {1}

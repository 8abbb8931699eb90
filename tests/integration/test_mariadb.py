"""What MariaDB has of its own: triggers, names as bytes, times without a zone, and what it cannot do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, NullPool, create_engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import EventStoreSchema, NewEvent, RecordsEvents, SyncEventStore, verify_schema
from eventstore_sa.cli import main
from eventstore_sa.conditions import stream_is_empty
from eventstore_sa.errors import (
    ConfigurationError,
    LockTimeoutError,
    SchemaError,
    StorageError,
    TransactionError,
    UnmetWriteConditionError,
)
from eventstore_sa.subscriptions import SyncSubscription
from eventstore_sa.testing import clear
from tests.mariadb import NEEDS_MARIADB, fresh_mariadb_database

pytestmark = NEEDS_MARIADB

SCHEMA = EventStoreSchema(locking="row")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with fresh_mariadb_database() as url:
        engine = create_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def store(engine: Engine) -> SyncEventStore:
    store = SyncEventStore(engine, locking="row")
    store.create_schema()
    return store


def publish(store: SyncEventStore, *, stream: str = "1", payload: object = 1) -> None:
    moment = datetime(2024, 2, 29, 1, 2, 3, 456789, UTC)
    event = NewEvent(name="happened", payload=payload, observed_at=moment)
    store.stream(category="orders", stream=stream).publish(events=[event])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE es_events SET name = 'x'",
        "DELETE FROM es_events",
        "REPLACE INTO es_events SELECT * FROM es_events",
    ],
)
def test_stored_events_cannot_be_changed(engine: Engine, store: SyncEventStore, change: str) -> None:
    publish(store)

    with engine.connect() as connection, pytest.raises(DBAPIError, match="events are history"):
        connection.execute(text(change))

    assert len(store.log().read()) == 1


def test_tags_are_not_added_to_stored_events(store: SyncEventStore) -> None:
    publish(store)

    with pytest.raises(ConfigurationError, match="tags cannot be added to stored events on m"):
        store.backfill_tags(lambda event: ["a"])

    assert [event.tags for event in store.log().read()] == [frozenset()]


def test_clearing_empties_the_tables_and_begins_at_1_again(engine: Engine, store: SyncEventStore) -> None:
    publish(store)
    publish(store)

    clear(engine)

    assert store.log().read() == []
    publish(store)
    (event,) = store.log().read()
    assert (event.position, event.sequence_number) == (0, 1)
    with engine.connect() as connection, pytest.raises(DBAPIError, match="events are history"):
        connection.execute(text("DELETE FROM es_events"))


def test_clearing_waits_so_long_for_an_open_transaction(engine: Engine, store: SyncEventStore) -> None:
    publish(store)
    with engine.connect() as forgotten:
        forgotten.execute(text("SELECT 1 FROM es_events"))

        with engine.connect() as connection:
            with pytest.raises(LockTimeoutError):
                clear(connection, timeout_s=1)
            connection.rollback()
            assert connection.scalar(text("SELECT @@lock_wait_timeout > 10 AND @@innodb_lock_wait_timeout > 10"))

    clear(engine)
    assert store.log().read() == []


def test_clearing_that_a_row_of_the_host_prevents_leaves_events_that_cannot_be_changed(
    engine: Engine, store: SyncEventStore
) -> None:
    publish(store)
    with engine.begin() as connection:
        kind = connection.scalar(
            text(
                "SELECT column_type FROM information_schema.columns "
                "WHERE table_schema = database() AND table_name = 'es_events' AND column_name = 'id'"
            )
        )
        connection.execute(text(f"CREATE TABLE receipts (id {kind} REFERENCES es_events (id))"))
        connection.execute(text("INSERT INTO receipts SELECT id FROM es_events"))

    with pytest.raises(StorageError):
        clear(engine)

    assert len(store.log().read()) == 1
    with engine.connect() as connection:
        verify_schema(connection, schema=SCHEMA)


def test_a_process_that_only_records_needs_no_store(engine: Engine) -> None:
    class Base(DeclarativeBase):
        pass

    schema = EventStoreSchema(Base.metadata, locking="row")

    class Order(RecordsEvents, Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)

    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        order = Order()
        session.add(order)
        order.record(NewEvent(name="recorded", payload=None))

    assert [event.stream for event in SyncEventStore(engine, schema=schema).log()] == ["1"]


def test_subscriptions_are_refused_with_what_to_use_instead(store: SyncEventStore) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be kept in \w+: use PostgreSQL, or SQLite in one process"):
        SyncSubscription("billing", store.log(), lambda event: None)


def test_the_schema_is_verified(engine: Engine, store: SyncEventStore) -> None:
    with engine.connect() as connection:
        verify_schema(connection, schema=SCHEMA)
        connection.execute(text("DROP TRIGGER es_events_forbid_delete"))
        with pytest.raises(SchemaError, match="trigger es_events_forbid_delete is missing"):
            verify_schema(connection, schema=SCHEMA)


def printed_by(command: str, problem: str) -> list[str]:
    """Run the command that a message recommends; return the statements that it prints."""
    found = re.search(rf"`eventstore-sa (schema {command} [^`]*)`", problem)
    assert found, problem
    outcome = CliRunner().invoke(main, shlex.split(found[1]))
    assert outcome.exit_code == 0, outcome.output
    return outcome.output.removesuffix(";\n").split(";\n\n")


@pytest.mark.parametrize("name", ["mariadb", "mysql"])
def test_the_commands_that_verifying_recommends_put_it_right(engine: Engine, name: str) -> None:
    named = create_engine(engine.url.set(drivername=f"{name}+pymysql"), poolclass=NullPool)
    with named.connect() as connection:
        with pytest.raises(SchemaError) as missing:
            verify_schema(connection, schema=SCHEMA)
        for statement in printed_by("sql", str(missing.value)):
            connection.exec_driver_sql(statement)
        verify_schema(connection, schema=SCHEMA)

        connection.execute(text("DROP TRIGGER es_events_forbid_delete"))
        with pytest.raises(SchemaError) as broken:
            verify_schema(connection, schema=SCHEMA)
        for statement in printed_by("repair", str(broken.value)):
            connection.exec_driver_sql(statement)
        verify_schema(connection, schema=SCHEMA)
    publish(SyncEventStore(engine, schema=SCHEMA))


def test_verifying_with_a_locking_that_mariadb_has_not_recommends_no_command_that_is_refused(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(SchemaError) as caught:
        verify_schema(connection)

    assert "give the EventStoreSchema locking='row'" in str(caught.value)
    assert "eventstore-sa" not in str(caught.value)


def test_missing_tables_are_named_with_the_remedy(engine: Engine) -> None:
    with pytest.raises(SchemaError, match=r"^tables are missing .*`alembic upgrade head`.*right database$"):
        publish(SyncEventStore(engine, locking="row"))


def test_the_mapped_class_reads_what_is_stored(engine: Engine) -> None:
    schema = EventStoreSchema(locking="row")
    store = SyncEventStore(engine, schema=schema)
    store.create_schema()
    publish(store, stream="naïve ", payload={"big": 10**30})

    with Session(engine) as session:
        record = session.scalars(select(schema.EventRecord)).one()

    assert (record.category, record.stream, record.payload) == ("orders", "naïve ", {"big": 10**30})
    assert record.observed_at == datetime(2024, 2, 29, 1, 2, 3, 456789)


def test_other_modes_are_refused(engine: Engine) -> None:
    for use in (SyncEventStore.create_schema, publish):
        with pytest.raises(ConfigurationError, match="EventStoreSchema locking='row'"):
            use(SyncEventStore(engine))


def test_a_session_in_autocommit_mode_is_refused(engine: Engine, store: SyncEventStore) -> None:
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    with Session(autocommit) as session, pytest.raises(TransactionError, match="autocommit"):
        publish(store.within(session))


def test_a_store_that_coalesces_is_accepted_and_publishes_as_without(engine: Engine, store: SyncEventStore) -> None:
    together = SyncEventStore(engine, locking="row", coalesce=True)
    events = [[NewEvent(name="happened", payload=number) for _ in range(2)] for number in range(16)]

    def publish_one(number: int) -> list[int]:
        stream = together.stream(category="orders", stream=str(number % 4))
        return [event.position for event in stream.publish(events=events[number])]

    with ThreadPoolExecutor(8) as threads:
        positions = [*threads.map(publish_one, range(16))]
    stream = together.stream(category="orders", stream="0")
    with pytest.raises(UnmetWriteConditionError):
        stream.publish(events=[NewEvent(name="happened", payload=1)], condition=stream_is_empty())

    assert [event.id for event in stream.publish(events=events[0])] == [event.id for event in events[0]]
    assert sorted(each for each, _ in positions) == sorted([0, 2, 4, 6] * 4)
    assert len(store.log().read()) == 32

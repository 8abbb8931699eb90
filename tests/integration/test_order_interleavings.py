"""What readers see while writers have transactions open: the position fence, one interleaving at a time.

How writers exclude each other is in `test_writer_interleavings.py`; random interleavings are in `test_order_soak.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import sessionmaker

from eventstore_sa import EventQuery, EventStoreSchema, NewEvent, QueryItem, SyncEventStore
from eventstore_sa.conditions import stream_exists
from eventstore_sa.errors import DuplicateEventError, TransactionError, UnmetWriteConditionError
from eventstore_sa.sources.constraints import sequence_number_after
from tests.databases import PostgresDatabase
from tests.interleaving import Stage, Writer, event, install_schema, names, open_stage


@pytest.fixture
def stage(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Stage]:
    with open_stage(make_postgres_database(prepared_by=install_schema)) as stage:
        yield stage


def test_event_is_not_seen_before_those_with_lower_numbers(stage: Stage) -> None:
    first = stage.writer()
    first.publish("first", stream="1")
    stage.publish("second", stream="2")
    stage.publish("elsewhere", stream="1", category="invoices")

    assert stage.log() == stage.category("orders") == stage.category("invoices") == []
    assert stage.store.log().latest() is None
    first.commit()

    assert stage.log() == ["first", "second", "elsewhere"]
    assert stage.category("orders") == ["first", "second"]
    assert stage.category("invoices") == ["elsewhere"]


def test_reader_of_the_sql_function_waits_as_well(stage: Stage) -> None:
    read = text("SELECT name FROM es_read_log_v1(0, 10)")
    first = stage.writer()
    first.publish("first", stream="1")
    stage.publish("second", stream="2")

    with stage.autocommit() as connection:
        assert connection.execute(read).scalars().all() == []
        first.commit()
        assert connection.execute(read).scalars().all() == ["first", "second"]


def test_cursor_moves_on_without_missing_what_is_committed_late(stage: Stage) -> None:
    early = stage.publish("early", stream="1")
    slow = stage.writer()
    slow.publish("slow", stream="2")
    stage.publish("fast", stream="3")

    def after_early() -> list[str]:
        return names(stage.store.log().iterate(constraints={sequence_number_after(early.sequence_number)}))

    assert stage.log() == ["early"]
    assert after_early() == []
    slow.commit()
    assert after_early() == ["slow", "fast"]


def test_stream_is_seen_at_once(stage: Stage) -> None:
    stage.writer().publish("first", stream="1")
    stage.publish("second", stream="2")

    assert stage.stream("2") == ["second"]
    assert stage.store.stream(category="orders", stream="2").latest() is not None


def test_rollback_lets_readers_go_on(stage: Stage) -> None:
    first = stage.writer()
    first.publish("first", stream="1")
    second = stage.publish("second", stream="2")

    first.rollback()

    assert stage.log() == ["second"]
    assert stage.store.watermark().sequence_number == second.sequence_number


def test_lost_connection_lets_readers_go_on(stage: Stage) -> None:
    first = stage.writer()
    first.publish("first", stream="1")
    stage.publish("second", stream="2")

    with stage.autocommit() as connection:
        assert connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": first.pid}).scalar_one()

    assert stage.log() == ["second"]
    first.session.invalidate()


def test_fence_that_was_raised_in_a_savepoint_falls_with_it(stage: Stage) -> None:
    writer = stage.writer()
    savepoint = writer.session.begin_nested()
    writer.publish("first", stream="1")
    second = stage.publish("second", stream="2")
    assert stage.log() == []

    savepoint.rollback()

    assert stage.log() == ["second"]
    assert stage.store.watermark().sequence_number == second.sequence_number


def test_fence_that_was_raised_in_a_released_savepoint_stays(stage: Stage) -> None:
    writer = stage.writer()
    savepoint = writer.session.begin_nested()
    writer.publish("first", stream="1")
    savepoint.commit()
    stage.publish("second", stream="2")

    assert stage.log() == []
    writer.commit()
    assert stage.log() == ["first", "second"]


def test_fence_that_was_raised_before_a_savepoint_outlives_its_rollback(stage: Stage) -> None:
    writer = stage.writer()
    writer.publish("first", stream="1")
    savepoint = writer.session.begin_nested()
    writer.publish("gone", stream="2")
    savepoint.rollback()
    stage.publish("second", stream="3")

    assert stage.log() == []
    writer.commit()
    assert stage.log() == ["first", "second"]


def test_publish_after_a_rolled_back_savepoint_raises_the_fence_anew(stage: Stage) -> None:
    writer = stage.writer()
    savepoint = writer.session.begin_nested()
    writer.publish("gone", stream="1")
    savepoint.rollback()
    stage.publish("first", stream="2")
    writer.publish("second", stream="1")
    stage.publish("third", stream="3")

    assert stage.log() == ["first"]
    writer.commit()
    assert stage.log() == ["first", "second", "third"]


def test_publishes_before_and_after_others_come_in_order_of_their_numbers(stage: Stage) -> None:
    writer = stage.writer()
    savepoint = writer.session.begin_nested()
    writer.publish("first", stream="1")
    savepoint.commit()
    stage.publish("second", stream="2")
    writer.publish("third", stream="1")
    writer.commit()

    assert stage.log() == ["first", "second", "third"]
    assert stage.stream("1") == ["first", "third"]


def test_read_whose_snapshot_is_older_than_the_watermark_is_refused(stage: Stage) -> None:
    writer = stage.writer()
    writer.publish("first", stream="1")
    stage.publish("second", stream="2")
    with stage.engine.execution_options(isolation_level="REPEATABLE READ").connect() as connection:
        connection.execute(text("SELECT 1 FROM es_events"))
        writer.commit()
        store = SyncEventStore(sessionmaker(connection))

        # It would see the second event, but not the first, although the watermark is above both.
        with pytest.raises(TransactionError, match="READ COMMITTED"):
            list(store.log().iterate())


def test_refused_publish_leaves_no_fence_behind(stage: Stage) -> None:
    taken = event("taken")
    stage.store.stream(category="orders", stream="1").publish(events=[taken])
    writer = stage.writer()
    with pytest.raises(UnmetWriteConditionError):
        writer.publish("unmet", stream="2", condition=stream_exists())
    with pytest.raises(DuplicateEventError):
        writer.store.stream(category="orders", stream="3").publish(events=[taken])

    stage.publish("second", stream="2")

    assert stage.log() == ["taken", "second"]
    assert stage.store.watermark().holder is None


def test_early_transaction_id_changes_nothing(stage: Stage) -> None:
    old = stage.writer()
    old.execute("INSERT INTO host VALUES ('early')")
    stage.publish("first", stream="1")
    assert stage.log() == ["first"]
    old.publish("second", stream="1")
    stage.publish("third", stream="2")

    assert stage.log() == ["first"]
    old.commit()
    assert stage.log() == ["first", "second", "third"]
    assert stage.stream("1") == ["first", "second"]


def test_transaction_sees_its_own_events_while_others_are_open(stage: Stage) -> None:
    stage.writer().publish("others", stream="1")
    writer = stage.writer()
    stored = writer.publish("own", stream="2")

    assert names(writer.store.log().iterate()) == ["own"]
    assert names(writer.store.category(category="orders").iterate()) == ["own"]
    assert names(writer.store.stream(category="orders", stream="2").iterate()) == ["own"]
    assert writer.store.log().latest() == stored


def test_a_query_does_not_pass_an_open_writer_of_any_stream(stage: Stage) -> None:
    query = EventQuery([QueryItem(tags=["a"]), QueryItem(tags=["b"])])
    writer = stage.writer()
    writer.store.stream(category="orders", stream="1").publish(
        events=[NewEvent(name="first", payload=None, tags={"a"})]
    )
    stage.store.stream(category="orders", stream="2").publish(
        events=[NewEvent(name="second", payload=None, tags={"b"})]
    )

    assert names(stage.store.query(query).iterate()) == []
    assert stage.store.query(query).latest() is None
    writer.commit()
    assert names(stage.store.query(query).iterate()) == ["first", "second"]


def _insert_mapped(writer: Writer) -> None:
    now = datetime.now(UTC)
    record = EventStoreSchema().EventRecord()
    record.id, record.name, record.payload = uuid4(), "first", {}
    record.category, record.stream, record.position = "orders", "1", 0
    record.observed_at = record.occurred_at = now
    writer.session.add(record)
    writer.session.flush()


def _insert_with_sql(writer: Writer) -> None:
    writer.execute(
        "INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at) "
        "VALUES (gen_random_uuid(), 'orders', '1', 0, 'first', '{}', now(), now())"
    )


def _copy(writer: Writer) -> None:
    columns = "id, category, stream, position, name, payload, observed_at, occurred_at"
    cursor = writer.session.connection().connection.cursor()
    with cursor.copy(f"COPY es_events ({columns}) FROM STDIN") as copy:
        copy.write_row((uuid4(), "orders", "1", 0, "first", "{}", "2025-01-01", "2025-01-01"))


@pytest.mark.parametrize("insert", [_insert_mapped, _insert_with_sql, _copy])
def test_no_way_of_inserting_goes_past_the_fence(stage: Stage, insert: Callable[[Writer], None]) -> None:
    writer = stage.writer()
    insert(writer)
    stage.publish("second", stream="2")

    assert stage.log() == []
    writer.commit()
    assert stage.log() == ["first", "second"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (EventStoreSchema(prefix="one_"), EventStoreSchema(prefix="other_")),
        (EventStoreSchema(schema="one"), EventStoreSchema(schema="other")),
    ],
    ids=["prefixes", "schemas"],
)
def test_stores_in_one_database_have_nothing_to_do_with_each_other(
    stage: Stage, one: EventStoreSchema, other: EventStoreSchema
) -> None:
    stores = [SyncEventStore(stage.engine, schema=schema) for schema in (one, other)]
    for store in stores:
        store.create_schema()
    writer = stage.writer(store=stores[0])
    writer.publish("of-one", stream="1")

    # The very same stream: were the locks shared, this would wait for ever.
    (stored,) = stores[1].stream(category="orders", stream="1").publish(events=[NewEvent(name="of-other", payload=1)])

    assert names(stores[1].log().iterate()) == ["of-other"]
    assert stores[1].watermark().sequence_number == stored.sequence_number
    assert names(stores[0].log().iterate()) == []
    writer.commit()
    assert names(stores[0].log().iterate()) == ["of-one"]


def test_transaction_that_publishes_to_two_stores_holds_the_readers_of_both_back(stage: Stage) -> None:
    other = SyncEventStore(stage.engine, schema=EventStoreSchema(prefix="other_"))
    other.create_schema()
    writer = stage.writer()
    writer.publish("first", stream="1")
    other.within(writer.session).stream(category="orders", stream="1").publish(events=[event("first")])
    stage.publish("second", stream="2")
    other.stream(category="orders", stream="2").publish(events=[event("second")])

    assert stage.log() == names(other.log().iterate()) == []
    writer.commit()
    assert stage.log() == names(other.log().iterate()) == ["first", "second"]


def test_writers_who_begin_at_the_same_number_do_not_wait_for_each_other(stage: Stage) -> None:
    slow = stage.writer()
    # Raises the fence, and draws no number yet.
    slow.execute("INSERT INTO es_events OVERRIDING SYSTEM VALUE SELECT * FROM es_events WHERE false")
    stage.publish("first", stream="1")
    slow.publish("second", stream="2")

    assert stage.log() == []
    slow.commit()
    assert stage.log() == ["first", "second"]

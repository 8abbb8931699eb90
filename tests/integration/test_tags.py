"""The index of tags: filled by the statement that stores an event, unchangeable, and filled by nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import NullPool, create_engine, select, text
from sqlalchemy.exc import DBAPIError

from eventstore_sa import EventStoreSchema, SyncEventStore
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import UnmetWriteConditionError
from tests.awaiting import settled
from tests.databases import PostgresDatabase
from tests.hosts import Host, each_driver, new_event
from tests.interleaving import Stage, Writer, install_schema, open_stage

INDEX = EventStoreSchema().event_tags
INSERT = (
    "INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at, tags) "
    "VALUES ({id}, 'orders', '1', {position}, 'first', '{{}}', {now}, {now}, '[\"a\", \"b\"]')"
)


@pytest.fixture
def stage(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Stage]:
    with open_stage(make_postgres_database(prepared_by=install_schema)) as opened:
        yield opened


def indexed(host: Host) -> list[tuple[Any, ...]]:
    """Return the entries that are committed, in the order of the key."""
    with host.ground.outside.connect() as connection:
        return sorted(map(tuple, connection.execute(select(INDEX))))


@each_driver()
async def test_each_tag_of_each_event_is_indexed_with_its_number_and_name(host: Host) -> None:
    streams = {
        "1": {"events": [new_event("one", tags={"b", "a"}), new_event("two")]},
        "2": {"events": [new_event("three", tags={"a"})]},
    }

    stored = await settled(host.store.category(category="orders").publish(streams=streams))

    one, _, three = (event.sequence_number for events in stored.values() for event in events)
    assert indexed(host) == sorted([("a", one, "one"), ("b", one, "one"), ("a", three, "three")])


@each_driver()
async def test_what_is_not_stored_is_not_indexed(host: Host) -> None:
    stream = host.store.stream(category="orders", stream="1")
    with pytest.raises(UnmetWriteConditionError):
        await settled(stream.publish(events=[new_event(tags={"a"})], condition=position_is(7)))
    async with host.caller() as (session, store):
        inside = store.stream(category="orders", stream="1")
        with pytest.raises(UnmetWriteConditionError):
            await settled(inside.publish(events=[new_event(tags={"a"})], condition=position_is(7)))
        await settled(inside.publish(events=[new_event(tags={"b"})], condition=stream_is_empty()))
        await settled(session.rollback())

    assert indexed(host) == []


@each_driver("sqlite", "postgresql+psycopg")
async def test_entries_can_be_changed_by_nobody(host: Host) -> None:
    await settled(host.store.stream(category="orders", stream="1").publish(events=[new_event(tags={"a"})]))
    before = indexed(host)
    changes = ["UPDATE es_event_tags SET tag = 'b'", "DELETE FROM es_event_tags"]
    changes += ["TRUNCATE es_event_tags"] * host.postgres

    for change in changes:
        with pytest.raises(DBAPIError, match="is forbidden"), host.ground.outside.begin() as connection:
            connection.execute(text(change))

    assert indexed(host) == before


@each_driver("sqlite")
async def test_other_sql_is_indexed_on_sqlite(host: Host) -> None:
    with host.ground.outside.begin() as connection:
        connection.exec_driver_sql(INSERT.format(id=f"'{uuid4().hex}'", position=0, now="'2026-01-01 00:00:00.000000'"))

    assert indexed(host) == [("a", 1, "first"), ("b", 1, "first")]


def _insert_mapped(writer: Writer, position: int) -> None:
    record = EventStoreSchema().EventRecord()
    record.id, record.name, record.payload, record.tags = uuid4(), "first", {}, ["a"]
    record.category, record.stream, record.position = "orders", "1", position
    record.observed_at = record.occurred_at = writer.session.scalar(text("SELECT now()"))
    writer.session.add(record)
    writer.session.flush()


def _insert_with_sql(writer: Writer, position: int) -> None:
    writer.execute(INSERT.format(id="gen_random_uuid()", position=position, now="now()"))


def _copy(writer: Writer, position: int) -> None:
    columns = "id, category, stream, position, name, payload, observed_at, occurred_at, tags"
    cursor = writer.session.connection().connection.cursor()
    with cursor.copy(f"COPY es_events ({columns}) FROM STDIN") as copy:
        copy.write_row((uuid4(), "orders", "1", position, "first", "{}", "2025-01-01", "2025-01-01", '["a"]'))


def _index(writer: Writer, position: int) -> None:
    writer.execute("INSERT INTO es_event_tags VALUES ('a', :number, 'first')", {"number": position})


INSERTS = pytest.mark.parametrize("insert", [_insert_mapped, _insert_with_sql, _copy, _index])


@INSERTS
def test_no_way_of_inserting_tags_goes_past_a_publish(stage: Stage, insert: Callable[..., None]) -> None:
    writer = stage.writer()
    with pytest.raises(Exception, match=r"INSERT of tags into es_event.* is forbidden"):
        insert(writer, 0)
    writer.rollback()

    # Not even after a publish in the same transaction, one that was stored or one that was not.
    stream = writer.store.stream(category="orders", stream="1")
    stream.publish(events=[new_event(tags={"a"})])
    with pytest.raises(UnmetWriteConditionError):
        stream.publish(events=[new_event(tags={"a"})], condition=position_is(7))
    with pytest.raises(Exception, match=r"INSERT of tags into es_event.* is forbidden"):
        insert(writer, 1)


@INSERTS
def test_the_owner_may_restore_and_no_one_else(stage: Stage, insert: Callable[..., None]) -> None:
    with stage.engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS es_tags_writer"))
        connection.execute(text("CREATE ROLE es_tags_writer"))
        connection.execute(text("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO es_tags_writer"))
        connection.execute(text("GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO es_tags_writer"))
    try:
        writer = stage.writer()
        writer.execute("SET LOCAL eventstore_sa.restoring = 'on'")
        insert(writer, 0)
        writer.execute("SET LOCAL ROLE es_tags_writer")
        writer.store.stream(category="orders", stream="2").publish(events=[new_event(tags={"b"})])
        with pytest.raises(Exception, match=r"INSERT of tags into es_event.* is forbidden"):
            insert(writer, 1)
        writer.rollback()
    finally:
        with stage.engine.begin() as connection:
            connection.execute(text("DROP OWNED BY es_tags_writer"))
            connection.execute(text("DROP ROLE es_tags_writer"))


def test_a_store_with_row_locks_indexes_tags_and_guards_them(
    make_postgres_database: Callable[..., PostgresDatabase],
) -> None:
    engine = create_engine(make_postgres_database().url("psycopg"), poolclass=NullPool)
    store = SyncEventStore(engine, locking="row")
    store.create_schema()

    (stored,) = store.stream(category="orders", stream="1").publish(events=[new_event("one", tags={"a"})])

    with engine.begin() as connection:
        assert connection.execute(select(INDEX)).all() == [("a", stored.sequence_number, "one")]
        with pytest.raises(DBAPIError, match=r"INSERT of tags into es_events is forbidden"):
            connection.exec_driver_sql(INSERT.format(id="gen_random_uuid()", position=1, now="now()"))
    engine.dispose()

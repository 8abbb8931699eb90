"""The roles of docs/roles.md, as real roles: each can do what the page says, and nothing beyond."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import ProgrammingError

from eventstore_sa import EventStoreSchema, NewEvent, SyncEventStore, verify_schema
from eventstore_sa.browser import event_browser
from eventstore_sa.cli import main
from eventstore_sa.errors import StorageError
from eventstore_sa.persistence.schema import SCHEMA_VERSION
from eventstore_sa.persistence.schema.versions import Site, migration
from tests.browsing import Visitor
from tests.databases import PostgresDatabase
from tests.project import ROOT

ROLES = ("events_owner", "events_writer", "events_reader")
PAGE = (ROOT / "docs" / "roles.md").read_text()
FORBIDDEN = [
    "UPDATE events.es_events SET name = 'other'",
    "DELETE FROM events.es_events",
    "TRUNCATE events.es_events",
    "ALTER TABLE events.es_events DISABLE TRIGGER USER",
    "DROP TRIGGER es_events_fence ON events.es_events",
    "SELECT setval('events.es_events_sequence_number_seq', 1)",
    "UPDATE events.es_schema SET version = 7",
    "CREATE OR REPLACE FUNCTION events.es_fence_v1() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "CREATE TABLE events.mine ()",
]
As = Callable[[str], Engine]


@pytest.fixture
def administrator(postgres_database: PostgresDatabase) -> Engine:
    """Connect to that database as a superuser."""
    return create_engine(postgres_database.url("psycopg"), poolclass=NullPool)


@pytest.fixture
def as_role(administrator: Engine) -> Iterator[As]:
    """Connect to a database that was set up as the page says, as one of its roles."""
    url = administrator.url

    def engine_of(role: str) -> Engine:
        return create_engine(url, poolclass=NullPool, connect_args={"options": f"-c role={role}"})

    once, grants = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    try:
        with administrator.begin() as connection:
            connection.exec_driver_sql(once)
        with engine_of("events_owner").begin() as connection:
            for element in migration(0, SCHEMA_VERSION, Site("postgresql", schema="events")):
                connection.execute(element)
            connection.exec_driver_sql(grants)
        yield engine_of
    finally:
        with administrator.begin() as connection:
            for role in ROLES:
                connection.execute(text(f"DROP OWNED BY {role} CASCADE"))
                connection.execute(text(f"DROP ROLE {role}"))


def store_of(engine: Engine) -> SyncEventStore:
    return SyncEventStore(engine, schema=EventStoreSchema(schema="events"))


def is_denied(engine: Engine, statement: str) -> bool:
    with engine.connect() as connection:
        try:
            connection.execute(text(statement))
        except ProgrammingError as error:
            return getattr(error.orig, "sqlstate", None) == "42501"
    return False


def test_the_writer_publishes_and_reads(as_role: As) -> None:
    engine = as_role("events_writer")
    store = store_of(engine)

    store.stream(category="orders", stream="1").publish(events=[NewEvent(name="placed", payload={})])
    with engine.begin() as connection:
        hosted = SyncEventStore(connection, schema=EventStoreSchema(schema="events"))
        hosted.stream(category="orders", stream="1").publish(events=[NewEvent(name="paid", payload={})])
        verify_schema(connection, schema=EventStoreSchema(schema="events"))

    assert [event.name for event in store.log()] == ["placed", "paid"]
    assert store.watermark().sequence_number == 2


def test_the_writer_locks_by_rows_after_the_grant_for_that(as_role: As) -> None:
    (grant,) = re.findall(r"`(GRANT [^`]* ON events.es_locks)`", PAGE)
    with as_role("events_owner").begin() as connection:
        connection.execute(text(f"{grant} TO events_writer"))
        connection.execute(text("UPDATE events.es_schema SET locking = 'row/log'"))
    engine = as_role("events_writer")
    schema = EventStoreSchema(schema="events", locking="row")
    stream = SyncEventStore(engine, schema=schema).stream(category="orders", stream="1")

    stream.publish(events=[NewEvent(name="placed", payload={})])
    stream.publish(events=[NewEvent(name="paid", payload={})])

    assert [event.name for event in stream] == ["placed", "paid"]


@pytest.mark.parametrize("role", ["events_writer", "events_reader"])
def test_neither_writer_nor_reader_changes_what_is_there(role: str, as_role: As) -> None:
    assert [statement for statement in FORBIDDEN if not is_denied(as_role(role), statement)] == []


def test_the_reader_reads_up_to_the_watermark_in_python_and_in_sql(as_role: As) -> None:
    store_of(as_role("events_writer")).stream(category="orders", stream="1").publish(
        events=[NewEvent(name="placed", payload={})]
    )
    engine = as_role("events_reader")
    store = store_of(engine)

    assert [event.name for event in store.log()] == ["placed"]
    assert store.watermark().sequence_number == 1
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT name FROM events.es_read_log_v1(0, 10)")).all() == ["placed"]
        verify_schema(connection, schema=EventStoreSchema(schema="events"))


def test_the_reader_uses_the_command_line(as_role: As) -> None:
    event = NewEvent(name="placed", payload={}, metadata={"correlation_id": "c"})
    store_of(as_role("events_writer")).stream(category="orders", stream="1").publish(events=[event])
    url = as_role("events_reader").url.update_query_dict({"options": "-c role=events_reader"})
    options = ["--url", url.render_as_string(hide_password=False), "--schema", "events"]

    commands = (
        "tail",
        f"show {event.id}",
        "stream orders/1",
        "trace c",
        "categories",
        "streams",
        "stats",
        "stats --exact",
    )
    for command in (*commands, "watermark", "export", "projections list"):
        outcome = CliRunner().invoke(main, [*command.split(), *options])
        assert (outcome.exit_code, "could not" in outcome.output) == (0, False), (command, outcome.output)
    diagnosis = CliRunner().invoke(main, ["doctor", "--json", *options])
    assert "could not" not in diagnosis.output
    findings = [json.loads(line) for line in diagnosis.stdout.splitlines()]
    # About the server alone: a throwaway one gives up durability.
    assert {finding["subject"] for finding in findings if finding["severity"] != "hint"} <= {"database"}, findings
    refused = CliRunner().invoke(
        main, ["import", "-", *options], input=CliRunner().invoke(main, ["export", *options]).stdout
    )
    assert refused.stdout == "1 events, 0 of them new\n"


LOCKING = """
DO $$
DECLARE
  locking text;
BEGIN
  FOR locking IN
    SELECT oid::regprocedure FROM pg_proc
    WHERE proname ~ '^pg_(try_)?advisory_' AND pronamespace = 'pg_catalog'::regnamespace
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', locking);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO events_owner, events_writer', locking);
  END LOOP;
END $$
"""


def test_writers_and_readers_need_no_locks_of_others(as_role: As, administrator: Engine) -> None:
    with administrator.begin() as connection:
        connection.exec_driver_sql(LOCKING.replace("%", "%%"))
    lock = "SELECT pg_advisory_xact_lock(1)"

    store_of(as_role("events_writer")).stream(category="orders", stream="1").publish(
        events=[NewEvent(name="placed", payload={})]
    )

    assert [event.name for event in store_of(as_role("events_reader")).log()] == ["placed"]
    assert is_denied(as_role("events_reader"), lock)
    assert not is_denied(as_role("events_writer"), lock)


async def test_the_browser_needs_a_reader_only(as_role: As) -> None:
    writer = store_of(as_role("events_writer"))
    writer.stream(category="orders", stream="1").publish(
        events=[NewEvent(name="placed", payload={"total": 7}, tags={"customer:1"})]
    )
    visitor = Visitor(event_browser(store_of(as_role("events_reader"))))

    for url in (
        "/",
        "/?tag=customer:1",
        "/?text=total",
        "/?category=orders&stream=1",
        "/categories",
        "/streams?category=orders",
        "/event/1",
        "/event/1/trace",
        "/projections",
        "/projections?name=order",
        "/subscriptions",
        "/watermark",
        "/tail?after=0",
    ):
        await visitor.page(url)


def test_the_reader_cannot_publish(as_role: As) -> None:
    stream = store_of(as_role("events_reader")).stream(category="orders", stream="1")

    with pytest.raises(StorageError, match="permission denied"):
        stream.publish(events=[NewEvent(name="placed", payload={})])

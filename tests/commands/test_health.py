"""The command that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, create_engine, text

from eventstore_sa import EventStoreSchema, NewEvent, SyncEventStore
from eventstore_sa.cli import main
from eventstore_sa.inspection import Finding, Severity, diagnose
from eventstore_sa.persistence.inspection import health
from eventstore_sa.subscriptions import FailurePolicy, SyncSubscription, catch_up_sync
from tests.commands.conftest import Command, each_kind_of_driver
from tests.databases import PostgresDatabase
from tests.poolers import NEEDS_PGBOUNCER, pgbouncer
from tests.stores import install_schema


@pytest.fixture
def database(make_postgres_database: Callable[..., PostgresDatabase]) -> PostgresDatabase:
    return make_postgres_database(prepared_by=install_schema)


@pytest.fixture
def engine(database: PostgresDatabase) -> Iterator[Engine]:
    engine = create_engine(database.url("psycopg"))
    yield engine
    engine.dispose()


def found(engine: Engine, subject: str) -> list[Finding]:
    with engine.connect() as connection:
        return [finding for finding in diagnose(connection) if finding.subject == subject]


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def switched_off(url: str) -> set[str]:
    """Return what the server does without that makes commits durable: a throwaway server does without all of it."""
    if url.startswith("sqlite"):
        return set()
    engine = create_engine(url.replace("+asyncpg", "+psycopg"))
    with engine.connect() as connection:
        settings = connection.scalars(
            text(
                "SELECT name FROM pg_settings WHERE setting = 'off' "
                "AND name IN ('fsync', 'full_page_writes', 'synchronous_commit')"
            )
        ).all()
    engine.dispose()
    return set(settings)


@each_kind_of_driver()
def test_a_new_store_is_healthy_apart_from_its_server(url: str, command: Command) -> None:
    outcome = command("doctor", "--json")

    findings = [json.loads(line) for line in outcome.stdout.splitlines()]
    wrong = {finding["problem"].split(maxsplit=1)[0] for finding in findings if finding["severity"] != "hint"}
    assert wrong == switched_off(url)
    assert outcome.exit_code == (1 if wrong else 0)


def test_a_database_without_an_event_store_is_a_finding(command: Command) -> None:
    outcome = command("doctor", "--json", "--prefix", "other_")

    (finding,) = (json.loads(line) for line in outcome.stdout.splitlines())
    assert (outcome.exit_code, finding["severity"], finding["subject"]) == (1, "problem", "schema")
    assert "other_events" in finding["problem"]


def test_a_subscription_that_has_stopped_or_parked_is_found(store: SyncEventStore, command: Command) -> None:
    def handle(event: Any) -> None:
        raise ValueError("poison")

    store.stream(category="orders", stream="1").publish(events=[NewEvent(name="placed", payload=1)])
    for name, then in (("billing", "stop"), ("shipping", "park")):
        subscription = SyncSubscription(name, store.log(), handle, on_failure=FailurePolicy(retries=0, then=then))
        try:
            catch_up_sync(subscription)
        except Exception:
            assert then == "stop"

    outcome = command("doctor")

    assert outcome.exit_code == 1
    assert "problem (subscriptions): partition 0 of subscription 'billing' has stopped" in outcome.stdout
    assert "warning (subscriptions): subscription 'shipping' keeps 1 events aside" in outcome.stdout


def test_an_open_transaction_that_holds_readers_back_is_a_problem(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_LONG_OPEN", health._LONG_OPEN * 0)
    store = SyncEventStore(engine)
    with engine.connect() as connection, engine.connect() as other:
        other.execute(text("SELECT 1"))
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        SyncEventStore(connection).stream(category="a", stream="1").publish(events=[NewEvent(name="x", payload=1)])
        store.stream(category="a", stream="2").publish(events=[NewEvent(name="x", payload=1)])

        first, second, *_ = found(engine, "transactions")

        assert first.severity is Severity.PROBLEM
        assert f"process {pid} " in first.problem
        assert "holds all readers of the log back at number 0 of 2" in first.problem
        assert f"pg_terminate_backend({pid})" in first.remedy
        assert second.severity is Severity.WARNING
        assert "keeps rows from being cleaned up" in second.problem


def test_privileges_settings_and_indexes_are_looked_at(engine: Engine, database: PostgresDatabase) -> None:
    name = engine.url.database
    execute(
        engine,
        "GRANT DELETE ON es_events TO PUBLIC",
        "DROP INDEX es_events_category_idx",
        f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'",
        f'ALTER DATABASE "{name}" SET synchronous_commit = off',
    )
    engine.dispose()

    (granted,) = found(engine, "privileges")
    assert "PUBLIC has DELETE on es_events" in granted.problem
    assert granted.remedy == 'REVOKE DELETE ON "es_events" FROM PUBLIC'
    (missing,) = found(engine, "indexes")
    assert missing.remedy == (
        "execute: CREATE INDEX CONCURRENTLY es_events_category_idx ON es_events (category, sequence_number)"
    )
    assert "repeatable read" in found(engine, "isolation")[0].problem
    assert any("synchronous_commit is off" in finding.problem for finding in found(engine, "database"))


def test_the_optional_indexes_are_offered_to_large_stores(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    SyncEventStore(engine).stream(category="a", stream="1").publish(events=[NewEvent(name="x", payload=1)])
    execute(engine, "ANALYZE es_events")
    assert found(engine, "indexes") == []
    monkeypatch.setattr(health, "_MANY_EVENTS", 1)

    offered = found(engine, "indexes")

    assert ["schema index correlation" in offered[0].remedy, "schema index time" in offered[1].remedy] == [True, True]


def test_what_a_role_may_not_look_at_is_a_finding(engine: Engine) -> None:
    execute(engine, "CREATE ROLE eventstore_sa_doctor", "GRANT SELECT ON es_schema TO eventstore_sa_doctor")
    try:
        with engine.connect() as connection:
            connection.execute(text("SET ROLE eventstore_sa_doctor"))
            findings = diagnose(connection, schema=EventStoreSchema())
    finally:
        execute(engine, "DROP OWNED BY eventstore_sa_doctor", "DROP ROLE eventstore_sa_doctor")

    assert "could not inspect the event store" in findings[0].problem
    assert any('may not read "es_events"' in finding.problem for finding in findings)


@NEEDS_PGBOUNCER
def test_a_pooler_is_recognised(database: PostgresDatabase, tmp_path: Any) -> None:
    with pgbouncer(database, tmp_path, mode="transaction") as pooler:
        engine = create_engine(pooler.url("postgresql+psycopg"), connect_args={"prepare_threshold": None})
        assert "goes through a pooler" in found(engine, "pooler")[0].problem
        engine.dispose()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_commands_that_need_only_a_url_take_it_from_the_environment(command: Command) -> None:
    assert command("schema", "check").exit_code == 0
    assert command("subscriptions", "list").exit_code == 0


def test_without_an_event_store_commands_say_how_to_create_one() -> None:
    outcome = CliRunner().invoke(main, ["tail", "--url", "sqlite+pysqlite:///file:none?mode=memory&uri=true"])

    assert outcome.exit_code == 1
    assert "create it with `alembic upgrade head`" in outcome.stderr


def test_a_file_that_is_missing_is_not_created_but_reported_with_how_to_create_it() -> None:
    outcome = CliRunner().invoke(main, ["tail", "--url", "sqlite:///missing.db"])

    assert outcome.exit_code == 3
    assert "`eventstore-sa schema sql --dialect sqlite | sqlite3 missing.db`" in outcome.stderr

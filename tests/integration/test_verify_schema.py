"""`verify_schema`: whatever is missing, or cannot be trusted, is named at start-up."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, PrimaryKeyConstraint, UniqueConstraint, create_engine, event, text
from sqlalchemy.pool import NullPool

from eventstore_sa import EventStoreSchema, NewEvent, SyncEventStore, verify_schema
from eventstore_sa.cli import main
from eventstore_sa.errors import SchemaError
from eventstore_sa.persistence.rebuilding import SQLRebuildStorage
from eventstore_sa.persistence.transactions.binds import EngineBind
from tests.databases import PostgresDatabase
from tests.stores import install_schema


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = create_engine("sqlite://")
        EventStoreSchema().metadata.create_all(engine)
    else:
        engine = create_engine(make_postgres_database(prepared_by=install_schema).url("psycopg"), poolclass=NullPool)
    yield engine
    engine.dispose()


def problem_after(engine: Engine, *statements: str) -> str:
    """Return what is found after statements, which are rolled back."""
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
        with pytest.raises(SchemaError) as caught:
            verify_schema(connection)
    return str(caught.value)


def remedied_after(engine: Engine, statement: str) -> str:
    """Return what is found after a statement, having made sure that the remedy in it helps."""
    said = problem_after(engine, statement)
    (remedy,) = re.findall(r"ALTER TABLE [^;,(]*(?:\([^)]*\))?", said)
    with engine.connect() as connection:
        connection.execute(text(statement))
        connection.execute(text(remedy))
        verify_schema(connection)
    return said


def test_a_new_schema_is_found_in_order(engine: Engine) -> None:
    with engine.connect() as connection:
        verify_schema(connection)


def test_missing_tables_are_named(engine: Engine) -> None:
    schema = EventStoreSchema()
    schema.metadata.drop_all(engine)

    names = ", ".join(table.name for table in schema.tables[3:])
    with engine.connect() as connection, pytest.raises(SchemaError, match=f"{names} are missing"):
        verify_schema(connection)


def test_another_version_is_refused(engine: Engine) -> None:
    assert "version 7" in problem_after(engine, "UPDATE es_schema SET version = 7")


def test_another_locking_than_that_of_the_schema_is_named_with_both_remedies(engine: Engine) -> None:
    problem = problem_after(engine, "UPDATE es_schema SET locking = 'row/category'")

    assert "it records locking 'row/category', but this EventStoreSchema has 'fence'" in problem
    _, _, statements = problem.partition("or execute ")
    with engine.begin() as connection:
        for statement in statements.split(";"):
            connection.execute(text(statement))
        verify_schema(connection)


def test_a_version_table_without_a_row_is_refused(engine: Engine) -> None:
    assert "es_schema has no row with their version" in problem_after(engine, "DELETE FROM es_schema")


def test_a_missing_trigger_is_named(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        assert "es_events_forbid_delete" in problem_after(engine, "DROP TRIGGER es_events_forbid_delete")
    else:
        said = problem_after(engine, "DROP TRIGGER es_events_fence ON es_events")
        assert "trigger es_events_fence is missing or disabled" in said


def test_a_changed_trigger_is_named(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        said = problem_after(
            engine,
            "DROP TRIGGER es_events_forbid_delete",
            "CREATE TRIGGER es_events_forbid_delete BEFORE DELETE ON es_events BEGIN SELECT 1; END",
        )
        assert "trigger es_events_forbid_delete was changed" in said
    else:
        said = problem_after(
            engine,
            "DROP TRIGGER es_events_forbid_change ON es_events",
            "CREATE TRIGGER es_events_forbid_change BEFORE UPDATE ON es_events EXECUTE FUNCTION es_forbid_change_v1()",
        )
        assert "trigger es_events_forbid_change was changed" in said


def test_the_command_that_installs_is_named(engine: Engine) -> None:
    EventStoreSchema().metadata.drop_all(engine)

    with engine.connect() as connection, pytest.raises(SchemaError) as caught:
        verify_schema(connection)

    assert "`alembic upgrade head`" in str(caught.value)
    assert f"`eventstore-sa schema sql --from 0 --to 1 --dialect {engine.dialect.name}`" in str(caught.value)


def test_the_command_that_repairs_is_named_with_the_store_it_is_for() -> None:
    engine = create_engine("sqlite://")
    schema = EventStoreSchema(prefix="audit_")
    schema.metadata.create_all(engine)

    with engine.connect() as connection:
        connection.execute(text("DROP TRIGGER audit_events_forbid_delete"))
        with pytest.raises(SchemaError, match="`eventstore-sa schema repair --dialect sqlite --prefix audit_`"):
            verify_schema(connection, schema=schema)
    engine.dispose()


class TestPostgreSQLOnly:
    @pytest.fixture(params=["postgresql"])
    def engine(
        self, request: pytest.FixtureRequest, make_postgres_database: Callable[..., PostgresDatabase]
    ) -> Iterator[Engine]:
        engine = create_engine(make_postgres_database(prepared_by=install_schema).url("psycopg"), poolclass=NullPool)
        yield engine
        engine.dispose()

    def test_a_disabled_trigger_is_named(self, engine: Engine) -> None:
        said = problem_after(engine, "ALTER TABLE es_events DISABLE TRIGGER es_events_forbid_change")
        assert "es_events_forbid_change is missing or disabled" in said

    def test_a_missing_function_is_named(self, engine: Engine) -> None:
        assert "function es_watermark_v1" in problem_after(engine, "DROP FUNCTION es_watermark_v1()")

    @pytest.mark.parametrize("change", ["replace", "security", "setting"])
    def test_a_changed_function_is_named(self, engine: Engine, change: str) -> None:
        statement = {
            "replace": "CREATE OR REPLACE FUNCTION es_fence_v1() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN RETURN NULL; END'",
            "security": "ALTER FUNCTION es_fence_v1() SECURITY DEFINER",
            "setting": "ALTER FUNCTION es_fence_v1() SET lock_timeout = '20ms'",
        }[change]
        assert "function es_fence_v1 was changed" in problem_after(engine, statement)

    def test_a_cached_sequence_is_unsafe(self, engine: Engine) -> None:
        said = problem_after(engine, "ALTER SEQUENCE es_events_sequence_number_seq CACHE 10")
        assert "CACHE 1" in said

    def test_a_sequence_that_was_set_back_is_named_with_the_remedy(self, engine: Engine) -> None:
        said = problem_after(
            engine,
            "INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at) "
            "SELECT gen_random_uuid(), 'c', 's', n, 'n', '1', now(), now() FROM generate_series(0, 4) n",
            "ALTER TABLE es_events ALTER COLUMN sequence_number RESTART WITH 2",
        )
        assert "RESTART WITH 6" in said

    def test_a_function_with_another_attribute_is_named(self, engine: Engine) -> None:
        attributes = ("STABLE", "IMMUTABLE", "STRICT", "PARALLEL SAFE", "SECURITY DEFINER", "SET search_path = public")
        for name, arguments in (("es_watermark_v1", "()"), ("es_append_v1", "(jsonb, boolean)")):
            for attribute in attributes:
                said = problem_after(engine, f"ALTER FUNCTION {name}{arguments} {attribute}")
                assert f"function {name} was changed" in said, attribute

    def test_a_key_that_was_dropped_is_named_with_the_remedy(self, engine: Engine) -> None:
        keys = {
            str(key.name): table.name
            for table in EventStoreSchema().tables
            for key in table.constraints
            if isinstance(key, PrimaryKeyConstraint | UniqueConstraint)
        }
        assert keys["es_events_position_key"] == "es_events"
        for key, table in keys.items():
            said = remedied_after(engine, f"ALTER TABLE {table} DROP CONSTRAINT {key}")
            assert f"the key {key} of table {table} is missing or changed" in said, key

    def test_a_key_with_other_columns_or_that_is_checked_late_is_named(self, engine: Engine) -> None:
        drop = "ALTER TABLE es_events DROP CONSTRAINT es_events_position_key"
        add = "ALTER TABLE es_events ADD CONSTRAINT es_events_position_key UNIQUE"
        for key in ("(category, position)", "(category, stream, position) DEFERRABLE"):
            assert "the key es_events_position_key" in problem_after(engine, drop, f"{add} {key}"), key

    def test_an_identity_that_was_dropped_is_named(self, engine: Engine) -> None:
        columns = {"es_events": "sequence_number", "es_projections": "number", "es_rebuilds": "number"}
        for table, column in columns.items():
            for change in ("DROP IDENTITY", "SET GENERATED BY DEFAULT"):
                said = problem_after(engine, f"ALTER TABLE {table} ALTER COLUMN {column} {change}")
                assert f"the column {column} of table {table} is not GENERATED ALWAYS AS IDENTITY" in said, change

    def test_a_table_that_forgets_or_hides_rows_is_named_with_the_remedy(self, engine: Engine) -> None:
        changes = {"SET UNLOGGED": "is UNLOGGED", "ENABLE ROW LEVEL SECURITY": "has row security"}
        for table in EventStoreSchema().tables:
            for change, finding in changes.items():
                said = remedied_after(engine, f"ALTER TABLE {table.name} {change}")
                assert f"table {table.name} {finding}" in said, change

    def test_a_table_with_rules_is_named(self, engine: Engine) -> None:
        said = problem_after(engine, "CREATE RULE nothing AS ON INSERT TO es_events DO INSTEAD NOTHING")
        assert "table es_events has rules" in said

    def test_a_backup_that_was_restored_without_its_events_is_named(self, engine: Engine) -> None:
        knowing = {
            "es_projections": "(name, id, source, source_hash, state, metadata, version, sequence_number) "
            "VALUES ('p', '1', '{}', 1, '{}', '{}', 1, 3)",
            "es_snapshots": "SELECT 'p', '1', id, '{}', 3, id, '{}', '{}', now(), 1, 1 FROM gen_random_uuid() id",
            "es_locks": "VALUES ('s', 3)",
            "es_subscriptions": "(name, partition, partitions, generation, source, sequence_number, event_number, epoch, "
            "status, handled, events_per_s, moved_at) VALUES ('s', 0, 1, 1, '{}', 3, 3, 0, 'running', 0, 0, now())",
        }
        for table, row in knowing.items():
            said = problem_after(
                engine, f"INSERT INTO {table} {row}", "SELECT setval('es_events_sequence_number_seq', 3)"
            )
            assert f"table es_events is empty, but 3 numbers were assigned to events, and {table} refer to some" in said

    def test_an_empty_log_whose_numbers_were_given_out_is_worth_a_warning(
        self, engine: Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        with engine.begin() as connection:
            verify_schema(connection)
            assert caplog.messages == []
            connection.execute(text("SELECT nextval('es_events_sequence_number_seq')"))
            verify_schema(connection)

        (said,) = caplog.messages
        assert said.startswith("es_events is empty, although its sequence is at 1: ")

    def test_a_rebuild_that_has_met_no_event_yet_knows_none(self, engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("SELECT nextval('es_events_sequence_number_seq')"))
            verify_schema(connection)
        SQLRebuildStorage(EngineBind(engine, blocking=True), EventStoreSchema(), "customers").begin("plan")

        with engine.connect() as connection:
            verify_schema(connection)

    def test_a_first_publish_between_its_statements_does_not_mislead_it(self, engine: Engine) -> None:
        stream = SyncEventStore(engine).stream(category="orders", stream="1")
        reader = create_engine(engine.url, poolclass=NullPool)
        published: list[str] = []

        @event.listens_for(reader, "before_cursor_execute")
        def publish(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if 'last_number_v1"(' in statement and not published:
                published.append(statement)
                (stored,) = stream.publish(events=[NewEvent(name="first", payload=None)])
                with engine.begin() as other:
                    other.execute(
                        text("INSERT INTO es_snapshots VALUES ('p', '1', :id, '{}', 1, :id, '{}', '{}', now(), 1, 1)"),
                        {"id": stored.id},
                    )

        with reader.connect() as connection:
            verify_schema(connection)
        assert published

    @pytest.mark.parametrize(("prefix", "schema"), [("my shop_", None), ("it's_", "a b"), ("$HOME_", "x;y")])
    def test_the_commands_recommended_can_be_given_to_a_shell(
        self, engine: Engine, prefix: str, schema: str | None
    ) -> None:
        expected = EventStoreSchema(prefix=prefix, schema=schema)
        with engine.connect() as connection:
            for command, spoil in (("sql", "SELECT 1"), ("repair", f'DROP TRIGGER "{prefix}events_fence" ON ')):
                where = f'"{prefix}events"' if schema is None else f'"{schema}"."{prefix}events"'
                connection.exec_driver_sql(spoil if spoil == "SELECT 1" else spoil + where)
                with pytest.raises(SchemaError) as caught:
                    verify_schema(connection, schema=expected)
                found = re.search(rf"`eventstore-sa (schema {command} .*?)`", str(caught.value))
                assert found
                shell = subprocess.run(
                    ["sh", "-c", f"printf '%s\\n' {found[1]}"], capture_output=True, text=True, check=True
                )
                outcome = CliRunner().invoke(main, shell.stdout.splitlines())
                assert outcome.exit_code == 0, outcome.output
                connection.exec_driver_sql(outcome.output.replace("%", "%%"))
                verify_schema(connection, schema=expected)

    def test_publishers_beside_it_do_not_mislead_it(self, engine: Engine) -> None:
        stream = SyncEventStore(engine).stream(category="orders", stream="1")
        reader = create_engine(engine.url, poolclass=NullPool)

        @event.listens_for(reader, "before_cursor_execute")
        def publish(*_: object) -> None:
            stream.publish(events=[NewEvent(name="meanwhile", payload=None)])

        with reader.connect() as connection:
            verify_schema(connection)
        assert len(stream.read()) > 5

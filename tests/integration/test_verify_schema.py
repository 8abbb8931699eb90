"""`verify_schema`: whatever is missing, or cannot be trusted, is named at start-up."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from eventstore_sa import EventStoreSchema, verify_schema
from eventstore_sa.errors import SchemaError
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
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
        with pytest.raises(SchemaError) as caught:
            verify_schema(connection)
    return str(caught.value)


def test_a_new_schema_is_found_in_order(engine: Engine) -> None:
    with engine.connect() as connection:
        verify_schema(connection)


def test_missing_tables_are_named(engine: Engine) -> None:
    EventStoreSchema().metadata.drop_all(engine)

    with (
        engine.connect() as connection,
        pytest.raises(SchemaError, match="es_projections, es_snapshots, es_rebuilds are missing"),
    ):
        verify_schema(connection)


def test_another_version_is_refused(engine: Engine) -> None:
    assert "version 7" in problem_after(engine, "UPDATE es_schema SET version = 7")


def test_another_locking_than_that_of_the_schema_is_named_with_both_remedies(engine: Engine) -> None:
    problem = problem_after(engine, "UPDATE es_schema SET locking = 'row/category'")

    assert "it records locking 'row/category', and this EventStoreSchema has 'fence'" in problem
    _, _, statements = problem.partition("or execute ")
    with engine.begin() as connection:
        for statement in statements.split(";"):
            connection.execute(text(statement))
        verify_schema(connection)


def test_a_version_table_without_a_row_is_refused(engine: Engine) -> None:
    assert "no row in es_schema tells their version" in problem_after(engine, "DELETE FROM es_schema")


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

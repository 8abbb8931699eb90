"""The last number of the sequence, in whatever state that is, and whatever it is called.

That it is read under the lock of the sequence's page is proved by `test_order_soak_can_fail.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from eventstore_sa import verify_schema
from eventstore_sa.errors import SchemaError
from tests.databases import PostgresDatabase
from tests.interleaving import Stage, install_schema, open_stage

RESTARTS = {
    "restarted column": "ALTER TABLE es_events ALTER COLUMN sequence_number RESTART WITH 3",
    "restarted sequence": "ALTER SEQUENCE es_events_sequence_number_seq RESTART WITH 3",
    "value set that was not called": "SELECT setval('es_events_sequence_number_seq', 3, false)",
    "value set that was called": "SELECT setval('es_events_sequence_number_seq', 2, true)",
}


@pytest.fixture
def stage(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Stage]:
    with open_stage(make_postgres_database(prepared_by=install_schema)) as stage:
        yield stage


def last_number(connection: Connection) -> int:
    return int(connection.scalar(text("SELECT es_last_number_v1('es_events')")) or 0)


def test_nothing_was_drawn_from_a_new_sequence(stage: Stage) -> None:
    with stage.autocommit() as connection:
        assert last_number(connection) == 0


@pytest.mark.parametrize("restart", RESTARTS)
def test_a_filled_log_does_not_look_empty_when_its_sequence_was_restarted(stage: Stage, restart: str) -> None:
    stage.publish("first", stream="1")
    stage.publish("second", stream="1")

    with stage.autocommit() as connection:
        connection.execute(text(RESTARTS[restart]))
        assert last_number(connection) == 2

    assert stage.log() == ["first", "second"]
    assert stage.store.watermark().sequence_number == 2


@pytest.mark.parametrize("restart", RESTARTS)
def test_the_first_event_after_a_restart_is_behind_a_fence(stage: Stage, restart: str) -> None:
    stage.publish("first", stream="1")
    stage.publish("second", stream="1")
    with stage.autocommit() as connection:
        connection.execute(text(RESTARTS[restart]))
    writer = stage.writer()
    writer.publish("third", stream="1")
    stage.publish("fourth", stream="2")

    assert stage.log() == ["first", "second"]
    writer.commit()
    assert stage.log() == ["first", "second", "third", "fourth"]


def test_a_sequence_that_may_not_be_read_is_an_error_and_no_empty_log(stage: Stage) -> None:
    stage.publish("first", stream="1")
    with stage.autocommit() as connection:
        for statement in (
            "DROP ROLE IF EXISTS without_sequence",
            "CREATE ROLE without_sequence",
            "GRANT SELECT, INSERT ON es_events TO without_sequence",
        ):
            connection.execute(text(statement))
        try:
            for call in ("SELECT es_last_number_v1('es_events')", "SELECT * FROM es_watermark_v1()"):
                connection.execute(text("SET ROLE without_sequence"))
                with pytest.raises(DBAPIError, match="permission denied for sequence"):
                    connection.execute(text(call))
            for granted, denied in (("es_locks", "table es_schema"), ("ALL TABLES IN SCHEMA public", "sequence")):
                connection.execute(text("RESET ROLE"))
                connection.execute(text(f"GRANT SELECT ON {granted} TO without_sequence"))
                connection.execute(text("SET ROLE without_sequence"))
                with pytest.raises(SchemaError, match=rf"permission denied for {denied}.*grant this role SELECT"):
                    verify_schema(connection)
        finally:
            connection.execute(text("RESET ROLE"))
            connection.execute(text("DROP OWNED BY without_sequence"))
            connection.execute(text("DROP ROLE without_sequence"))


def test_a_table_that_has_lost_its_sequence_is_named(stage: Stage) -> None:
    with stage.autocommit() as connection:
        connection.execute(text("ALTER TABLE es_events ALTER COLUMN sequence_number DROP IDENTITY"))

    remedy = "no sequence belongs to the column sequence_number of es_events: make it GENERATED ALWAYS AS IDENTITY"
    with pytest.raises(SchemaError, match=remedy):
        stage.log()
    with pytest.raises(SchemaError, match=remedy):
        stage.publish("lost", stream="1")
    with stage.autocommit() as connection:
        connection.execute(
            text("ALTER TABLE es_events ALTER COLUMN sequence_number ADD GENERATED ALWAYS AS IDENTITY (START WITH 1)")
        )
    stage.publish("kept", stream="1")
    assert stage.log() == ["kept"]


def test_the_sequence_may_have_any_name_and_be_anywhere(stage: Stage) -> None:
    stage.publish("first", stream="1")
    with stage.autocommit() as connection:
        connection.execute(text("ALTER SEQUENCE es_events_sequence_number_seq RENAME TO numbers"))
        # What is called like it now belongs to nothing, and is far ahead.
        connection.execute(text("CREATE SEQUENCE es_events_sequence_number_seq START WITH 1000"))
        connection.execute(text("SELECT nextval('es_events_sequence_number_seq')"))
    writer = stage.writer()
    writer.publish("second", stream="1")
    stage.publish("third", stream="2")

    assert stage.log() == ["first"]
    writer.commit()
    assert stage.log() == ["first", "second", "third"]

"""Ways to break the order of events, each a mistake that has been made: the soak must find every one of them.

They change the functions of one database, by replacing text of the SQL that is shipped. One more mistake is a reader's: see
`reader.too_late`.
"""

from __future__ import annotations

from sqlalchemy import Connection

from eventstore_sa.persistence.schema.ddl import create_function
from tests.project import SQL

__all__ = [
    "count_events_that_were_refused",
    "read_last_position_before_the_lock",
    "read_the_sequence_without_its_lock",
    "take_out_the_fence",
]


def take_out_the_fence(connection: Connection) -> None:
    """Let the fence be raised nowhere."""
    _replace_in(
        connection,
        "fence_v1",
        (
            "PERFORM pg_catalog.pg_advisory_xact_lock_shared(TG_RELID::int4, ((last_number << 32) >> 32)::int4);",
            "NULL;",
        ),
    )


def read_last_position_before_the_lock(connection: Connection) -> None:
    """Number the events after a position that was looked up before the stream was locked."""
    lock = "  PERFORM {lock_v1}(document);\n"
    insert = "  -- Numbers are drawn above the sort, so their order is the order of the document.\n"
    _replace_in(connection, "append_v1", (lock, ""), (insert, f"{lock}{insert}"))


def count_events_that_were_refused(connection: Connection) -> None:
    """Of publishes that travel together, let those that fail move the ends of their streams for those that follow."""
    _replace_in(connection, "append_each_v1", ("      ends := ends_before;\n", "      NULL;\n"))


def read_the_sequence_without_its_lock(connection: Connection) -> None:
    """Read the last number of the sequence as from a table, while nextval may have written a higher one there."""
    _replace_in(
        connection,
        "last_number_v1",
        ("last_number bigint := pg_catalog.pg_sequence_last_value(sequence);", "last_number bigint;"),
        ("SELECT s.last_value FROM ", "SELECT s.last_value + s.is_called::int FROM "),
        ("coalesce(pg_catalog.pg_sequence_last_value(sequence), first_number - 1)", "first_number - 1"),
    )


def _replace_in(connection: Connection, function: str, *replacements: tuple[str, str]) -> None:
    sql = (SQL / "postgresql" / f"{function}.sql").read_text(encoding="utf-8")
    for old, new in replacements:
        assert sql.count(old) == 1, f"{function}.sql has changed: {old!r} is not in it, or more than once"
        sql = sql.replace(old, new)
    connection.exec_driver_sql(create_function(sql, "es_", None).replace("%", "%%"))

"""Whether a connection can carry every character that events may hold.

Names and JSON are any text, compared by code point. That takes a database in UTF-8, and on servers a client that asks for
it: elsewhere a publish or, worse, a read would fail at the first character that the encoding has no code for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection

from eventstore_sa.persistence.schema.ddl import MARIADB
from eventstore_sa.persistence.sqlalchemy_internals import is_closed

__all__ = ["wrong_encoding"]

_SIDES: Final = ("client", "connection", "results")


def wrong_encoding(connection: Connection) -> str | None:
    """Return what is wrong with the encodings of a connection, and what to do; None if nothing is, or if it is closed.

    PostgreSQL reports its encodings to the drivers, so nothing is sent; SQLite and MariaDB are asked.
    """
    database = connection.dialect.name
    if database == "postgresql":
        return _wrong_on_postgresql(connection)
    if database == "sqlite":
        return _wrong_on_sqlite(connection)
    return _wrong_on_mariadb(connection) if database in MARIADB else None


def _wrong_on_postgresql(connection: Connection) -> str | None:
    if is_closed(connection):
        # The next statement fails, and SQLAlchemy makes of that what it is.
        return None
    driver: Any = connection.connection.driver_connection
    if connection.dialect.driver == "asyncpg":
        settings = driver.get_settings()
        server, client = (getattr(settings, f"{side}_encoding", "UTF8") for side in ("server", "client"))
    elif hasattr(driver, "info"):
        server, client = (driver.info.parameter_status(f"{side}_encoding") or "UTF8" for side in ("server", "client"))
    else:
        return None
    if not _is_utf8(server):
        return (
            f"the encoding of the database is {server}, and events may hold any character: create a database WITH ENCODING "
            "'UTF8', and move your data there"
        )
    if not _is_utf8(client):
        return (
            f"the client_encoding of this connection is {client}, and events may hold any character: set it to UTF8, or "
            "remove the setting; it comes from the engine's connect_args or URL, from PGCLIENTENCODING, from ALTER ROLE or "
            "ALTER DATABASE, or from a SET"
        )
    return None


def _wrong_on_sqlite(connection: Connection) -> str | None:
    (encoding,) = _answer(connection, "PRAGMA encoding")
    if _is_utf8(encoding):
        return None
    return (
        f"the encoding of this SQLite database is {encoding}, which does not sort text by code point: create a new file "
        "without PRAGMA encoding, and copy your data there"
    )


def _wrong_on_mariadb(connection: Connection) -> str | None:
    found = _answer(connection, f"SELECT {', '.join(f'@@character_set_{side}' for side in _SIDES)}")
    wrong = [f"character_set_{side} is {name}" for side, name in zip(_SIDES, found, strict=True) if name != "utf8mb4"]
    if not wrong:
        return None
    return (
        f"on this connection {' and '.join(wrong)}, and events may hold any character: put charset=utf8mb4 into the "
        "engine's URL or connect_args, or leave charset out, and do not change it by SET"
    )


def _answer(connection: Connection, question: str) -> Sequence[str]:
    """Return the row that a database answers with."""
    try:
        # On the driver's own cursor, because hosts count statements.
        cursor: Any = connection.connection.cursor()
        cursor.execute(question)
        answer: Sequence[str] = cursor.fetchone()
        cursor.close()
    except connection.dialect.loaded_dbapi.Error:
        # Through SQLAlchemy, which reads the errors of drivers, and replaces connections that are gone.
        answer = connection.exec_driver_sql(question).one()
    return answer


def _is_utf8(encoding: str) -> bool:
    # PgBouncer reports it as it was sent, in quotes.
    return encoding.strip("'").upper().replace("-", "") in ("UTF8", "UNICODE")

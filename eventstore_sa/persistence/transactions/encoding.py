"""Whether a connection can carry every character that events may hold.

Names and JSON are any text, compared by code point. That takes a database in UTF-8, and on servers a client that asks for
it: elsewhere a publish or, worse, a read would fail at the first character that the encoding has no code for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema.ddl import MARIADB
from eventstore_sa.persistence.transactions.driver_connections import is_closed

__all__ = ["encoding_problem", "refuse_other_encodings"]

_CHECKED: Final = "eventstore_sa.encoding"
_SIDES: Final = ("client", "connection", "results")


def encoding_problem(connection: Connection) -> str | None:
    """Return what is wrong with the encodings of a connection, and what to do; None if nothing is, or if it is closed.

    PostgreSQL reports its encodings to the drivers, so nothing is sent; SQLite and MariaDB are asked once for each
    connection of the driver.
    """
    database = connection.dialect.name
    if database == "postgresql":
        return _postgresql_problem(connection)
    if database == "sqlite":
        return _sqlite_problem(connection)
    return _mariadb_problem(connection) if database in MARIADB else None


def refuse_other_encodings(connection: Connection) -> None:
    """Refuse a connection that cannot carry every character.

    Raises:
        ConfigurationError: It cannot; see `encoding_problem`.
    """
    problem = encoding_problem(connection)
    if problem is not None:
        raise ConfigurationError(problem)


def _postgresql_problem(connection: Connection) -> str | None:
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
            "'UTF8', and move what is in this one there"
        )
    if not _is_utf8(client):
        return (
            f"the client_encoding of this connection is {client}, and events may hold any character: set it to UTF8, or "
            "leave it out; it comes from the engine's connect_args or URL, from PGCLIENTENCODING, from ALTER ROLE or ALTER "
            "DATABASE, or from a SET"
        )
    return None


def _sqlite_problem(connection: Connection) -> str | None:
    (encoding,) = _answer(connection, "PRAGMA encoding")
    if _is_utf8(encoding):
        return None
    return (
        f"the encoding of this SQLite database is {encoding}, whose texts are not ordered by code point: make a new file "
        "without PRAGMA encoding, and copy what is in this one there"
    )


def _mariadb_problem(connection: Connection) -> str | None:
    found = _answer(connection, f"SELECT {', '.join(f'@@character_set_{side}' for side in _SIDES)}")
    wrong = [f"character_set_{side} is {name}" for side, name in zip(_SIDES, found, strict=True) if name != "utf8mb4"]
    if not wrong:
        return None
    return (
        f"of this connection {' and '.join(wrong)}, and events may hold any character: put charset=utf8mb4 into the "
        "engine's URL or connect_args, or leave charset out, and do not change it by SET"
    )


def _answer(connection: Connection, question: str) -> Sequence[str]:
    """Return the row that a database answers with, which is asked once for each connection of the driver."""
    info = connection.info
    if _CHECKED not in info:
        try:
            # On the driver's own cursor, because hosts count statements.
            cursor: Any = connection.connection.cursor()
            cursor.execute(question)
            info[_CHECKED] = cursor.fetchone()
            cursor.close()
        except connection.dialect.loaded_dbapi.Error:
            # Through SQLAlchemy, which reads the errors of drivers, and replaces connections that are gone.
            info[_CHECKED] = connection.exec_driver_sql(question).one()
    answer: Sequence[str] = info[_CHECKED]
    return answer


def _is_utf8(encoding: str) -> bool:
    # PgBouncer reports it as it was sent, in quotes.
    return encoding.strip("'").upper().replace("-", "") in ("UTF8", "UNICODE")

"""Whether a connection can carry every character that events may hold.

Names and JSON are any text, compared by code point. That takes a database in UTF-8, and on PostgreSQL a client that asks for
it: elsewhere a publish or, worse, a read would fail at the first character that the encoding has no code for.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection

from eventstore_sa.errors import ConfigurationError

__all__ = ["encoding_problem", "refuse_other_encodings"]

_CHECKED: Final = "eventstore_sa.encoding"


def encoding_problem(connection: Connection) -> str | None:
    """Say what is wrong with the encodings of a connection, and what to do; None: nothing, or nobody knows.

    PostgreSQL has told its drivers, so nothing is sent; SQLite is asked once for each connection of the driver.
    """
    match connection.dialect.name:
        case "postgresql":
            return _postgresql_problem(connection)
        case "sqlite":
            return _sqlite_problem(connection)
        case _:
            return None


def refuse_other_encodings(connection: Connection) -> None:
    """Refuse a connection that cannot carry every character.

    Raises:
        ConfigurationError: It cannot; see `encoding_problem`.
    """
    problem = encoding_problem(connection)
    if problem is not None:
        raise ConfigurationError(problem)


def _postgresql_problem(connection: Connection) -> str | None:
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
    info = connection.info
    if _CHECKED not in info:
        # On the driver's own cursor, because hosts count statements.
        cursor: Any = connection.connection.cursor()
        cursor.execute("PRAGMA encoding")
        (info[_CHECKED],) = cursor.fetchone()
        cursor.close()
    encoding: str = info[_CHECKED]
    if _is_utf8(encoding):
        return None
    return (
        f"the encoding of this SQLite database is {encoding}, whose texts are not ordered by code point: make a new file "
        "without PRAGMA encoding, and copy what is in this one there"
    )


def _is_utf8(encoding: str) -> bool:
    # PgBouncer reports it as it was sent, in quotes.
    return encoding.strip("'").upper().replace("-", "") in ("UTF8", "UNICODE")

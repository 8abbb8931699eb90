"""How publishing and reading are done on one database."""

from __future__ import annotations

from eventstore_sa.persistence.events.dialects.base import (
    Appended,
    AppendedEach,
    AppendOutcome,
    EachOutcome,
    EventDialect,
    NotTried,
    Unmet,
    constraints_of_events,
)
from eventstore_sa.persistence.events.dialects.mariadb import MariaDBDialect
from eventstore_sa.persistence.events.dialects.postgresql import PostgreSQLDialect, RowLockingPostgreSQLDialect
from eventstore_sa.persistence.events.dialects.sqlite import SQLiteDialect
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.databases import database_named

__all__ = [
    "AppendOutcome",
    "Appended",
    "AppendedEach",
    "EachOutcome",
    "EventDialect",
    "NotTried",
    "Unmet",
    "constraints_of_events",
    "event_dialect",
]


def event_dialect(name: str, schema: EventStoreSchema) -> EventDialect:
    """Pick the dialect for a database, by SQLAlchemy's name of it, and for the schema's way of locking.

    Raises:
        ConfigurationError: If the library does not support this database.
    """
    database = database_named(name)
    match name:
        case "postgresql" if schema.locking == "row":
            return RowLockingPostgreSQLDialect(schema, database)
        case "postgresql":
            return PostgreSQLDialect(schema, database)
        case "sqlite":
            return SQLiteDialect(schema, database)
        case _:
            return MariaDBDialect(schema, database)

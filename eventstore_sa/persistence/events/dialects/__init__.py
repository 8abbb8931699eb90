"""How publishing and reading are done on one database."""

from __future__ import annotations

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.dialects.base import (
    Appended,
    AppendOutcome,
    EventDialect,
    NotReadCommitted,
    Unmet,
    driver_attribute,
)
from eventstore_sa.persistence.events.dialects.mariadb import MariaDBDialect
from eventstore_sa.persistence.events.dialects.postgresql import PostgreSQLDialect
from eventstore_sa.persistence.events.dialects.row_locks import RowLockingPostgreSQLDialect
from eventstore_sa.persistence.events.dialects.sqlite import SQLiteDialect, configure_sqlite
from eventstore_sa.persistence.schema import EventStoreSchema

__all__ = [
    "AppendOutcome",
    "Appended",
    "EventDialect",
    "NotReadCommitted",
    "Unmet",
    "configure_sqlite",
    "driver_attribute",
    "event_dialect",
    "unknown_database",
]


def event_dialect(database: str, schema: EventStoreSchema) -> EventDialect:
    """Pick the dialect for a database, by SQLAlchemy's name of it, and for the schema's way of locking.

    Raises:
        ConfigurationError: The library does not know this database.
    """
    mode = schema.locking_mode
    match database:
        case "postgresql" if mode.locking == "row":
            return RowLockingPostgreSQLDialect(schema, mode.level)
        case "postgresql":
            return PostgreSQLDialect(schema)
        case "sqlite":
            return SQLiteDialect(schema)
        case "mariadb" | "mysql":
            return MariaDBDialect(schema, mode.level)
        case _:
            raise unknown_database(database)


def unknown_database(database: str) -> ConfigurationError:
    """Say which databases there are instead of this one."""
    return ConfigurationError(
        f"events cannot be kept in {database}: use PostgreSQL in production, SQLite for tests and demos; MariaDB is "
        "supported as an experiment"
    )

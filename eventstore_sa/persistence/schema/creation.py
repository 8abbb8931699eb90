"""Creating the tables, functions and triggers of an event store on a connection, and dropping them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.schema import CreateSchema

from eventstore_sa.persistence.schema.ddl import effective_schema
from eventstore_sa.persistence.schema.schema import EventStoreSchema

__all__ = ["create_schema", "drop_schema"]

_ALONE: Final = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('eventstore_sa.create_schema'))"


def create_schema(connection: Connection, schema: EventStoreSchema) -> None:
    """Create the tables, functions and triggers that are missing, and the database schema if one is named.

    The mode of locking is recorded with them; if the tables are there, it must be the one that is recorded.
    """
    if connection.dialect.name == "postgresql":
        # Two processes that start together must not both find nothing.
        connection.execute(text(_ALONE))
        name = effective_schema(connection, schema.schema)
        if name is not None:
            connection.execute(CreateSchema(name, if_not_exists=True))
    schema.locking_record.check_database(connection)
    schema.metadata.create_all(connection, tables=schema.tables)
    schema.locking_record.check(connection)


def drop_schema(connection: Connection, schema: EventStoreSchema) -> None:
    """Drop the tables, functions and triggers, with all events in them."""
    schema.metadata.drop_all(connection, tables=schema.tables)

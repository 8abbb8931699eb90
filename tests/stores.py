"""What stores are made of in tests: engines for every database and driver, and a PostgreSQL template with the schema.

Engines made here are disposed of by the fixtures that hand them out.
"""

from __future__ import annotations

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from eventstore_sa import EventStoreSchema
from tests.databases import PostgresDatabase

__all__ = ["install_schema"]


def install_schema(database: PostgresDatabase) -> None:
    """Prepare a template database with the library's tables, functions and triggers."""
    engine = create_engine(database.url("psycopg"), poolclass=NullPool)
    EventStoreSchema().metadata.create_all(engine)

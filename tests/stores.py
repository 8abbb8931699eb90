"""What stores are made of in tests: engines for every database and driver, and a PostgreSQL template with the schema.

Engines made here are disposed of by the fixtures that hand them out.
"""

from __future__ import annotations

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from eventstore_sa import EventStoreSchema
from eventstore_sa.persistence.schema.locking import LockingMode
from eventstore_sa.persistence.schema.versions import Site, locking_change
from tests.databases import PostgresDatabase

__all__ = ["install_schema", "record_locking"]


def install_schema(database: PostgresDatabase) -> None:
    """Prepare a template database with the library's tables, functions and triggers."""
    engine = create_engine(database.url("psycopg"), poolclass=NullPool)
    EventStoreSchema().metadata.create_all(engine)


def record_locking(engine: Engine, mode: LockingMode) -> None:
    """Have the tables of a database belong to another mode of locking, in the way in which hosts change it."""
    with engine.begin() as connection:
        for statement in locking_change(mode.recorded, Site(engine.dialect.name)):
            connection.execute(text(statement))

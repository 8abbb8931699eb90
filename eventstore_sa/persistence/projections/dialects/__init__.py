"""Which database looks into projections in which way."""

from __future__ import annotations

from sqlalchemy import Table

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.projections.dialects.base import ProjectionDialect
from eventstore_sa.persistence.projections.dialects.postgresql_json import PostgreSQLProjections
from eventstore_sa.persistence.projections.dialects.sqlite_json import SQLiteProjections

__all__ = ["projection_dialect"]


def projection_dialect(database: str, table: Table) -> ProjectionDialect:
    """Pick the dialect for a database, by SQLAlchemy's name of it.

    Raises:
        ConfigurationError: Projections cannot be kept there.
    """
    match database:
        case "postgresql":
            return PostgreSQLProjections(table)
        case "sqlite":
            return SQLiteProjections(table)
        case _:
            raise ConfigurationError(f"projections cannot be kept in {database}: use PostgreSQL or SQLite")

"""The dialects of databases that can keep projections."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Table

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.projections.dialects.base import ProjectionDialect
from eventstore_sa.persistence.projections.dialects.postgresql_json import PostgreSQLProjections
from eventstore_sa.persistence.projections.dialects.sqlite_json import SQLiteProjections
from eventstore_sa.persistence.schema import EventStoreSchema

__all__ = ["projection_dialect"]

_DIALECTS: Final[dict[str, type[ProjectionDialect]]] = {
    "postgresql": PostgreSQLProjections,
    "sqlite": SQLiteProjections,
}


def projection_dialect(database: str, schema: EventStoreSchema, table: Table) -> ProjectionDialect:
    """Return the dialect for a database, by SQLAlchemy's name for it.

    Raises:
        ConfigurationError: If projections cannot be kept there.
    """
    if database not in _DIALECTS:
        raise ConfigurationError(f"projections cannot be kept in {database}: use PostgreSQL or SQLite")
    return _DIALECTS[database](schema, table)

"""Optional indexes on events on PostgreSQL, for those who often look for correlation ids or times in a large store.

Publishing pays for each of them, and works without any: so they are no part of a version of the schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import ColumnElement, Index, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex
from sqlalchemy.sql.elements import conv

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import EventStoreSchema, schema_or_default
from eventstore_sa.persistence.schema.correlation import correlation_beginning

__all__ = [
    "INSPECTION_INDEXES",
    "IndexedField",
    "creation_of",
    "index_name",
    "inspection_index",
    "inspection_indexes_of",
]

IndexedField: TypeAlias = Literal["correlation", "time"]
INSPECTION_INDEXES: Final[tuple[IndexedField, ...]] = ("correlation", "time")

_MARK: Final = "eventstore_sa.inspection_index"


def index_name(field: IndexedField, prefix: str) -> str:
    """Return the name of an index."""
    return f"{prefix}events_{'correlation' if field == 'correlation' else 'observed_at'}_idx"


def inspection_index(field: IndexedField, *, schema: EventStoreSchema | None = None) -> Index:
    """Create an optional index on the events, and attach it to their table.

    `metadata.create_all()` creates it together with the table, `index.create(engine)` by itself, and Alembic's autogenerate
    writes it into a revision. All of them skip databases other than PostgreSQL. The same call returns the same index.

    Args:
        field: "correlation": for `correlation_is`, and traces. "time": for `observed_between`.
        schema: The tables; those of `EventStoreSchema()` by default.

    Raises:
        ConfigurationError: If there is no such index.

    Example:
        >>> from sqlalchemy import MetaData
        >>> from eventstore_sa import EventStoreSchema
        >>> inspection_index("correlation", schema=EventStoreSchema(MetaData())).name
        'es_events_correlation_idx'
    """
    if field not in INSPECTION_INDEXES:
        raise ConfigurationError(f"there is an optional index for 'correlation' or 'time', not for {field!r}")
    store = schema_or_default(schema)
    name = index_name(field, store.prefix)
    for index in inspection_indexes_of(store.events):
        if index.name == name:
            return index
    return _index(field, name, store.events)


def creation_of(index: Index) -> str:
    """Return the SQL that creates an index on PostgreSQL while writers run; outside of a transaction."""
    create: Any = CreateIndex(index)
    dialect: Any = postgresql.dialect
    return str(create.compile(dialect=dialect())).replace(" INDEX ", " INDEX CONCURRENTLY ", 1)


def inspection_indexes_of(table: Table) -> Iterator[Index]:
    """Yield the indexes on a table of events that `inspection_index` has created."""
    return (index for index in sorted(table.indexes, key=lambda index: str(index.name)) if _MARK in index.info)


def _index(field: IndexedField, name: str, events: Table) -> Index:
    first: ColumnElement[Any] = (
        correlation_beginning(events.c.metadata) if field == "correlation" else events.c.observed_at
    )
    # Most events of many stores have no correlation id.
    where = first.is_not(None) if field == "correlation" else None
    index = Index(conv(name), first, events.c.sequence_number, postgresql_where=where, info={_MARK: True})
    return index.ddl_if(dialect="postgresql")

"""Indexes on the states of projections, for the searches of one application on PostgreSQL.

They use exactly the expressions that searches use, so that the planner recognises them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import ColumnElement, Index, Table
from sqlalchemy.sql.elements import Grouping, conv

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.projections.dialects.postgresql_json import PostgreSQLProjectionIndexes
from eventstore_sa.persistence.schema import EventStoreSchema, schema_or_default
from eventstore_sa.query import Path, SortField, SortOrder
from eventstore_sa.query.evaluation import check_field
from eventstore_sa.types.identifiers import check_name

__all__ = ["projection_index", "projection_indexes_of"]

_MARK: Final = "eventstore_sa.projection_index"


def projection_index(
    projection_name: str, *fields: Path | SortField, schema: EventStoreSchema | None = None, contains: bool = False
) -> Index:
    """Create an index for searches for the projections of one name, and attach it to the table of projections.

    A search can use the index if it filters by `Path("name")` EQUAL to the name. A path serves filters with EQUAL and IN
    and, if all paths before it are compared with EQUAL, the ordering operators on numbers. A SortField serves sorting by it
    and the SortFields after it, in the same directions, or all in the opposite directions if all are descending. With
    `contains`, the single path serves CONTAINS.

    `metadata.create_all()` creates the index together with the table, `index.create(engine)` creates it by itself, and
    Alembic's autogenerate writes it into a revision. All of them skip databases other than PostgreSQL. The name is derived
    from the definition: another index has another name, and the same call returns the same index.

    An entry can have at most about 2,700 bytes: a projection with a longer value in an indexed field cannot be saved. This
    does not apply to `contains`.

    Args:
        projection_name: The name of the projections.
        fields: The fields to index, in this order.
        schema: The tables; those of `EventStoreSchema()` by default.
        contains: Whether the index serves CONTAINS, and nothing else.

    Raises:
        ConfigurationError: If there are no fields, if a SortField sorts by a function, or if `contains` is not given exactly
            one path.
        QueryError: If projections have no such field.
        SerialisationError: If the name is not valid for a projection.

    Examples:
        >>> index = projection_index("orders", Path("state", "status"), SortField(Path("state", "total")))
    """
    store = schema_or_default(schema)
    table = store.projections
    name = check_name("projection", projection_name)
    _check(fields, contains=contains)
    dialect = PostgreSQLProjectionIndexes(store, table)
    index_name = f"{table.name}_{_digest(name, fields, contains=contains)}_idx"
    for index in projection_indexes_of(table):
        if index.name == index_name:
            return index
    return Index(
        conv(index_name),
        *_expressions(dialect, fields),
        postgresql_where=dialect.has_name(name),
        postgresql_using="gin" if contains else "btree",
        info={_MARK: True},
    ).ddl_if(dialect="postgresql")


def projection_indexes_of(table: Table) -> Iterator[Index]:
    """Yield the indexes on a table of projections that `projection_index` has created."""
    return (index for index in sorted(table.indexes, key=lambda index: str(index.name)) if _MARK in index.info)


def _expressions(
    dialect: PostgreSQLProjectionIndexes, fields: tuple[Path | SortField, ...]
) -> Iterator[ColumnElement[Any]]:
    for field in fields:
        if isinstance(field, Path):
            yield dialect.place(field).json
        elif isinstance(field.field, Path):
            for key in dialect.keys(dialect.place(field.field)):
                expression: ColumnElement[Any] = Grouping(key.value)
                yield expression.desc() if field.order is SortOrder.DESC else expression
    if any(isinstance(field, SortField) for field in fields):
        yield dialect.table.c.id


def _check(fields: tuple[Path | SortField, ...], *, contains: bool) -> None:
    if not fields:
        raise ConfigurationError('projection_index requires at least one field, such as Path("state", "status")')
    if contains and (len(fields) != 1 or not isinstance(fields[0], Path)):
        raise ConfigurationError(
            "projection_index(..., contains=True) takes exactly one Path, to the array: create an index for each array"
        )
    for field in fields:
        path: object = field.field if isinstance(field, SortField) else field
        if not isinstance(path, Path):
            raise ConfigurationError(
                f"projection_index takes Paths and SortFields of Paths, not {type(path).__name__!r}"
            )
        check_field(path)


def _digest(name: str, fields: tuple[Path | SortField, ...], *, contains: bool) -> str:
    # Depends on what is indexed, not on the SQL.
    parts = (
        f"{field.field!r} {field.order.value}" if isinstance(field, SortField) else repr(field) for field in fields
    )
    return hashlib.blake2b("\n".join((name, *parts, str(contains))).encode(), digest_size=6).hexdigest()

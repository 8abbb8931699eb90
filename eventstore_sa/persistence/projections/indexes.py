"""Indexes on the states of projections, for the searches of one application: on PostgreSQL.

They are made of the very expressions that `projection_queries` asks for, so that the planner knows them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import ColumnElement, Index, Table
from sqlalchemy.sql.elements import Grouping, conv

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.projections.dialects.postgresql_json import PostgreSQLProjectionIndexes
from eventstore_sa.persistence.schema import EventStoreSchema, default_schema
from eventstore_sa.query import Path, SortField, SortOrder
from eventstore_sa.query.evaluation import check_field
from eventstore_sa.types.identifiers import check_name

__all__ = ["projection_index", "projection_indexes_of"]

_MARK: Final = "eventstore_sa.projection_index"


def projection_index(
    projection_name: str, *fields: Path | SortField, schema: EventStoreSchema | None = None, contains: bool = False
) -> Index:
    """Make an index that serves searches for the projections of one name, and attach it to the table of projections.

    A search can use it when it filters by `Path("name")` EQUAL to the name. A path serves filters on it with EQUAL and IN,
    and, where nothing but paths with EQUAL are before it, with the operators that order numbers. A SortField serves sorting
    by it, together with the SortFields behind it: in the same directions, or all in the opposite ones when they are all
    descending. With `contains`, the one path serves CONTAINS.

    `metadata.create_all()` creates it with the table, `index.create(engine)` alone, and Alembic's autogenerate writes it
    into a revision, in all of which databases other than PostgreSQL are left out. Its name says what it is: another index
    has another name, and the same call returns the same index.

    An entry takes at most about 2,700 bytes: a projection with a longer value there cannot be saved any more. That does not
    hold with `contains`.

    Args:
        projection_name: The name of the projections.
        fields: What is indexed, in this order.
        schema: The tables; those of `EventStoreSchema()` by default.
        contains: Whether it serves CONTAINS, and nothing else.

    Raises:
        ConfigurationError: There is no field, a SortField sorts by a function, or `contains` has not one path.
        QueryError: Projections have no such field.
        SerialisationError: The name cannot be that of a projection.

    Example:
        >>> index = projection_index("orders", Path("state", "status"), SortField(Path("state", "total")))
    """
    store = default_schema() if schema is None else schema
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
    """Yield the indexes on a table of projections that `projection_index` has made."""
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
        raise ConfigurationError(
            'projection_index needs what to index: give it a Path, such as Path("state", "status")'
        )
    if contains and (len(fields) != 1 or not isinstance(fields[0], Path)):
        raise ConfigurationError(
            "projection_index(..., contains=True) takes the one Path of the array: make one for each"
        )
    for field in fields:
        path: object = field.field if isinstance(field, SortField) else field
        if not isinstance(path, Path):
            raise ConfigurationError(
                f"projection_index takes Paths and SortFields of Paths; got a {type(path).__name__}"
            )
        check_field(path)


def _digest(name: str, fields: tuple[Path | SortField, ...], *, contains: bool) -> str:
    # What is indexed, and not how it is written in SQL.
    parts = (
        f"{field.field!r} {field.order.value}" if isinstance(field, SortField) else repr(field) for field in fields
    )
    return hashlib.blake2b("\n".join((name, *parts, str(contains))).encode(), digest_size=6).hexdigest()

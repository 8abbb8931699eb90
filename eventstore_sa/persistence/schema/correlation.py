"""The correlation id in the metadata of events as SQL, for reads and for the index that serves them.

SQLAlchemy's own JSON paths are parameters, which no index is found by. What is indexed is the beginning of the text, so that
no id is too long for an entry: a publish must not fail because of an index.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Boolean, ColumnElement, Table, Text, bindparam, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

__all__ = ["correlates_with", "correlation_beginning"]

# In characters, of which each may take four bytes.
_INDEXED: Final = 250
_PATH: Final = "'$.correlation_id'"


class correlation_beginning(FunctionElement[str]):  # noqa: N801 - it reads as a function
    """The beginning of the correlation id in a column of metadata, as text; on PostgreSQL alone, for the index."""

    name = "correlation_beginning"
    type: TypeEngine[str] = Text()
    inherit_cache: bool | None = True


class _Correlates(FunctionElement[bool]):
    """Whether the correlation id in a column of metadata is a text."""

    name = "correlates"
    type = Boolean()
    inherit_cache: bool | None = True


def correlates_with(events: Table, correlation_id: str) -> ColumnElement[bool]:
    """Demand that an event's metadata has this correlation id."""
    # Bytes where names are bytes, and text elsewhere: as text it is compared with what is in the JSON.
    given = bindparam("correlation_id", correlation_id, type_=Text(), unique=True)
    return _Correlates(type_coerce(events.c.metadata, Text()), given)


@compiles(correlation_beginning, "postgresql")
def _beginning_on_postgresql(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    (metadata,) = (compiler.process(each, **options) for each in element.clauses)
    return f"pg_catalog.left({metadata} ->> 'correlation_id', {_INDEXED})"


@compiles(_Correlates, "postgresql")
def _correlates_on_postgresql(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    metadata, given = (compiler.process(each, **options) for each in element.clauses)
    return (
        f"(pg_catalog.left({metadata} ->> 'correlation_id', {_INDEXED}) = pg_catalog.left({given}, {_INDEXED}) "
        f"AND {metadata} -> 'correlation_id' = pg_catalog.to_jsonb(CAST({given} AS text)))"
    )


@compiles(_Correlates, "sqlite")
def _correlates_on_sqlite(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    metadata, given = (compiler.process(each, **options) for each in element.clauses)
    return f"({metadata} ->> {_PATH} = {given} AND json_type({metadata}, {_PATH}) = 'text')"


@compiles(_Correlates, "mysql", "mariadb")
def _correlates_on_mariadb(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    metadata, given = (compiler.process(each, **options) for each in element.clauses)
    value = f"JSON_EXTRACT({metadata}, {_PATH})"
    return (
        f"(JSON_TYPE({value}) = 'STRING' AND JSON_UNQUOTE({value}) = CAST({given} AS CHAR) COLLATE utf8mb4_nopad_bin)"
    )

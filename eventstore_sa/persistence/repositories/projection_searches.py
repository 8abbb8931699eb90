"""The statements that search the table of projections. Transactions are neither begun nor ended here."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Select, Text, cast, exists, func, literal, select
from sqlalchemy.exc import DBAPIError

from eventstore_sa.errors import QueryError
from eventstore_sa.persistence.dialects import driver_attribute
from eventstore_sa.persistence.projection_places import ProjectionDialect
from eventstore_sa.persistence.projection_queries import OrderKey, ProjectionConverters, ProjectionQueries, beyond
from eventstore_sa.query import (
    FilterExpression,
    KeySetPagingClause,
    OffsetPagingClause,
    PagingDirection,
    Search,
    SortClause,
)
from eventstore_sa.query.evaluation import check_fields, unknown_last_id
from eventstore_sa.query.records import ProjectionRecord

__all__ = ["ProjectionSearches"]

_BAD_REGEX: Final = "2201B"


class ProjectionSearches:
    """Searches for projections on one kind of database.

    Args:
        dialect: How the database looks into projections.
        converters: What of queries is the application's own.
    """

    def __init__(self, dialect: ProjectionDialect, converters: ProjectionConverters) -> None:
        self._dialect = dialect
        self._table = dialect.table
        self._queries = ProjectionQueries(dialect, converters)

    def search(self, connection: Connection, search: Search) -> list[ProjectionRecord]:
        """Return what a search finds.

        Raises:
            QueryError: It cannot be answered.
        """
        check_fields(search)
        self._dialect.prepare(connection)
        order = self._queries.order(search.sort, connection)
        rows = self._select().where(*self._queries.conditions(search.filters))
        with _query_errors():
            match search.paging:
                case None:
                    return _records(connection, _ordered(rows, order))
                case OffsetPagingClause(page_number=number, item_count=size):
                    return _records(connection, _ordered(rows, order).limit(size).offset((number - 1) * size))
                case KeySetPagingClause() as paging:
                    return self._page(connection, rows, order, paging)

    def _page(
        self, connection: Connection, rows: Select[Any], order: Sequence[OrderKey], paging: KeySetPagingClause
    ) -> list[ProjectionRecord]:
        """Take the results next to the last one seen, in one statement and so from one snapshot."""
        backwards = paging.direction is PagingDirection.BACKWARDS
        wanted = _ordered(rows, order, backwards=backwards).limit(paging.item_count)
        if paging.last_id is None:
            page = _records(connection, wanted)
            return page[::-1] if backwards else page
        is_seen = self._table.c.id == paging.last_id
        keys = [each.key.value.label(f"key_{number}") for number, each in enumerate(order)]
        seen = _ordered(rows.with_only_columns(*keys).where(is_seen), order).limit(1).cte("seen")
        # Joined, because a condition that is false in itself would leave nothing that links the two.
        joined = self._table.join(seen, beyond(order, list(seen.c), backwards=backwards))
        page = _records(connection, wanted.select_from(joined))
        if not page and not connection.scalar(select(exists(rows.where(is_seen)))):
            raise unknown_last_id(paging.last_id)
        return page[::-1] if backwards else page

    def page_beyond(
        self,
        connection: Connection,
        filters: Collection[FilterExpression],
        sort: SortClause | None,
        *,
        after: Sequence[str] | None,
        size: int,
    ) -> tuple[list[ProjectionRecord], Sequence[str]]:
        """Return a page, and where the next one begins: the keys of its last row, as text.

        Args:
            connection: Where to read.
            filters: What the rows have to meet.
            sort: In which order.
            after: Where the page begins; None: at the first row.
            size: How many rows make a page.

        Raises:
            QueryError: It cannot be answered.
        """
        check_fields(Search(filters=filters, sort=sort))
        self._dialect.prepare(connection)
        order = self._queries.order(sort, connection)
        keys = [cast(each.key.value, Text()) for each in order]
        rows = self._select().add_columns(*keys).where(*self._queries.conditions(filters))
        if after is not None:
            values = [cast(literal(text, Text()), each.key.type) for text, each in zip(after, order, strict=True)]
            rows = rows.where(beyond(order, values))
        with _query_errors():
            found = connection.execute(_ordered(rows, order).limit(size)).all()
        width = len(found[0]) - len(keys) if found else 0
        return [ProjectionRecord(*row[:width]) for row in found], tuple(found[-1][width:]) if found else ()

    def count(self, connection: Connection, filters: Collection[FilterExpression]) -> int:
        """Count the projections that meet all filters.

        Raises:
            QueryError: One of them cannot be evaluated.
        """
        check_fields(Search(filters=filters))
        self._dialect.prepare(connection)
        conditions = self._queries.conditions(filters)
        with _query_errors():
            return connection.scalar(select(func.count()).select_from(self._table).where(*conditions)) or 0

    def _select(self) -> Select[Any]:
        c = self._table.c
        as_text = (self._dialect.as_text(each).label(each.key) for each in (c.source, c.state, c.metadata))
        return select(c.name, c.id, *as_text, c.version)


def _ordered(rows: Select[Any], order: Sequence[OrderKey], *, backwards: bool = False) -> Select[Any]:
    return rows.order_by(*(each.ordered(backwards=backwards) for each in order))


def _records(connection: Connection, rows: Select[Any]) -> list[ProjectionRecord]:
    return [ProjectionRecord(*row) for row in connection.execute(rows)]


@contextmanager
def _query_errors() -> Generator[None]:
    try:
        yield
    except DBAPIError as error:
        if driver_attribute(error, "sqlstate", "pgcode") != _BAD_REGEX:
            raise
        raise QueryError(
            "PostgreSQL cannot read a regular expression of the query, which Python can: write it in a simpler way"
        ) from error.orig

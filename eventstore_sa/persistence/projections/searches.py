"""The statements that search the table of projections. Transactions are neither begun nor ended here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Text,
    bindparam,
    cast,
    func,
    select,
)
from sqlalchemy.exc import DBAPIError

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.errors import QueryError
from eventstore_sa.persistence.events.page_bytes import page_of_bytes
from eventstore_sa.persistence.projections.dialects.base import ProjectionDialect
from eventstore_sa.persistence.projections.queries import (
    OrderKey,
    ProjectionConverters,
    ProjectionQueries,
    beyond,
    parameters_of,
    shape_of,
)
from eventstore_sa.persistence.transactions.databases import driver_attribute
from eventstore_sa.query import (
    FilterExpression,
    KeySetPagingClause,
    OffsetPagingClause,
    PagingDirection,
    Search,
    SortClause,
)
from eventstore_sa.query.evaluation import check_fields, unknown_last_id

__all__ = ["ProjectionSearches"]

_BAD_REGEX: Final = "2201B"
_REMEMBERED_STATEMENTS: Final = 256
# What a search reads of each projection; the keys of its order follow.
_FIELDS: Final = ("name", "id", "source", "state", "metadata", "version")
_SIZE: Final = bindparam("size", type_=BigInteger())
_SKIPPED: Final = bindparam("skipped", type_=BigInteger())


class ProjectionSearches:
    """Searches for projections on one kind of database.

    Args:
        dialect: How the database looks into projections.
        converters: What of queries is the application's own.
    """

    def __init__(self, dialect: ProjectionDialect, converters: ProjectionConverters) -> None:
        self._dialect = dialect
        self._table = dialect.table
        self.queries: ProjectionQueries = ProjectionQueries(dialect, converters)
        self._is_last = dialect.table.c.id == bindparam("last_id", type_=Text())
        self._statements: dict[Hashable, Select[Any]] = {}

    def statement(self, kind: Hashable, shape: Hashable, make: Callable[[], Select[Any]]) -> Select[Any]:
        """Return the statement for all queries of a kind and shape; a new one where there is no shape."""
        if shape is None:
            return make()
        key = (kind, shape)
        found = self._statements.get(key)
        if found is None:
            # Others may do the same at the same time, and all of it at any moment.
            if len(self._statements) >= _REMEMBERED_STATEMENTS:
                self._statements.clear()
            found = self._statements[key] = make()
        return found

    def search(self, connection: Connection, search: Search) -> list[ProjectionRecord]:
        """Return what a search finds.

        Raises:
            QueryError: It cannot be answered.
        """
        query = self._begin(connection, search.filters, search.sort)
        match search.paging:
            case None:
                return query.records("all", query.rows)
            case OffsetPagingClause(page_number=number, item_count=size):
                bounds = {"size": size, "skipped": (number - 1) * size}
                return query.records("page", lambda: query.rows().limit(_SIZE).offset(_SKIPPED), bounds)
            case KeySetPagingClause() as paging:
                page = self._page(query, paging, backwards=paging.direction is PagingDirection.BACKWARDS)
                return page if paging.direction is PagingDirection.FORWARDS else page[::-1]

    def _page(self, query: _Query, paging: KeySetPagingClause, *, backwards: bool) -> list[ProjectionRecord]:
        """Return the page next to the last result seen, in the direction of turning."""
        bounds: dict[str, Any] = {"size": paging.item_count, "last_id": paging.last_id}
        if paging.last_id is None:
            return query.records(("end", backwards), lambda: query.rows(backwards=backwards).limit(_SIZE), bounds)
        page = query.records(("next", backwards), lambda: self._next_page(query, backwards=backwards), bounds)
        if not page and not query.records("seen", lambda: query.rows().where(self._is_last), bounds):
            raise unknown_last_id(paging.last_id)
        return page

    def _next_page(self, query: _Query, *, backwards: bool) -> Select[Any]:
        """Take the results next to the last one seen, in one statement and so from one snapshot."""
        order = query.order()
        keys = [each.key.value.label(f"key_{number}") for number, each in enumerate(order)]
        seen = query.rows().with_only_columns(*keys).where(self._is_last).limit(1).cte("seen")
        # Joined, because a condition that is false in itself would leave nothing that links the two.
        joined = self._table.join(seen, beyond(order, list(seen.c), backwards=backwards))
        return query.rows(backwards=backwards).select_from(joined).limit(_SIZE)

    def page_beyond(
        self,
        connection: Connection,
        filters: Collection[FilterExpression],
        sort: SortClause | None,
        *,
        after: Sequence[str] | None,
        size: int,
    ) -> tuple[list[ProjectionRecord], Sequence[str] | None]:
        """Return a page, and where the next one begins: the keys of its last row, as text; None: there is no more.

        It ends early where its rows have become too many bytes.

        Args:
            connection: Where to read.
            filters: What the rows have to meet.
            sort: In which order.
            after: Where the page begins; None: at the first row.
            size: How many rows make a page.

        Raises:
            QueryError: It cannot be answered.
        """
        query = self._begin(connection, filters, sort)

        def statement() -> Select[Any]:
            order = query.order()
            keys = [cast(each.key.value, Text()).label(f"key_{number}") for number, each in enumerate(order)]
            bound = (bindparam(f"after_{number}", type_=Text()) for number in range(len(order)))

            def rows(columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
                page = query.rows().with_only_columns(*columns).limit(_SIZE)
                if after is None:
                    return page
                return page.where(
                    beyond(order, [cast(each, key.key.type) for each, key in zip(bound, order, strict=True)])
                )

            return page_of_bytes(
                rows,
                self._table,
                order=[(each.key.value, each.descending) for each in order],
                size=self._dialect.size(self._table),
                columns=self._fields,
                by_key=self._dialect.copies_values,
                keys=keys,
            )

        bounds = {f"after_{number}": key for number, key in enumerate(after or ())}
        found = query.rows_of(("scan", after is None), statement, {**bounds, "size": size})
        if not found:
            return [], None
        *_, is_enough = found[-1]
        more = is_enough or len(found) == size
        return [_record(row[: len(_FIELDS)]) for row in found], tuple(found[-1][len(_FIELDS) : -1]) if more else None

    def count(self, connection: Connection, filters: Collection[FilterExpression]) -> int:
        """Count the projections that meet all filters.

        Raises:
            QueryError: One of them cannot be evaluated.
        """
        query = self._begin(connection, filters, None)
        counted = query.rows_of(
            "count",
            lambda: select(func.count()).select_from(self._table).where(*self.queries.conditions(filters)),
        )
        number: int = counted[0][0]
        return number

    def _begin(self, connection: Connection, filters: Collection[FilterExpression], sort: SortClause | None) -> _Query:
        check_fields(Search(filters=filters, sort=sort))
        self._dialect.prepare(connection)
        return _Query(self, connection, filters, sort)

    def select(self, filters: Collection[FilterExpression]) -> Select[Any]:
        """Return what selects the fields of records."""
        return select(*self._fields(self._table)).where(*self.queries.conditions(filters))

    def _fields(self, rows: FromClause) -> Sequence[ColumnElement[Any]]:
        """Return the fields of records, JSON as text."""
        json = ("source", "state", "metadata")
        return [self._dialect.as_text(rows.c[key]).label(key) if key in json else rows.c[key] for key in _FIELDS]


class _Query:
    """One search on one connection; its statement is made once for all searches of its shape."""

    def __init__(
        self,
        searches: ProjectionSearches,
        connection: Connection,
        filters: Collection[FilterExpression],
        sort: SortClause | None,
    ) -> None:
        self._searches = searches
        self._connection = connection
        self._filters = filters
        self._sort = sort

    def order(self) -> list[OrderKey]:
        return self._searches.queries.order(self._sort, self._connection)

    def rows(self, *, backwards: bool = False) -> Select[Any]:
        ordered = (each.ordered(backwards=backwards) for each in self.order())
        return self._searches.select(self._filters).order_by(*ordered)

    def rows_of(
        self, kind: Hashable, make: Callable[[], Select[Any]], bounds: Mapping[str, Any] = MappingProxyType({})
    ) -> Sequence[Row[Any]]:
        statement = self._searches.statement(kind, shape_of(self._filters, self._sort), make)
        with _query_errors():
            return self._connection.execute(statement, {**parameters_of(self._filters), **bounds}).all()

    def records(
        self, kind: Hashable, make: Callable[[], Select[Any]], bounds: Mapping[str, Any] = MappingProxyType({})
    ) -> list[ProjectionRecord]:
        return [_record(row) for row in self.rows_of(kind, make, bounds)]


def _record(row: Sequence[Any]) -> ProjectionRecord:
    return ProjectionRecord(*row)


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

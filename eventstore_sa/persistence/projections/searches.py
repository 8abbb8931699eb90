"""The statements that search the table of projections. Transactions are neither begun nor ended here."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Select,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.exc import DBAPIError

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.persistence.page_bytes import page_of_bytes
from eventstore_sa.persistence.projections.dialects.base import JSON_FIELDS, ProjectionDialect
from eventstore_sa.persistence.projections.queries import (
    OrderKey,
    ProjectionConverters,
    ProjectionQueries,
    beyond,
    parameters_of,
    shape_of,
)
from eventstore_sa.persistence.transactions.prepared import PreparedStatement
from eventstore_sa.query import KeySetPagingClause, OffsetPagingClause, PagingDirection, Search
from eventstore_sa.query.evaluation import check_fields, unknown_last_id

__all__ = ["ProjectionSearches"]

_REMEMBERED_STATEMENTS: Final = 256
# What a search reads of each projection; in a page of a scan, the keys of its order follow.
_FIELDS: Final = ("name", "id", "source", "state", "metadata", "version")
_SIZE: Final = bindparam("size", type_=BigInteger())
_SKIPPED: Final = bindparam("skipped", type_=BigInteger())


class ProjectionSearches:
    """Searches for projections on one kind of database; its statements are made once for all searches of the same shape.

    Args:
        dialect: How the database queries projections.

    Attributes:
        dialect: As given.
    """

    def __init__(self, dialect: ProjectionDialect) -> None:
        self.dialect: ProjectionDialect = dialect
        self._table = dialect.table
        self._is_last = dialect.table.c.id == bindparam("last_id", type_=Text())
        self._statements: dict[Hashable, PreparedStatement] = {}

    def search(
        self, connection: Connection, search: Search, converters: ProjectionConverters
    ) -> list[ProjectionRecord]:
        """Return the results of a search.

        Args:
            connection: The connection.
            search: The search.
            converters: The application's own parts of queries.

        Raises:
            QueryError: If the search is invalid.
        """
        query = _Query(self, connection, search, converters)
        match search.paging:
            case None:
                return query.records("all", query.rows)
            case OffsetPagingClause(page_number=number, item_count=size):
                bounds = {"size": size, "skipped": (number - 1) * size}
                return query.records("page", lambda: query.page(query.rows().limit(_SIZE).offset(_SKIPPED)), bounds)
            case KeySetPagingClause() as paging:
                page = self._page(query, paging, backwards=paging.direction is PagingDirection.BACKWARDS)
                return page if paging.direction is PagingDirection.FORWARDS else page[::-1]

    def _page(self, query: _Query, paging: KeySetPagingClause, *, backwards: bool) -> list[ProjectionRecord]:
        """Return the page next to the given result, in the direction of paging."""
        bounds: dict[str, Any] = {"size": paging.item_count, "last_id": paging.last_id}
        if paging.last_id is None:
            return query.records(
                ("end", backwards), lambda: query.page(query.rows(backwards=backwards).limit(_SIZE)), bounds
            )
        page = query.records(("next", backwards), lambda: self._next_page(query, backwards=backwards), bounds)
        if not page and not query.records("seen", lambda: query.rows().where(self._is_last), bounds):
            raise unknown_last_id(paging.last_id)
        return page

    def _next_page(self, query: _Query, *, backwards: bool) -> Select[Any]:
        """Select the page next to the given result, in one statement and so from one snapshot."""
        order = query.order()
        keys = [each.key.value.label(f"key_{number}") for number, each in enumerate(order)]
        seen = query.rows().with_only_columns(*keys).where(self._is_last).limit(1).cte("seen")
        # Joined, because a condition that is false by itself would leave nothing that links the two.
        joined = self._table.join(seen, beyond(order, list(seen.c), backwards=backwards))
        return query.page(query.rows(backwards=backwards).select_from(joined).limit(_SIZE))

    def page_beyond(
        self,
        connection: Connection,
        search: Search,
        converters: ProjectionConverters,
        *,
        after: Sequence[str] | None,
        size: int,
    ) -> tuple[list[ProjectionRecord], Sequence[str] | None]:
        """Return a page, and where the next one begins: the keys of its last row as text, or None if there is no more.

        A page ends early if its rows have too many bytes.

        Args:
            connection: The connection.
            search: The filters and the order.
            converters: The application's own parts of queries.
            after: Where the page begins. None: at the first row.
            size: How many rows make a page.

        Raises:
            QueryError: If the search is invalid.
        """
        query = _Query(self, connection, search, converters)

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
                size=self.dialect.size(self._table),
                columns=self.fields,
                by_key=self.dialect.copies_values,
                keys=keys,
            )

        bounds = {f"after_{number}": key for number, key in enumerate(after or ())}
        found = query.result(("scan", after is None), statement, {**bounds, "size": size})
        if not found:
            return [], None
        *_, is_enough = found[-1]
        more = is_enough or len(found) == size
        records = [ProjectionRecord(*row[: len(_FIELDS)]) for row in found]
        return records, tuple(found[-1][len(_FIELDS) : -1]) if more else None

    def names(self, connection: Connection, *, after: str | None, size: int) -> list[str]:
        """Return some names of projections, those above `after`: a probe of the index for each."""

        def statement() -> Select[Any]:
            names, next_names = self._table.alias(), self._table.alias()
            first = select(func.min(names.c.name).label("name"), literal_column("1", Integer).label("rank"))
            if after is not None:
                first = first.where(names.c.name > bindparam("after", type_=names.c.name.type))
            found = first.cte("found", recursive=True)
            following = select(func.min(next_names.c.name)).where(next_names.c.name > found.c.name).scalar_subquery()
            found = found.union_all(
                select(following, found.c.rank + 1).where(found.c.name.is_not(None), found.c.rank < _SIZE)
            )
            return select(found.c.name).where(found.c.name.is_not(None)).order_by(found.c.rank)

        parameters = {"size": size} if after is None else {"size": size, "after": after}
        rows = self.statement(("names", after is None), statement).rows(connection, parameters)
        return [name for (name,) in rows]

    def by_id(
        self, connection: Connection, *, name: str, after: str | None, size: int
    ) -> tuple[list[ProjectionRecord], bool]:
        """Return projections of a name in the order of their ids, those above `after`, and whether there may be more.

        A page ends early if its rows have too many bytes.
        """
        c = self._table.c

        def rows(columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
            page = select(*columns).where(c.name == bindparam("of_name", type_=c.name.type)).order_by(c.id).limit(_SIZE)
            return page if after is None else page.where(c.id > bindparam("after", type_=c.id.type))

        def statement() -> Select[Any]:
            return page_of_bytes(
                rows,
                self._table,
                order=[(c.id, False)],
                size=self.dialect.size(self._table),
                columns=self.fields,
                by_key=self.dialect.copies_values,
            )

        parameters: dict[str, Any] = {"of_name": name, "size": size}
        if after is not None:
            parameters["after"] = after
        found = self.statement(("by id", after is None), statement).rows(connection, parameters)
        records = [ProjectionRecord(*row[: len(_FIELDS)]) for row in found]
        return records, len(found) == size or bool(found and found[-1][-1])

    def count(self, connection: Connection, search: Search, converters: ProjectionConverters) -> int:
        """Count the projections that match all filters of a search.

        Raises:
            QueryError: If the search is invalid.
        """
        query = _Query(self, connection, search, converters)
        counted = query.result(
            "count", lambda: select(func.count()).select_from(self._table).where(*query.conditions())
        )
        number: int = counted[0][0]
        return number

    def statement(self, key: Hashable, make: Callable[[], Select[Any]]) -> PreparedStatement:
        """Return the statement for a key, which is made if there is none yet."""
        found = self._statements.get(key)
        if found is None:
            # Other threads may do the same at the same time.
            if len(self._statements) >= _REMEMBERED_STATEMENTS:
                self._statements.clear()
            found = self._statements[key] = PreparedStatement(make())
        return found

    def fields(self, rows: FromClause) -> Sequence[ColumnElement[Any]]:
        """Return the fields of records, JSON as text."""
        return [self.dialect.as_text(rows.c[key]).label(key) if key in JSON_FIELDS else rows.c[key] for key in _FIELDS]


class _Query:
    """One search on one connection."""

    def __init__(
        self, searches: ProjectionSearches, connection: Connection, search: Search, converters: ProjectionConverters
    ) -> None:
        self._searches = searches
        self._connection = connection
        self._search = search
        self._queries = ProjectionQueries(searches.dialect, converters)
        self._shape = shape_of(search.filters, search.sort)
        self._parameters = parameters_of(search.filters)

    def conditions(self) -> Sequence[ColumnElement[bool]]:
        return self._queries.conditions(self._search.filters)

    def order(self) -> list[OrderKey]:
        return self._queries.order(self._search.sort, self._connection)

    def rows(self, *, backwards: bool = False) -> Select[Any]:
        ordered = (each.ordered(backwards=backwards) for each in self.order())
        fields = self._searches.fields(self._searches.dialect.table)
        return select(*fields).where(*self.conditions()).order_by(*ordered)

    def page(self, rows: Select[Any]) -> Select[Any]:
        """Select the rows of a page in their order, with JSON as text; only what is on the page is converted."""
        dialect = self._searches.dialect
        if not dialect.sorts_results:
            return rows
        # PostgreSQL leaves rows in the order of a subquery with a limit. An order of its own would be a second sort: it is
        # not known outside that all rows have the name that the subquery looks for.
        page = rows.with_only_columns(*(dialect.table.c[key] for key in _FIELDS)).subquery("page")
        return select(*self._searches.fields(page))

    def result(
        self, kind: Hashable, make: Callable[[], Select[Any]], bounds: Mapping[str, Any] = MappingProxyType({})
    ) -> Sequence[Sequence[Any]]:
        def checked() -> Select[Any]:
            check_fields(self._search)
            return make()

        dialect, parameters = self._searches.dialect, {**self._parameters, **bounds}
        statement = checked() if self._shape is None else self._searches.statement((kind, self._shape), checked)
        dialect.prepare(self._connection)
        try:
            if isinstance(statement, PreparedStatement):
                return statement.rows(self._connection, parameters)
            return self._connection.execute(statement, parameters).all()
        except DBAPIError as error:
            query_error = dialect.query_error(error)
            if query_error is None:
                raise
            raise query_error from error.orig

    def records(
        self, kind: Hashable, make: Callable[[], Select[Any]], bounds: Mapping[str, Any] = MappingProxyType({})
    ) -> list[ProjectionRecord]:
        return [ProjectionRecord(*row) for row in self.result(kind, make, bounds)]

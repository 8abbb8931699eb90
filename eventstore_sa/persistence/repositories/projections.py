"""The statements on the table of projections. Transactions are neither begun nor ended here."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from msgspec import Raw
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Text,
    cast,
    column,
    delete,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from eventstore_sa.errors import QueryError
from eventstore_sa.persistence.dialects import driver_attribute
from eventstore_sa.persistence.dialects.projections import projection_dialect
from eventstore_sa.persistence.projection_queries import OrderKey, ProjectionConverters, ProjectionQueries, beyond
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.query import (
    FilterExpression,
    KeySetPagingClause,
    OffsetPagingClause,
    PagingDirection,
    Search,
    SortClause,
)
from eventstore_sa.query.evaluation import check_fields, unknown_last_id
from eventstore_sa.query.records import ProjectionRecord, source_hash
from eventstore_sa.types.codec import decode_json, encode_json

__all__ = ["ProjectionRepository"]

_BAD_REGEX: Final = "2201B"


class ProjectionRepository:
    """Reads and writes projections on one kind of database.

    Args:
        schema: The tables.
        database: SQLAlchemy's name of the database.
        converters: What of queries is the application's own.

    Raises:
        ConfigurationError: Projections cannot be kept there.
    """

    def __init__(self, schema: EventStoreSchema, database: str, converters: ProjectionConverters) -> None:
        self._dialect = projection_dialect(database, schema.projections)
        self._queries = ProjectionQueries(self._dialect, converters)
        self._table = schema.projections
        self._in_sql = database == "postgresql"

    def save(self, connection: Connection, records: Sequence[ProjectionRecord]) -> list[int]:
        """Insert or replace projections in one statement; return their new versions. Keys must differ."""
        rows = connection.execute(self._upsert(records)).all()
        versions = {(row.name, row.id): row.version for row in rows}
        return [versions[record.name, record.id] for record in records]

    def save_expecting(self, connection: Connection, record: ProjectionRecord, expected: int) -> int | None:
        """Insert a projection (0) or replace it at a version; None when there is another one."""
        table = self._table
        statement: ReturningInsert[Any] | ReturningUpdate[Any]
        if expected == 0:
            statement = self._insert([record]).on_conflict_do_nothing().returning(table.c.version)
        else:
            # Text that the database casts, because the serialiser of SQLAlchemy's JSON is the host's to choose.
            state, metadata = self._stored(record.state), self._stored(record.metadata)
            statement = (
                update(table)
                .where(table.c.name == record.name, table.c.id == record.id, table.c.version == expected)
                .values(state=state, metadata=metadata, version=table.c.version + 1)
                .returning(table.c.version)
            )
        version: int | None = connection.scalar(statement)
        return version

    def version(self, connection: Connection, record: ProjectionRecord) -> int:
        """Return the version of the projection with that key; 0 when there is none."""
        table = self._table
        key = (table.c.name == record.name, table.c.id == record.id)
        return connection.scalar(select(table.c.version).where(*key)) or 0

    def delete(self, connection: Connection, *, name: str, id: str) -> bool:
        """Delete a projection; return whether there was one."""
        table = self._table
        deleted = delete(table).where(table.c.name == name, table.c.id == id).returning(table.c.number)
        return connection.scalar(deleted) is not None

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

    def _upsert(self, records: Sequence[ProjectionRecord]) -> ReturningInsert[Any]:
        table = self._table
        statement = self._insert(records)
        replaced = {
            "state": statement.excluded.state,
            "metadata": statement.excluded.metadata,
            "version": table.c.version + 1,
        }
        upsert: Any = statement.on_conflict_do_update(index_elements=[table.c.name, table.c.id], set_=replaced)
        returning: ReturningInsert[Any] = upsert.returning(table.c.name, table.c.id, table.c.version)
        return returning

    def _insert(self, records: Sequence[ProjectionRecord]) -> Any:
        """Insert from one document, so that a batch of any size is the same statement with one parameter."""
        document = literal(_document(records), Text())
        fields = ["name", "id", "source", "source_hash", "state", "metadata"]
        if self._in_sql:
            items = (
                func.jsonb_array_elements(cast(document, JSONB()))
                .table_valued(column("value", JSONB()), with_ordinality="place", name="item")
                .render_derived()
            )
            place = items.c.place
        else:
            items = func.json_each(document).table_valued(
                column("value", Text()), column("key", BigInteger()), name="item"
            )
            place = items.c.key

        def field(name: str) -> ColumnElement[Any]:
            is_json = name in ("source", "state", "metadata")
            value: ColumnElement[Any] = items.c.value.op("->" if is_json else "->>", return_type=Text())(
                literal(name, Text())
            )
            return cast(value, BigInteger()) if name == "source_hash" else value

        selected = select(*map(field, fields), literal(1, BigInteger())).order_by(place)
        kind = postgresql.insert if self._in_sql else sqlite.insert
        return kind(self._table).from_select([*fields, "version"], selected)

    def _stored(self, text: str) -> ColumnElement[Any]:
        bound = literal(text, Text())
        return cast(bound, JSONB()) if self._in_sql else bound


def _document(records: Sequence[ProjectionRecord]) -> str:
    return encode_json(
        [
            {
                "name": record.name,
                "id": record.id,
                "source": Raw(record.source.encode()),
                "source_hash": source_hash(decode_json(record.source)),
                "state": Raw(record.state.encode()),
                "metadata": Raw(record.metadata.encode()),
            }
            for record in records
        ]
    ).decode()


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

"""The statements that list categories and streams with their last events: one for a page, with two probes for each name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from sqlalchemy import Connection, Integer, Select, bindparam, literal_column, select

from eventstore_sa.contracts.inspection import CategorySummary, StreamSummary
from eventstore_sa.persistence.events.dialects import EventDialect, event_dialect
from eventstore_sa.persistence.events.names import NameReads
from eventstore_sa.persistence.schema import EventStoreSchema

__all__ = ["Listings"]

# As a parameter, it would be a tenth of all rows to a plan that is made without values.
_ONE: Final = literal_column("1", Integer)


class Listings:
    """Pages of categories and streams of one event store on one kind of database.

    Args:
        schema: The tables.
        database: SQLAlchemy's name of the database.
    """

    def __init__(self, schema: EventStoreSchema, database: str) -> None:
        self._events = schema.events
        self._dialect: EventDialect = event_dialect(database, schema)
        names = NameReads(schema)
        self._categories = {each: self._with_last_of_category(names, continued=each) for each in (False, True)}
        self._streams = {each: self._with_last_of_stream(names, continued=each) for each in (False, True)}
        self._stream = self._select_stream()

    def categories(self, connection: Connection, *, after: str | None, size: int) -> Sequence[CategorySummary]:
        """Read a page of categories."""
        parameters: dict[str, Any] = {"size": size} if after is None else {"size": size, "after_category": after}
        rows: Any = connection.execute(self._categories[after is not None], parameters)
        return [CategorySummary(name, number, self._dialect.read_time(moment)) for name, number, moment in rows]

    def streams(
        self, connection: Connection, *, category: str, after: str | None, size: int
    ) -> Sequence[StreamSummary]:
        """Read a page of streams."""
        parameters: dict[str, Any] = {"size": size, "of_category": category}
        if after is not None:
            parameters["after_stream"] = after
        return self._summaries(connection, self._streams[after is not None], parameters, category)

    def stream(self, connection: Connection, category: str, stream: str) -> StreamSummary | None:
        """Read where a stream ends; None if it has no events."""
        parameters = {"of_category": category, "of_stream": stream}
        return next(iter(self._summaries(connection, self._stream, parameters, category)), None)

    def _summaries(
        self, connection: Connection, statement: Select[Any], parameters: dict[str, Any], category: str
    ) -> list[StreamSummary]:
        rows: Any = connection.execute(statement, parameters)
        return [
            StreamSummary(category, stream, position + 1, number, name, self._dialect.read_time(moment))
            for stream, position, number, name, moment in rows
        ]

    def _with_last_of_category(self, names: NameReads, *, continued: bool) -> Select[Any]:
        found = names.select_categories(continued=continued).subquery("found")
        last = (
            select(self._events.c.sequence_number)
            .where(*self._dialect.in_category(found.c.category, None, None))
            .order_by(*(each.desc() for each in self._dialect.category_order()))
            .limit(_ONE)
            .scalar_subquery()
        )
        event = self._events.alias()
        moment = self._dialect.time_column(event.c.observed_at)
        statement: Any = (
            select(found.c.category, event.c.sequence_number, moment)
            .select_from(found.join(event, event.c.sequence_number == last))
            .order_by(found.c.category)
        )
        return cast("Select[Any]", statement)

    def _with_last_of_stream(self, names: NameReads, *, continued: bool) -> Select[Any]:
        found = names.select_streams_of_category(continued=continued).subquery("found")
        event = self._events.alias()
        columns = (event.c.position, event.c.sequence_number, event.c.name)
        moment = self._dialect.time_column(event.c.observed_at)
        statement: Any = (
            select(found.c.stream, *columns, moment)
            .select_from(found.join(event, event.c.sequence_number == self._last_of(found.c.stream)))
            .order_by(found.c.stream)
        )
        return cast("Select[Any]", statement)

    def _select_stream(self) -> Select[Any]:
        c = self._events.c
        stream = bindparam("of_stream", type_=c.stream.type)
        statement: Any = (
            select(c.stream, c.position, c.sequence_number, c.name, self._dialect.time_column(c.observed_at))
            .where(c.category == bindparam("of_category", type_=c.category.type), c.stream == stream)
            .order_by(c.position.desc())
            .limit(_ONE)
        )
        return cast("Select[Any]", statement)

    def _last_of(self, stream: Any) -> Any:
        event = self._events.alias()
        return (
            select(event.c.sequence_number)
            .where(event.c.category == bindparam("of_category", type_=self._events.c.category.type))
            .where(event.c.stream == stream)
            .order_by(event.c.position.desc())
            .limit(_ONE)
            .scalar_subquery()
        )

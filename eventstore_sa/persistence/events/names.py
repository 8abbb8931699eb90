"""The statements that list the streams and categories that exist.

A loose index scan over the unique index (category, stream, position): one probe for each name, whatever the number of its
events. SQL has no words for it, so a recursive query steps from the first event of one name to the first of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Select, bindparam, func, literal_column, select

from eventstore_sa.persistence.schema import EventStoreSchema

__all__ = ["NameReads"]


class NameReads:
    """Pages of names of one event store, in code-point order.

    Args:
        schema: The tables.
    """

    def __init__(self, schema: EventStoreSchema) -> None:
        self._events = schema.events
        self._selects: dict[tuple[Any, ...], Select[Any]] = {}

    def categories(self, connection: Connection, *, after: str | None, size: int) -> list[str]:
        """Read some names of categories, those above `after`."""
        parameters = {"size": size} if after is None else {"size": size, "after_category": after}
        statement = self.select_categories(continued=after is not None)
        return [row[0] for row in connection.execute(statement, parameters)]

    def streams(
        self, connection: Connection, *, category: str | None, after: tuple[str, str] | None, size: int
    ) -> list[tuple[str, str]]:
        """Read some names of streams with their categories, those above `after`; of one category, or of all."""
        parameters: dict[str, Any] = {"size": size}
        if after is not None:
            parameters["after_stream"] = after[1]
        if category is not None:
            parameters["of_category"] = category
            statement = self.select_streams_of_category(continued=after is not None)
            return [(category, row[0]) for row in connection.execute(statement, parameters)]
        if after is not None:
            parameters["after_category"] = after[0]
        statement = self._select(("category", "stream"), within_category=False, continued=after is not None)
        rows: Sequence[Any] = connection.execute(statement, parameters).all()
        return [(found, stream) for found, stream in rows]

    def select_categories(self, *, continued: bool) -> Select[Any]:
        """Select `size` names of categories; if `continued`, those above `after_category`."""
        return self._select(("category",), within_category=False, continued=continued)

    def select_streams_of_category(self, *, continued: bool) -> Select[Any]:
        """Select `size` names of streams of the category `of_category`; if `continued`, those above `after_stream`."""
        return self._select(("stream",), within_category=True, continued=continued)

    def _select(self, key: tuple[str, ...], *, within_category: bool, continued: bool) -> Select[Any]:
        statement = self._selects.get((key, within_category, continued))
        if statement is None:
            statement = self._build_select(key, within_category=within_category, continued=continued)
            self._selects[key, within_category, continued] = statement
        return statement

    def _build_select(self, key: Sequence[str], *, within_category: bool, continued: bool) -> Select[Any]:
        category = bindparam("of_category", type_=self._events.c.category.type) if within_category else None
        start: list[Any] = [bindparam(f"after_{name}", type_=self._events.c[name].type) for name in key]
        event = self._events.alias()
        first = select(*(event.c[name] for name in key), literal_column("1", Integer).label("rank")).where(
            event.c.sequence_number == self._next_event(key, start if continued else None, category)
        )
        found = first.cte("found", recursive=True)
        event = self._events.alias()
        is_next = event.c.sequence_number == self._next_event(key, [found.c[name] for name in key], category)
        found = found.union_all(
            select(*(event.c[name] for name in key), found.c.rank + 1)
            .select_from(found.join(event, is_next))
            .where(found.c.rank < bindparam("size", type_=Integer()))
        )
        columns: list[ColumnElement[Any]] = [found.c[name] for name in key]
        listing: Select[Any] = select(*columns).order_by(found.c.rank)
        return listing

    def _next_event(self, key: Sequence[str], after: Sequence[Any] | None, category: Any) -> ColumnElement[int]:
        """Find the first event of the next name after one, or of the very first name."""
        if after is None or len(key) == 1:
            event = self._events.alias()
            probe = self._probe(event, [event.c[name] for name in key])
            if category is not None:
                probe = probe.where(event.c.category == category)
            if after is not None:
                probe = probe.where(event.c[key[0]] > after[0])
            return probe.scalar_subquery()
        # Not (category, stream) > (:category, :stream): there SQLite uses no more of the index than the category.
        same, later = self._events.alias(), self._events.alias()
        in_same_category = self._probe(same, [same.c.stream]).where(
            same.c.category == after[0], same.c.stream > after[1]
        )
        in_later_category = self._probe(later, [later.c.category, later.c.stream]).where(later.c.category > after[0])
        next_event: ColumnElement[int] = func.coalesce(
            in_same_category.scalar_subquery(), in_later_category.scalar_subquery()
        )
        return next_event

    def _probe(self, event: Any, order: Sequence[ColumnElement[Any]]) -> Select[Any]:
        number: ColumnElement[int] = event.c.sequence_number
        # As a parameter, it would be a tenth of all rows to a plan that is made without values.
        return select(number).order_by(*order).limit(literal_column("1", Integer))

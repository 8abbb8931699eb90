"""How a query is looked up in SQL: the rows of events that match it, in the order of their numbers.

An item with a tag is a range of the index of tags, so a page of it begins where the last one ended, however many events have
the tag; with several, it is the range of the rarest, and the others are looked up for each of its numbers. Several items
are united below the limit of the page. An item of names alone goes through the log: there is no index of names, because
every publish would pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    FromClause,
    Select,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
    union,
    union_all,
)

from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.types import EventQuery
from eventstore_sa.types.numbers import LARGEST_NUMBER

__all__ = ["ItemShape", "Matching", "query_parameters", "query_shape"]

_LOOKED_AHEAD: Final = 100

Bounds = Callable[[ColumnElement[Any]], Sequence[ColumnElement[bool]]]


class ItemShape(Struct, frozen=True):
    """What the text of a statement depends on, of an item of a query: how many tags it has, and whether it has names."""

    tags: int
    named: bool


def query_shape(query: EventQuery) -> tuple[ItemShape, ...]:
    """Return the shapes of the items of a query; of one alone if every event matches that."""
    shapes = tuple(ItemShape(len(item.tags), bool(item.names)) for item in query.items)
    everything = ItemShape(0, named=False)
    return (everything,) if everything in shapes else shapes


def query_parameters(query: EventQuery) -> dict[str, Any]:
    """Return the parameters of a query."""
    parameters: dict[str, Any] = {}
    if query_shape(query) == (ItemShape(0, named=False),):
        return parameters
    for number, item in enumerate(query.items):
        parameters |= {f"tag_{number}_{place}": tag for place, tag in enumerate(sorted(item.tags))}
        if item.names:
            parameters[f"names_{number}"] = sorted(item.names)
    return parameters


class Matching:
    """The lookups of queries in one event store.

    Args:
        schema: The tables.
    """

    def __init__(self, schema: EventStoreSchema) -> None:
        self._events = schema.events
        self._tags = schema.event_tags

    def rows(
        self,
        columns: Sequence[ColumnElement[Any]],
        items: Sequence[ItemShape],
        *,
        conditions: Sequence[ColumnElement[bool]],
        bounds: Bounds,
        backwards: bool,
    ) -> Select[Any]:
        """Select columns of the events that match one of some items: in order, and at most :size of them.

        Args:
            columns: The columns, of the table of events.
            items: The shapes of the items; see `query_parameters` for their parameters.
            conditions: What else rows of the table of events have to meet.
            bounds: Makes of a column with numbers the conditions that they are wanted.
            backwards: Last to first.
        """
        events, number = self._events, self._events.c.sequence_number

        def page(statement: Select[Any], order: ColumnElement[Any]) -> Select[Any]:
            return statement.order_by(order.desc() if backwards else order).limit(bindparam("size"))

        pages: list[Select[Any]] = []
        for lookup, found, demands in self._lookups(items, bounds, backwards=backwards):
            if lookup is None and len(items) == 1:
                return page(select(*columns).where(*demands, *conditions), number)
            source: FromClause = events if lookup is None else lookup
            demanded = [*demands, *conditions]
            if lookup is not None and conditions:
                # With the bounds on both sides, in whichever order the planner merges them.
                source, demanded = lookup.join(events, number == found), [*demanded, *bounds(number)]
            pages.append(page(select(found.label("number")).select_from(source).where(*demanded), found))
        # The events are fetched by their numbers, once it is known which ones make the page.
        numbers = pages[0].subquery("found")
        if len(pages) > 1:
            either = union(*(select(each.subquery().c.number) for each in pages)).subquery("either")
            numbers = page(select(either.c.number), either.c.number).subquery("found")
        return page(select(*columns).select_from(numbers.join(events, number == numbers.c.number)), numbers.c.number)

    def _lookups(
        self, items: Sequence[ItemShape], bounds: Bounds, *, backwards: bool
    ) -> Iterator[tuple[FromClause | None, ColumnElement[Any], list[ColumnElement[bool]]]]:
        """Yield for each item where it is looked up (None: in the events themselves), the numbers found, and conditions."""
        for item, shape in enumerate(items):
            entry = self._tags.alias(f"tag_{item}")
            tags = [self._tag(item, place) for place in range(shape.tags)]
            table = entry if tags else self._events
            tagged = [*bounds(table.c.sequence_number)]
            if len(tags) == 1:
                tagged.append(entry.c.tag == tags[0])
            elif tags:
                tagged.append(entry.c.tag == self._rarest(tags, bounds, backwards=backwards))
                tagged += [or_(entry.c.tag == tag, self._has(tag, entry.c.sequence_number)) for tag in tags]
            if shape.named:
                names = bindparam(f"names_{item}", expanding=True, type_=table.c.name.type)
                tagged.append(table.c.name.in_(names))
            yield entry if tags else None, table.c.sequence_number, tagged

    def _tag(self, item: int, place: int) -> BindParameter[str]:
        return bindparam(f"tag_{item}_{place}", type_=self._tags.c.tag.type)

    def _rarest(self, tags: Sequence[BindParameter[str]], bounds: Bounds, *, backwards: bool) -> ColumnElement[str]:
        """Select the tag that the fewest events have, from where the page begins: whose next hundred reach farthest.

        The planner cannot tell: in a plan made without values all tags are of average frequency.
        """
        reaches: list[Any] = []
        for tag in tags:
            number = (ahead := self._tags.alias("tag_ahead")).c.sequence_number
            entries = select(number).where(ahead.c.tag == tag, *bounds(number))
            hundredth = entries.order_by(number.desc() if backwards else number).offset(_LOOKED_AHEAD).limit(1)
            reach = func.coalesce(hundredth.scalar_subquery(), -1 if backwards else literal(LARGEST_NUMBER, BigInteger))
            reaches.append(select(tag.label("tag"), reach.label("reach")))
        each = union_all(*reaches).subquery()
        return (
            select(each.c.tag).order_by(each.c.reach if backwards else each.c.reach.desc()).limit(1).scalar_subquery()
        )

    def _has(self, tag: BindParameter[str], number: ColumnElement[int]) -> ColumnElement[bool]:
        """Tell whether the event with a number has a tag, by a descent of the index: a join might go through the tag."""
        other = self._tags.alias("tag_had")
        return exists(select(other.c.tag).where(other.c.tag == tag, other.c.sequence_number == number).offset(0))

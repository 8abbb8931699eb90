"""The query language of projections in the SQL of PostgreSQL; `query.evaluation` says what it means.

A condition that is NULL counts as not met. Values, and the steps of paths, are bound parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Double,
    Integer,
    Numeric,
    Select,
    Table,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB

from eventstore_sa.query import (
    AllOf,
    AnyOf,
    FilterClause,
    FilterExpression,
    Not,
    Operator,
    Path,
    Similarity,
    SortClause,
    SortOrder,
)
from eventstore_sa.query.records import source_hash
from eventstore_sa.query.similarity import FOLDED, SEPARATORS, UNFOLDED
from eventstore_sa.types import EventSourceIdentifier
from eventstore_sa.types.codec import encode_json, to_json

__all__ = ["conditions_of", "order_of", "plain_conditions_of"]

_ORDERINGS: Final = {
    Operator.GREATER_THAN: ">",
    Operator.GREATER_THAN_OR_EQUAL: ">=",
    Operator.LESS_THAN: "<",
    Operator.LESS_THAN_OR_EQUAL: "<=",
}
_RANKS: Final = {"number": 0, "string": 1, "boolean": 2, "array": 3, "object": 4}
_LAST: Final = 5
_NAME_COLUMNS: Final = ("id", "name")


class _Place(Struct, frozen=True):
    """What a path leads to: as jsonb, and the text of it where it is a string."""

    json: ColumnElement[Any]
    text: ColumnElement[str]

    @property
    def kind(self) -> ColumnElement[str]:
        return func.jsonb_typeof(self.json)

    @property
    def string(self) -> ColumnElement[str]:
        """The text of a string, by code point; NULL for anything else."""
        return case((self.kind == "string", self.text), else_=None).collate("C")


def conditions_of(table: Table, filters: Collection[FilterExpression]) -> Iterator[ColumnElement[bool]]:
    """Yield a condition for each of the filters."""
    return (_condition(table, each) for each in filters)


def plain_conditions_of(table: Table, filters: Collection[FilterExpression]) -> Iterator[ColumnElement[bool]]:
    """Yield what any database can say of the filters: equal names, ids and sources, which indexes serve."""
    for each in filters:
        if isinstance(each, AllOf):
            yield from plain_conditions_of(table, each.filters)
        elif isinstance(each, FilterClause) and each.operator is Operator.EQUAL and not each.field.sub_levels:
            field = each.field.top_level
            if field in _NAME_COLUMNS and isinstance(each.value, str):
                yield table.c[field] == each.json_value
            elif field == "source" and isinstance(each.value, EventSourceIdentifier):
                yield table.c.source_hash == source_hash(each.value.serialise())


def order_of(table: Table, sort: SortClause | None) -> list[ColumnElement[Any]]:
    """Return what to order by; it tells all projections apart."""
    if sort is None:
        return [table.c.number]
    order: list[ColumnElement[Any]] = []
    for field in sort.fields:
        by = _sort_keys(table, field.field)
        order += [key.asc() if field.order is SortOrder.ASC else key.desc() for key in by]
    return [*order, table.c.id.asc(), table.c.name.asc()]


def _condition(table: Table, filter_: FilterExpression) -> ColumnElement[bool]:
    match filter_:
        case FilterClause():
            plain = plain_conditions_of(table, [filter_])
            return and_(true(), *plain, _comparison(_place(table, filter_.field), filter_))
        case AllOf():
            return and_(true(), *conditions_of(table, filter_.filters))
        case AnyOf():
            return or_(false(), *conditions_of(table, filter_.filters))
        case Not():
            return not_(func.coalesce(_condition(table, filter_.filter), false()))


def _comparison(place: _Place, clause: FilterClause) -> ColumnElement[bool]:  # noqa: PLR0911 - a case a line
    value = clause.json_value
    match clause.operator:
        case Operator.EQUAL:
            return _is_equal(place.json, value)
        case Operator.NOT_EQUAL:
            return not_(func.coalesce(_is_equal(place.json, value), false()))
        case Operator.IN:
            return or_(false(), *(_is_equal(place.json, item) for item in value))
        case Operator.CONTAINS:
            return _contains(place, value)
        case Operator.REGEX_MATCHES:
            return place.string.op("~", is_comparison=True)(literal(value, Text()))
        case Operator.NOT_REGEX_MATCHES:
            return place.string.op("!~", is_comparison=True)(literal(value, Text()))
        case _:
            compare = _ORDERINGS[clause.operator]
            if isinstance(value, str):
                return place.string.op(compare, is_comparison=True)(literal(value, Text()))
            if isinstance(value, int | float) and not isinstance(value, bool):
                return and_(place.kind == "number", place.json.op(compare, is_comparison=True)(_json(value)))
            return false()


def _is_equal(stored: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    equal: ColumnElement[bool] = stored.op("=", is_comparison=True)(_json(value))
    return or_(stored.is_(None), equal) if value is None else equal


def _contains(place: _Place, value: Any) -> ColumnElement[bool]:
    contained: ColumnElement[bool] = place.json.op("@>", is_comparison=True)(_json([value]))
    is_array = place.kind == "array"
    if not isinstance(value, list | dict):
        return and_(is_array, contained)
    # Of arrays and objects, @> is content with less than equality. Without CASE the function may meet a scalar.
    array = case((is_array, place.json), else_=_json([]))
    item = func.jsonb_array_elements(array, type_=JSONB()).column_valued("item")
    return and_(is_array, contained, select(item).where(_is_equal(item, value)).exists())


def _place(table: Table, path: Path) -> _Place:
    column: ColumnElement[Any] = table.c[path.top_level]
    if path.top_level in _NAME_COLUMNS:
        if not path.sub_levels:
            return _Place(func.to_jsonb(column, type_=JSONB()), column)
        column = func.to_jsonb(column, type_=JSONB())
    for step in path.sub_levels:
        if isinstance(step, int):
            # The server takes a scalar for an array of one.
            column = case((func.jsonb_typeof(column) == "array", column), else_=None)
        bound = literal(step, Text() if isinstance(step, str) else Integer())
        column = column.op("->", return_type=JSONB())(bound)
    text: ColumnElement[str] = column.op("#>>", return_type=Text())(literal_column("'{}'"))
    return _Place(column, text)


def _json(value: Any) -> ColumnElement[Any]:
    return cast(literal(encode_json(to_json(value)).decode(), Text()), JSONB())


def _sort_keys(table: Table, subject: Path | Similarity) -> list[ColumnElement[Any]]:
    if isinstance(subject, Similarity):
        value = _similarity(table, subject)
        return [case((value.is_(None), _LAST), else_=0), value]
    place = _place(table, subject)
    rank = case(_RANKS, value=place.kind, else_=_LAST)
    number = case(
        (place.kind == "number", cast(place.json, Numeric())),
        (place.json == _json(True), 1),
        (place.json == _json(False), 0),
        else_=None,
    )
    return [rank, number, place.string]


def _similarity(table: Table, similarity: Similarity) -> ColumnElement[float]:
    left, right = (
        literal(side, Text()) if isinstance(side, str) else _place(table, side).string
        for side in (similarity.left, similarity.right)
    )
    every = union_all(_trigrams(left), _trigrams(right)).subquery()
    counted = select(func.count().label("texts")).select_from(every).group_by(every.c.trigram).subquery()
    common: ColumnElement[float] = cast(func.count().filter(counted.c.texts == 2), Double())
    share = select(func.coalesce(common / func.nullif(func.count(), 0), 0)).select_from(counted).scalar_subquery()
    return case((and_(left.is_not(None), right.is_not(None)), share), else_=None)


def _trigrams(text: ColumnElement[str]) -> Select[Any]:
    folded = func.translate(text, UNFOLDED, FOLDED).collate("C")
    word = func.regexp_split_to_table(folded, SEPARATORS, type_=Text()).column_valued("word")
    place = func.generate_series(1, func.length(word) + 1, type_=Integer()).column_valued(
        "place", joins_implicitly=True
    )
    padded = literal("  ", Text()).concat(word).concat(literal(" ", Text()))
    return select(func.substr(padded, place, 3).label("trigram")).where(word != "").distinct()

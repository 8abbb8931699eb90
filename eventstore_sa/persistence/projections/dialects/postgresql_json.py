"""PostgreSQL looks into projections: all of the query language in its own SQL, on jsonb."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any, Final

from sqlalchemy import (
    REAL,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Numeric,
    Select,
    Text,
    and_,
    case,
    cast,
    column,
    false,
    func,
    literal,
    or_,
    select,
    text,
    true,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH, insert
from sqlalchemy.sql.functions import Function
from sqlalchemy.types import TypeEngine

from eventstore_sa.persistence.events.dialects.postgresql import stored_size
from eventstore_sa.persistence.projections.dialects.base import NAME_COLUMNS, JsonPlace, Key, Operand, ProjectionDialect
from eventstore_sa.persistence.schema.jsonb_size import check_jsonb
from eventstore_sa.query import Operator, Path
from eventstore_sa.query.similarity import FOLDED, SEPARATORS, UNFOLDED

__all__ = ["PostgreSQLProjectionIndexes", "PostgreSQLProjections"]

_PLAIN: Final = re.compile(r"[A-Za-z0-9_ -]*")
_REAL: Final[REAL[float]] = REAL()
_NUMERIC: Final[Numeric[Any]] = Numeric()
_ORDERINGS: Final = {
    Operator.GREATER_THAN: ">",
    Operator.GREATER_THAN_OR_EQUAL: ">=",
    Operator.LESS_THAN: "<",
    Operator.LESS_THAN_OR_EQUAL: "<=",
}


# Where pg_trgm is, if it can be used and takes ASCII as we do: in Turkish, "i" is not the small letter of "I".
_TRIGRAM_SCHEMA: Final = text(
    "SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace "
    "WHERE e.extname = 'pg_trgm' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.lower('I') = 'i'"
)


class _Place(JsonPlace):
    def __init__(self, json: ColumnElement[Any], as_text: ColumnElement[str]) -> None:
        self._json = json
        self._as_text = as_text

    @property
    def json(self) -> ColumnElement[Any]:
        return self._json

    @property
    def kind(self) -> ColumnElement[str]:
        return func.pg_catalog.jsonb_typeof(self._json, type_=Text())

    @property
    def text(self) -> ColumnElement[str]:
        return case((self.kind == _constant("string"), self._as_text), else_=None).collate("C")

    @property
    def number(self) -> ColumnElement[Any]:
        return case((self.kind == _constant("number"), cast(self._json, _NUMERIC)), else_=None)

    def keys(self) -> list[Key]:
        boolean = case((self._as_text == _constant("false"), _constant(2)), else_=_constant(3))
        rank = case(
            (self.kind == _constant("number"), _constant(0)),
            (self.kind == _constant("string"), _constant(1)),
            (self.kind == _constant("boolean"), boolean),
            (self.kind == _constant("array"), _constant(4)),
            (self.kind == _constant("object"), _constant(5)),
            else_=_constant(6),
        )
        number = case((self.kind == _constant("number"), cast(self._json, _NUMERIC)), else_=_constant(0))
        string = case((self.kind == _constant("string"), self._as_text), else_=_constant("")).collate("C")
        return [Key(rank, Integer()), Key(number, _NUMERIC), Key(string, Text())]


class PostgreSQLProjections(ProjectionDialect):
    """Projections on PostgreSQL; see `ProjectionDialect`.

    EQUAL compares jsonb, and CONTAINS begins with `@>`: both can be served by an index on the place; so can the operators
    that order numbers, because jsonb orders numbers as numbers.
    """

    def insert(self) -> Any:
        return insert(self.table)

    def items(self, document: ColumnElement[str]) -> tuple[ColumnElement[Any], ColumnElement[int]]:
        elements = func.pg_catalog.jsonb_array_elements(cast(document, JSONB()))
        item = elements.table_valued(column("value", JSONB()), with_ordinality="place", name="item").render_derived()
        return item.c.value, item.c.place

    def stored(self, text: ColumnElement[str]) -> ColumnElement[Any]:
        return cast(text, JSONB())

    def as_text(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        return cast(column, Text())

    def check_size(self, document: str) -> None:
        check_jsonb(document, "the projections to save")

    def size(self, rows: FromClause) -> ColumnElement[int]:
        return stored_size(rows.c.state) + stored_size(rows.c.metadata)

    def place(self, path: Path) -> JsonPlace:
        json: ColumnElement[Any] = self.table.c[path.top_level]
        if path.top_level in NAME_COLUMNS:
            as_text: ColumnElement[str] = json
            json = func.pg_catalog.to_jsonb(json, type_=JSONB())
        else:
            as_text = json.op("#>>", return_type=Text())(_constant("{}"))
        for is_index, steps in groupby(path.sub_levels, lambda step: isinstance(step, int)):
            if is_index:
                # Not the operator ->, which takes a scalar for an array of one; strict, an object is none either.
                subscripts = self._text("strict $" + "".join(map(_subscript, steps)))
                json = func.pg_catalog.jsonb_path_query_first(
                    json, cast(subscripts, JSONPATH), _sql("'{}'", JSONB()), true(), type_=JSONB()
                )
                as_text = json.op("#>>", return_type=Text())(_constant("{}"))
                continue
            for step in steps:
                name = self._text(str(step))
                as_text = json.op("->>", return_type=Text())(name)
                json = json.op("->", return_type=JSONB())(name)
        return _Place(json, as_text)

    def _text(self, value: str) -> ColumnElement[Any]:
        return literal(value, Text())

    def computed(self, value: ColumnElement[Any]) -> JsonPlace:
        json = func.pg_catalog.to_jsonb(value, type_=JSONB())
        return _Place(json, json.op("#>>", return_type=Text())(_constant("{}")))

    def equal(self, place: JsonPlace, value: Operand) -> ColumnElement[bool]:
        equal = _is(place.json, _json(value))
        return or_(place.json.is_(None), equal) if value.plain is None else equal

    def equal_to_one(self, place: JsonPlace, values: Operand) -> ColumnElement[bool]:
        # As one array, however many: its parameter is one, and an index finds each of them.
        items = select(func.pg_catalog.jsonb_array_elements(_json(values), type_=JSONB()))
        one = _is(place.json, func.any(_array(items, JSONB())))
        return or_(place.json.is_(None), one) if None in values.plain else one

    def text_is_one_of(self, text: ColumnElement[str], values: Operand) -> ColumnElement[bool]:
        items = select(func.pg_catalog.jsonb_array_elements_text(_json(values), type_=Text()))
        return _is(text, func.any(_array(items, Text())))

    def ordered(self, place: JsonPlace, operator: Operator, value: Operand) -> ColumnElement[bool]:
        compare = _ORDERINGS[operator]
        if isinstance(value.plain, str):
            return place.text.op(compare, is_comparison=True)(value.text)
        if isinstance(value.plain, int | float) and not isinstance(value.plain, bool):
            is_number = place.kind == _constant("number")
            return and_(is_number, place.json.op(compare, is_comparison=True)(_json(value)))
        return false()

    def contains(self, place: JsonPlace, value: Operand) -> ColumnElement[bool]:
        one = func.pg_catalog.jsonb_build_array(_json(value), type_=JSONB())
        contained: ColumnElement[bool] = place.json.op("@>", is_comparison=True)(one)
        is_array = place.kind == _constant("array")
        if not isinstance(value.plain, list | dict):
            return and_(is_array, contained)
        # Of arrays and objects, @> is content with less than equality. Without CASE the function may meet a scalar.
        array = case((is_array, place.json), else_=cast(_constant("[]"), JSONB()))
        item = func.pg_catalog.jsonb_array_elements(array, type_=JSONB()).column_valued("item")
        return and_(is_array, contained, select(item).where(_is(item, _json(value))).exists())

    def matches(self, place: JsonPlace, pattern: Operand, *, negated: bool) -> ColumnElement[bool]:
        return place.text.op("!~" if negated else "~", is_comparison=True)(pattern.text)

    def keys(self, place: JsonPlace) -> list[Key]:
        assert isinstance(place, _Place)  # noqa: S101 - made here
        return place.keys()

    def similarity_key(self, connection: Connection, left: ColumnElement[str], right: ColumnElement[str]) -> Key:
        share = _share_of_trigrams(left, right)
        trigram_schema = connection.scalar(_TRIGRAM_SCHEMA)
        if trigram_schema is not None:
            # What the extension makes of other letters depends on the database's locale.
            ascii_only = and_(
                *(func.pg_catalog.octet_length(each) == func.pg_catalog.char_length(each) for each in (left, right))
            )
            extension = Function[float]("similarity", left, right, packagenames=(trigram_schema,), type_=_REAL)
            share = case((ascii_only, extension), else_=share)
        comparable = and_(left.is_not(None), right.is_not(None))
        return Key(case((comparable, share), else_=_sql("'Infinity'::real", _REAL)), _REAL)


class PostgreSQLProjectionIndexes(PostgreSQLProjections):
    """The same places and keys with the steps of paths written into them, as the definition of an index needs."""

    def named(self, name: str) -> ColumnElement[bool]:
        """Demand a name of projections."""
        return self.table.c.name == _written(name)

    def _text(self, value: str) -> ColumnElement[Any]:
        return _written(value)


def _subscript(index: str | int) -> str:
    return f"[last - {-1 - index}]" if isinstance(index, int) and index < 0 else f"[{index}]"


def _written(value: str) -> ColumnElement[str]:
    """Write a text into a statement by code points: no quote, colon or percent sign in it has a meaning to anybody."""
    if _PLAIN.fullmatch(value):
        return _constant(value)
    return _sql("U&'" + "".join(f"\\+{ord(character):06X}" for character in value) + "'", Text())


def _constant(value: str | int) -> ColumnElement[Any]:
    return _sql(f"'{value}'", Text()) if isinstance(value, str) else _sql(str(value), Integer())


def _sql(constant: str, kind: TypeEngine[Any]) -> ColumnElement[Any]:
    # Not literal_column(), which an Index would take for its column.
    return type_coerce(text(constant), kind)


def _json(value: Operand) -> ColumnElement[Any]:
    return cast(value.json, JSONB())


def _is(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[bool]:
    return one.op("=", is_comparison=True)(other)


def _array(items: Select[Any], item_type: Any) -> ColumnElement[Any]:
    return func.array(items.scalar_subquery(), type_=ARRAY(item_type))


def _share_of_trigrams(left: ColumnElement[str], right: ColumnElement[str]) -> ColumnElement[float]:
    every = union_all(_trigrams(left), _trigrams(right)).subquery()
    counted = select(func.count().label("texts")).select_from(every).group_by(every.c.trigram).subquery()
    common: ColumnElement[Any] = cast(func.count().filter(counted.c.texts == 2), _REAL)
    total: ColumnElement[Any] = cast(func.nullif(func.count(), 0), _REAL)
    share: ColumnElement[Any] = common.op("/", return_type=_REAL)(total)
    return select(func.coalesce(share, cast(_constant(0), _REAL))).select_from(counted).scalar_subquery()


def _trigrams(text: ColumnElement[str]) -> Select[Any]:
    folded = func.pg_catalog.translate(text, UNFOLDED, FOLDED).collate("C")
    word = func.pg_catalog.regexp_split_to_table(folded, SEPARATORS, type_=Text()).column_valued("word")
    place = func.pg_catalog.generate_series(1, func.pg_catalog.length(word) + 1, type_=Integer()).column_valued(
        "place", joins_implicitly=True
    )
    padded = literal("  ", Text()).concat(word).concat(literal(" ", Text()))
    return select(func.pg_catalog.substr(padded, place, 3).label("trigram")).where(word != "").distinct()

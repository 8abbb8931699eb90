"""Projections on SQLite: stored as text, queried by its JSON functions and by functions of the library.

SQLite reads JSON numbers into 64 bits and has no regular expressions. The library's functions, which the database calls, are
those that evaluate queries in memory, so rows are filtered, sorted and paged in one statement here too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Select,
    Table,
    Text,
    and_,
    case,
    column,
    func,
    literal,
    literal_column,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.dialects.sqlite import insert

from eventstore_sa.persistence.page_bytes import size_on_sqlite
from eventstore_sa.persistence.projections.dialects.base import (
    FIELDS,
    JSON_FIELDS,
    NAME_COLUMNS,
    NUMBER_FIELDS,
    JsonPlace,
    Key,
    Operand,
    ProjectionDialect,
)
from eventstore_sa.persistence.transactions.databases import database_of
from eventstore_sa.query import Operator, Path, value_at
from eventstore_sa.query.evaluation import holds, similarity
from eventstore_sa.types.codec import decode_json, encode_json, to_json

__all__ = ["SQLiteProjections", "sort_key_text"]

_PREPARED: Final = "eventstore_sa.projection_functions"
_NUMBERS: Final = ("integer", "real")
_LARGEST_MAGNITUDE: Final = 10_000


class _Place(JsonPlace):
    """A path of SQLite's within a text of JSON."""

    def __init__(self, document: ColumnElement[Any], path: str | None) -> None:
        self._document = document
        self._path = literal_column("'$'", Text()) if path is None else literal(path, Text())

    @property
    def json(self) -> ColumnElement[Any]:
        return self._document.op("->", return_type=Text())(self._path)

    @property
    def kind(self) -> ColumnElement[str]:
        kinds = {"integer": "number", "real": "number", "text": "string", "true": "boolean", "false": "boolean"}
        return case(kinds, value=self.type, else_=self.type)

    @property
    def text(self) -> ColumnElement[str]:
        return case((self.type == "text", self._extracted), else_=None)

    @property
    def number(self) -> ColumnElement[Any]:
        return case((self.type.in_(_NUMBERS), self._extracted), else_=None)

    @property
    def type(self) -> ColumnElement[str]:
        return func.json_type(self._document, self._path, type_=Text())

    @property
    def _extracted(self) -> ColumnElement[Any]:
        return self._document.op("->>", return_type=Text())(self._path)


class SQLiteProjections(ProjectionDialect):
    """Projections on SQLite; see `ProjectionDialect`."""

    copies_values = True

    def prepare(self, connection: Connection) -> None:
        """Add the library's functions to the driver's connection, once."""
        if _PREPARED not in connection.info:
            driver: Any = connection.connection.dbapi_connection
            for name, arguments, function in _FUNCTIONS:
                driver.create_function(name, arguments, function, deterministic=True)
            connection.info[_PREPARED] = True

    def insert(self, table: Table) -> Any:
        return insert(table)

    def items(self, document: ColumnElement[str]) -> tuple[ColumnElement[Any], ColumnElement[int]]:
        item = func.json_each(document).table_valued(column("value", Text()), column("key", BigInteger()), name="item")
        return item.c.value, item.c.key

    def records(self, document: ColumnElement[str]) -> Select[Any]:
        items = func.json_each(document).table_valued(column("value", Text()), column("key", BigInteger()), name="item")
        fields = [
            items.c.value.op("->" if key in JSON_FIELDS else "->>", return_type=kind)(literal(key, Text()))
            for key, kind in ((key, self.table.c[key].type if key in NUMBER_FIELDS else Text()) for key in FIELDS)
        ]
        return select(*fields).order_by(items.c.key)

    def from_text(self, text: ColumnElement[str]) -> ColumnElement[Any]:
        return text

    def as_text(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        return type_coerce(column, Text())

    def size(self, rows: FromClause) -> ColumnElement[int]:
        return size_on_sqlite(rows.c.state) + size_on_sqlite(rows.c.metadata)

    def _is_one_of(self, text: ColumnElement[str], values: ColumnElement[str]) -> ColumnElement[bool]:
        return text.in_(select(func.json_each(values).table_valued(column("value", Text())).c.value))

    def exclude_publishes(self, connection: Connection, name: str, *, timeout_s: float) -> None:
        """Become the single writer; how long to wait is a setting of the connection."""
        database_of(connection).begin_writing(connection)

    def place(self, path: Path) -> JsonPlace:
        document: ColumnElement[Any] = type_coerce(self.table.c[path.top_level], Text())
        if path.top_level in NAME_COLUMNS:
            document = func.json_quote(document, type_=Text())
        if not path.sub_levels:
            return _Place(document, None)
        if all(map(_is_simple, path.sub_levels)):
            return _Place(document, "$" + "".join(map(_step, path.sub_levels)))
        steps = literal(encode_json(list(path.sub_levels)).decode(), Text())
        return _Place(func.eventstore_sa_json_at(document, steps, type_=Text()), None)

    def computed(self, value: ColumnElement[Any]) -> JsonPlace:
        return _Place(func.json_quote(value, type_=Text()), None)

    def equal(self, place: JsonPlace, value: Operand) -> ColumnElement[bool]:
        kind = _type_of(place)
        match value.plain:
            case None:
                return or_(kind.is_(None), kind == "null")
            case bool():
                return kind == ("true" if value.plain else "false")
            case str():
                return place.text == value.text
            case int() | float():
                return and_(kind.in_(_NUMBERS), _holds(Operator.EQUAL, place, value))
            case _:
                wanted = "array" if isinstance(value.plain, list) else "object"
                return and_(kind == wanted, _holds(Operator.EQUAL, place, value))

    def equal_to_one(self, place: JsonPlace, values: Operand) -> ColumnElement[bool]:
        if all(isinstance(each, str) for each in values.plain):
            return self.text_is_one_of(place.text, values)
        return _holds(Operator.IN, place, values)

    def text_is_one_of(self, text: ColumnElement[str], values: Operand) -> ColumnElement[bool]:
        items = func.json_each(values.json).table_valued(column("value", Text()), name="wanted")
        return text.in_(select(items.c.value))

    def _number_ordered(self, place: JsonPlace, operator: Operator, value: Operand) -> ColumnElement[bool]:
        return and_(_type_of(place).in_(_NUMBERS), _holds(operator, place, value))

    def contains(self, place: JsonPlace, value: Operand) -> ColumnElement[bool]:
        return and_(_type_of(place) == "array", _holds(Operator.CONTAINS, place, value))

    def matches(self, place: JsonPlace, pattern: Operand, *, negated: bool) -> ColumnElement[bool]:
        operator = Operator.NOT_REGEX_MATCHES if negated else Operator.REGEX_MATCHES
        return and_(_type_of(place) == "text", _holds(operator, place, pattern))

    def keys(self, place: JsonPlace) -> list[Key]:
        return [Key(func.eventstore_sa_sort_key(place.json, type_=Text()), Text())]

    def similarity_key(self, connection: Connection, left: ColumnElement[str], right: ColumnElement[str]) -> Key:
        return Key(func.eventstore_sa_similarity_key(left, right, type_=Text()), Text())


def _type_of(place: JsonPlace) -> ColumnElement[str]:
    assert isinstance(place, _Place)  # noqa: S101 - made here
    return place.type


def _holds(operator: Operator, place: JsonPlace, value: Operand) -> ColumnElement[bool]:
    return func.eventstore_sa_holds(operator.value, place.json, value.json, type_=Integer()) == literal_column("1")


def _is_simple(step: str | int) -> bool:
    """Return whether a path of SQLite can contain a step: it has no escapes, and names are compared as written."""
    return isinstance(step, int) or (step != "" and step.isprintable() and '"' not in step and "\\" not in step)


def _step(step: str | int) -> str:
    if isinstance(step, str):
        return f'."{step}"'
    return f"[{step}]" if step >= 0 else f"[#{step}]"


def _json_at(document: str, steps: str) -> str | None:
    found = value_at({"state": decode_json(document)}, _path(steps))
    return None if found is None else encode_json(to_json(found)).decode()


def _holds_between(operator: str, stored: str | None, wanted: str) -> bool:
    return holds(Operator(operator), None if stored is None else decode_json(stored), _wanted(wanted))


def _sort_key(stored: str | None) -> str:
    return sort_key_text(None if stored is None else decode_json(stored))


def _similarity_key(left: str | None, right: str | None) -> str:
    return sort_key_text(None if left is None or right is None else similarity(left, right))


def sort_key_text(value: Any) -> str:
    """Return a text for a JSON value; the order of texts by code point is the order of their values."""
    match value:
        case bool():
            return f"2{value:d}"
        case int() | float():
            return f"0{_number_key(value)}"
        case str():
            return f"1{value}"
        case list():
            return "3"
        case dict():
            return "4"
        case _:
            return "5"


def _number_key(number: float) -> str:
    """Return the magnitude of a number followed by its digits; complements for negative ones, whose order is reversed."""
    if number == 0:
        return "1"
    _, digits, exponent = Decimal(abs(number)).as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - numbers of JSON are finite
    magnitude = exponent + len(digits) + _LARGEST_MAGNITUDE
    text = f"{magnitude:05}{''.join(map(str, digits)).rstrip('0')}"
    return f"2{text}" if number > 0 else f"0{text.translate(_COMPLEMENTS)}~"


_COMPLEMENTS: Final = str.maketrans("0123456789", "9876543210")


@lru_cache(maxsize=64)
def _wanted(text: str) -> Any:
    return decode_json(text)


@lru_cache(maxsize=64)
def _path(steps: str) -> Path:
    return Path("state", *decode_json(steps))


_FUNCTIONS: Final[Sequence[tuple[str, int, Callable[..., Any]]]] = (
    ("eventstore_sa_json_at", 2, _json_at),
    ("eventstore_sa_holds", 3, _holds_between),
    ("eventstore_sa_sort_key", 1, _sort_key),
    ("eventstore_sa_similarity_key", 2, _similarity_key),
)

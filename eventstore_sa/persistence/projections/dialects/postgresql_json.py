"""Projections on PostgreSQL: stored as jsonb, locked by advisory locks and row locks, queried by its own SQL."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from time import monotonic
from typing import Any, ClassVar, Final

from sqlalchemy import (
    REAL,
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    FromClause,
    Integer,
    Numeric,
    Select,
    Table,
    Text,
    and_,
    any_,
    case,
    cast,
    column,
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
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.functions import Function
from sqlalchemy.types import TypeEngine

from eventstore_sa.errors import LockTimeoutError, QueryError
from eventstore_sa.persistence.page_bytes import size_on_postgresql
from eventstore_sa.persistence.projections.dialects.advisory_locks import (
    busy_ids,
    id_locks,
    is_wide,
    lock_holders,
    lock_parameters,
    name_lock,
    shared_name_lock,
    wide_lock,
)
from eventstore_sa.persistence.projections.dialects.base import (
    FIELDS,
    JSON_FIELDS,
    NAME_COLUMNS,
    NUMBER_FIELDS,
    ORDERINGS,
    JsonPlace,
    Key,
    LockOn,
    Operand,
    ProjectionDialect,
)
from eventstore_sa.persistence.schema.jsonb_size import check_jsonb
from eventstore_sa.persistence.transactions.databases import driver_attribute, limit_waits
from eventstore_sa.persistence.transactions.failures import Failure, FailureKind, Refusal
from eventstore_sa.persistence.transactions.prepared import PreparedStatement
from eventstore_sa.query import Operator, Path
from eventstore_sa.query.evaluation import FOLDED, SEPARATORS, UNFOLDED

__all__ = ["PostgreSQLProjectionIndexes", "PostgreSQLProjections"]

_PLAIN: Final = re.compile(r"[A-Za-z0-9_ -]*")
_REAL: Final[REAL[float]] = REAL()
_NUMERIC: Final[Numeric[Any]] = Numeric()
_BAD_REGEX: Final = "2201B"
_LOCK_NOT_AVAILABLE: Final = "55P03"
_PAUSE_S: Final = 0.005
_FIRST_SLICE_S: Final = 0.02
_LONGEST_SLICE_S: Final = 0.64

# The schema of pg_trgm, if it can be used and folds ASCII as we do: in Turkish, "i" is not the lower case of "I".
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

    EQUAL compares jsonb, and CONTAINS begins with `@>`: an index on the place can serve both. It can also serve the ordering
    operators on numbers, because jsonb orders numbers as numbers.
    """

    sorts_results: ClassVar[bool] = True

    def insert(self, table: Table) -> Any:
        return insert(table)

    def items(self, document: ColumnElement[str]) -> tuple[ColumnElement[Any], ColumnElement[int]]:
        elements = func.pg_catalog.jsonb_array_elements(cast(document, JSONB()))
        item = elements.table_valued(column("value", JSONB()), with_ordinality="place", name="item").render_derived()
        return item.c.value, item.c.place

    def records(self, document: ColumnElement[str]) -> Select[Any]:
        types = {
            key: JSONB() if key in JSON_FIELDS else BigInteger() if key in NUMBER_FIELDS else Text() for key in FIELDS
        }
        items = (
            func.pg_catalog.jsonb_to_recordset(cast(document, JSONB()))
            .table_valued(*(column(key, kind) for key, kind in types.items()), name="item")
            .render_derived(with_types=True)
        )
        # There a JSON null becomes SQL's.
        null = cast(literal("null", Text()), JSONB())
        columns = [func.coalesce(items.c[key], null) if key in JSON_FIELDS else items.c[key] for key in FIELDS]
        return select(*columns).order_by(items.c.id.collate("C"))

    def from_text(self, text: ColumnElement[str]) -> ColumnElement[Any]:
        return cast(text, JSONB())

    def as_text(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        return cast(column, Text())

    def check_size(self, document: str) -> None:
        check_jsonb(document, "the projections to save")

    def size(self, rows: FromClause) -> ColumnElement[int]:
        return size_on_postgresql(rows.c.state) + size_on_postgresql(rows.c.metadata)

    def load(
        self, connection: Connection, name: str, ids: Collection[str], lock: LockOn | None
    ) -> Sequence[Sequence[Any]]:
        if lock is None:
            return super().load(connection, name, ids, lock)
        parameters = {"name": name, **lock_parameters(connection, self.schema, name, ids)}
        if lock is LockOn.IDS and is_wide(ids):
            statement = self._locked_rows.where(wide_lock(connection, self.schema, name))
            return connection.execute(statement, parameters).all()
        return self._loads[lock].rows(connection, parameters)

    @cached_property
    def _loads(self) -> Mapping[LockOn, PreparedStatement]:
        return {
            LockOn.NAME: PreparedStatement(self._locked_rows.where(shared_name_lock())),
            LockOn.IDS: PreparedStatement(self._locked_rows.where(id_locks())),
        }

    def _is_one_of(self, text: ColumnElement[str], values: ColumnElement[str]) -> ColumnElement[bool]:
        given = func.pg_catalog.jsonb_array_elements_text(cast(values, JSONB())).column_valued("given")
        return text == any_(func.array(select(given).scalar_subquery()))

    def lock(self, connection: Connection, name: str, ids: Collection[str]) -> None:
        condition = wide_lock(connection, self.schema, name) if is_wide(ids) else self._id_locks
        connection.execute(select(condition), lock_parameters(connection, self.schema, name, ids))

    def lock_in_turn(
        self, connection: Connection, name: str, ids: Collection[str], *, patience_s: float
    ) -> bool | None:
        if is_wide(ids):
            return None
        parameters = lock_parameters(connection, self.schema, name, ids)
        deadline = monotonic() + patience_s
        while True:
            found = connection.execute(self._busy_ids, parameters).one()
            if not found.busy:
                return bool(found.holds_others)
            if monotonic() >= deadline:
                said = f"another transaction holds projections {name!r} that this publish updates"
                raise Refusal(Failure(FailureKind.PROJECTIONS_LOCKED, said))
            connection.execute(select(func.pg_catalog.pg_sleep(_PAUSE_S)))

    @cached_property
    def _id_locks(self) -> ColumnElement[bool]:
        return id_locks()

    @cached_property
    def _busy_ids(self) -> Executable:
        return busy_ids()

    def exclude_publishes(self, connection: Connection, name: str, *, timeout_s: float) -> None:
        parameters = lock_parameters(connection, self.schema, name)
        deadline, slice_s = monotonic() + timeout_s, _FIRST_SLICE_S
        while not _lock_within(connection, parameters, slice_s):
            if monotonic() >= deadline:
                holders = connection.scalar(lock_holders(), parameters)
                raise LockTimeoutError(
                    f"publishes that update projections {name!r} did not end within {timeout_s:g} s (held by "
                    f"{holders or 'a transaction that has just ended'}): call again to resume, or increase the timeout"
                )
            connection.execute(select(func.pg_catalog.pg_sleep(slice_s)))
            slice_s = min(slice_s * 2, _LONGEST_SLICE_S)
        limit_waits(connection, timeout_s)

    def query_error(self, error: DBAPIError) -> QueryError | None:
        if driver_attribute(error, "sqlstate", "pgcode") != _BAD_REGEX:
            return None
        return QueryError(
            "PostgreSQL cannot read a regular expression of the query, although Python can: simplify the expression"
        )

    def place(self, path: Path) -> JsonPlace:
        json: ColumnElement[Any] = self.table.c[path.top_level]
        if path.top_level in NAME_COLUMNS:
            as_text: ColumnElement[str] = json
            json = func.pg_catalog.to_jsonb(json, type_=JSONB())
        else:
            as_text = json.op("#>>", return_type=Text())(_constant("{}"))
        for is_index, steps in groupby(path.sub_levels, lambda step: isinstance(step, int)):
            if is_index:
                # Not the operator ->, which takes a scalar for an array of one; strict, so that a path does not either.
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

    def _number_ordered(self, place: JsonPlace, operator: Operator, value: Operand) -> ColumnElement[bool]:
        is_number = place.kind == _constant("number")
        return and_(is_number, place.json.op(ORDERINGS[operator], is_comparison=True)(_json(value)))

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
    """The same places and keys with the steps of paths as constants, as the definition of an index requires."""

    def has_name(self, name: str) -> ColumnElement[bool]:
        """Return whether a projection has a name."""
        return self.table.c.name == _written(name)

    def _text(self, value: str) -> ColumnElement[Any]:
        return _written(value)


def _lock_within(connection: Connection, parameters: Mapping[str, Any], timeout_s: float) -> bool:
    """Wait for the exclusive lock on a name, but only briefly: all publishes of these projections queue up behind."""
    try:
        with connection.begin_nested():
            limit_waits(connection, timeout_s)
            connection.execute(select(name_lock()), parameters)
    except DBAPIError as error:
        if driver_attribute(error, "sqlstate", "pgcode") != _LOCK_NOT_AVAILABLE:
            raise
        return False
    return True


def _subscript(index: str | int) -> str:
    return f"[last - {-1 - index}]" if isinstance(index, int) and index < 0 else f"[{index}]"


def _written(value: str) -> ColumnElement[str]:
    """Write a text as a constant of code points, so that no quote, colon or percent sign in it has a special meaning."""
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
    start = func.pg_catalog.generate_series(1, func.pg_catalog.length(word) + 1, type_=Integer()).column_valued(
        "place", joins_implicitly=True
    )
    padded = literal("  ", Text()).concat(word).concat(literal(" ", Text()))
    return select(func.pg_catalog.substr(padded, start, 3).label("trigram")).where(word != "").distinct()

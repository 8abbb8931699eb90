"""The query language of projections as SQL; `query.evaluation` defines its meaning.

What differs between databases is in `dialects`. Here clauses become conditions on places, sorting becomes keys, and pages
begin beyond the keys of a row. No key is ever NULL, and together the keys of a row are unique.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from itertools import count, groupby
from typing import Any, Final, TypeAlias

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    and_,
    bindparam,
    false,
    func,
    literal,
    not_,
    or_,
    true,
    tuple_,
)

from eventstore_sa.contracts.projection_records import source_hash
from eventstore_sa.persistence.projections.dialects.base import (
    NAME_COLUMNS,
    JsonPlace,
    Key,
    Operand,
    ProjectionColumns,
    ProjectionDialect,
)
from eventstore_sa.query import (
    AllOf,
    AnyOf,
    CustomFilter,
    CustomFunction,
    CustomOperator,
    FilterClause,
    FilterExpression,
    Function,
    Not,
    Operator,
    Path,
    Similarity,
    SortClause,
    SortField,
    SortOrder,
)
from eventstore_sa.query.clauses import filter_clauses
from eventstore_sa.query.converters import QueryConverters
from eventstore_sa.types import EventSourceIdentifier
from eventstore_sa.types.codec import encode_json

__all__ = [
    "FilterConverter",
    "FunctionConverter",
    "OperatorConverter",
    "OrderKey",
    "ProjectionConverters",
    "ProjectionQueries",
    "beyond",
    "parameters_of",
    "shape_of",
]

_SOURCE: Final = Path("source")

FilterConverter: TypeAlias = Callable[[Any, ProjectionColumns], ColumnElement[bool]]
OperatorConverter: TypeAlias = Callable[[JsonPlace, Any], ColumnElement[bool]]
FunctionConverter: TypeAlias = Callable[[Any, ProjectionColumns], ColumnElement[Any]]

ProjectionConverters: TypeAlias = QueryConverters[FilterConverter, OperatorConverter, FunctionConverter]
"""An application's own parts of queries in SQL. The converters of filters and functions are called with the filter or
function and the `ProjectionColumns`, those of operators with a `JsonPlace` and the value of the clause."""


class OrderKey(Struct, frozen=True):
    """A key and its direction."""

    key: Key
    descending: bool = False

    def ordered(self, *, backwards: bool = False) -> ColumnElement[Any]:
        """Return the expression for ORDER BY."""
        return self.key.value.desc() if self.descending is not backwards else self.key.value.asc()


class ProjectionQueries:
    """Queries on one table of projections.

    Args:
        dialect: How the database queries projections.
        converters: The application's own parts of queries.
    """

    def __init__(self, dialect: ProjectionDialect, converters: ProjectionConverters) -> None:
        self._dialect = dialect
        self._table = dialect.table
        self._converters = converters

    def conditions(self, filters: Collection[FilterExpression]) -> list[ColumnElement[bool]]:
        """Return a condition for each of the filters; `parameters_of` returns their parameters.

        Raises:
            ConfigurationError: If no converter is registered for a part of them.
        """
        clauses = count()
        return [self._condition(each, clauses) for each in filters]

    def order(self, sort: SortClause | None, connection: Connection) -> list[OrderKey]:
        """Return what to order by.

        Raises:
            ConfigurationError: If no converter is registered for a function.
        """
        c = self._table.c
        if sort is None:
            return [OrderKey(Key(c.number, BigInteger()))]
        keys = [key for field in sort.fields for key in self._keys(field, connection)]
        return [*keys, *(OrderKey(Key(column, Text())) for column in (c.id, c.name))]

    def _condition(self, filter_: FilterExpression, clauses: Iterator[int]) -> ColumnElement[bool]:
        match filter_:
            case FilterClause():
                return self._clause(filter_, next(clauses))
            case AllOf():
                return and_(true(), *(self._condition(each, clauses) for each in filter_.filters))
            case AnyOf():
                return or_(false(), *(self._condition(each, clauses) for each in filter_.filters))
            case Not():
                return _not(self._condition(filter_.filter, clauses))
            case CustomFilter():
                return self._converters.of_filter(filter_)(filter_, ProjectionColumns(self._dialect))

    def _clause(self, clause: FilterClause, number: int) -> ColumnElement[bool]:
        value = _operand(clause, number)
        if _is_name(clause.field):
            column = self._table.c[clause.field.top_level]
            # The columns themselves are indexed.
            if clause.operator is Operator.EQUAL and isinstance(value.plain, str):
                return column == value.text
            if clause.operator is Operator.IN:
                return self._dialect.text_is_one_of(column, value)
        place = self._dialect.place(clause.field)
        if isinstance(clause.operator, CustomOperator):
            return self._converters.of_operator(clause.operator)(place, value.plain)
        compared = self._compared(clause.operator, place, value)
        if _is_source(clause):
            return and_(self._table.c.source_hash == bindparam(f"hash_{number}", type_=BigInteger()), compared)
        return compared

    def _compared(self, operator: Operator, place: JsonPlace, value: Operand) -> ColumnElement[bool]:
        match operator:
            case Operator.EQUAL:
                return self._dialect.equal(place, value)
            case Operator.NOT_EQUAL:
                return _not(self._dialect.equal(place, value))
            case Operator.IN:
                return self._dialect.equal_to_one(place, value)
            case Operator.CONTAINS:
                return self._dialect.contains(place, value)
            case Operator.REGEX_MATCHES | Operator.NOT_REGEX_MATCHES:
                return self._dialect.matches(place, value, negated=operator is Operator.NOT_REGEX_MATCHES)
            case _:
                return self._dialect.ordered(place, operator, value)

    def _keys(self, field: SortField, connection: Connection) -> list[OrderKey]:
        return [OrderKey(key, field.order is SortOrder.DESC) for key in self._subject_keys(field.field, connection)]

    def _subject_keys(self, subject: Path | Function, connection: Connection) -> list[Key]:
        match subject:
            case Path():
                return self._dialect.keys(self._dialect.place(subject))
            case Similarity():
                return [self._dialect.similarity_key(connection, self._text(subject.left), self._text(subject.right))]
            case CustomFunction():
                value = self._converters.of_function(subject)(subject, ProjectionColumns(self._dialect))
                return self._dialect.keys(self._dialect.computed(value))

    def _text(self, side: Path | str) -> ColumnElement[str]:
        return literal(side, Text()) if isinstance(side, str) else self._dialect.place(side).text


def parameters_of(filters: Collection[FilterExpression]) -> dict[str, Any]:
    """Return the parameters of the conditions for these filters, and for all others of the same shape."""
    parameters: dict[str, Any] = {}
    for number, clause in enumerate([*filter_clauses(filters)]):
        value = clause.json_value
        chooses_name = clause.operator is Operator.IN and _is_name(clause.field)
        parameters[f"json_{number}"] = encode_json(_texts(value)).decode() if chooses_name else clause.json_text
        if isinstance(value, str):
            parameters[f"text_{number}"] = value
        if _is_source(clause):
            parameters[f"hash_{number}"] = source_hash(clause.value.serialise())
    return parameters


def shape_of(filters: Collection[FilterExpression], sort: SortClause | None) -> Hashable:
    """Return what the statement for these filters and this order depends on; None if it cannot be reused."""
    subjects = () if sort is None else tuple((field.field, field.order) for field in sort.fields)
    if not all(isinstance(subject, Path) for subject, _ in subjects):
        return None
    shapes = tuple(map(_shape, filters))
    return None if None in shapes else (shapes, sort is None, subjects)


def _shape(filter_: FilterExpression) -> Hashable:
    match filter_:
        case FilterClause(operator=Operator()):
            return filter_.operator, filter_.field, _kind(filter_.json_value), _is_source(filter_)
        case AllOf() | AnyOf():
            shapes = tuple(map(_shape, filter_.filters))
            return None if None in shapes else (type(filter_), shapes)
        case Not():
            shape = _shape(filter_.filter)
            return None if shape is None else (Not, shape)
        case _:
            return None


def _kind(value: Any) -> Hashable:
    match value:
        case bool():
            return value
        case [*items]:
            return "list", None in items, len(_texts(items)) == len(items)
        case _:
            return type(value).__name__


def _operand(clause: FilterClause, number: int) -> Operand:
    return Operand(
        clause.json_value, bindparam(f"json_{number}", type_=Text()), bindparam(f"text_{number}", type_=Text())
    )


def _texts(values: list[Any]) -> list[str]:
    return [each for each in values if isinstance(each, str)]


def _is_name(path: Path) -> bool:
    return path.top_level in NAME_COLUMNS and not path.sub_levels


def _is_source(clause: FilterClause) -> bool:
    """Return whether a clause asks for a source, which is found by its hash."""
    return (
        clause.operator is Operator.EQUAL
        and clause.field == _SOURCE
        and isinstance(clause.value, EventSourceIdentifier)
    )


def beyond(
    order: Sequence[OrderKey], values: Sequence[ColumnElement[Any]], *, backwards: bool = False
) -> ColumnElement[bool]:
    """Return the condition that a row comes after the row with these keys, or before it if `backwards`.

    Consecutive keys of one direction are compared as a row, which an index in that order can serve. If the direction
    changes, an additional condition on the first such row limits the range that is scanned.

    Args:
        order: The keys.
        values: The values of the other row, in the same order.
        backwards: Whether to look backwards.
    """
    runs: list[tuple[Any, Any, bool]] = []
    for descending, run in groupby(zip(order, values, strict=True), lambda pair: pair[0].descending):
        pairs = list(run)
        runs.append((_row([each.key.value for each, _ in pairs]), _row([value for _, value in pairs]), descending))
    ways: list[ColumnElement[bool]] = []
    for number, (ours, theirs, descending) in enumerate(runs):
        equal = [one == other for one, other, _ in runs[:number]]
        ways.append(and_(*equal, ours < theirs if descending is not backwards else ours > theirs))
    if len(runs) == 1:
        return ways[0]
    ours, theirs, descending = runs[0]
    return and_(ours <= theirs if descending is not backwards else ours >= theirs, or_(*ways))


def _row(values: list[ColumnElement[Any]]) -> Any:
    return values[0] if len(values) == 1 else tuple_(*values)


def _not(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Negate a condition; NULL counts as not met."""
    return not_(func.coalesce(condition, false()))

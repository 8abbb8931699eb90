"""The query language of projections as SQL; `query.evaluation` says what it means.

What differs between databases is in `dialects`: here clauses become conditions on places, sorting becomes keys, and pages
begin beyond the keys of a row. No key is ever NULL, and together they tell all projections apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeAlias

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    and_,
    false,
    func,
    literal,
    not_,
    or_,
    true,
    tuple_,
)

from eventstore_sa.persistence.projection_places import (
    NAME_COLUMNS,
    JsonPlace,
    Key,
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
from eventstore_sa.query.converters import QueryConverters
from eventstore_sa.query.records import source_hash
from eventstore_sa.types import EventSourceIdentifier

__all__ = [
    "FilterConverter",
    "FunctionConverter",
    "OperatorConverter",
    "OrderKey",
    "ProjectionConverters",
    "ProjectionQueries",
    "beyond",
]

FilterConverter: TypeAlias = Callable[[Any, ProjectionColumns], ColumnElement[bool]]
OperatorConverter: TypeAlias = Callable[[JsonPlace, Any], ColumnElement[bool]]
FunctionConverter: TypeAlias = Callable[[Any, ProjectionColumns], ColumnElement[Any]]

ProjectionConverters: TypeAlias = QueryConverters[FilterConverter, OperatorConverter, FunctionConverter]
"""What of a query is the application's own, as SQL: a filter and a function are called with themselves and the columns of a
projection, an operator with a place in it and with the value of its clause."""


class OrderKey(Struct, frozen=True):
    """A key with its direction."""

    key: Key
    descending: bool = False

    def ordered(self, *, backwards: bool = False) -> ColumnElement[Any]:
        """Return what ORDER BY takes."""
        return self.key.value.desc() if self.descending is not backwards else self.key.value.asc()


class ProjectionQueries:
    """Queries on one table of projections.

    Args:
        dialect: How the database looks into projections.
        converters: What of the queries is the application's own.
    """

    def __init__(self, dialect: ProjectionDialect, converters: ProjectionConverters) -> None:
        self._dialect = dialect
        self._table = dialect.table
        self._converters = converters

    def conditions(self, filters: Collection[FilterExpression]) -> list[ColumnElement[bool]]:
        """Return a condition for each of the filters.

        Raises:
            ConfigurationError: One of them was not registered.
        """
        return [self._condition(each) for each in filters]

    def order(self, sort: SortClause | None, connection: Connection) -> list[OrderKey]:
        """Return what to order by.

        Raises:
            ConfigurationError: A function was not registered.
        """
        c = self._table.c
        if sort is None:
            return [OrderKey(Key(c.number, BigInteger()))]
        keys = [key for field in sort.fields for key in self._keys(field, connection)]
        return [*keys, *(OrderKey(Key(column, Text())) for column in (c.id, c.name))]

    def _condition(self, filter_: FilterExpression) -> ColumnElement[bool]:
        match filter_:
            case FilterClause():
                return self._clause(filter_)
            case AllOf():
                return and_(true(), *self.conditions(filter_.filters))
            case AnyOf():
                return or_(false(), *self.conditions(filter_.filters))
            case Not():
                return _not(self._condition(filter_.filter))
            case CustomFilter():
                return self._converters.of_filter(filter_)(filter_, ProjectionColumns(self._dialect))

    def _clause(self, clause: FilterClause) -> ColumnElement[bool]:  # noqa: PLR0911 - a case a line
        if clause.field.top_level in NAME_COLUMNS and not clause.field.sub_levels:
            condition = self._name_condition(clause)
            if condition is not None:
                return condition
        place, value = self._dialect.place(clause.field), clause.json_value
        match clause.operator:
            case CustomOperator():
                return self._converters.of_operator(clause.operator)(place, value)
            case Operator.EQUAL:
                return and_(*self._source_condition(clause), self._dialect.equal(place, value))
            case Operator.NOT_EQUAL:
                return _not(self._dialect.equal(place, value))
            case Operator.IN:
                return self._dialect.equal_to_one(place, value)
            case Operator.CONTAINS:
                return self._dialect.contains(place, value)
            case Operator.REGEX_MATCHES | Operator.NOT_REGEX_MATCHES:
                negated = clause.operator is Operator.NOT_REGEX_MATCHES
                return self._dialect.matches(place, value, negated=negated)
            case _:
                return self._dialect.ordered(place, clause.operator, value)

    def _name_condition(self, clause: FilterClause) -> ColumnElement[bool] | None:
        """Compare the columns themselves, which are indexed."""
        column, value = self._table.c[clause.field.top_level], clause.json_value
        if clause.operator is Operator.EQUAL and isinstance(value, str):
            return column == value
        if clause.operator is Operator.IN:
            return self._dialect.text_is_one_of(column, [each for each in value if isinstance(each, str)])
        return None

    def _source_condition(self, clause: FilterClause) -> Iterator[ColumnElement[bool]]:
        if clause.field == Path("source") and isinstance(clause.value, EventSourceIdentifier):
            yield self._table.c.source_hash == source_hash(clause.value.serialise())

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


def beyond(
    order: Sequence[OrderKey], values: Sequence[ColumnElement[Any]], *, backwards: bool = False
) -> ColumnElement[bool]:
    """Demand of a row that it comes after the row with these keys; backwards: before it.

    Keys of one direction are compared as a row, which an index in that order serves; where directions change, the first of
    those rows bounds what is looked at.

    Args:
        order: The keys.
        values: Those of the other row, in the same order.
        backwards: Which way to look.
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
    """Return where a condition is not met, which it is not where it is NULL."""
    return not_(func.coalesce(condition, false()))

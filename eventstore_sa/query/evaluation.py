"""What the clauses mean: filters, sorting and paging over projections in memory.

Storage in memory runs this; storage in a database gives the same answers, or raises.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

from eventstore_sa.errors import QueryError
from eventstore_sa.query.clauses import (
    AllOf,
    AnyOf,
    CustomFilter,
    CustomOperator,
    FilterClause,
    FilterExpression,
    KeySetPagingClause,
    Not,
    OffsetPagingClause,
    Operator,
    PagingClause,
    PagingDirection,
    Search,
    SortClause,
    SortOrder,
)
from eventstore_sa.query.converters import QueryConverters
from eventstore_sa.query.paths import CustomFunction, Function, Path, Similarity
from eventstore_sa.query.patterns import compiled
from eventstore_sa.query.similarity import similarity

__all__ = [
    "FIELDS",
    "Document",
    "Evaluation",
    "FilterEvaluator",
    "FunctionEvaluator",
    "OperatorEvaluator",
    "QueryEvaluators",
    "check_field",
    "check_fields",
    "holds",
    "sort_key",
    "unknown_last_id",
    "value_at",
]

Document: TypeAlias = Mapping[str, Any]
"""A projection as plain JSON: its fields by name."""

FilterEvaluator: TypeAlias = Callable[[Any, Document], bool]
OperatorEvaluator: TypeAlias = Callable[[Any, Any], bool]
FunctionEvaluator: TypeAlias = Callable[[Any, Document], Any]

QueryEvaluators: TypeAlias = QueryConverters[FilterEvaluator, OperatorEvaluator, FunctionEvaluator]
"""What of a query is the application's own, as Python: a filter and a function are called with themselves and a projection,
an operator with what is stored and with the value of its clause."""

FIELDS: Final = ("id", "name", "source", "state", "metadata")
"""The fields of a projection that paths begin with."""

T = TypeVar("T")

_ORDERINGS: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    Operator.GREATER_THAN: operator.gt,
    Operator.GREATER_THAN_OR_EQUAL: operator.ge,
    Operator.LESS_THAN: operator.lt,
    Operator.LESS_THAN_OR_EQUAL: operator.le,
}


class Evaluation:
    """Evaluates queries; what is the application's own in them by what was registered."""

    def __init__(self, evaluators: QueryEvaluators) -> None:
        self._evaluators = evaluators

    def found(self, items: Sequence[T], search: Search, document_of: Callable[[T], Document]) -> list[T]:
        """Return the items that a search finds: filtered, then sorted, then one page of them.

        Args:
            items: All there are, in the order in which they were first saved.
            search: What is wanted.
            document_of: Gives the projection that an item stands for.

        Raises:
            QueryError: The search cannot be answered.
            ConfigurationError: Something in it was not registered.
        """
        check_fields(search)
        rows = [(item, document_of(item)) for item in items]
        rows = [row for row in rows if self.meets(row[1], search.filters)]
        if search.sort is not None:
            self._sort(rows, search.sort)
        if search.paging is not None:
            rows = _page(rows, search.paging)
        return [item for item, _ in rows]

    def meets(self, document: Document, filters: Collection[FilterExpression]) -> bool:
        """Tell whether a projection meets all of the filters."""
        return all(self._meets(document, each) for each in filters)

    def _meets(self, document: Document, filter_: FilterExpression) -> bool:
        match filter_:
            case FilterClause():
                return self._holds(filter_, value_at(document, filter_.field))
            case AllOf():
                return all(self._meets(document, each) for each in filter_.filters)
            case AnyOf():
                return any(self._meets(document, each) for each in filter_.filters)
            case Not():
                return not self._meets(document, filter_.filter)
            case CustomFilter():
                return bool(self._evaluators.of_filter(filter_)(filter_, document))

    def _holds(self, clause: FilterClause, stored: Any) -> bool:
        if isinstance(clause.operator, CustomOperator):
            return bool(self._evaluators.of_operator(clause.operator)(stored, clause.json_value))
        return holds(clause.operator, stored, clause.json_value)

    def _sort(self, rows: list[tuple[T, Document]], sort: SortClause) -> None:
        rows.sort(key=lambda row: (row[1]["id"], row[1]["name"]))
        # Sorting is stable, in reverse too: the least important field first.
        for field in reversed(sort.fields):
            rows.sort(key=partial(self._sort_key_of, field.field), reverse=field.order is SortOrder.DESC)

    def _sort_key_of(self, subject: Path | Function, row: tuple[Any, Document]) -> tuple[Any, ...]:
        return sort_key(self._subject(row[1], subject))

    def _subject(self, document: Document, subject: Path | Function) -> Any:
        match subject:
            case Path():
                return value_at(document, subject)
            case Similarity():
                left, right = (
                    value_at(document, side) if isinstance(side, Path) else side
                    for side in (subject.left, subject.right)
                )
                return similarity(left, right) if isinstance(left, str) and isinstance(right, str) else None
            case CustomFunction():
                return self._evaluators.of_function(subject)(subject, document)


def check_fields(search: Search) -> None:
    """Refuse paths that begin with something that projections do not have.

    Raises:
        QueryError: One does.
    """
    sorted_by = [field.field for field in search.sort.fields] if search.sort is not None else []
    for place in (*_places(search.filters), *sorted_by):
        sides = (place.left, place.right) if isinstance(place, Similarity) else (place,)
        for side in sides:
            if isinstance(side, Path):
                check_field(side)


def check_field(path: Path) -> None:
    """Refuse a path that begins with something that projections do not have.

    Raises:
        QueryError: It does.
    """
    if path.top_level not in FIELDS:
        raise QueryError(f"projections have no {path.top_level!r}: a path begins with one of {', '.join(FIELDS)}")


def _places(filters: Iterable[FilterExpression]) -> Iterator[Path]:
    for each in filters:
        match each:
            case FilterClause():
                yield each.field
            case AllOf() | AnyOf():
                yield from _places(each.filters)
            case Not():
                yield from _places((each.filter,))
            case CustomFilter():
                pass


def unknown_last_id(last_id: str) -> QueryError:
    """Say that the page after something cannot be given, because that is not among the results."""
    return QueryError(
        f"there is no page next to id {last_id!r}, which is not among the results: begin again without last_id"
    )


def holds(operator: Operator, stored: Any, wanted: Any) -> bool:
    """Tell whether an operator holds between what is stored and a value, both plain JSON."""
    match operator:
        case Operator.EQUAL:
            result = _is_equal(stored, wanted)
        case Operator.NOT_EQUAL:
            result = not _is_equal(stored, wanted)
        case Operator.IN:
            result = any(_is_equal(stored, item) for item in wanted)
        case Operator.CONTAINS:
            result = _kind(stored) is list and any(_is_equal(item, wanted) for item in stored)
        case Operator.REGEX_MATCHES:
            result = isinstance(stored, str) and compiled(wanted).search(stored) is not None
        case Operator.NOT_REGEX_MATCHES:
            result = isinstance(stored, str) and compiled(wanted).search(stored) is None
        case _:
            one, other = sort_key(stored), sort_key(wanted)
            result = one[0] == other[0] in (_NUMBER, _STRING) and _ORDERINGS[operator](one, other)
    return bool(result)


def _is_equal(stored: Any, wanted: Any) -> bool:
    """Tell whether JSON is equal: Python takes True for 1.

    What is stored is looked into no deeper than what is wanted goes.
    """
    kind = _kind(wanted)
    if kind in (list, dict) and (_kind(stored) is not kind or len(stored) != len(wanted)):
        return False
    if kind is list:
        return all(map(_is_equal, stored, wanted))
    if kind is dict:
        return all(key in stored and _is_equal(stored[key], value) for key, value in wanted.items())
    return isinstance(stored, bool) == isinstance(wanted, bool) and bool(stored == wanted)


def _kind(value: Any) -> Any:
    return type(value)  # pyright: ignore[reportUnknownVariableType]


def value_at(document: Document, path: Path) -> Any:
    """Return what a path leads to in a projection, as plain JSON; None where it leads nowhere.

    Raises:
        QueryError: Projections have no such field.
    """
    check_field(path)
    value: Any = document[path.top_level]
    for step in path.sub_levels:
        kind = type(value)  # pyright: ignore[reportUnknownVariableType]
        if kind is dict and isinstance(step, str):
            value = value.get(step)
        elif kind is list and isinstance(step, int) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


_NUMBER: Final = 0
_STRING: Final = 1


def sort_key(value: Any) -> tuple[Any, ...]:
    """Return what orders values of JSON as sorting does."""
    match value:
        case bool():
            return (2, value)
        case int() | float():
            return (_NUMBER, value)
        case str():
            return (_STRING, value)
        case list():
            return (3,)
        case dict():
            return (4,)
        case _:
            return (5,)


def _page(rows: list[tuple[T, Document]], paging: PagingClause) -> list[tuple[T, Document]]:
    if isinstance(paging, OffsetPagingClause):
        begin = (paging.page_number - 1) * paging.item_count
        return rows[begin : begin + paging.item_count]
    at = _place(rows, paging)
    if paging.direction is PagingDirection.FORWARDS:
        begin = 0 if at is None else at + 1
        return rows[begin : begin + paging.item_count]
    end = len(rows) if at is None else at
    return rows[max(0, end - paging.item_count) : end]


def _place(rows: list[tuple[T, Document]], paging: KeySetPagingClause) -> int | None:
    if paging.last_id is None:
        return None
    for place, (_, document) in enumerate(rows):
        if document["id"] == paging.last_id:
            return place
    raise unknown_last_id(paging.last_id)

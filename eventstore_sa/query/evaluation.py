"""The meaning of queries: filters, sorting and paging over projections in memory.

In-memory storage runs this; storage in a database returns the same results, or raises.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from struct import pack, unpack
from typing import Any, Final, TypeAlias, TypeVar

from eventstore_sa.errors import QueryError
from eventstore_sa.query.clauses import (
    AllOf,
    AnyOf,
    CustomFilter,
    CustomFunction,
    CustomOperator,
    FilterClause,
    FilterExpression,
    Function,
    KeySetPagingClause,
    Not,
    OffsetPagingClause,
    Operator,
    PagingClause,
    PagingDirection,
    Path,
    Search,
    Similarity,
    SortClause,
    SortOrder,
    filter_clauses,
)
from eventstore_sa.query.converters import QueryConverters
from eventstore_sa.query.patterns import compiled

__all__ = [
    "FIELDS",
    "FOLDED",
    "SEPARATORS",
    "UNFOLDED",
    "Document",
    "Evaluation",
    "FilterEvaluator",
    "FunctionEvaluator",
    "OperatorEvaluator",
    "QueryEvaluators",
    "check_field",
    "check_fields",
    "holds",
    "similarity",
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
"""An application's own parts of queries in Python. The converters of filters and functions are called with the filter or
function and the projection, those of operators with the stored value and the value of the clause."""

FIELDS: Final = ("id", "name", "source", "state", "metadata")
"""The fields of a projection that a path can begin with."""

T = TypeVar("T")

_ORDERINGS: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    Operator.GREATER_THAN: operator.gt,
    Operator.GREATER_THAN_OR_EQUAL: operator.ge,
    Operator.LESS_THAN: operator.lt,
    Operator.LESS_THAN_OR_EQUAL: operator.le,
}


class Evaluation:
    """Evaluates queries, using the registered evaluators for an application's own filters, operators and functions."""

    def __init__(self, evaluators: QueryEvaluators) -> None:
        self._evaluators = evaluators

    def found(self, items: Sequence[T], search: Search, document_of: Callable[[T], Document]) -> list[T]:
        """Return the items that a search finds: filtered, then sorted, then one page of them.

        Args:
            items: All items, in the order in which they were first saved.
            search: The search.
            document_of: Returns the projection of an item.

        Raises:
            QueryError: If the search is invalid.
            ConfigurationError: If no evaluator is registered for a part of it.
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
        """Return whether a projection matches all of the filters."""
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
    """Check that all paths of a search begin with a field of projections.

    Raises:
        QueryError: If one does not.
    """
    for clause in filter_clauses(search.filters):
        check_field(clause.field)
    for sort_field in search.sort.fields if search.sort is not None else ():
        subject = sort_field.field
        for side in (subject.left, subject.right) if isinstance(subject, Similarity) else (subject,):
            if isinstance(side, Path):
                check_field(side)


def check_field(path: Path) -> None:
    """Check that a path begins with a field of projections.

    Raises:
        QueryError: If it does not.
    """
    if path.top_level not in FIELDS:
        raise QueryError(f"projections have no field {path.top_level!r}: a path begins with one of {', '.join(FIELDS)}")


def unknown_last_id(last_id: str) -> QueryError:
    """Return the error for a page next to an id that is not among the results."""
    return QueryError(f"last_id {last_id!r} is not among the results: start again without last_id")


def holds(operator: Operator, stored: Any, wanted: Any) -> bool:
    """Return whether an operator holds between the stored value and the wanted one, both plain JSON."""
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
    """Compare JSON values; unlike in Python, true is not equal to 1.

    The stored value is visited no deeper than the wanted one goes.
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
    """Return the value at a path in a projection, as plain JSON; None if it is missing.

    Raises:
        QueryError: If projections have no such field.
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
    """Return a key that orders JSON values as sorting does."""
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
    last = _index_of_last(rows, paging)
    if paging.direction is PagingDirection.FORWARDS:
        begin = 0 if last is None else last + 1
        return rows[begin : begin + paging.item_count]
    end = len(rows) if last is None else last
    return rows[max(0, end - paging.item_count) : end]


def _index_of_last(rows: list[tuple[T, Document]], paging: KeySetPagingClause) -> int | None:
    if paging.last_id is None:
        return None
    for index, (_, document) in enumerate(rows):
        if document["id"] == paging.last_id:
            return index
    raise unknown_last_id(paging.last_id)


SEPARATORS = r"[\x01-\x2f:-@\[-`{-\x7f]+"
"""What separates words: ASCII characters other than letters and digits."""

UNFOLDED = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FOLDED = UNFOLDED.lower()

_FOLDING = str.maketrans(UNFOLDED, FOLDED)
_SEPARATORS = re.compile(SEPARATORS)


def _trigrams(text: str) -> frozenset[str]:
    """Return all sequences of three characters in the words of a text, padded with two spaces before and one after."""
    words = (f"  {word} " for word in _SEPARATORS.split(text.translate(_FOLDING)) if word)
    return frozenset(word[at : at + 3] for word in words for at in range(len(word) - 2))


def similarity(left: str, right: str) -> float:
    """Return the share of trigrams that two texts have in common, as a 32-bit float; 0 if there are none.

    It is the similarity of pg_trgm.
    """
    ours, theirs = _trigrams(left), _trigrams(right)
    every = len(ours | theirs)
    share: float = unpack("f", pack("f", len(ours & theirs) / every))[0] if every else 0.0
    return share

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
from eventstore_sa.query.paths import Function, Path, Similarity
from eventstore_sa.query.patterns import compiled
from eventstore_sa.query.similarity import similarity

__all__ = ["FIELDS", "Document", "check_fields", "found", "meets", "unknown_last_id"]

Document: TypeAlias = Mapping[str, Any]
"""A projection as plain JSON: its fields by name."""

FIELDS: Final = ("id", "name", "source", "state", "metadata")
"""The fields of a projection that paths begin with."""

T = TypeVar("T")

_ORDERINGS: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    Operator.GREATER_THAN: operator.gt,
    Operator.GREATER_THAN_OR_EQUAL: operator.ge,
    Operator.LESS_THAN: operator.lt,
    Operator.LESS_THAN_OR_EQUAL: operator.le,
}


def found(items: Sequence[T], search: Search, document_of: Callable[[T], Document]) -> list[T]:
    """Return the items that a search finds: filtered, then sorted, then one page of them.

    Args:
        items: All there are, in the order in which they were first saved.
        search: What is wanted.
        document_of: Gives the projection that an item stands for.

    Raises:
        QueryError: The search cannot be answered.
    """
    check_fields(search)
    rows = [(item, document_of(item)) for item in items]
    rows = [row for row in rows if meets(row[1], search.filters)]
    if search.sort is not None:
        _sort(rows, search.sort)
    if search.paging is not None:
        rows = _page(rows, search.paging)
    return [item for item, _ in rows]


def meets(document: Document, filters: Collection[FilterExpression]) -> bool:
    """Tell whether a projection meets all of the filters."""
    return all(_meets(document, each) for each in filters)


def check_fields(search: Search) -> None:
    """Refuse paths that begin with something that projections do not have.

    Raises:
        QueryError: One does.
    """
    sorted_by = [field.field for field in search.sort.fields] if search.sort is not None else []
    for place in (*_places(search.filters), *sorted_by):
        sides = (place.left, place.right) if isinstance(place, Similarity) else (place,)
        for side in sides:
            if isinstance(side, Path) and side.top_level not in FIELDS:
                raise QueryError(
                    f"projections have no {side.top_level!r}: a path begins with one of {', '.join(FIELDS)}"
                )


def _places(filters: Iterable[FilterExpression]) -> Iterator[Path]:
    for each in filters:
        match each:
            case FilterClause():
                yield each.field
            case AllOf() | AnyOf():
                yield from _places(each.filters)
            case Not():
                yield from _places((each.filter,))


def unknown_last_id(last_id: str) -> QueryError:
    """Say that the page after something cannot be given, because that is not among the results."""
    return QueryError(
        f"there is no page next to id {last_id!r}, which is not among the results: begin again without last_id"
    )


def _meets(document: Document, filter_: FilterExpression) -> bool:
    match filter_:
        case FilterClause():
            return _holds(filter_, _value_at(document, filter_.field))
        case AllOf():
            return all(_meets(document, each) for each in filter_.filters)
        case AnyOf():
            return any(_meets(document, each) for each in filter_.filters)
        case Not():
            return not _meets(document, filter_.filter)


def _holds(clause: FilterClause, stored: Any) -> bool:
    wanted = clause.json_value
    match clause.operator:
        case Operator.EQUAL:
            holds = _comparable(stored) == _comparable(wanted)
        case Operator.NOT_EQUAL:
            holds = _comparable(stored) != _comparable(wanted)
        case Operator.IN:
            holds = _comparable(stored) in [_comparable(item) for item in wanted]
        case Operator.CONTAINS:
            holds = isinstance(stored, list) and _comparable(wanted) in _comparable(stored)[1]
        case Operator.REGEX_MATCHES:
            holds = isinstance(stored, str) and compiled(wanted).search(stored) is not None
        case Operator.NOT_REGEX_MATCHES:
            holds = isinstance(stored, str) and compiled(wanted).search(stored) is None
        case _:
            one, other = _sort_key(stored), _sort_key(wanted)
            holds = one[0] == other[0] in (_NUMBER, _STRING) and _ORDERINGS[clause.operator](one, other)
    return bool(holds)


def _comparable(value: Any) -> Any:
    """Return what is equal just when the JSON is: Python takes True for 1."""
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is bool:
        return ("boolean", value)
    if kind is list:
        return ("array", [_comparable(item) for item in value])
    if kind is dict:
        return ("object", {key: _comparable(item) for key, item in value.items()})
    return value


def _value_at(document: Document, path: Path) -> Any:
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


def _sort(rows: list[tuple[T, Document]], sort: SortClause) -> None:
    rows.sort(key=lambda row: (row[1]["id"], row[1]["name"]))
    # Sorting is stable, in reverse too: the least important field first.
    for field in reversed(sort.fields):
        rows.sort(key=partial(_sort_key_of, field.field), reverse=field.order is SortOrder.DESC)


def _sort_key_of(subject: Path | Function, row: tuple[Any, Document]) -> tuple[Any, ...]:
    return _sort_key(_subject(row[1], subject))


def _subject(document: Document, subject: Path | Function) -> Any:
    if isinstance(subject, Path):
        return _value_at(document, subject)
    left, right = (
        _value_at(document, side) if isinstance(side, Path) else side for side in (subject.left, subject.right)
    )
    return similarity(left, right) if isinstance(left, str) and isinstance(right, str) else None


_NUMBER: Final = 0
_STRING: Final = 1


def _sort_key(value: Any) -> tuple[Any, ...]:
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

"""The clauses of lookups and searches, as values that are checked when they are made.

What they mean is in `evaluation`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from types import NoneType
from typing import Any, Final, TypeAlias, cast

from msgspec import Struct

from eventstore_sa.errors import QueryError
from eventstore_sa.query.paths import CustomFunction, Function, Path, Similarity
from eventstore_sa.query.patterns import compiled
from eventstore_sa.types.codec import to_json
from eventstore_sa.types.json import is_sequence
from eventstore_sa.types.numbers import LARGEST_NUMBER

__all__ = [
    "AllOf",
    "AnyOf",
    "CustomFilter",
    "CustomOperator",
    "FilterClause",
    "FilterExpression",
    "KeySetPagingClause",
    "Lookup",
    "Not",
    "OffsetPagingClause",
    "Operator",
    "PagingClause",
    "PagingDirection",
    "Search",
    "SortClause",
    "SortField",
    "SortOrder",
]


# Well below what the parsers of databases and the stack of Python take, in whatever combination.
_DEEPEST_NESTING = 16
_MOST_CLAUSES = 200
_MOST_SORT_FIELDS = 16


class Operator(Enum):
    """How a filter compares what is stored with its value."""

    EQUAL = "="
    NOT_EQUAL = "!="
    GREATER_THAN = ">"
    GREATER_THAN_OR_EQUAL = ">="
    LESS_THAN = "<"
    LESS_THAN_OR_EQUAL = "<="
    IN = "in"
    CONTAINS = "contains"
    REGEX_MATCHES = "regex_matches"
    NOT_REGEX_MATCHES = "not_regex_matches"


class CustomOperator(Struct, frozen=True):
    """An operator of the application's own; an adapter is told what it means by `register_operator`.

    Args:
        name: What tells it from others.
    """

    name: str


class FilterClause(Struct, frozen=True):
    r"""Demands something of one place in a projection.

    - EQUAL compares JSON, and numbers by value; None stands for null and for what is missing. NOT_EQUAL is the
      complement.
    - The four that order hold between two numbers, or between two strings (by code point); otherwise never.
    - IN: equal to one of the values. CONTAINS: the array there holds the value.
    - REGEX_MATCHES and NOT_REGEX_MATCHES search in strings, and never hold for anything else. Patterns may use what
      Python and PostgreSQL have in common: classes, groups, lookahead, greedy and lazy quantifiers, and the escapes
      `\d \w \s \D \W \S \n \r \t \f`, of which the classes are those of ASCII.

    Args:
        operator: How to compare.
        field: Where.
        value: With what: anything that could be stored in a projection.

    Raises:
        QueryError: The pattern is not a regular expression, IN has no sequence, or the first two are no operator and path.
        SerialisationError: The value has no JSON form.
    """

    operator: Operator | CustomOperator
    field: Path
    value: Any

    def __post_init__(self) -> None:
        _check_kind("the operator of a filter", self.operator, (Operator, CustomOperator), "an Operator")
        _check_kind("the field of a filter", self.field, (Path,), 'a Path, such as Path("state", "status")')
        if self.operator is Operator.IN and not is_sequence(_listed(self.value)):
            raise QueryError(
                f"IN takes the values to choose from as a sequence or set, not a {type(self.value).__name__}"
            )
        if self.operator in (Operator.REGEX_MATCHES, Operator.NOT_REGEX_MATCHES):
            compiled(self.value)
        _ = self.json_value

    def __hash__(self) -> int:
        return hash((self.operator, self.field))

    @property
    def json_value(self) -> Any:
        """The value as JSON; that of IN is a list."""
        return to_json(_listed(self.value), label=f"value of the filter on {self.field!r}", exact_floats=False)


@dataclass(frozen=True, init=False, slots=True)
class AllOf:
    """Holds where all of the filters do; without any, everywhere. Filters are nested at most 16 levels deep.

    Raises:
        QueryError: They are nested too deeply, or are no filters.
    """

    filters: tuple[FilterExpression, ...]

    def __init__(self, *filters: FilterExpression) -> None:
        _check_filters("AllOf", filters)
        object.__setattr__(self, "filters", filters)


@dataclass(frozen=True, init=False, slots=True)
class AnyOf:
    """Holds where at least one of the filters does; without any, nowhere; with the limit of `AllOf`."""

    filters: tuple[FilterExpression, ...]

    def __init__(self, *filters: FilterExpression) -> None:
        _check_filters("AnyOf", filters)
        object.__setattr__(self, "filters", filters)


class Not(Struct, frozen=True):
    """Holds where the filter does not; with the limit of `AllOf`."""

    filter: FilterExpression

    def __post_init__(self) -> None:
        _check_filters("Not", (self.filter,))


class CustomFilter(Struct, frozen=True):
    """The base of filters of the application's own; an adapter is told what one means by `register_filter`."""


FilterExpression: TypeAlias = FilterClause | AllOf | AnyOf | Not | CustomFilter
"""A filter, or a combination of filters."""

_FILTERS: Final = (FilterClause, AllOf, AnyOf, Not, CustomFilter)


class SortOrder(Enum):
    """Upwards or downwards."""

    ASC = "asc"
    DESC = "desc"


class SortField(Struct, frozen=True):
    """One thing to sort by.

    Args:
        field: A place, or a function of places.
        order: Ascending puts numbers first, then strings (by code point), false, true, arrays, objects, and last nulls and
            what is missing; arrays are equal in this order, and so are objects. Descending is the reverse.

    Raises:
        QueryError: They are of other types.
    """

    field: Path | Function
    order: SortOrder = SortOrder.ASC

    def __post_init__(self) -> None:
        _check_kind(
            "what is sorted by", self.field, (Path, Similarity, CustomFunction), "a Path or a function of paths"
        )
        _check_kind("the order of a SortField", self.order, (SortOrder,), "SortOrder.ASC or SortOrder.DESC")


class SortClause(Struct, frozen=True):
    """Sorts by several things, the first one first; ties break on the id, then on the name, ascending.

    Args:
        fields: What to sort by, in a list of at most 16.

    Raises:
        QueryError: It is not a list of SortFields, or too long.
    """

    fields: Sequence[SortField]

    def __post_init__(self) -> None:
        _check_kind("what a SortClause takes", self.fields, (Sequence,), "a list of SortFields")
        for field in self.fields:
            _check_kind("each field of a SortClause", field, (SortField,), "a SortField")
        if len(self.fields) > _MOST_SORT_FIELDS:
            raise QueryError(f"results are sorted by at most {_MOST_SORT_FIELDS} fields, not {len(self.fields)}")


class PagingDirection(Enum):
    """Which way pages are turned."""

    FORWARDS = "forwards"
    BACKWARDS = "backwards"


class OffsetPagingClause(Struct, frozen=True, kw_only=True):
    """One of the pages that all results are cut into.

    Args:
        page_number: Which one, from 1.
        item_count: How many results make a page, from 1.

    Raises:
        QueryError: There can be no such page.
    """

    page_number: int = 1
    item_count: int = 10

    def __post_init__(self) -> None:
        _check_count("page_number", self.page_number)
        _check_count("item_count", self.item_count)
        if self.page_number * self.item_count > LARGEST_NUMBER:
            raise QueryError(f"page {self.page_number} begins beyond what databases can count to")


class KeySetPagingClause(Struct, frozen=True):
    """The page before or after a result that was seen.

    Args:
        last_id: The id of that result. None: from the beginning; backwards: the last page.
        direction: FORWARDS: what comes after it. BACKWARDS: what comes just before it, in the same order.
        item_count: How many results make a page, from 1.

    Raises:
        QueryError: There can be no such page.
    """

    last_id: str | None = None
    direction: PagingDirection = PagingDirection.FORWARDS
    item_count: int = 10

    def __post_init__(self) -> None:
        _check_kind("the direction of paging", self.direction, (PagingDirection,), "a PagingDirection")
        _check_count("item_count", self.item_count)


PagingClause: TypeAlias = OffsetPagingClause | KeySetPagingClause
"""Which part of the results is wanted."""


class Lookup(Struct, frozen=True, kw_only=True):
    """Asks for the one projection that meets all filters.

    Args:
        filters: What it has to meet, with the limits of `Search`.

    Raises:
        QueryError: They are no filters, or too many.
    """

    filters: Collection[FilterExpression] = ()

    def __post_init__(self) -> None:
        _check_search("`filters`", self.filters)


class Search(Struct, frozen=True, kw_only=True):
    """Asks for the projections that meet all filters.

    Args:
        filters: What they have to meet; at most 200 clauses, those within AllOf, AnyOf and Not included.
        sort: In which order; None: as they were first saved.
        paging: Which of them; None: all.

    Raises:
        QueryError: They are of other types, or there are too many filters.
    """

    filters: Collection[FilterExpression] = ()
    sort: SortClause | None = None
    paging: PagingClause | None = None

    def __post_init__(self) -> None:
        _check_search("`filters`", self.filters)
        _check_kind(
            "`sort`", self.sort, (SortClause, NoneType), "a SortClause, such as SortClause([SortField(Path(...))])"
        )
        _check_kind(
            "`paging`",
            self.paging,
            (OffsetPagingClause, KeySetPagingClause, NoneType),
            "an OffsetPagingClause or a KeySetPagingClause",
        )


def _listed(value: Any) -> Any:
    kinds: Any = (set, frozenset)
    return list(value) if isinstance(value, kinds) else value


def _check_filters(what: str, filters: object) -> None:
    if not isinstance(filters, Collection) or isinstance(filters, str):
        raise QueryError(f"{what} takes filters in a list, not a {type(filters).__name__}")
    for each in cast("Collection[object]", filters):
        _check_kind(f"each filter of {what}", each, _FILTERS, "a FilterClause, AllOf, AnyOf, Not or CustomFilter")
        if _depth_of(cast("FilterExpression", each)) > _DEEPEST_NESTING:
            raise QueryError(
                f"filters can be nested {_DEEPEST_NESTING} levels deep at most: write AllOf(a, b, c) in the place of "
                "AllOf(a, AllOf(b, c)), and leave out Not(Not(...))"
            )


def _check_search(what: str, filters: Collection[FilterExpression]) -> None:
    _check_filters(what, filters)
    clauses = sum(map(_clauses_of, filters))
    if clauses > _MOST_CLAUSES:
        raise QueryError(
            f"a search has at most {_MOST_CLAUSES} filters, those within others included, not {clauses}: to choose from "
            "many values, use Operator.IN"
        )


def _members_of(filter_: FilterExpression) -> Collection[FilterExpression]:
    match filter_:
        case AllOf() | AnyOf():
            return filter_.filters
        case Not():
            return (filter_.filter,)
        case FilterClause() | CustomFilter():
            return ()


def _depth_of(filter_: FilterExpression) -> int:
    members = _members_of(filter_)
    return 1 + max(map(_depth_of, members)) if members else 1


def _clauses_of(filter_: FilterExpression) -> int:
    members = _members_of(filter_)
    return sum(map(_clauses_of, members)) if members else 1


def _check_kind(what: str, given: object, kinds: tuple[type[Any], ...], wanted: str) -> None:
    if not isinstance(given, kinds):
        raise QueryError(f"{what} has to be {wanted}; got a {type(given).__name__}")


def _check_count(what: str, count: object) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= LARGEST_NUMBER:
        raise QueryError(f"{what} counts from 1: it cannot be {count!r}")

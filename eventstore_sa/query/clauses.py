"""The query language as values, which are checked when they are made: paths, filters, sorting and paging.

What they mean is defined in `evaluation`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from types import NoneType
from typing import Any, Final, TypeAlias, cast

from msgspec import Struct

from eventstore_sa.errors import QueryError
from eventstore_sa.query.patterns import compiled
from eventstore_sa.types.codec import decode_json, encode_json, text_problem, to_json
from eventstore_sa.types.json import is_sequence
from eventstore_sa.types.numbers import LARGEST_NUMBER

__all__ = [
    "AllOf",
    "AnyOf",
    "CustomFilter",
    "CustomFunction",
    "CustomOperator",
    "FilterClause",
    "FilterExpression",
    "Function",
    "KeySetPagingClause",
    "Lookup",
    "Not",
    "OffsetPagingClause",
    "Operator",
    "PagingClause",
    "PagingDirection",
    "Path",
    "Search",
    "Similarity",
    "SortClause",
    "SortField",
    "SortOrder",
    "filter_clauses",
]


# Well below what the parsers of databases and the stack of Python take, in whatever combination.
_DEEPEST_NESTING = 16
_MOST_CLAUSES = 200
_MOST_SORT_FIELDS = 16
_LARGEST_INDEX = 2**31 - 1
_MOST_STEPS = 32


@dataclass(frozen=True, init=False, repr=False, slots=True)
class Path:
    """A place in a projection.

    String steps name members of objects; integer steps index arrays, negative ones from the end. If a step does not fit
    the value that it is applied to, the place is missing, which counts as null.

    Args:
        top_level: A field of projections: "id", "name", "source", "state" or "metadata".
        sub_levels: The steps below it, at most 32.

    Raises:
        QueryError: If a step is neither a string that can be stored nor a 32-bit integer, or if there are too many steps.

    Examples:
        >>> Path("state", "lines", 0, "sku")
        Path('state', 'lines', 0, 'sku')
    """

    top_level: str
    sub_levels: tuple[str | int, ...]

    def __init__(self, top_level: str, *sub_levels: str | int) -> None:
        for step in (top_level, *sub_levels):
            _check_step(step)
        if len(sub_levels) > _MOST_STEPS:
            raise QueryError(
                f"a path can have at most {_MOST_STEPS} steps below its field, not {len(sub_levels)}: filter by a value "
                "that is less deeply nested, or store a copy of the value higher up"
            )
        object.__setattr__(self, "top_level", top_level)
        object.__setattr__(self, "sub_levels", sub_levels)

    def __repr__(self) -> str:
        return f"Path({', '.join(map(repr, (self.top_level, *self.sub_levels)))})"


class Similarity(Struct, frozen=True):
    """How similar two texts are, from 0 to 1: the share of trigrams that they have in common, as defined by pg_trgm.

    Words are separated by ASCII characters other than letters and digits, and ASCII letters are compared without regard to
    case. The similarity to anything but a string is null. The result is a 32-bit float, as in pg_trgm.

    Args:
        left: A text, or the path to one.
        right: The other text, or the path to it.
        alias: A name for the value; does not affect the result.
    """

    left: Path | str
    right: Path | str
    alias: str = "similarity"


class CustomFunction(Struct, frozen=True):
    """Base class for your own functions; `register_function` of an adapter defines what one means."""


Function: TypeAlias = Similarity | CustomFunction
"""What results can be sorted by, other than paths."""


class Operator(Enum):
    """How a filter compares the stored value with its own."""

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
    """An operator of your own; `register_operator` of an adapter defines what it means.

    Args:
        name: Identifies the operator.
    """

    name: str


class FilterClause(Struct, frozen=True, dict=True):
    r"""Compares one place in a projection with a value.

    - EQUAL compares JSON, and numbers by value; None matches null and missing values. NOT_EQUAL is the complement.
    - The four ordering operators compare two numbers, or two strings by code point; between other values they never hold.
    - IN: the stored value is equal to one of the values. CONTAINS: the stored array has the value as an item.
    - REGEX_MATCHES and NOT_REGEX_MATCHES search in strings, and never hold for anything else. Patterns can use what
      Python and PostgreSQL have in common: classes, groups, lookahead, greedy and lazy quantifiers, and the escapes
      `\d \w \s \D \W \S \n \r \t \f`, with ASCII character classes.

    Args:
        operator: How to compare.
        field: The path to the stored value.
        value: What to compare with: anything that can be stored in a projection. It is converted to JSON once, when the
            clause is made.

    Raises:
        QueryError: If the pattern is not a valid regular expression, if the value for IN is not a sequence or set, or if
            `operator` or `field` is of another type.
        SerialisationError: If the value has no JSON form.
    """

    operator: Operator | CustomOperator
    field: Path
    value: Any

    def __post_init__(self) -> None:
        _check_kind("the operator of a filter", self.operator, (Operator, CustomOperator), "an Operator")
        _check_kind("the field of a filter", self.field, (Path,), 'a Path, such as Path("state", "status")')
        if self.operator is Operator.IN and not is_sequence(_listed(self.value)):
            raise QueryError(f"IN takes a sequence or set of values, not {type(self.value).__name__!r}")
        if self.operator in (Operator.REGEX_MATCHES, Operator.NOT_REGEX_MATCHES):
            compiled(self.value)
        _ = self.json_text

    def __hash__(self) -> int:
        return hash((self.operator, self.field))

    @property
    def json_text(self) -> str:
        """The value as JSON text."""
        # Not a cached_property: that of Python 3.11 would hold a lock of all clauses while code of the caller runs.
        known: dict[str, str] = vars(self)
        if "json_text" not in known:
            value = to_json(_listed(self.value), label=f"value of the filter on {self.field!r}")
            known["json_text"] = encode_json(value).decode()
        return known["json_text"]

    @cached_property
    def json_value(self) -> Any:
        """The value as plain JSON; that of IN is a list."""
        return decode_json(self.json_text)


@dataclass(frozen=True, init=False, slots=True)
class AllOf:
    """Holds if all of the filters hold; without filters, always. Filters can be nested at most 16 levels deep.

    Raises:
        QueryError: If an argument is not a filter, or if they are nested too deeply.
    """

    filters: tuple[FilterExpression, ...]

    def __init__(self, *filters: FilterExpression) -> None:
        _check_filters("AllOf", filters)
        object.__setattr__(self, "filters", filters)


@dataclass(frozen=True, init=False, slots=True)
class AnyOf:
    """Holds if at least one of the filters holds; without filters, never. The limit of `AllOf` applies."""

    filters: tuple[FilterExpression, ...]

    def __init__(self, *filters: FilterExpression) -> None:
        _check_filters("AnyOf", filters)
        object.__setattr__(self, "filters", filters)


class Not(Struct, frozen=True):
    """Holds if the filter does not hold. The limit of `AllOf` applies."""

    filter: FilterExpression

    def __post_init__(self) -> None:
        _check_filters("Not", (self.filter,))


class CustomFilter(Struct, frozen=True):
    """Base class for your own filters; `register_filter` of an adapter defines what one means."""


FilterExpression: TypeAlias = FilterClause | AllOf | AnyOf | Not | CustomFilter
"""A filter, or a combination of filters."""

_FILTERS: Final = (FilterClause, AllOf, AnyOf, Not, CustomFilter)


class SortOrder(Enum):
    """Ascending or descending."""

    ASC = "asc"
    DESC = "desc"


class SortField(Struct, frozen=True):
    """One field to sort by.

    Args:
        field: A path, or a function of paths.
        order: Ascending order puts numbers first, then strings (by code point), false, true, arrays, objects, and last nulls
            and missing values. All arrays are equal in this order, and so are all objects. Descending is the reverse.

    Raises:
        QueryError: If an argument has the wrong type.
    """

    field: Path | Function
    order: SortOrder = SortOrder.ASC

    def __post_init__(self) -> None:
        _check_kind(
            "the field of a SortField", self.field, (Path, Similarity, CustomFunction), "a Path or a function of paths"
        )
        _check_kind("the order of a SortField", self.order, (SortOrder,), "SortOrder.ASC or SortOrder.DESC")


class SortClause(Struct, frozen=True):
    """Sorts by one or more fields, the most significant first. Ties are broken by id, then by name, ascending.

    Args:
        fields: The fields to sort by, at most 16.

    Raises:
        QueryError: If `fields` is not a list of SortFields, or is too long.
    """

    fields: Sequence[SortField]

    def __post_init__(self) -> None:
        _check_kind("the argument of SortClause", self.fields, (Sequence,), "a list of SortFields")
        for field in self.fields:
            _check_kind("each field of a SortClause", field, (SortField,), "a SortField")
        if len(self.fields) > _MOST_SORT_FIELDS:
            raise QueryError(f"results can be sorted by at most {_MOST_SORT_FIELDS} fields, not {len(self.fields)}")


class PagingDirection(Enum):
    """The direction of paging."""

    FORWARDS = "forwards"
    BACKWARDS = "backwards"


class OffsetPagingClause(Struct, frozen=True, kw_only=True):
    """Selects a page of the results by its number.

    Args:
        page_number: The number of the page, from 1.
        item_count: The number of results on a page, at least 1.

    Raises:
        QueryError: If a number is out of range.
    """

    page_number: int = 1
    item_count: int = 10

    def __post_init__(self) -> None:
        _check_count("page_number", self.page_number)
        _check_count("item_count", self.item_count)
        if self.page_number * self.item_count > LARGEST_NUMBER:
            raise QueryError(
                f"page {self.page_number} is out of range: page_number * item_count must not exceed {LARGEST_NUMBER}"
            )


class KeySetPagingClause(Struct, frozen=True):
    """Selects the page of results before or after a given one.

    Args:
        last_id: The id of that result. None selects the first page, or the last one if `direction` is BACKWARDS.
        direction: FORWARDS selects the results after it. BACKWARDS selects the results just before it, in the same order.
        item_count: The number of results on a page, at least 1.

    Raises:
        QueryError: If an argument has the wrong type or is out of range.
    """

    last_id: str | None = None
    direction: PagingDirection = PagingDirection.FORWARDS
    item_count: int = 10

    def __post_init__(self) -> None:
        _check_kind("the direction of paging", self.direction, (PagingDirection,), "a PagingDirection")
        _check_count("item_count", self.item_count)


PagingClause: TypeAlias = OffsetPagingClause | KeySetPagingClause
"""Which part of the results to return."""


class Lookup(Struct, frozen=True, kw_only=True):
    """Looks up the one projection that matches all filters.

    Args:
        filters: The filters; the limits of `Search` apply.

    Raises:
        QueryError: If an item is not a filter, or if there are too many.
    """

    filters: Collection[FilterExpression] = ()

    def __post_init__(self) -> None:
        _check_search("`filters`", self.filters)


class Search(Struct, frozen=True, kw_only=True):
    """Searches for the projections that match all filters.

    Args:
        filters: The filters; at most 200 clauses, including those within AllOf, AnyOf and Not.
        sort: The order of the results. None: in the order in which they were first saved.
        paging: Which part of the results to return. None: all of them.

    Raises:
        QueryError: If an argument has the wrong type, or if there are too many filters.
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


def _check_step(step: object) -> None:
    match step:
        case bool():
            pass
        case str():
            problem = text_problem(step)
            if problem is None:
                return
            raise QueryError(f"a path step {problem}")
        case int() if abs(step) <= _LARGEST_INDEX:
            return
        case _:
            pass
    raise QueryError(f"a path step must be a string or a 32-bit integer, not {step!r}")


def _check_filters(what: str, filters: object) -> None:
    if not isinstance(filters, Collection) or isinstance(filters, str):
        raise QueryError(f"{what} takes a list of filters, not {type(filters).__name__!r}")
    for each in cast("Collection[object]", filters):
        _check_kind(f"each filter of {what}", each, _FILTERS, "a FilterClause, AllOf, AnyOf, Not or CustomFilter")
        if _depth_of(cast("FilterExpression", each)) > _DEEPEST_NESTING:
            raise QueryError(
                f"filters can be nested at most {_DEEPEST_NESTING} levels deep: write AllOf(a, b, c) instead of "
                "AllOf(a, AllOf(b, c)), and remove Not(Not(...))"
            )


def _check_search(what: str, filters: Collection[FilterExpression]) -> None:
    _check_filters(what, filters)
    clauses = sum(map(_clauses_of, filters))
    if clauses > _MOST_CLAUSES:
        raise QueryError(
            f"a search can have at most {_MOST_CLAUSES} filters, including nested ones, not {clauses}: use Operator.IN to "
            "compare with many values"
        )


def filter_clauses(filters: Iterable[FilterExpression]) -> Iterator[FilterClause]:
    """Yield the clauses of filters, including nested ones, in order."""
    for each in filters:
        if isinstance(each, FilterClause):
            yield each
        else:
            yield from filter_clauses(_members_of(each))


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
        raise QueryError(f"{what} must be {wanted}, not {type(given).__name__!r}")


def _check_count(what: str, count: object) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= LARGEST_NUMBER:
        raise QueryError(f"{what} must be an integer from 1 to {LARGEST_NUMBER}, not {count!r}")

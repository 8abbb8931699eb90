"""Cases about filters: every operator over values of every kind, paths, and groups of filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from eventstore_sa.errors import QueryError
from eventstore_sa.projection.adapters import ProjectionStorageAdapter
from eventstore_sa.query import (
    AllOf,
    AnyOf,
    FilterClause,
    FilterExpression,
    KeySetPagingClause,
    Lookup,
    Not,
    Operator,
    Path,
    Search,
    Similarity,
    SortClause,
    SortField,
    SortOrder,
)
from eventstore_sa.testing.cases.projection_setting import found_ids, projection, stored_states
from eventstore_sa.types import CategoryIdentifier, StreamIdentifier

__all__ = ["ProjectionFilterCases"]

_VALUE = Path("state", "value")
# Each has its place as id.
_STATES: Sequence[Any] = [
    *(None, "", [], {}, 0, False),
    *(1, 1.0, True, "1", "a", "B"),
    *("b", "ä", "\U0001f600", "\uffff", 10**20, -2.5),
    *([1, "a", None], [True], [[1]], [{"a": 1, "b": 2}], {"a": 1.0}, "a\nb"),
]
_EVERY = set(range(len(_STATES)))

_EQUALS: Sequence[tuple[Any, set[int]]] = [
    (None, {0}),
    ("", {1}),
    ([], {2}),
    ({}, {3}),
    (0, {4}),
    (False, {5}),
    (1, {6, 7}),
    (1.0, {6, 7}),
    (True, {8}),
    ("1", {9}),
    ("b", {12}),
    (1e20, {16}),
    ([1.0, "a", None], {18}),
    ([1], set()),
    ({"a": 1}, {22}),
]

_OPERATORS: Sequence[tuple[Operator, Any, set[int]]] = [
    (Operator.GREATER_THAN, 0, {6, 7, 16}),
    (Operator.GREATER_THAN_OR_EQUAL, 1, {6, 7, 16}),
    (Operator.LESS_THAN, 1, {4, 17}),
    (Operator.LESS_THAN_OR_EQUAL, 1.0, {4, 6, 7, 17}),
    (Operator.GREATER_THAN, "a", {12, 13, 14, 15, 23}),
    (Operator.GREATER_THAN_OR_EQUAL, "\uffff", {14, 15}),
    (Operator.LESS_THAN, "a", {1, 9, 11}),
    (Operator.LESS_THAN_OR_EQUAL, "B", {1, 9, 11}),
    (Operator.GREATER_THAN, None, set()),
    (Operator.LESS_THAN_OR_EQUAL, True, set()),
    (Operator.GREATER_THAN_OR_EQUAL, [], set()),
    (Operator.GREATER_THAN_OR_EQUAL, {}, set()),
    (Operator.IN, [], set()),
    (Operator.IN, ["a", None, 1], {0, 6, 7, 10}),
    (Operator.IN, [[True], {"a": 1}], {19, 22}),
    (Operator.CONTAINS, 1, {18}),
    (Operator.CONTAINS, None, {18}),
    (Operator.CONTAINS, True, {19}),
    (Operator.CONTAINS, [1], {20}),
    (Operator.CONTAINS, {"a": 1, "b": 2.0}, {21}),
    (Operator.CONTAINS, {"a": 1}, set()),
    (Operator.CONTAINS, [], set()),
    (Operator.REGEX_MATCHES, "", {1, 9, 10, 11, 12, 13, 14, 15, 23}),
    (Operator.REGEX_MATCHES, "[ab]$", {10, 12, 23}),
    (Operator.REGEX_MATCHES, "a.b", {23}),
    (Operator.REGEX_MATCHES, r"^\w$", {9, 10, 11, 12}),
    (Operator.NOT_REGEX_MATCHES, "[ab]", {1, 9, 11, 13, 14, 15}),
]
_HOSTILE: Sequence[str] = [
    "'; DROP TABLE es_projections; --",
    '"; DROP TABLE es_projections; --',
    "' OR '1'='1",
    '$."a"."b"',
    "a') -> 'b",
    "%s %(a)s :a $1 ? {} %%",
    "\\",
    "{a,b}",
    "ä\n\t'",
]
_PATHS: Sequence[tuple[Path, bool]] = [
    (Path("state", "list", 0), True),
    (Path("state", "list", -2), True),
    (Path("state", "list", "0"), False),
    (Path("state", "list", 2), False),
    (Path("state", "list", -3), False),
    (Path("state", 0), False),
    (Path("state", "0"), True),
    (Path("state", "list", 0, 0), False),
    (Path("state", "list", 0, "x"), False),
    (Path("state", "list", 1, "deep"), True),
    (Path("state", "a.b"), True),
    (Path("state", "a", "b"), False),
    (Path("state", "'; DROP TABLE es_projections; --"), True),
    (Path("state", "%s :x {} $1 \\"), True),
    (Path("metadata"), True),
    (Path("state", ""), True),
]


class ProjectionFilterCases:
    """Filters."""

    async def test_equal_compares_json_and_not_equal_is_its_complement(self, adapter: ProjectionStorageAdapter) -> None:
        await stored_states(adapter, *_STATES)

        for value, ids in _EQUALS:
            equal = await found_ids(adapter, FilterClause(Operator.EQUAL, _VALUE, value))
            unequal = await found_ids(adapter, FilterClause(Operator.NOT_EQUAL, _VALUE, value))

            assert (value, set(map(int, equal))) == (value, ids)
            assert (value, set(map(int, unequal))) == (value, _EVERY - ids)

    async def test_operators_find_what_they_say(self, adapter: ProjectionStorageAdapter) -> None:
        await stored_states(adapter, *_STATES)

        for operator, value, ids in _OPERATORS:
            found = await found_ids(adapter, FilterClause(operator, _VALUE, value))

            assert (operator, value, set(map(int, found))) == (operator, value, ids)

    async def test_paths_lead_to_members_and_elements(self, adapter: ProjectionStorageAdapter) -> None:
        members = ("0", "a.b", "'; DROP TABLE es_projections; --", "%s :x {} $1 \\", "")
        state = {**dict.fromkeys(members, "x"), "list": ["x", {"deep": "x"}], "scalar": "x"}
        await adapter.save(projection=projection("1", state, metadata="x"))

        for path, found in _PATHS:
            assert (path, await found_ids(adapter, FilterClause(Operator.EQUAL, path, "x"))) == (path, ["1"] * found)
            # What is missing counts as null.
            other = await found_ids(adapter, FilterClause(Operator.NOT_EQUAL, path, "x"))
            assert (path, other) == (path, ["1"] * (not found))
            is_null = await found_ids(adapter, FilterClause(Operator.EQUAL, path, None))
            assert (path, is_null) == (path, ["1"] * (not found))

    async def test_values_are_values_only(self, adapter: ProjectionStorageAdapter) -> None:
        values = ["' OR 1=1 --", "\\", "%", ":x", '"]', "{}", "$1"]
        await stored_states(adapter, *values)

        for number, value in enumerate(values):
            for operator, wanted in ((Operator.EQUAL, value), (Operator.IN, [value])):
                found = await found_ids(adapter, FilterClause(operator, _VALUE, wanted))
                assert (value, found) == (value, [str(number)])

    async def test_nothing_of_a_query_becomes_part_of_a_statement(self, adapter: ProjectionStorageAdapter) -> None:
        for hostile in _HOSTILE:
            key = f"id {hostile}"
            await adapter.save(projection=projection(key, {hostile: [hostile], "other": 1}, name=hostile))
            path = Path("state", hostile, 0)
            named = FilterClause(Operator.EQUAL, Path("name"), hostile)
            escaped = "".join(f"[{each}]" if each not in "\\[]^" else f"\\{each}" for each in hostile)

            for clause in (
                FilterClause(Operator.EQUAL, path, hostile),
                FilterClause(Operator.LESS_THAN_OR_EQUAL, path, hostile),
                FilterClause(Operator.IN, path, [hostile]),
                FilterClause(Operator.CONTAINS, Path("state", hostile), hostile),
                FilterClause(Operator.REGEX_MATCHES, path, f"^{escaped}$"),
                FilterClause(Operator.IN, Path("id"), [key]),
            ):
                assert (clause, await found_ids(adapter, named, clause)) == (clause, [key])
            for subject in (path, Similarity(path, hostile, alias=hostile)):
                sort = [SortField(subject)]
                assert await found_ids(adapter, named, sort=sort) == [key]
                assert await found_ids(adapter, named, sort=sort, paging=KeySetPagingClause(key)) == []

    async def test_names_ids_and_sources_are_filtered_like_anything_else(
        self, adapter: ProjectionStorageAdapter
    ) -> None:
        await adapter.save_all(
            projections=[projection("1", name="a"), projection("2", name="b", source=CategoryIdentifier("orders"))]
        )

        for operator, path, value in (
            (Operator.EQUAL, Path("name"), "a"),
            (Operator.LESS_THAN, Path("id"), "2"),
            (Operator.REGEX_MATCHES, Path("id"), "1"),
            (Operator.IN, Path("name"), ["a", "c", 1, None]),
            (Operator.NOT_EQUAL, Path("id"), "2"),
            (Operator.EQUAL, Path("source"), StreamIdentifier("orders", "1")),
            (Operator.NOT_EQUAL, Path("source"), CategoryIdentifier("orders")),
            (Operator.EQUAL, Path("source", "stream"), "1"),
        ):
            assert await found_ids(adapter, FilterClause(operator, path, value)) == ["1"], (operator, path, value)
        assert await found_ids(adapter, FilterClause(Operator.EQUAL, Path("id"), 1)) == []
        assert await found_ids(adapter, FilterClause(Operator.EQUAL, Path("id", 0), None)) == ["1", "2"]

    async def test_filters_are_combined(self, adapter: ProjectionStorageAdapter) -> None:
        await stored_states(adapter, 1, 2, 3, None)
        one, two = (FilterClause(Operator.EQUAL, _VALUE, value) for value in (1, 2))
        positive = FilterClause(Operator.GREATER_THAN, _VALUE, 0)

        assert await found_ids(adapter, one, two) == []
        assert await found_ids(adapter, AnyOf(one, two)) == ["0", "1"]
        assert await found_ids(adapter, AllOf(positive, Not(one))) == ["1", "2"]
        assert await found_ids(adapter, Not(positive)) == ["3"]
        assert await found_ids(adapter, Not(Not(positive)), Not(AnyOf(one, two))) == ["2"]
        assert await found_ids(adapter, AllOf()) == ["0", "1", "2", "3"]
        assert await found_ids(adapter, AnyOf()) == []
        assert await found_ids(adapter, Not(AllOf(Not(AnyOf(one))))) == ["0"]

    async def test_searches_up_to_their_limits_are_answered(self, adapter: ProjectionStorageAdapter) -> None:
        deep: Any = 1
        for _ in range(190):
            deep = [deep]
        await stored_states(adapter, 1, deep)
        one, positive = (FilterClause(operator, _VALUE, 1) for operator in (Operator.EQUAL, Operator.GREATER_THAN))
        nestings: Sequence[Callable[[Any], FilterExpression]] = (
            Not,
            AllOf,
            AnyOf,
            lambda each: AllOf(positive, each),
            lambda each: AnyOf(each, positive),
            lambda each: Not(AllOf(positive, each)),
            lambda each: Not(AnyOf(FilterClause(Operator.CONTAINS, _VALUE, [2]), each)),
        )

        for nest in nestings:
            deepest: FilterExpression = one
            nested = nest(deepest)
            with pytest.raises(QueryError, match="filters can be nested at most 16 levels deep"):
                while True:
                    deepest, nested = nested, nest(nested)
            await adapter.count(search=Search(filters=[deepest]))
        for operator, value in ((Operator.EQUAL, 1), (Operator.LESS_THAN, "a"), (Operator.CONTAINS, [1])):
            for step in ("value", -1, '"'):
                clause = FilterClause(operator, Path("state", *[step] * 32), value)
                assert await adapter.count(search=Search(filters=[Not(clause)])) == 2
            clauses = [FilterClause(operator, _VALUE, value)] * 200
            await adapter.count(search=Search(filters=[AnyOf(*clauses)]))
            await adapter.count(search=Search(filters=clauses))
        assert await found_ids(adapter, FilterClause(Operator.EQUAL, _VALUE, deep)) == ["1"]
        assert await found_ids(adapter, FilterClause(Operator.CONTAINS, _VALUE, deep[0])) == ["1"]
        assert await found_ids(adapter, FilterClause(Operator.EQUAL, _VALUE, [deep])) == []
        paths = [Path("state", *[0] * 32), *(Path("state", "value", number) for number in range(15))]
        sort = [SortField(path, (SortOrder.ASC, SortOrder.DESC)[number % 2]) for number, path in enumerate(paths)]
        assert await found_ids(adapter, sort=sort, paging=KeySetPagingClause("0")) == ["1"]

    async def test_searches_beyond_their_limits_are_refused(self, adapter: ProjectionStorageAdapter) -> None:
        one = FilterClause(Operator.EQUAL, _VALUE, 1)
        beyond: Sequence[tuple[str, Callable[[], object]]] = (
            ("at most 32 steps", lambda: Path("state", *["a"] * 33)),
            ("at most 200 filters", lambda: Search(filters=[one] * 201)),
            ("at most 200 filters", lambda: Search(filters=[Not(AllOf(*[one] * 100)), AnyOf(*[one] * 101)])),
            ("at most 200 filters", lambda: Lookup(filters=[AllOf(*[one] * 201)])),
            ("at most 16 fields", lambda: SortClause([SortField(_VALUE)] * 17)),
        )

        for message, make in beyond:
            with pytest.raises(QueryError, match=message):
                make()
        with pytest.raises(QueryError, match="at most 200 filters"):
            [each async for each in adapter.scan(filters=[one] * 201)]

    async def test_a_field_that_projections_do_not_have_is_refused(self, adapter: ProjectionStorageAdapter) -> None:
        with pytest.raises(QueryError, match="a path begins with one of"):
            await adapter.find_many(search=Search(filters=[Not(FilterClause(Operator.EQUAL, Path("status"), 1))]))
        with pytest.raises(QueryError, match="a path begins with one of"):
            await adapter.count(search=Search(filters=[FilterClause(Operator.EQUAL, Path("number"), 1)]))

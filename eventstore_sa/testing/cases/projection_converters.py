"""Cases about filters, operators and functions that are the application's own, for adapters that can be told of them.

They are mixed in beside `ProjectionStorageAdapterCases` or its twin, which have the fixtures.
"""

from __future__ import annotations

from typing import Any

import pytest

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection.adapters import ProjectionStorageAdapter
from eventstore_sa.query import (
    AnyOf,
    CustomFilter,
    CustomFunction,
    CustomOperator,
    FilterClause,
    KeySetPagingClause,
    Not,
    Operator,
    PagingDirection,
    Path,
    Search,
    SortClause,
    SortField,
    SortOrder,
)
from eventstore_sa.testing.cases.projection_setting import found_ids, stored_states
from eventstore_sa.testing.cases.tables import in_turn

__all__ = ["STARTS_WITH", "LengthOf", "ProjectionConverterCases", "ShorterThan"]

_VALUE = Path("state", "value")


class ShorterThan(CustomFilter, frozen=True):
    """Met by projections with a text at a path that has fewer characters."""

    path: Path
    length: int


STARTS_WITH = CustomOperator("starts with")
"""Holds where a text begins with the value of the clause."""


class LengthOf(CustomFunction, frozen=True):
    """The number of characters of the text at a path; null where there is none."""

    path: Path


class _Unregistered(CustomFilter, frozen=True):
    """Known to no adapter."""


class _UnregisteredFunction(CustomFunction, frozen=True):
    """Known to no adapter."""


class ProjectionConverterCases:
    """Filters, operators and functions of the application's own."""

    def register_converters(self, storage_adapter: Any) -> None:
        """Tell the adapter under test what `ShorterThan`, `STARTS_WITH` and `LengthOf` mean."""
        raise NotImplementedError(f"{type(self).__name__} does not override register_converters()")

    async def test_a_filter_of_ones_own_is_combined_with_others(
        self, adapter: ProjectionStorageAdapter, storage_adapter: Any
    ) -> None:
        self.register_converters(storage_adapter)
        await stored_states(adapter, "a", "abc", "ab", 1, None)
        short = ShorterThan(_VALUE, 3)

        assert await found_ids(adapter, short) == ["0", "2"]
        assert await found_ids(adapter, Not(short)) == ["1", "3", "4"]
        assert await found_ids(adapter, AnyOf(short, FilterClause(Operator.EQUAL, _VALUE, 1))) == ["0", "2", "3"]
        # The same again with another value.
        assert await found_ids(adapter, ShorterThan(_VALUE, 2)) == ["0"]

    async def test_an_operator_of_ones_own_compares(
        self, adapter: ProjectionStorageAdapter, storage_adapter: Any
    ) -> None:
        self.register_converters(storage_adapter)
        await stored_states(adapter, "abc", "aBc", "ab%", "xab", 1, None)

        for value, ids in (("ab", ["0", "2"]), ("a", ["0", "1", "2"]), ("ab%", ["2"]), ("' OR 1=1 --", [])):
            assert await found_ids(adapter, FilterClause(STARTS_WITH, _VALUE, value)) == ids
        assert await found_ids(adapter, Not(FilterClause(STARTS_WITH, _VALUE, "a"))) == ["3", "4", "5"]

    async def test_a_function_of_ones_own_is_sorted_by(
        self, adapter: ProjectionStorageAdapter, storage_adapter: Any
    ) -> None:
        self.register_converters(storage_adapter)
        await stored_states(adapter, "abc", "a", None, "bcd", "")
        by_length = [SortField(LengthOf(_VALUE), SortOrder.DESC), SortField(_VALUE, SortOrder.DESC)]

        everything = await found_ids(adapter, sort=by_length)
        after = await found_ids(adapter, sort=by_length, paging=KeySetPagingClause("3", item_count=2))
        before = await found_ids(adapter, sort=by_length, paging=KeySetPagingClause("3", PagingDirection.BACKWARDS))

        assert everything == ["2", "3", "0", "1", "4"]
        assert (after, before) == (["0", "1"], ["2"])

    async def test_what_was_not_registered_is_refused_with_what_to_call(
        self, adapter: ProjectionStorageAdapter
    ) -> None:
        await stored_states(adapter, 1)
        operator = CustomOperator("near")

        with pytest.raises(ConfigurationError, match=r"adapter\.register_filter\(_Unregistered"):
            await adapter.find_many(search=Search(filters=[Not(_Unregistered())]))
        with pytest.raises(ConfigurationError, match=r"adapter\.register_operator\(CustomOperator\(name='near'\)"):
            await adapter.count(search=Search(filters=[FilterClause(operator, _VALUE, 1)]))
        with pytest.raises(ConfigurationError, match=r"adapter\.register_function\(_UnregisteredFunction"):
            await adapter.find_many(search=Search(sort=SortClause([SortField(_UnregisteredFunction())])))

    @in_turn("wrong", [CustomFilter, CustomFunction, Operator.EQUAL, str, None])
    async def test_what_is_no_type_of_ones_own_cannot_be_registered(self, storage_adapter: Any, wrong: Any) -> None:
        for register in (
            storage_adapter.register_filter,
            storage_adapter.register_operator,
            storage_adapter.register_function,
        ):
            with pytest.raises(ConfigurationError, match=r"can be registered for subclasses|must be a CustomOperator"):
                register(wrong, len)

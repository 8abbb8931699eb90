"""Cases about sorting, similarity and paging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from eventstore_sa.errors import QueryError
from eventstore_sa.projection.adapters import ProjectionStorageAdapter
from eventstore_sa.query import (
    FilterClause,
    Function,
    KeySetPagingClause,
    OffsetPagingClause,
    Operator,
    PagingDirection,
    Path,
    Search,
    Similarity,
    SortClause,
    SortField,
    SortOrder,
)
from eventstore_sa.testing.cases.projection_setting import found_ids, projection, stored_states
from eventstore_sa.testing.cases.tables import in_turn

__all__ = ["ProjectionOrderCases"]

_VALUE = Path("state", "value")
_MIXED: Sequence[Any] = [*(None, {"a": 1}, [2], [1], True, False, "b", "B", "ä", "a", "", 10**20, 2, 1.5, -1), None]
_MIXED_IN_ORDER = ["14", "13", "12", "11", "10", "7", "9", "6", "8", "5", "4", "2", "3", "1", "0", "15"]
_SORTS: dict[str, Sequence[SortField]] = {
    "none": [],
    "up": [SortField(_VALUE)],
    "down": [SortField(_VALUE, SortOrder.DESC)],
    "mixed directions": [SortField(Path("state", "group"), SortOrder.DESC), SortField(_VALUE)],
    "similarity": [SortField(Similarity(_VALUE, "abc"), SortOrder.DESC), SortField(Path("state", "group"))],
    "id": [SortField(Path("id"), SortOrder.DESC)],
}


class ProjectionOrderCases:
    """Sorting and paging."""

    async def test_unsorted_results_come_in_the_order_of_their_first_save(
        self, adapter: ProjectionStorageAdapter
    ) -> None:
        await adapter.save_all(projections=list(map(projection, "bac")))
        await adapter.save(projection=projection("0"))
        await adapter.save(projection=projection("a"))

        assert await found_ids(adapter) == ["b", "a", "c", "0"]

    async def test_sorting_orders_kinds_then_values_then_ids(self, adapter: ProjectionStorageAdapter) -> None:
        await stored_states(adapter, *_MIXED)

        ascending = await found_ids(adapter, sort=[SortField(_VALUE, SortOrder.ASC)])
        descending = await found_ids(adapter, sort=[SortField(_VALUE, SortOrder.DESC)])

        assert ascending == _MIXED_IN_ORDER
        # What is equal stands in the order of ids in both directions.
        assert descending == ["0", "15", "1", "2", "3", *_MIXED_IN_ORDER[:11][::-1]]

    async def test_ties_break_on_the_id_and_then_on_the_name(self, adapter: ProjectionStorageAdapter) -> None:
        names = ("z", "a")
        await adapter.save_all(
            projections=[projection(key, name, name=name) for key in ("B", "a", "A") for name in names]
        )

        sort = SortClause([SortField(_VALUE, SortOrder.DESC)])
        found = [(each.id, each.name) for each in await adapter.find_many(search=Search(sort=sort))]
        first_z = await found_ids(adapter, sort=[SortField(Path("name"), SortOrder.DESC)])

        assert found == [(key, name) for key in "ABa" for name in "az"]
        assert first_z == ["A", "B", "a", "A", "B", "a"]

    @in_turn(
        "subject, expected",
        [
            (Similarity(_VALUE, "xyz", "likeness"), ["3", "1", "2", "0", "5", "4"]),
            (Similarity("XYZ", _VALUE), ["3", "1", "2", "0", "5", "4"]),
            (Similarity(_VALUE, _VALUE), ["0", "1", "2", "3", "5", "4"]),
        ],
    )
    async def test_sorting_by_similarity(
        self, adapter: ProjectionStorageAdapter, subject: Function, expected: list[str]
    ) -> None:
        await stored_states(adapter, "abx", "xyzabxyz", "axyz bcdefghijklm", "xyz", 5, "")

        found = await found_ids(adapter, sort=[SortField(subject, SortOrder.DESC)])

        # Nulls come first when descending.
        assert found == [expected[-1], *expected[:-1]]

    @in_turn("sort", _SORTS)
    async def test_pages_put_together_are_all_results(
        self, adapter: ProjectionStorageAdapter, sort: Sequence[SortField]
    ) -> None:
        states: list[Any] = ["abc", None, "abd", 3, "abcd", True, [], "x", 3, "xyz"]
        await adapter.save_all(
            projections=[
                projection(key, {"value": state, "group": number % 3})
                for number, (key, state) in enumerate(zip("dbcaefhgji", states, strict=True))
            ]
        )
        everything = await found_ids(adapter, sort=sort or None)
        assert sorted(everything) == list("abcdefghij")

        for size in (1, 3, 10):
            forwards: list[str] = []
            backwards: list[str] = []
            by_number: list[str] = []
            for number in range(10 // size + 1):
                last = forwards[-1] if forwards else None
                forwards += await found_ids(
                    adapter, sort=sort or None, paging=KeySetPagingClause(last, item_count=size)
                )
                last = backwards[0] if backwards else None
                before = KeySetPagingClause(last, PagingDirection.BACKWARDS, size)
                backwards = await found_ids(adapter, sort=sort or None, paging=before) + backwards
                page = OffsetPagingClause(page_number=number + 1, item_count=size)
                by_number += await found_ids(adapter, sort=sort or None, paging=page)

            assert forwards == everything
            assert backwards == everything
            assert by_number == everything

    @in_turn("order", SortOrder)
    async def test_a_scan_of_many_comes_in_order_and_is_complete(
        self, adapter: ProjectionStorageAdapter, order: SortOrder
    ) -> None:
        values: list[Any] = [None, "a", 10**20, 0.5, True, "ä", []]
        states = [{"value": values[number % 7]} for number in range(2_500)]
        await adapter.save_all(projections=[projection(str(number), state) for number, state in enumerate(states)])

        scanned = await found_ids(adapter, sort=[SortField(_VALUE, order), SortField(Path("name"))])

        assert len(set(scanned)) == len(states)

    async def test_filters_come_before_paging(self, adapter: ProjectionStorageAdapter) -> None:
        await stored_states(adapter, 1, 5, 2, 5, 5)
        five = FilterClause(Operator.EQUAL, _VALUE, 5)

        assert await found_ids(adapter, five, paging=OffsetPagingClause(page_number=2, item_count=2)) == ["4"]
        assert await found_ids(adapter, five, paging=KeySetPagingClause("1", item_count=1)) == ["3"]

    @in_turn("direction", PagingDirection)
    @in_turn("last_id", ["missing", "0"])
    async def test_an_id_that_is_not_among_the_results_is_an_error(
        self, adapter: ProjectionStorageAdapter, direction: PagingDirection, last_id: str
    ) -> None:
        await stored_states(adapter, 1, 5)
        five = FilterClause(Operator.EQUAL, _VALUE, 5)

        with pytest.raises(QueryError, match="not among the results"):
            await found_ids(adapter, five, paging=KeySetPagingClause(last_id, direction))
        assert await found_ids(adapter, five, paging=KeySetPagingClause("1", direction)) == []

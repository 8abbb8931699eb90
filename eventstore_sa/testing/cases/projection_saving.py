"""Cases about saving, loading and deleting projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from eventstore_sa.errors import ConfigurationError, ProjectionVersionError, QueryError, SerialisationError
from eventstore_sa.projection.adapters import ProjectionStorageAdapter
from eventstore_sa.query import FilterClause, Lookup, Operator, Path, Search
from eventstore_sa.testing.cases.projection_setting import found_ids, projection
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import (
    CategoryIdentifier,
    EventQuery,
    EventSourceIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    QueryItem,
    QueryPartitionIdentifier,
    StreamIdentifier,
)

__all__ = ["ProjectionSavingCases"]


@dataclass
class _Total:
    total: int


_STATES: Sequence[Any] = [
    None,
    True,
    0,
    -1.5,
    10**30,
    1e300,
    0.1,
    "",
    "Grüße 🎉 \\ \" ' % :x \x7f",
    [],
    {},
    [1, [2, {"three": None}]],
    {"": {"a.b": 1, "a b": [True]}, "$": "$"},
]
_SOURCES: Sequence[EventSourceIdentifier] = [
    LogIdentifier(),
    CategoryIdentifier("orders"),
    StreamIdentifier("orders", "1"),
    StreamIdentifier("o" * 1000, "ü" * 500),
    LogPartitionIdentifier(1, 4),
    EventQuery.tagged("course:1"),
    EventQuery([QueryItem(names=["joined"], tags=["course:1", "student:1"]), QueryItem(names=["left"])]),
    QueryPartitionIdentifier(EventQuery.tagged("course:1"), 1, 4),
]


def _lookup(**fields: Any) -> Lookup:
    return Lookup(filters=[FilterClause(Operator.EQUAL, Path(field), value) for field, value in fields.items()])


class ProjectionSavingCases:
    """Saving, loading, deleting, versions."""

    async def test_state_and_metadata_come_back_as_they_were(self, adapter: ProjectionStorageAdapter) -> None:
        saved = [projection(str(number), state, metadata={"about": state}) for number, state in enumerate(_STATES)]

        await adapter.save_all(projections=saved)

        loaded = await adapter.find_many(search=Search())
        assert list(loaded) == saved
        assert [type(each.state) for each in loaded] == [type(state) for state in _STATES]

    async def test_a_projection_is_found_by_its_source(self, adapter: ProjectionStorageAdapter) -> None:
        saved = [projection(str(number), source=source) for number, source in enumerate(_SOURCES)]
        await adapter.save_all(projections=saved)

        for each in saved:
            assert await adapter.find_one(lookup=_lookup(name="summary", source=each.source)) == each
            assert await found_ids(adapter, *_lookup(source=each.source.serialise()).filters) == [each.id]

    async def test_state_and_metadata_are_made_into_the_types_that_are_asked_for(
        self, adapter: ProjectionStorageAdapter
    ) -> None:
        await adapter.save(projection=projection("1", {"total": 3}, metadata=["a"]))

        one = await adapter.find_one(lookup=_lookup(id="1"), state_type=dict[str, int], metadata_type=tuple[str])
        (many,) = await adapter.find_many(search=Search(), state_type=_Total, metadata_type=list[str])

        assert one is not None
        assert (one.state, one.metadata) == ({"total": 3}, ("a",))
        assert (many.state, many.metadata) == (_Total(3), ["a"])
        with pytest.raises(SerialisationError, match="cannot be deserialised to int"):
            await adapter.find_one(lookup=_lookup(id="1"), state_type=int)

    async def test_what_is_not_there_is_none(self, adapter: ProjectionStorageAdapter) -> None:
        await adapter.save(projection=projection("1"))

        assert await adapter.find_one(lookup=_lookup(id="2", name="summary")) is None
        assert await adapter.find_one(lookup=_lookup(id="1", name="other")) is None

    async def test_a_lookup_that_finds_several_is_an_error(self, adapter: ProjectionStorageAdapter) -> None:
        await adapter.save_all(projections=[projection("1"), projection("2")])

        with pytest.raises(QueryError, match="several projections"):
            await adapter.find_one(lookup=_lookup(name="summary"))

    async def test_saving_again_replaces_state_and_metadata_and_nothing_else(
        self, adapter: ProjectionStorageAdapter
    ) -> None:
        await adapter.save_all(projections=[projection("1", 1, source=LogIdentifier()), projection("2", 2)])

        await adapter.save(projection=projection("1", 3, metadata=4, source=StreamIdentifier("orders", "9")))

        found = await adapter.find_many(search=Search())
        assert list(found) == [projection("1", 3, metadata=4, source=LogIdentifier()), projection("2", 2)]

    async def test_the_key_is_name_and_id(self, adapter: ProjectionStorageAdapter) -> None:
        await adapter.save(projection=projection("1", 1, name="a"))
        await adapter.save(projection=projection("1", 2, name="b"))
        await adapter.save(projection=projection("1 ", 3, name="a"))
        await adapter.save(projection=projection("A", 4, name="a"))
        await adapter.save(projection=projection("a", 5, name="a"))

        assert [each.state for each in await adapter.find_many(search=Search())] == [1, 2, 3, 4, 5]

    async def test_versions_count_the_saves(self, adapter: ProjectionStorageAdapter) -> None:
        assert await adapter.save(projection=projection("1")) == 1
        assert await adapter.save(projection=projection("1")) == 2
        assert list(await adapter.save_all(projections=[projection("2"), projection("1")])) == [1, 3]

        assert [each.version for each in await adapter.find_many(search=Search())] == [3, 1]

    async def test_a_save_over_the_expected_version_is_done(self, adapter: ProjectionStorageAdapter) -> None:
        assert await adapter.save(projection=projection("1", 1), expected_version=0) == 1
        assert await adapter.save(projection=projection("1", {"a": 2}, metadata=[3]), expected_version=1) == 2

        loaded = await adapter.find_one(lookup=_lookup(id="1"))
        assert loaded == projection("1", {"a": 2}, metadata=[3])

    @in_turn("saves, expected", [(0, 1), (1, 0), (2, 1), (1, 2), (0, 2**63 - 1), (1, 2**63), (1, 10**30)])
    async def test_a_save_over_another_version_changes_nothing(
        self, adapter: ProjectionStorageAdapter, saves: int, expected: int
    ) -> None:
        await adapter.delete(name="summary", id="1")
        for _ in range(saves):
            await adapter.save(projection=projection("1", "kept"))

        with pytest.raises(ProjectionVersionError, match="load it again") as caught:
            await adapter.save(projection=projection("1", "lost"), expected_version=expected)

        assert (caught.value.expected_version, caught.value.actual_version) == (expected, saves)
        assert [each.state for each in await adapter.find_many(search=Search())] == ["kept"] * min(saves, 1)

    @in_turn("version", [-1, -(2**63), True, "1", 1.0])
    async def test_what_is_no_version_is_refused(self, adapter: ProjectionStorageAdapter, version: Any) -> None:
        with pytest.raises(ConfigurationError, match="expected_version"):
            await adapter.save(projection=projection("1"), expected_version=version)

    async def test_a_batch_may_be_of_any_size(self, adapter: ProjectionStorageAdapter) -> None:
        ids = [str(number) for number in range(5_000)]

        assert list(await adapter.save_all(projections=[])) == []
        await adapter.save_all(projections=list(map(projection, ids)))

        assert await found_ids(adapter) == ids

    async def test_of_a_batch_with_one_bad_projection_nothing_is_saved(self, adapter: ProjectionStorageAdapter) -> None:
        with pytest.raises(SerialisationError, match="state of projection 'summary'"):
            await adapter.save_all(projections=[projection("1"), projection("2", float("nan"))])
        with pytest.raises(ConfigurationError, match="twice"):
            await adapter.save_all(projections=[projection("1"), projection("1")])

        assert await adapter.count(search=Search()) == 0

    async def test_what_is_stored_is_a_copy(self, adapter: ProjectionStorageAdapter) -> None:
        state = {"items": [1]}
        await adapter.save(projection=projection("1", state))
        state["items"].append(2)

        (first,) = await adapter.find_many(search=Search())
        first_state: Any = first.state
        first_state["items"].append(3)

        (second,) = await adapter.find_many(search=Search())
        assert second.state == {"items": [1]}

    async def test_what_is_deleted_is_gone_and_begins_anew(self, adapter: ProjectionStorageAdapter) -> None:
        await adapter.save_all(projections=[projection("1"), projection("2"), projection("1", name="other")])

        assert await adapter.delete(name="summary", id="1") is True
        assert await adapter.delete(name="summary", id="1") is False

        assert await adapter.save(projection=projection("1"), expected_version=0) == 1
        assert await found_ids(adapter) == ["2", "1", "1"]

"""Cases about keeping snapshots: as they are given, the newest of each key, until they are pruned."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from msgspec.structs import replace

from eventstore_sa.projection.adapters import SnapshotStorageAdapter
from eventstore_sa.testing.cases.tables import case, in_turn
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventQuery,
    EventSourceIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    QueryItem,
    QueryPartitionIdentifier,
    Snapshot,
    SnapshotKey,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
)

__all__ = ["SnapshotSavingCases"]

_TEXTS: Sequence[str] = [
    "null",
    "0",
    '""',
    '{"b":1,"a":2,"b":3}',
    '{ "spaced" : [ 1.50, 1e2, -0.0 ] }',
    '"Grüße 🎉 \\u0041 \\\\ \' % :x \x7f"',
    "123456789012345678901234567890",
    "not even JSON",
    '"' + "x" * 100_000 + '"',
]
_SOURCES: Sequence[EventSourceIdentifier] = [
    LogIdentifier(),
    CategoryIdentifier("orders"),
    CategoryIdentifier("Orders"),
    CategoryIdentifier("orders "),
    StreamIdentifier("orders", "1"),
    StreamIdentifier("orders", "2"),
    StreamIdentifier("o" * 1000, "ü" * 500),
    StreamIdentifier("o" * 1000, "ü" * 499),
    LogPartitionIdentifier(0, 2),
    LogPartitionIdentifier(1, 2),
    CategoryPartitionIdentifier("orders", 0, 2),
    StreamNamePrefixPartitionIdentifier("orders", "1"),
    EventQuery.tagged("course:1"),
    EventQuery([QueryItem(names=["joined"], tags=["course:1", "student:1"]), QueryItem(names=["left"])]),
    QueryPartitionIdentifier(EventQuery.tagged("course:1"), 1, 4),
]
_NAMES: Sequence[str] = ["orders", "Orders", "orders ", "ordérs", "p" * 1000]
_LONG_AGO = datetime(2020, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)


def _key(
    projector: str = "summary", version: int | str = 1, source: EventSourceIdentifier | None = None
) -> SnapshotKey:
    return SnapshotKey.of(projector, version, StreamIdentifier("orders", "1") if source is None else source)


def _snapshot(key: SnapshotKey | None = None, place: int = 0, state: str = "{}", **fields: Any) -> Snapshot:
    taken = Snapshot.taken(
        key=_key() if key is None else key, place=place, event_id=uuid4(), state=state, metadata="null"
    )
    return replace(taken, **fields)


class SnapshotSavingCases:
    """Saving, finding, pruning."""

    async def test_what_is_not_there_is_none(self, adapter: SnapshotStorageAdapter) -> None:
        assert await adapter.find(key=_key()) is None

    @in_turn("text", _TEXTS)
    async def test_a_snapshot_comes_back_letter_for_letter(self, adapter: SnapshotStorageAdapter, text: str) -> None:
        key = _key(f"summary of {_TEXTS.index(text)}")
        snapshot = _snapshot(key, state=text, metadata=text, taken_at=_LONG_AGO).signed()

        assert await adapter.save(snapshot=snapshot) is True

        found = await adapter.find(key=snapshot.key)
        assert found == snapshot
        assert found is not None
        assert found.problem is None
        assert type(found.event_id) is UUID

    async def test_a_time_in_another_zone_is_the_same_moment(self, adapter: SnapshotStorageAdapter) -> None:
        zoned = datetime.fromisoformat("2020-02-29T14:30:15.123456+02:00")

        await adapter.save(snapshot=_snapshot(taken_at=zoned))

        found = await adapter.find(key=_key())
        assert found is not None
        assert found.taken_at == _LONG_AGO
        assert found.taken_at.tzinfo is not None

    async def test_what_does_not_fit_its_checksum_is_returned_as_it_is(self, adapter: SnapshotStorageAdapter) -> None:
        damaged = _snapshot(checksum=-(2**63), format=7, place=2**62)

        await adapter.save(snapshot=damaged)

        assert await adapter.find(key=damaged.key) == damaged

    async def test_projectors_versions_and_sources_are_told_apart(self, adapter: SnapshotStorageAdapter) -> None:
        keys = [_key(source=source) for source in _SOURCES]
        keys += [_key(projector=name) for name in _NAMES]
        keys += [_key(version=version) for version in (2, 10, "1 ", "a", "A", "v" * 1000)]
        snapshots = [_snapshot(key, state=str(number)) for number, key in enumerate(keys)]

        for snapshot in snapshots:
            assert await adapter.save(snapshot=snapshot) is True

        assert [await adapter.find(key=key) for key in keys] == snapshots

    async def test_a_later_snapshot_takes_the_place_of_an_earlier_one(self, adapter: SnapshotStorageAdapter) -> None:
        earlier, later = _snapshot(place=8, taken_at=_LONG_AGO), _snapshot(place=9, state="[1]")

        assert await adapter.save(snapshot=earlier) is True
        assert await adapter.save(snapshot=later) is True

        assert await adapter.find(key=_key()) == later

    async def test_an_earlier_snapshot_changes_nothing(self, adapter: SnapshotStorageAdapter) -> None:
        kept = _snapshot(place=9)
        await adapter.save(snapshot=kept)

        for place in (8, 9):
            with case(place):
                assert await adapter.save(snapshot=_snapshot(place=place, state="1")) is False

                assert await adapter.find(key=_key()) == kept

    async def test_an_unfit_snapshot_is_replaced_by_an_earlier_one(self, adapter: SnapshotStorageAdapter) -> None:
        unfit, fit = _snapshot(place=9), _snapshot(place=3)
        await adapter.save(snapshot=unfit)

        assert await adapter.save(snapshot=fit, replacing=unfit) is True

        assert await adapter.find(key=_key()) == fit

    async def test_what_has_been_replaced_by_another_stays(self, adapter: SnapshotStorageAdapter) -> None:
        unfit, other = _snapshot(place=9), _snapshot(place=9, state="1")
        await adapter.save(snapshot=other)

        assert await adapter.save(snapshot=_snapshot(place=3), replacing=unfit) is False

        assert await adapter.find(key=_key()) == other

    async def test_of_writers_at_once_the_newest_wins(self, adapter: SnapshotStorageAdapter) -> None:
        places = [(number * 7) % 20 for number in range(20)]
        snapshots = [_snapshot(place=place) for place in places]

        await asyncio.gather(*(adapter.save(snapshot=snapshot) for snapshot in snapshots))

        found = await adapter.find(key=_key())
        assert found == max(snapshots, key=lambda snapshot: snapshot.place)

    async def test_prune_deletes_what_meets_all_conditions(self, adapter: SnapshotStorageAdapter) -> None:
        old, new = _key(version=1), _key(version=2)
        other = _key(projector="other")
        for key in (old, new, other):
            await adapter.save(snapshot=_snapshot(key))

        assert await adapter.prune(projector="summary", keep_version="2") == 1
        assert await adapter.prune(projector="summary", keep_version="2") == 0

        assert [await adapter.find(key=key) is not None for key in (old, new, other)] == [False, True, True]
        assert await adapter.prune(projector="other") == 1
        assert [await adapter.find(key=key) is not None for key in (new, other)] == [True, False]

    async def test_prune_deletes_what_was_taken_before(self, adapter: SnapshotStorageAdapter) -> None:
        keys = [_key(source=StreamIdentifier("orders", str(number))) for number in range(4)]
        for days, key in enumerate(keys):
            await adapter.save(snapshot=_snapshot(key, taken_at=_LONG_AGO + timedelta(days=days)))

        assert await adapter.prune(taken_before=_LONG_AGO + timedelta(days=1)) == 1
        before = _LONG_AGO.astimezone().replace(microsecond=0) + timedelta(days=2, seconds=1)
        assert await adapter.prune(projector="summary", taken_before=before) == 2

        assert [await adapter.find(key=key) is not None for key in keys] == [False, False, False, True]

"""Cases: a store with event types over the adapter publishes and reads objects, and changes nothing else about reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest

from eventstore_sa.conditions import no_event_matches
from eventstore_sa.errors import InvalidPayloadError, SerialisationError, UnmetWriteConditionError
from eventstore_sa.sources.constraints import name_in
from eventstore_sa.store import EventStore
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter
from eventstore_sa.testing.cases.setting import EventStorageSetting, new_event, stream
from eventstore_sa.testing.cases.tables import case
from eventstore_sa.types import AnyStoredEvent, EventQuery, EventTypes, NewEvent, QueryItem, event

__all__ = ["TypedCases"]


@event(
    "goods-moved",
    version=2,
    aliases=["moved"],
    upcast={1: lambda payload: {**payload, "unit": "kg"}},
    tags=lambda moved: [f"unit:{moved.unit}"],
)
@dataclass(frozen=True)
class _Moved:
    weight: int
    unit: str


@event("goods-counted")
@dataclass(frozen=True)
class _Counted:
    amount: int


TYPES: Final[EventTypes[Any]] = EventTypes(_Moved, _Counted)
SKIPPING: Final[EventTypes[Any]] = EventTypes(_Moved, _Counted, unknown="skip", invalid="skip")


def _payloads(events: Sequence[AnyStoredEvent]) -> list[Any]:
    return [event.payload for event in events]


class TypedCases(EventStorageSetting):
    """What stores with event types make of the adapter."""

    def _typed(self, adapter: EventStorageAdapter, types: EventTypes[Any] = TYPES) -> Any:
        """Return a stream of a store with types."""
        return EventStore(adapter, types=types).stream(category=stream().category, stream=stream().stream)

    async def test_typed_stores_read_the_objects_that_they_publish(self, adapter: EventStorageAdapter) -> None:
        typed = self._typed(adapter)
        given = [_Moved(number, "t") for number in range(3)] + [_Counted(2**70)]

        stored = await typed.publish(events=given)

        assert _payloads(stored) == given
        assert [(each.name, each.version) for each in stored] == [("goods-moved", 2)] * 3 + [("goods-counted", 1)]
        for arguments, expected in (
            ({}, given),
            ({"backwards": True}, given[::-1]),
            ({"limit": 2}, given[:2]),
            ({"limit": 2, "backwards": True}, given[:1:-1]),
            ({"limit": 0}, []),
            ({"constraints": frozenset({name_in([_Counted])})}, given[3:]),
        ):
            with case(arguments):
                read: list[Any] = [each async for each in typed.iterate(**arguments)]
                assert _payloads(read) == expected
        assert (await typed.latest()).payload == given[3]
        assert await typed.publish(events=[]) == []
        assert (await adapter.latest(target=stream())) == (await self._untyped(adapter))[-1]

    async def _untyped(self, adapter: EventStorageAdapter) -> Sequence[AnyStoredEvent]:
        """Read the stream as it is stored."""
        return await EventStore(adapter).stream(category=stream().category, stream=stream().stream).read()

    async def test_typed_stores_bring_old_events_up_to_date(self, adapter: EventStorageAdapter) -> None:
        old = [NewEvent(name=name, payload={"weight": 3}) for name in ("moved", "goods-moved")]
        await adapter.save(target=stream(), events=old)
        typed = self._typed(adapter)

        read = await typed.read()

        assert _payloads(read) == [_Moved(3, "kg")] * 2
        assert [(each.name, each.version) for each in read] == [("goods-moved", 1)] * 2
        assert len([each async for each in typed.iterate(constraints=frozenset({name_in(["moved"])}))]) == 2
        assert _payloads(await self._untyped(adapter)) == [{"weight": 3}] * 2
        if self.checks_queries:
            with pytest.raises(UnmetWriteConditionError):
                await typed.publish(events=[], condition=no_event_matches(EventQuery([QueryItem(names=[_Moved])])))

    async def test_typed_stores_stop_at_what_they_cannot_read_or_skip_it(self, adapter: EventStorageAdapter) -> None:
        first, last = (
            new_event("goods-counted", payload={"amount": 1}),
            new_event("goods-counted", payload={"amount": 2}),
        )
        await adapter.save(target=stream(), events=[first, new_event("goods-counted", payload={"amount": "x"}), last])
        seen: list[AnyStoredEvent] = []

        with pytest.raises(InvalidPayloadError) as unreadable:
            async for each in self._typed(adapter).iterate():
                seen.append(each)  # noqa: PERF401 - what comes before the error counts

        assert _payloads(seen) == [_Counted(1)]
        assert (unreadable.value.position, unreadable.value.stream) == (1, stream())
        skipping = self._typed(adapter, SKIPPING)
        assert _payloads(await skipping.read()) == [_Counted(1), _Counted(2)]
        assert _payloads([each async for each in skipping.iterate(limit=2)]) == [_Counted(1), _Counted(2)]
        with pytest.raises(SerialisationError):
            await self._typed(adapter).publish(
                events=[_Counted(3), NewEvent(name="goods-counted", payload={"amount": "y"})]
            )
        assert len(await self._untyped(adapter)) == 3

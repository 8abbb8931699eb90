"""Typed events: what reading objects costs beside reading JSON, and what upcasts and encryption cost an event; no peers.

What one event costs is measured without a database, as the least of many short series, in nanoseconds of the processor.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pydantic

from benchmarks.databases import Setting, database
from benchmarks.harness import OURS, Side, Suite, Workload, rate, value
from benchmarks.samples import new_events
from eventstore_sa import EventStore, EventTypes, StoredEvent, event
from eventstore_sa.types import Encryption

__all__ = ["SUITE"]

JSON = "JSON"
BY_HAND = "validated by hand"
LIMIT = "the limit"
_BATCH = 1000


class _Line(msgspec.Struct, frozen=True):
    sku: str
    quantity: int
    price: float


@event("order-placed")
class _OrderPlaced(msgspec.Struct, frozen=True):
    order_id: str
    customer: str
    total: float
    currency: str
    lines: list[_Line]


class _LineModel(pydantic.BaseModel):
    sku: str
    quantity: int
    price: float


@event("order-placed")
class _OrderModel(pydantic.BaseModel):
    order_id: str
    customer: str
    total: float
    currency: str
    lines: list[_LineModel]


@event("noted", version=3, upcast={1: lambda payload: payload, 2: lambda payload: payload})
class _Noted(msgspec.Struct, frozen=True):
    note: str


@event("noted")
class _NotedOnce(msgspec.Struct, frozen=True):
    note: str


@event("noted", encrypted=["note"])
class _NotedInSecret(msgspec.Struct, frozen=True):
    note: str


@asynccontextmanager
async def _opened(setting: Setting) -> AsyncIterator[tuple[EventStore[Any], int]]:
    """Open a store with events."""
    size = setting.sized(20_000, 10_000, 200)
    async with database(setting) as db:
        store: EventStore[Any] = await db.store()
        events = new_events(size)
        for first in range(0, size, _BATCH):
            await store.stream(category="orders", stream=f"{first}").publish(events=events[first : first + _BATCH])
        yield store, size


def _reading(name: str, size: int, store: EventStore[Any], made: Callable[[Any], object] | None = None) -> Side:
    async def work(times: int) -> None:
        for _ in range(times):
            events = await store.log().read()
            if made is not None:
                _objects = [made(each.payload) for each in events]

    return rate(name, size, work, most=20)


def _structs(opened: tuple[EventStore[Any], int], _: Setting) -> Sequence[Side]:
    store, size = opened
    typed = EventStore(store.adapter, types=EventTypes(_OrderPlaced))
    return [_reading(OURS, size, typed), _reading(JSON, size, store)]


def _models(opened: tuple[EventStore[Any], int], _: Setting) -> Sequence[Side]:
    store, size = opened
    typed = EventStore(store.adapter, types=EventTypes(_OrderModel))
    return [_reading(OURS, size, typed), _reading(BY_HAND, size, store, _OrderModel.model_validate)]


def _upcasts(_: object, setting: Setting) -> Sequence[Side]:
    """Read an event of the newest version of a type with upcasts, and of one without."""
    series = setting.sized(1000, 1000, 2)
    of_types, of_one = EventTypes(_Noted), EventTypes(_NotedOnce)
    newest, only = _stored({"note": "n"}, 3), _stored({"note": "n"}, 1)

    async def measure() -> float:
        with_upcasts = _least(lambda: of_types.read(newest), series)
        return max(1.0, with_upcasts - _least(lambda: of_one.read(only), series))

    return [value(OURS, measure), value(LIMIT, _constant(200))]


def _encryption(_: object, setting: Setting) -> Sequence[Side]:
    """Prepare an event with one encrypted field, and with none."""
    series = setting.sized(500, 500, 2)
    key = bytes(32)
    in_secret = EventTypes(_NotedInSecret, pipeline=[Encryption(lambda: {"key": key})])
    openly = EventTypes(_NotedOnce)

    async def measure() -> float:
        encrypted = _least(lambda: in_secret.new_event(_NotedInSecret("a note")), series)
        return max(1.0, encrypted - _least(lambda: openly.new_event(_NotedOnce("a note")), series))

    return [value(OURS, measure), value(LIMIT, _constant(15_000))]


def _stored(payload: Any, version: int) -> Any:
    now = datetime.now(UTC)
    return StoredEvent(uuid4(), "noted", "1", "notes", 0, 1, payload, None, now, now, frozenset(), version)


def _least(work: Callable[[], object], series: int) -> float:
    """Return how many nanoseconds a call takes in the fastest of so many series of a hundred calls."""
    found: list[float] = []
    for _ in range(series):
        start = time.process_time_ns()
        for _call in range(100):
            work()
        found.append((time.process_time_ns() - start) / 100)
    return min(found)


def _constant(figure: float) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        return figure

    return measure


SUITE = Suite(
    _opened,
    [
        Workload(
            name="typed-structs",
            title="Read the log as Structs, against JSON",
            unit="events/s",
            sides=_structs,
            mark=JSON,
            floor=0.8,
        ),
        Workload(
            name="typed-pydantic",
            title="Read the log as pydantic models, against validating them by hand",
            unit="events/s",
            sides=_models,
            mark=BY_HAND,
            floor=0.77,
        ),
        Workload(
            name="upcast",
            title="Upcasts that do not apply, against 200 ns an event",
            unit="ns",
            sides=_upcasts,
            mark=LIMIT,
            ceiling=1,
        ),
        Workload(
            name="encryption",
            title="Encrypt one field, against 15 us",
            unit="ns",
            sides=_encryption,
            mark=LIMIT,
            ceiling=1,
        ),
    ],
)

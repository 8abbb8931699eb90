"""Typed events: what reading objects costs beside reading JSON, and what upcasts and encryption cost an event.

What one event costs is measured without a database, as the least of many short series, in nanoseconds of the processor.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pydantic

from benchmarks.databases import Setting, database
from benchmarks.harness import Contest, Measure, benchmark, rate
from benchmarks.samples import new_events
from eventstore_sa import EventStore, StoredEvent
from eventstore_sa.types import Encryption, EventTypes, event

__all__: list[str] = []

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


@benchmark("typed-structs", "read 20,000 events as Structs, against JSON", unit="events/s", floor=0.8)
async def typed_structs(setting: Setting) -> AsyncIterator[Contest]:
    """Read the same events with types and without."""
    size = setting.sized(20_000, 200)
    async with database(setting) as db:
        plain = await _filled(db, size)
        typed = EventStore(plain.adapter, types=EventTypes(_OrderPlaced))
        yield Contest(rate(size, lambda _: typed.log().read()), rate(size, lambda _: plain.log().read()))


@benchmark(
    "typed-pydantic", "read 20,000 events as pydantic models, against validating JSON", unit="events/s", floor=0.77
)
async def typed_pydantic(setting: Setting) -> AsyncIterator[Contest]:
    """Read the same events with types, and without and validate each payload."""
    size = setting.sized(20_000, 200)
    async with database(setting) as db:
        plain = await _filled(db, size)
        typed = EventStore(plain.adapter, types=EventTypes(_OrderModel))

        async def by_hand(_: None) -> None:
            _models = [_OrderModel.model_validate(each.payload) for each in await plain.log().read()]

        yield Contest(rate(size, lambda _: typed.log().read()), rate(size, by_hand))


@benchmark("upcast", "upcasts that do not apply, against 200 ns an event", unit="ns", ceiling=1)
async def upcast(setting: Setting) -> AsyncIterator[Contest]:
    """Read an event of the newest version of a type with upcasts, and of one without."""
    series = setting.sized(1000, 2)
    of_types, of_one = EventTypes(_Noted), EventTypes(_NotedOnce)
    newest, only = _stored({"note": "n"}, 3), _stored({"note": "n"}, 1)

    async def measure() -> float:
        with_upcasts = _least(lambda: of_types.read(newest), series)
        return max(1.0, with_upcasts - _least(lambda: of_one.read(only), series))

    yield Contest(measure, _constant(200))


@benchmark("encryption", "encrypt one field, against 15 us", unit="ns", ceiling=1)
async def encryption(setting: Setting) -> AsyncIterator[Contest]:
    """Prepare an event with one encrypted field, and with none."""
    series = setting.sized(500, 2)
    key = bytes(32)
    in_secret = EventTypes(_NotedInSecret, pipeline=[Encryption(lambda: {"key": key})])
    openly = EventTypes(_NotedOnce)

    async def measure() -> float:
        encrypted = _least(lambda: in_secret.new_event(_NotedInSecret("a note")), series)
        return encrypted - _least(lambda: openly.new_event(_NotedOnce("a note")), series)

    yield Contest(measure, _constant(15_000))


async def _filled(db: Any, size: int) -> EventStore[Any]:
    store: EventStore[Any] = await db.store()
    events = new_events(size)
    for first in range(0, size, _BATCH):
        await store.stream(category="orders", stream=f"{first}").publish(events=events[first : first + _BATCH])
    return store


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


def _constant(figure: float) -> Measure:
    async def measure() -> float:
        return figure

    return measure

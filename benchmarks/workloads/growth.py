"""G1 and G2: whether appends and reads get slower as the log gets longer; the longest log against the shortest one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.data import fill_postgresql, history
from benchmarks.databases import Setting, database
from benchmarks.harness import Side, Suite, Workload, rate
from benchmarks.samples import new_events, new_stream
from eventstore_sa import EventStore
from eventstore_sa.sources.constraints import sequence_number_after
from eventstore_sa.store.conditions import stream_is_empty

__all__ = ["SHORTEST", "SIZES", "SUITE"]

SIZES = {"full": (5_000_000, 1_000_000, 10_000), "quick": (250_000, 50_000, 10_000), "tiny": (300, 200, 100)}
SHORTEST = "the shortest log"


def _name(size: int, stores: Mapping[int, EventStore]) -> str:
    return SHORTEST if size == min(stores) else f"{size:,} events"


@asynccontextmanager
async def _opened(setting: Setting) -> AsyncIterator[Mapping[int, EventStore]]:
    async with database(setting) as db:
        stores: dict[int, EventStore] = {}
        connection = await db.raw()
        for number, size in enumerate(SIZES[setting.size]):
            prefix = f"log_{number}_"
            stores[size] = await db.store(prefix=prefix)
            await fill_postgresql(connection, history(), size, prefix=prefix)
        # What the filling has left to be written would be written while appends are measured.
        await connection.execute("CHECKPOINT")
        yield stores


def _appends(stores: Mapping[int, EventStore], setting: Setting) -> Sequence[Side]:
    def work(store: EventStore) -> Callable[[Any], Awaitable[None]]:
        async def publish(prepared: Any) -> None:
            for stream, events in prepared:
                await store.stream(category="orders", stream=f"appended-{stream}").publish(
                    events=events, condition=stream_is_empty()
                )

        return publish

    def prepare(times: int) -> Any:
        return [(new_stream(), new_events(1)) for _ in range(times)]

    return [rate(_name(size, stores), 1, work(store), prepare, most=1000) for size, store in stores.items()]


def _reads(stores: Mapping[int, EventStore], setting: Setting) -> Sequence[Side]:
    count = min(stores) // 2

    def work(store: EventStore, size: int) -> Callable[[int], Awaitable[None]]:
        after = sequence_number_after(size // 2)

        async def read(times: int) -> None:
            seen = 0
            for _ in range(times):
                async for _event in store.log().iterate(constraints={after}, limit=count):
                    seen += 1
            if seen != count * times:
                raise AssertionError(f"{seen} events were read of {count * times}")

        return read

    return [rate(_name(size, stores), count, work(store, size), most=20) for size, store in stores.items()]


SUITE = Suite(
    _opened,
    (
        Workload(
            name="G1",
            title="append one event to a log that gets longer, against one of ten thousand events",
            unit="events/s",
            sides=_appends,
            mark=SHORTEST,
            floor=0.75,
        ),
        Workload(
            name="G2",
            title="read 5,000 events in the middle of such logs",
            unit="events/s",
            sides=_reads,
            mark=SHORTEST,
            floor=0.75,
        ),
    ),
)

"""A to F: what one use of this library costs beside another one or beside SQL by hand; peers take no part."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.contenders.contender import Contender
from benchmarks.contenders.ours import Changes, Ours
from benchmarks.contenders.raw import RawDriver
from benchmarks.databases import Setting, database
from benchmarks.harness import OURS, Side, Suite, Workload, rate, value
from benchmarks.samples import STATUSES, new_events, new_stream
from benchmarks.tagged import fill_with_tags
from eventstore_sa import EventStore, Projector, StoredEvent, StreamIdentifier
from eventstore_sa.projection import SnapshotStore, projection_index
from eventstore_sa.query import Path, SortField, SortOrder

__all__ = ["SUITES"]

WITHOUT = "without"
FIFTH = "a fifth of them"
STREAM = "a stream"
WRITERS = 8
POOLS = (16, 8, 4, 2, 1)

_INDEX = """
CREATE INDEX by_hand ON es_projections ((state ->> 'status'), ((state ->> 'total')::numeric) DESC, id)
WHERE name = 'orders'
"""


class _Quantities(Projector[StreamIdentifier, dict[str, int], None]):
    """The quantity of each of 89 articles: a state of about 1,500 bytes."""

    name = "quantities"
    snapshot_every = 100

    def initial_state_factory(self) -> dict[str, int]:
        return {}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, int], source: StreamIdentifier) -> str:
        return source.stream

    def order_placed(self, state: dict[str, int], event: StoredEvent) -> dict[str, int]:
        line = event.payload["lines"][0]
        state[line["sku"]] = state.get(line["sku"], 0) + line["quantity"]
        return state


@asynccontextmanager
async def _opened(setting: Setting) -> AsyncIterator[Ours]:
    async with database(setting) as db, Ours.opened(db, WRITERS) as ours:
        yield ours


def _inline(writers: int) -> Callable[[Ours, Setting], Sequence[Side]]:
    def sides(ours: Ours, setting: Setting) -> Sequence[Side]:
        def side(name: str, store: EventStore) -> Side:
            async def write(writer: int, times: int) -> None:
                for number in range(times):
                    stream = store.stream(category="orders", stream=f"inline-{writer}-{number % 10}")
                    await stream.publish(events=new_events(1))

            async def work(times: int) -> None:
                await asyncio.gather(*(write(writer, times) for writer in range(writers)))

            return rate(name, writers, work, most=1000)

        return [side(OURS, ours.store.with_projections(Changes())), side(WITHOUT, ours.store)]

    return sides


@asynccontextmanager
async def _pools(setting: Setting) -> AsyncIterator[dict[int, EventStore]]:
    """Open stores whose pools have fewer and fewer connections."""
    async with database(setting) as db:
        yield {size: await db.store(pool_size=size) for size in setting.sized(POOLS, POOLS, POOLS[-2:])}


def _pooled(stores: dict[int, EventStore], _: Setting) -> Sequence[Side]:
    def side(size: int, store: EventStore) -> Side:
        async def write(events: Any) -> None:
            stream = store.stream(category="orders", stream=f"orders-{new_stream()}")
            for event in events:
                await stream.publish(events=[event])

        async def work(prepared: Any) -> None:
            await asyncio.gather(*map(write, prepared))

        def prepare(times: int) -> Any:
            return [new_events(times) for _ in range(POOLS[0])]

        return rate(f"a pool of {size}", POOLS[0], work, prepare, most=200)

    return [side(size, store) for size, store in stores.items()]


@asynccontextmanager
async def _long_stream(setting: Setting) -> AsyncIterator[tuple[Ours, int]]:
    """Publish a stream of 10,000 events, of which a snapshot has all but ten."""
    size = setting.sized(10_000, 10_000, 200)
    async with database(setting) as db, Ours.opened(db, 1) as ours:
        stream = ours.store.stream(category="orders", stream="long")
        await stream.publish(events=new_events(size - 10))
        await _Quantities().project(source=stream, snapshots=SnapshotStore(ours.engine))
        await stream.publish(events=new_events(10))
        yield ours, size


def _snapshots(opened: tuple[Ours, int], setting: Setting) -> Sequence[Side]:
    ours = opened[0]
    stream = ours.store.stream(category="orders", stream="long")
    snapshots = SnapshotStore(ours.engine)

    async def with_snapshot(times: int) -> None:
        for _turn in range(times):
            await _Quantities().project(source=stream, snapshots=snapshots)

    async def without(_: int) -> None:
        await _Quantities().project(source=stream)

    return [rate(OURS, 1, with_snapshot, most=1000), rate(WITHOUT, 1, without)]


def _memory(opened: tuple[Ours, int], setting: Setting) -> Sequence[Side]:
    ours, size = opened

    async def peak(limit: int) -> float:
        seen = 0
        tracemalloc.start()
        try:
            async for _ in ours.store.log().iterate(limit=limit):
                seen += 1
            if seen != limit:
                raise AssertionError(f"{seen} events were read of {limit}")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return [value(OURS, lambda: peak(size)), value(FIFTH, lambda: peak(size // 5))]


@asynccontextmanager
async def _searched(setting: Setting) -> AsyncIterator[list[Contender]]:
    """Store projections, with an index of this library's and one by hand."""
    async with database(setting) as db, Ours.opened(db, 1) as ours, RawDriver.opened(db, 1) as raw:
        ours.db = db
        total = SortField(Path("state", "total"), SortOrder.DESC)
        index = projection_index("orders", Path("state", "status"), total, schema=ours.schema)
        async with ours.engine.begin() as connection:
            await connection.run_sync(index.create)
        await (await db.raw()).execute(_INDEX)
        await ours.fill_projections(setting.sized(100_000, 20_000, 1000))
        yield [ours, raw]


def _searches(contenders: list[Contender], setting: Setting) -> Sequence[Side]:
    def work(contender: Contender) -> Callable[[int], Awaitable[None]]:
        async def search(times: int) -> None:
            for turn in range(times):
                if await contender.search_projections(STATUSES[turn % 4], turn % 5) != 10:
                    raise AssertionError(f"{contender.name} has not found a page")

        return search

    return [rate(contender.name, 1, work(contender), most=1000) for contender in contenders]


@asynccontextmanager
async def _tagged(setting: Setting) -> AsyncIterator[tuple[EventStore, int]]:
    """Store a million events, 1,000 of each tag and stream."""
    events, each = setting.sized(1_000_000, 100_000, 200), setting.sized(1000, 1000, 20)
    async with database(setting) as db:
        store = await db.store()
        await fill_with_tags(await db.raw(), events=events, streams=events // each, students=9973)
        yield store, each


def _by_tag(opened: tuple[EventStore, int], _: Setting) -> Sequence[Side]:
    store, each = opened

    async def query(times: int) -> None:
        for turn in range(times):
            if len(await store.tag(f"course:{turn % 10}").read()) != each:
                raise AssertionError("a tag has not all of its events")

    async def stream(times: int) -> None:
        for turn in range(times):
            if len(await store.stream(category="orders", stream=f"order-{turn % 10}").read()) != each:
                raise AssertionError("a stream has not all of its events")

    return [rate(OURS, each, query, most=100), rate(STREAM, each, stream, most=100)]


SUITES = (
    Suite(
        _opened,
        (
            Workload(
                name="A1",
                title="append one event and update an inline projection of its stream",
                unit="events/s",
                sides=_inline(1),
                mark=WITHOUT,
                floor=0.6,
            ),
            Workload(
                name="A8",
                title=f"the same by {WRITERS} writers",
                unit="events/s",
                sides=_inline(WRITERS),
                mark=WITHOUT,
                floor=0.6,
            ),
        ),
    ),
    Suite(
        _long_stream,
        (
            Workload(
                name="B",
                title="load the state of a stream of 10,000 events with a snapshot",
                unit="loads/s",
                sides=_snapshots,
                mark=WITHOUT,
                floor=50,
            ),
            Workload(
                name="C",
                title="memory while a log of 10,000 events is read",
                unit="bytes",
                sides=_memory,
                mark=FIFTH,
                ceiling=1.2,
                most_rounds=3,
            ),
        ),
    ),
    Suite(
        _searched,
        (
            Workload(
                name="D",
                title="search 100,000 projections with an index: filter, sort, page",
                unit="searches/s",
                sides=_searches,
            ),
        ),
    ),
    Suite(
        _pools,
        (
            Workload(
                name="E",
                title=f"{POOLS[0]} writers, each to a stream of its own, with pools of several sizes",
                unit="events/s",
                sides=_pooled,
                mark="a pool of 1",
            ),
        ),
    ),
    Suite(
        _tagged,
        (
            Workload(
                name="F",
                title="read the 1,000 events of a tag among a million",
                unit="events/s",
                sides=_by_tag,
                mark=STREAM,
                floor=0.6,
            ),
        ),
    ),
)

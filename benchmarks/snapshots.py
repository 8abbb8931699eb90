"""Loading a long stream on PostgreSQL with asyncpg: with a snapshot, against without."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from benchmarks.databases import Setting, database
from benchmarks.harness import Contest, benchmark, rate
from benchmarks.samples import new_events
from eventstore_sa import NewEvent, Projector, StoredEvent, StreamIdentifier
from eventstore_sa.projection import SnapshotStore

__all__: list[str] = []

_BATCH = 1000


class _Quantities(Projector[StreamIdentifier, dict[str, int], None]):
    """The quantity of each of 89 articles: a state of about 1500 bytes."""

    name = "quantities"
    snapshot_every = 100

    def initial_state_factory(self) -> dict[str, int]:
        return {}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, int], source: StreamIdentifier) -> str:
        return source.stream

    def order_placed(self, state: dict[str, int], event: StoredEvent[str, Any]) -> dict[str, int]:
        line = event.payload["lines"][0]
        state[line["sku"]] = state.get(line["sku"], 0) + line["quantity"]
        return state


@benchmark("load-snapshot", "load a stream of 10,000 events with a snapshot, against without", unit="loads/s", floor=50)
async def load_snapshot(setting: Setting) -> AsyncIterator[Contest]:
    """Load the state of a stream from a snapshot and the last ten events, and from all events."""
    size = setting.sized(10_000, 200)
    times = setting.sized(200, 2)
    async with database(setting) as db:
        store = await db.store()
        stream = store.stream(category="orders", stream="long")
        snapshots = SnapshotStore(await db.engine())
        events: list[NewEvent[str, Any, Any]] = new_events(size)
        for first in range(0, size - 10, _BATCH):
            await stream.publish(events=events[first : min(first + _BATCH, size - 10)])
        await _Quantities().project(source=stream, snapshots=snapshots)
        await stream.publish(events=events[-10:])
        expected = await _Quantities().project(source=stream)

        async def with_snapshot(_: None) -> None:
            for _number in range(times):
                loaded = await _Quantities().project(source=stream, snapshots=snapshots)
                _expect(loaded == expected)

        async def without(_: None) -> None:
            _expect(await _Quantities().project(source=stream) == expected)

        yield Contest(rate(times, with_snapshot), rate(1, without))


def _expect(same: bool) -> None:
    if not same:
        raise AssertionError("the projections differ")

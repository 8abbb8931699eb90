"""H1 to H5: what subscriptions add to reading and projecting, what they cost while they wait, and how late they are."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from statistics import median
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import async_sessionmaker

from benchmarks.contenders.ours import Changes, Ours
from benchmarks.contenders.raw import RawDriver
from benchmarks.databases import Setting, database
from benchmarks.harness import OURS, RAW, Side, Suite, Workload, rate, value
from benchmarks.samples import new_events, new_stream
from eventstore_sa import NewEvent
from eventstore_sa.subscriptions import Notifier, Subscription, SubscriptionRunner, catch_up

__all__ = ["SUITES"]

SCAN = "a scan"
SHARE = "2 % of a core"
SAME_PROCESS, OTHER_PROCESS = "20 ms", "50 ms"
EVENTS_PER_STREAM = 10
SUBSCRIPTIONS = 20

_runs = count(1)

Opened: TypeAlias = tuple[Ours, RawDriver, int]


@asynccontextmanager
async def _opened(setting: Setting) -> AsyncIterator[Opened]:
    """Fill a log with streams that take turns."""
    streams = setting.sized(5000, 2000, 20)
    async with database(setting) as db, Ours.opened(db, 6) as ours, RawDriver.opened(db, 1) as raw:
        ours.db = db
        for _ in range(EVENTS_PER_STREAM):
            await ours.store.category(category="orders").publish(
                streams={f"orders-{number}": {"events": new_events(1)} for number in range(streams)}
            )
        await (await db.raw()).execute("VACUUM ANALYZE es_events")
        yield ours, raw, streams * EVENTS_PER_STREAM


def _subscription(ours: Ours, handler: Any, **options: Any) -> Subscription:
    sessions = async_sessionmaker(ours.engine, expire_on_commit=False)
    return Subscription(f"run-{next(_runs)}", ours.store.log(), handler, sessions=sessions, **options)


def _reading(opened: Opened, _: Setting) -> Sequence[Side]:
    ours, _raw, events = opened

    async def subscribe(_: int) -> None:
        seen = 0

        def handle(batch: Any, _session: Any) -> None:
            nonlocal seen
            seen += len(batch)

        await catch_up(_subscription(ours, handle, per_batch=True))
        if seen != events:
            raise AssertionError(f"{seen} events were handled of {events}")

    async def scan(_: int) -> None:
        await ours.read_log()

    return [rate(OURS, events, subscribe), rate(SCAN, events, scan)]


def _projecting(opened: Opened, _: Setting) -> Sequence[Side]:
    ours, raw, events = opened

    async def subscribe(_: int) -> None:
        projector = Changes()
        # A new name each time, because events that are applied already are left out.
        projector.name = f"changes-{next(_runs)}"
        await catch_up(_subscription(ours, projector))

    async def by_hand(_: int) -> None:
        if await raw.catch_up(f"by-hand-{next(_runs)}") != events:
            raise AssertionError("the raw driver has not projected all events")

    return [rate(OURS, events, subscribe), rate(RAW, events, by_hand)]


def _limit(name: str, limit: float) -> Side:
    async def itself() -> float:
        return limit

    return value(name, itself)


def _idling(opened: Opened, setting: Setting) -> Sequence[Side]:
    ours = opened[0]
    seconds = setting.sized(60.0, 10.0, 0.1)

    def handle(_event: Any, _session: Any) -> None:
        return None

    async def idle() -> float:
        async with SubscriptionRunner([_subscription(ours, handle, start="now") for _ in range(SUBSCRIPTIONS)]):
            # Until all partitions are taken.
            await asyncio.sleep(setting.sized(3.0, 3.0, 0.0))
            client, server, start = time.process_time(), setting.server_time(), time.perf_counter()
            await asyncio.sleep(seconds)
            used = time.process_time() - client
            if server is not None:
                used += (setting.server_time() or server) - server
            return 100 * used / (time.perf_counter() - start)

    return [value(OURS, idle), _limit(SHARE, 2.0)]


def _waking(opened: Opened, setting: Setting) -> Sequence[Side]:
    ours = opened[0]

    async def wait() -> float:
        handled: asyncio.Queue[float] = asyncio.Queue()

        def handle(_event: Any, _session: Any) -> None:
            handled.put_nowait(time.perf_counter())

        async with SubscriptionRunner([_subscription(ours, handle, start="now")]):
            return await _median_of(ours, setting, handled.get, time.perf_counter)

    return [value(OURS, wait), _limit(SAME_PROCESS, 20.0)]


def _notifying(opened: Opened, setting: Setting) -> Sequence[Side]:
    ours = opened[0]

    async def wait() -> float:
        command = (sys.executable, "-m", "benchmarks.workloads.worker", ours.engine.url.render_as_string(False))
        worker = await asyncio.create_subprocess_exec(*command, f"run-{next(_runs)}", stdout=asyncio.subprocess.PIPE)
        output: Any = worker.stdout

        async def handled() -> float:
            return float(await output.readline())

        try:
            async with Notifier(ours.store):
                # It prints a line when it has begun, and one for each event.
                await output.readline()
                return await _median_of(ours, setting, handled, time.time)
        finally:
            worker.kill()
            await worker.wait()

    return [value(OURS, wait), _limit(OTHER_PROCESS, 50.0)]


async def _median_of(ours: Ours, setting: Setting, handled: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Publish events, each after a rest, and return how many milliseconds it takes until they are handled, at the median."""
    taken: list[float] = []
    for _ in range(setting.sized(40, 20, 2)):
        await asyncio.sleep(setting.sized(0.5, 0.3, 0.0))
        stream = ours.store.stream(category="orders", stream=f"late-{new_stream()}")
        await stream.publish(events=[NewEvent(name="order-placed", payload={})])
        before = clock()
        taken.append(await handled() - before)
    return 1000 * median(taken)


SUITES = (
    Suite(
        _opened,
        (
            Workload(
                name="H1",
                title="a subscription catches up with a handler of batches that does nothing",
                unit="events/s",
                sides=_reading,
                mark=SCAN,
                floor=0.6,
            ),
            Workload(
                name="H2",
                title="a subscription catches up with stored projections",
                unit="events/s",
                sides=_projecting,
                floor=0.75,
            ),
            Workload(
                name="H3",
                title=f"{SUBSCRIPTIONS} subscriptions wait: processor time of client and server",
                unit="% of a core",
                sides=_idling,
                mark=SHARE,
                ceiling=1.0,
                most_rounds=1,
            ),
            Workload(
                name="H4",
                title="from the end of a publish to its handler in the same process, at the median",
                unit="ms",
                sides=_waking,
                mark=SAME_PROCESS,
                ceiling=1.0,
                most_rounds=1,
            ),
            Workload(
                name="H5",
                title="from the end of a publish to its handler in another process, with notifications, at the median",
                unit="ms",
                sides=_notifying,
                mark=OTHER_PROCESS,
                ceiling=1.0,
                most_rounds=1,
            ),
        ),
    ),
)

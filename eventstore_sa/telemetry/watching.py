"""Gauges of what only the database knows: how far the watermark and subscriptions are behind, and how much is parked.

OpenTelemetry asks for gauges from threads of its own. So the numbers are read by a task or a thread of this module, now and
then, and gauges show the last ones; what could not be read for a while is not shown.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from eventstore_sa.inspection import Inspection, SyncInspection, WatermarkReport
from eventstore_sa.projection import RebuildProgress
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.subscriptions import PartitionStatus, Subscription, SyncSubscription
from eventstore_sa.types.numbers import checked_seconds

__all__ = ["rebuild_gauge", "watch", "watch_sync"]

_MOST_PARKED: Final = 1000
_log = logging.getLogger("eventstore_sa.telemetry")


@asynccontextmanager
async def watch(
    store: EventStore[Any],
    *,
    subscriptions: Sequence[Subscription] = (),
    every_s: float = 15.0,
    meter_provider: metrics.MeterProvider | None = None,
) -> AsyncGenerator[None]:
    """Show gauges of a store and of subscriptions as long as the block lasts, for example in the lifespan of an application.

    | Gauge | Unit | |
    |---|---|---|
    | `eventstore_sa.watermark.lag` | events | how many numbers were drawn above the watermark |
    | `eventstore_sa.watermark.age` | seconds | for how long the oldest open transaction has held it back |
    | `eventstore_sa.subscription.lag` | events | how far the subscription is behind the log |
    | `eventstore_sa.subscription.lag_time` | seconds | for how long its next event has waited |
    | `eventstore_sa.subscription.parked` | events | how many events are parked or held; shown up to 1,000 |

    Args:
        store: The store, on an engine or in memory.
        subscriptions: Whose progress to show.
        every_s: How often the numbers are read, in seconds.
        meter_provider: Where the gauges go; by default, to the global one.

    Raises:
        ConfigurationError: If `every_s` is not a number of seconds.
    """
    shown = _Shown(checked_seconds("every_s", every_s))
    inspection = Inspection(store)

    async def read() -> None:
        while True:
            try:
                watermark = await inspection.watermark()
                statuses = [status for each in subscriptions for status in await each.status()]
                parked = {each.name: len(await each.parked(limit=_MOST_PARKED)) for each in subscriptions}
                shown.update(watermark, statuses, parked)
            except Exception:  # noqa: BLE001 - what is shown must not end what it is shown of
                _log.warning("the gauges of the event store could not be read", exc_info=True)
            await asyncio.sleep(every_s)

    _create_gauges(shown, meter_provider)
    task = asyncio.create_task(read())
    try:
        yield
    finally:
        shown.clear()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@contextmanager
def watch_sync(
    store: SyncEventStore[Any],
    *,
    subscriptions: Sequence[SyncSubscription] = (),
    every_s: float = 15.0,
    meter_provider: metrics.MeterProvider | None = None,
) -> Generator[None]:
    """Show gauges of a store and of subscriptions as long as the block lasts; see `watch`. A thread reads the numbers."""
    shown = _Shown(checked_seconds("every_s", every_s))
    inspection = SyncInspection(store)
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            try:
                watermark = inspection.watermark()
                statuses = [status for each in subscriptions for status in each.status()]
                parked = {each.name: len(each.parked(limit=_MOST_PARKED)) for each in subscriptions}
                shown.update(watermark, statuses, parked)
            except Exception:  # noqa: BLE001 - what is shown must not end what it is shown of
                _log.warning("the gauges of the event store could not be read", exc_info=True)
            ended.wait(every_s)

    _create_gauges(shown, meter_provider)
    thread = threading.Thread(target=read, name="eventstore_sa gauges", daemon=True)
    thread.start()
    try:
        yield
    finally:
        shown.clear()
        ended.set()
        thread.join()


def rebuild_gauge(
    projector: str, *, meter_provider: metrics.MeterProvider | None = None
) -> Callable[[RebuildProgress], None]:
    """Return what `rebuild(..., progress=...)` calls, to show in `eventstore_sa.rebuild.progress` how much is done, 0 to 1.

    Args:
        projector: The name of the projector, for the attribute `eventstore_sa.projection.name`.
        meter_provider: Where the gauge goes; by default, to the global one.
    """
    gauge = metrics.get_meter("eventstore_sa", meter_provider=meter_provider).create_gauge(
        "eventstore_sa.rebuild.progress", unit="1"
    )

    def show(progress: RebuildProgress) -> None:
        done = progress.sequence_number / max(progress.last_sequence_number, 1)
        gauge.set(min(done, 1.0), {"eventstore_sa.projection.name": projector})

    return show


class _Shown:
    """The last numbers that were read."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._read_at = 0.0
        self._observations: dict[str, list[Observation]] = {}

    def update(self, watermark: WatermarkReport, statuses: Sequence[PartitionStatus], parked: dict[str, int]) -> None:
        now = datetime.now(UTC)
        began = [holder.since for holder in watermark.holders if holder.since is not None]
        observations = {
            "watermark.lag": [Observation(max(watermark.last_number - watermark.sequence_number, 0))],
            "watermark.age": [Observation(max((now - min(began)).total_seconds(), 0.0) if began else 0.0)],
            "subscription.lag": [Observation(each.lag_events, _of(each)) for each in statuses],
            "subscription.lag_time": [Observation(each.lag_s, _of(each)) for each in statuses],
            "subscription.parked": [
                Observation(number, {"messaging.destination.subscription.name": name})
                for name, number in parked.items()
            ],
        }
        with self._lock:
            self._observations, self._read_at = observations, time.monotonic()

    def clear(self) -> None:
        with self._lock:
            self._observations = {}

    def of(self, gauge: str) -> Iterable[Observation]:
        with self._lock:
            is_old = time.monotonic() - self._read_at > 4 * self._every_s + 10
            return [] if is_old else self._observations.get(gauge, [])


def _of(status: PartitionStatus) -> dict[str, str]:
    return {
        "messaging.destination.subscription.name": status.subscription,
        "messaging.destination.partition.id": str(status.partition),
    }


def _create_gauges(shown: _Shown, meter_provider: metrics.MeterProvider | None) -> None:
    meter = metrics.get_meter("eventstore_sa", meter_provider=meter_provider)
    for gauge, unit in (
        ("watermark.lag", "{event}"),
        ("watermark.age", "s"),
        ("subscription.lag", "{event}"),
        ("subscription.lag_time", "s"),
        ("subscription.parked", "{event}"),
    ):

        def observe(_: CallbackOptions, gauge: str = gauge) -> Iterable[Observation]:
            return shown.of(gauge)

        meter.create_observable_gauge(f"eventstore_sa.{gauge}", callbacks=[observe], unit=unit)

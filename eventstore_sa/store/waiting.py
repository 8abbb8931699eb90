"""Waiting until the log is complete up to an event, for reads with `wait_for`.

The log and categories are read up to the watermark, which open transactions hold back. To see an event that was just
published in a category, a reader waits here until those transactions end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from eventstore_sa.errors import ConfigurationError, WaitTimeoutError
from eventstore_sa.steps import Pause, Steps, drive, drive_async
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, SyncEventStorageAdapter
from eventstore_sa.types import AnyStoredEvent, StoredEvent
from eventstore_sa.types.watermark import Watermark, WatermarkHolder

__all__ = ["wait_until_complete", "wait_until_complete_sync"]

_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.25


async def wait_until_complete(adapter: EventStorageAdapter, event: AnyStoredEvent, timeout_s: float | None) -> None:
    """Wait until the watermark reaches the event.

    Raises:
        WaitTimeoutError: If it does not within `timeout_s` seconds.
        ConfigurationError: If the adapter works within a transaction of the caller's, or this is not a stored event.
    """
    await drive_async(_wait(adapter, event, timeout_s))


def wait_until_complete_sync(adapter: SyncEventStorageAdapter, event: AnyStoredEvent, timeout_s: float | None) -> None:
    """Wait until the watermark reaches the event; see `wait_until_complete`."""
    drive(_wait(adapter, event, timeout_s))


def _wait(
    adapter: EventStorageAdapter | SyncEventStorageAdapter, event: AnyStoredEvent, timeout_s: float | None
) -> Steps[None]:
    given: object = event
    if not isinstance(given, StoredEvent):
        raise ConfigurationError(f"wait_for takes a StoredEvent, as publishes return it; got {type(given).__name__}")
    if adapter.in_transaction:
        raise ConfigurationError(
            "wait_for cannot be used within a session: reads there see what their own transaction sees, at once"
        )
    pauses = _growing_pauses(timeout_s)
    while (watermark := (yield adapter.watermark)).sequence_number < event.sequence_number:
        pause_s = next(pauses, None)
        if pause_s is None:
            raise _timed_out(event, watermark, timeout_s)
        yield Pause(pause_s)


def _growing_pauses(timeout_s: float | None) -> Iterator[float]:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        left_s = pause_s if deadline is None else deadline - time.monotonic()
        if left_s <= 0:
            return
        yield min(pause_s, left_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _timed_out(event: AnyStoredEvent, watermark: Watermark, timeout_s: float | None) -> WaitTimeoutError:
    return WaitTimeoutError(
        f"event {event.sequence_number} did not become visible within {timeout_s} s: {_described(watermark.holder)} holds "
        f"the log back at {watermark.sequence_number}; end it, or wait longer"
    )


def _described(holder: WatermarkHolder | None) -> str:
    if holder is None:
        return "an open transaction that has published"
    if holder.pid is None:
        return f"the prepared transaction {holder.application_name!r}"
    return f"the open transaction of {holder.application_name or 'an unnamed application'!r} (process {holder.pid})"

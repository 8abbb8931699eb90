"""Waiting until the log is complete up to an event, for reads with `wait_for`.

The log and categories are read up to the watermark, which an open transaction holds back. Whoever has just published, and
wants to see that event in a category, waits here for the others to end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Final

from eventstore_sa.errors import ConfigurationError, WaitTimeoutError
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
        ConfigurationError: If the adapter works within a transaction of the caller.
    """
    pauses = _pauses(event, in_transaction=adapter.in_transaction, timeout_s=timeout_s)
    while (watermark := await adapter.watermark()).sequence_number < event.sequence_number:
        pause_s = next(pauses, None)
        if pause_s is None:
            raise _timed_out(event, watermark, timeout_s)
        await asyncio.sleep(pause_s)


def wait_until_complete_sync(adapter: SyncEventStorageAdapter, event: AnyStoredEvent, timeout_s: float | None) -> None:
    """Wait until the watermark reaches the event; see `wait_until_complete`."""
    pauses = _pauses(event, in_transaction=adapter.in_transaction, timeout_s=timeout_s)
    while (watermark := adapter.watermark()).sequence_number < event.sequence_number:
        pause_s = next(pauses, None)
        if pause_s is None:
            raise _timed_out(event, watermark, timeout_s)
        time.sleep(pause_s)


def _pauses(event: object, *, in_transaction: bool, timeout_s: float | None) -> Iterator[float]:
    """Return growing pauses that end with the time."""
    if not isinstance(event, StoredEvent):
        raise ConfigurationError(
            f"wait_for takes a StoredEvent, as a publish returns them; got a {type(event).__name__}"
        )
    if in_transaction:
        raise ConfigurationError(
            "wait_for does not work within a session, whose reads see what its transaction sees: use the store itself"
        )
    return _growing_pauses(timeout_s)


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

"""Applying a batch of events through storage of projections, again when somebody else was faster; see `ProjectionStore`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from eventstore_sa.attempts import Backoff
from eventstore_sa.errors import ConcurrencyError
from eventstore_sa.projection.adapters import ProjectionStorageAdapter, SyncProjectionStorageAdapter
from eventstore_sa.projection.batches import Batch
from eventstore_sa.projection.projector import Projector
from eventstore_sa.projection.reading import batch_of
from eventstore_sa.projection.storable import check_storable
from eventstore_sa.types import AnyStoredEvent

__all__ = ["apply_batch", "apply_batch_sync"]

_TRIES: Final = 10
_BACKOFF: Final = Backoff()


async def apply_batch(
    adapter: ProjectionStorageAdapter, projector: Projector[Any, Any, Any], events: Iterable[AnyStoredEvent]
) -> int:
    """Apply events that are not applied yet; return how many projections were saved.

    Raises:
        ConcurrencyError: Others were faster, time and again.
        ConfigurationError: It is not a projector, `state_type` is missing, or the events are not a batch of stored events.
    """
    check_storable(projector)
    batch, saved = Batch(projector, batch_of(events)), 0
    for failures in range(_TRIES if batch.ids else 0):
        if failures:
            await _BACKOFF.sleep(_BACKOFF.pause_s(failures))
        stored = await adapter.load_batch(name=projector.name, ids=batch.ids)
        records = await batch.reduced(stored, again=True)
        done = await adapter.save_batch(records=records) if records else 0
        saved += done
        if done == len(records):
            return saved
    return _given_up(projector, batch)


def apply_batch_sync(
    adapter: SyncProjectionStorageAdapter, projector: Projector[Any, Any, Any], events: Iterable[AnyStoredEvent]
) -> int:
    """Apply events without asyncio; the twin of `apply_batch`.

    Raises:
        ConcurrencyError: Others were faster, time and again.
        ConfigurationError: It is not a projector, `state_type` is missing, or the events are not a batch of stored events.
    """
    check_storable(projector)
    batch, saved = Batch(projector, batch_of(events)), 0
    for failures in range(_TRIES if batch.ids else 0):
        if failures:
            _BACKOFF.sleep_sync(_BACKOFF.pause_s(failures))
        stored = adapter.load_batch(name=projector.name, ids=batch.ids)
        records = batch.reduced_sync(stored, again=True)
        done = adapter.save_batch(records=records) if records else 0
        saved += done
        if done == len(records):
            return saved
    return _given_up(projector, batch)


def _given_up(projector: Projector[Any, Any, Any], batch: Batch) -> int:
    if not batch.ids:
        return 0
    raise ConcurrencyError(
        f"others have saved the same projections of {projector.name!r} first, {_TRIES} times in a row: let one process at a "
        "time apply the events of a stream"
    )

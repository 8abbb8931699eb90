"""Storing events that come from another store, with their ids, times, positions and order.

Every batch is stored as a whole or not at all, and events that are stored already are passed over: so an import that was
interrupted is resumed by doing it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from msgspec import Struct

from eventstore_sa.conditions import position_is
from eventstore_sa.errors import ConfigurationError, DuplicateEventError
from eventstore_sa.publishing import StreamPublication, new_event_of
from eventstore_sa.store import SyncEventStore
from eventstore_sa.store.adapters import SyncSQLAlchemyEventStorageAdapter
from eventstore_sa.types import AnyStoredEvent, StreamIdentifier, encode_json
from eventstore_sa.types.numbers import checked_count

__all__ = ["ImportResult", "import_events"]

_BATCH: Final = 500
_BATCH_BYTES: Final = 4_000_000


class ImportResult(Struct, frozen=True):
    """What an import has done.

    Attributes:
        events: How many events there were.
        stored: How many of them were stored; the others had been before.
    """

    events: int
    stored: int


def import_events(
    store: SyncEventStore[Any],
    events: Iterable[AnyStoredEvent],
    *,
    keep_numbers: bool = False,
    batch_size: int = _BATCH,
    progress: Callable[[ImportResult], object] | None = None,
) -> ImportResult:
    """Store events that come from another store, in the order given.

    Each event gets the position in its stream that it had. Inline projections are not updated: rebuild them.

    Args:
        store: Where to store them; on an engine or in memory, not within a session.
        events: The events, in the order of their numbers.
        keep_numbers: Whether they keep their numbers. That needs an empty store on PostgreSQL or SQLite to which nobody
            publishes meanwhile, and on PostgreSQL the owner of the tables. Readers see the events when all are stored.
        batch_size: How many to store in a transaction.
        progress: Called after each batch.

    Raises:
        UnmetWriteConditionError: If a stream has other events at the positions of these.
        DuplicateEventError: If an id is taken by another event.
        ConfigurationError: If numbers cannot be kept.
    """
    checked_count("batch_size", batch_size)
    target = _Numbered(store) if keep_numbers else _Appended(store)
    done = ImportResult(0, 0)
    for batch in _batches(events, batch_size):
        new = target.store(batch)
        done = ImportResult(done.events + len(batch), done.stored + new)
        if progress is not None:
            progress(done)
    target.finish()
    return done


class _Appended:
    """Events at the ends of their streams, with new numbers."""

    def __init__(self, store: SyncEventStore[Any]) -> None:
        self._adapter = store.adapter
        self._inspection = store.adapter.inspection_storage()

    def store(self, batch: Sequence[AnyStoredEvent]) -> int:
        """Store a batch, and return how many of its events were not stored before."""
        stored = self._inspection.find_all([event.id for event in batch])
        for event in batch:
            _check_same(event, stored.get(event.id))
        new = [event for event in batch if event.id not in stored]
        if new:
            self._adapter.save_parts(_parts(new))
        return len(new)

    def finish(self) -> None:
        """Do nothing: every batch is complete."""


class _Numbered:
    """Events with the numbers that they had."""

    def __init__(self, store: SyncEventStore[Any]) -> None:
        adapter = store.adapter
        if not isinstance(adapter, SyncSQLAlchemyEventStorageAdapter):
            raise ConfigurationError("numbers can be kept only in a store on PostgreSQL or SQLite")
        self._restoring = adapter.restoring()
        self._stored_up_to = self._restoring.begin()
        self._passed_over = 0
        self._is_checked = False

    def store(self, batch: Sequence[AnyStoredEvent]) -> int:
        """Store a batch, and return how many of its events were not stored before."""
        new = [event for event in batch if event.sequence_number > self._stored_up_to]
        old = batch[: len(batch) - len(new)]
        if old:
            self._restoring.check_stored(old)
            self._passed_over += len(old)
        if new:
            self._check_nothing_else()
            self._restoring.store(new)
        return len(new)

    def finish(self) -> None:
        """Let readers see the events."""
        self._check_nothing_else()
        self._restoring.finish()

    def _check_nothing_else(self) -> None:
        if not self._is_checked:
            self._restoring.check_nothing_else(self._stored_up_to, self._passed_over)
            self._is_checked = True


def _check_same(event: AnyStoredEvent, stored: AnyStoredEvent | None) -> None:
    if stored is not None and (stored.category, stored.stream, stored.position) != (
        event.category,
        event.stream,
        event.position,
    ):
        raise DuplicateEventError(
            f"event {event.id} is to be stored in {event.category!r}/{event.stream!r} at position {event.position}, but an "
            f"event with this id is in {stored.category!r}/{stored.stream!r} at position {stored.position}",
            event_ids=[event.id],
        )


def _parts(events: Sequence[AnyStoredEvent]) -> list[StreamPublication]:
    """Return a publish that stores events in exactly this order: a part for each run of events of one stream."""
    parts: list[StreamPublication] = []
    # A run ends at a gap, too: the condition of the next one is not met then, because positions have none.
    for (stream, _), run in groupby(enumerate(events), key=_run):
        members = [event for _, event in run]
        first = members[0].position
        condition = position_is(None if first == 0 else first - 1)
        parts.append(StreamPublication(stream, tuple(map(new_event_of, members)), condition))
    return parts


def _run(numbered: tuple[int, AnyStoredEvent]) -> tuple[StreamIdentifier, int]:
    index, event = numbered
    return StreamIdentifier(event.category, event.stream), event.position - index


def _batches(events: Iterable[AnyStoredEvent], size: int) -> Iterator[list[AnyStoredEvent]]:
    batch: list[AnyStoredEvent] = []
    size_bytes = 0
    for event in events:
        batch.append(event)
        size_bytes += len(encode_json((event.payload, event.metadata)))
        if len(batch) == size or size_bytes > _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch

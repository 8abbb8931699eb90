"""Rebuilding stored projections from their events, while they are read and updated.

The new projections are built next to the old ones and replace them all at once. A `RebuildStorage` knows how each step
is stored; the order of the steps is here, for asyncio and without.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from eventstore_sa.attempts import Attempts
from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.contracts.rebuilds import Load, RebuildProgressRecord, RebuildStorage, RebuildTarget
from eventstore_sa.errors import ConcurrencyError, ConfigurationError
from eventstore_sa.projection.batches import Batch
from eventstore_sa.projection.definition import check_storable
from eventstore_sa.projection.projection_store import ProjectionStore, SyncProjectionStore
from eventstore_sa.projection.projector import Projector
from eventstore_sa.sources.constraints import sequence_number_after
from eventstore_sa.steps import Steps, drive, drive_async
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters import SQLAlchemyEventStorageAdapter
from eventstore_sa.store.adapters.runners import GreenletRunner
from eventstore_sa.types import (
    AnyStoredEvent,
    CategoryIdentifier,
    EventTypes,
    LogIdentifier,
    StreamIdentifier,
    encode_json,
)
from eventstore_sa.types.numbers import checked_count, checked_seconds

__all__ = ["RebuildProgress", "is_rebuilding", "rebuild", "rebuild_sync"]

AnyProjector: TypeAlias = Projector[Any, Any, Any]

_TRIES: Final = 10
_rebuilding: Final[ContextVar[bool]] = ContextVar("eventstore_sa_rebuilding", default=False)


class RebuildProgress(Struct, frozen=True):
    """How far a rebuild has got.

    Attributes:
        events: How many events have been applied so far, including those of an earlier run that was interrupted.
        sequence_number: The sequence number of the last of them.
        last_sequence_number: The sequence number of the last event when the rebuild began: shows how much is left.
    """

    events: int
    sequence_number: int
    last_sequence_number: int


def is_rebuilding() -> bool:
    """Tell whether the handler that calls this runs in a rebuild.

    A handler turns an event into a state and should do nothing else. One that does, for example by sending a message,
    should call this first, because a rebuild passes it events that it has handled before.
    """
    return _rebuilding.get()


async def rebuild(
    projector: AnyProjector,
    *,
    store: EventStore,
    source: StreamIdentifier | CategoryIdentifier | LogIdentifier | None = None,
    progress: Callable[[RebuildProgress], object] | None = None,
    batch_size: int = 500,
    timeout_s: float = 10.0,
) -> int:
    """Rebuild all stored projections of a projector from their events, while they are read and updated.

    The new projections are built next to the old ones, in batches, each in a transaction. At the end one transaction
    replaces the old ones: until then readers find the old projections, from then on the new ones, never a mixture.
    Publishes that update these projections inline continue; they wait only while the last events are applied and the
    projections are replaced. No update is lost.

    The next call resumes a rebuild that was interrupted for whatever reason, unless the projector's `version` or the
    source has changed: then it starts over. It takes over a rebuild that is still running: the earlier call raises.

    A rebuild uses one connection of the pool at a time, and none while handlers or `progress` run, except for the last
    events, which are applied in the transaction that replaces the projections.

    With the identifier of a stream, only the projection of that stream is rebuilt, in one step.

    Args:
        projector: Whose projections to rebuild.
        store: The store of the events and of the projections next to them; on an engine or in memory, not within a
            session.
        source: Where to read events from; None: the category if the projector names exactly one, otherwise the log.
        progress: Called after each batch; if it returns an awaitable, that is awaited. An error that it raises ends the
            rebuild.
        batch_size: How many events to apply in a transaction.
        timeout_s: How long to wait at the end for running publishes.

    Returns:
        The number of projections after the rebuild.

    Raises:
        ConcurrencyError: If a later call has taken the rebuild over.
        LockTimeoutError: If a publish ran for too long at the end; call again to resume.
        ConfigurationError: If the store cannot rebuild, a stream is given but the projections are not of one stream
            each, this is not a projector, its `state_type` is missing, or `batch_size` is not an integer from 1.
        MissingProjectionHandlerError: If an event has no handler and is not to be ignored.
    """
    _check(projector, store, EventStore, batch_size=batch_size, timeout_s=timeout_s)
    if isinstance(source, StreamIdentifier):
        return await drive_async(_rebuild_stream(projector, store, ProjectionStore(store), source, Batch.reduced))
    adapter = store.adapter
    run = GreenletRunner(adapter.bind).run if isinstance(adapter, SQLAlchemyEventStorageAdapter) else _at_once
    steps = _rebuild(
        projector,
        store,
        _target(projector, source),
        run=run,
        reduce=Batch.reduced,
        progress=progress,
        batch_size=batch_size,
        timeout_s=timeout_s,
    )
    return await drive_async(steps)


def rebuild_sync(
    projector: AnyProjector,
    *,
    store: SyncEventStore,
    source: StreamIdentifier | CategoryIdentifier | LogIdentifier | None = None,
    progress: Callable[[RebuildProgress], object] | None = None,
    batch_size: int = 500,
    timeout_s: float = 10.0,
) -> int:
    """Rebuild all stored projections of a projector from their events, without asyncio; see `rebuild`.

    Args:
        projector: As for `rebuild`.
        store: As for `rebuild`.
        source: As for `rebuild`.
        progress: Called after each batch. An error that it raises ends the rebuild.
        batch_size: As for `rebuild`.
        timeout_s: As for `rebuild`.

    Returns:
        The number of projections after the rebuild.

    Raises:
        ConfigurationError: As for `rebuild`; also if a handler is a coroutine function.
        EventStoreError: As for `rebuild`.
    """
    _check(projector, store, SyncEventStore, batch_size=batch_size, timeout_s=timeout_s)
    if isinstance(source, StreamIdentifier):
        return drive(_rebuild_stream(projector, store, SyncProjectionStore(store), source, Batch.reduced_sync))
    steps = _rebuild(
        projector,
        store,
        _target(projector, source),
        run=_at_once,
        reduce=Batch.reduced_sync,
        progress=progress,
        batch_size=batch_size,
        timeout_s=timeout_s,
    )
    return drive(steps)


def _rebuild(
    projector: AnyProjector,
    store: EventStore | SyncEventStore,
    target: RebuildTarget,
    *,
    run: Callable[..., Any],
    reduce: Callable[..., Any],
    progress: Callable[[RebuildProgress], object] | None,
    batch_size: int,
    timeout_s: float,
) -> Steps[int]:
    """Rebuild all projections of a projector.

    Args:
        projector: Whose projections.
        store: Where the events are.
        target: Which events.
        run: Calls a method of a `RebuildStorage`.
        reduce: Applies the events of a `Batch`.
        progress: See `rebuild`.
        batch_size: See `rebuild`.
        timeout_s: See `rebuild`.
    """
    storage = store.adapter.rebuild_storage(projector.name)
    events = store.log() if isinstance(target, LogIdentifier) else store.category(category=target.category)
    finish = partial(_finish, storage, projector, target, types=store.types, page_size=batch_size, timeout_s=timeout_s)
    latest = yield events.latest
    done = yield partial(run, storage.begin, _plan(projector, target))
    while True:
        after = frozenset({sequence_number_after(done.sequence_number)})
        read = yield partial(events.read, constraints=after, limit=batch_size)
        if read:
            with _in_rebuild():
                batch = Batch(projector, read)
                stored: Mapping[str, ProjectionRecord] = {}
                if batch.ids:
                    stored = yield partial(run, storage.load, batch.ids)
                records = yield partial(reduce, batch, stored)
            done = yield partial(run, _save, storage, records, read)
            if progress is not None:
                yield partial(progress, _progress(done, latest))
        if len(read) < batch_size:
            count: int = yield partial(run, finish)
            return count


def _rebuild_stream(
    projector: AnyProjector,
    store: EventStore | SyncEventStore,
    projections: ProjectionStore | SyncProjectionStore,
    source: StreamIdentifier,
    reduce: Callable[..., Any],
) -> Steps[int]:
    """Rebuild the projection of one stream."""
    key = _id_of(projector, source)
    for _ in Attempts(_TRIES):
        # Before the events: a publish after this load changes the version.
        stored = yield partial(projections.adapter.load_batch, name=projector.name, ids=[key])
        with _in_rebuild():
            events = yield store.stream(category=source.category, stream=source.stream).read
            records = _replacing(stored, (yield partial(reduce, Batch(projector, events), {})))
        if not records:
            if stored:
                yield partial(projections.delete, name=projector.name, id=key)
            return 0
        if (yield partial(projections.adapter.save_batch, records=records)):
            return 1
    raise ConcurrencyError(
        f"stream {f'{source.category}/{source.stream}'!r} was published to {_TRIES} times while its projection "
        f"{projector.name!r} was rebuilt: try again when the stream is less busy"
    )


@contextmanager
def _in_rebuild() -> Generator[None]:
    token = _rebuilding.set(True)
    try:
        yield
    finally:
        _rebuilding.reset(token)


def _target(projector: AnyProjector, source: RebuildTarget | None) -> RebuildTarget:
    categories = projector.categories
    if source is None:
        return CategoryIdentifier(*categories) if categories and len(categories) == 1 else LogIdentifier()
    given: object = source
    if not isinstance(given, CategoryIdentifier | LogIdentifier):
        raise ConfigurationError(
            "projections are rebuilt from the log, a category or a stream, such as CategoryIdentifier('orders'); got "
            f"{type(given).__name__}"
        )
    return source


def _check(
    projector: object, store: object, wanted: type[EventStore | SyncEventStore], *, batch_size: int, timeout_s: float
) -> None:
    check_storable(projector)
    if not isinstance(store, wanted):
        raise ConfigurationError(
            f"a rebuild reads events from a store: pass {wanted.__name__}, on an engine or in memory; got "
            f"{type(store).__name__}"
        )
    checked_count("batch_size", batch_size)
    checked_seconds("timeout_s", timeout_s)


def _plan(projector: AnyProjector, target: RebuildTarget) -> str:
    return encode_json({"version": str(projector.version), "source": target.serialise()}).decode()


def _save(
    storage: RebuildStorage, records: Sequence[ProjectionRecord], events: Sequence[AnyStoredEvent]
) -> RebuildProgressRecord:
    return storage.save(records, sequence_number=events[-1].sequence_number, events=len(events))


def _finish(
    storage: RebuildStorage,
    projector: AnyProjector,
    target: RebuildTarget,
    *,
    types: EventTypes[Any] | None,
    page_size: int,
    timeout_s: float,
) -> int:
    def apply(events: Sequence[AnyStoredEvent], load: Load) -> Sequence[ProjectionRecord]:
        with _in_rebuild():
            batch = Batch(projector, events if types is None else types.all_read(events))
            return batch.reduced_sync(load(batch.ids) if batch.ids else {})

    # What cannot be inline is not updated by publishes, so nothing can overtake the rebuild.
    last = None if projector.coroutine_handlers else apply
    return storage.finish(target, last, page_size=page_size, timeout_s=timeout_s)


def _progress(done: RebuildProgressRecord, latest: AnyStoredEvent | None) -> RebuildProgress:
    last = done.sequence_number if latest is None else max(latest.sequence_number, done.sequence_number)
    return RebuildProgress(done.events, done.sequence_number, last)


def _id_of(projector: AnyProjector, source: StreamIdentifier) -> str:
    if not projector.projects_streams:
        raise ConfigurationError(
            f"the projections of {projector.name!r} are built from several streams, so none can be rebuilt from one stream: "
            "rebuild all of them, without a source"
        )
    return projector.id_of(source)


def _replacing(stored: Mapping[str, ProjectionRecord], records: Sequence[ProjectionRecord]) -> list[ProjectionRecord]:
    """Give records the versions of what is stored, which they replace."""
    return [replace(record, version=stored[record.id].version if record.id in stored else 0) for record in records]


def _at_once(work: Callable[..., Any], *arguments: object) -> Any:
    return work(*arguments)

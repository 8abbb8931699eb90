"""Rebuilding stored projections from their events, while they are read and updated.

The results grow beside the old projections and take their place at once. How each step is stored is the business of a
`RebuildStorage`; here is their order, with asyncio and without.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import isawaitable
from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.contracts.rebuilds import Load, RebuildProgressRecord, RebuildStorage, RebuildTarget
from eventstore_sa.errors import ConcurrencyError, ConfigurationError
from eventstore_sa.projection.batches import Batch
from eventstore_sa.projection.projection_store import ProjectionStore, SyncProjectionStore
from eventstore_sa.projection.projector import Projector
from eventstore_sa.projection.storable import check_storable
from eventstore_sa.sources.constraints import sequence_number_after
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters import SQLAlchemyEventStorageAdapter
from eventstore_sa.store.adapters.runners import GreenletRunner
from eventstore_sa.types import AnyStoredEvent, CategoryIdentifier, LogIdentifier, StreamIdentifier, encode_json
from eventstore_sa.types.numbers import checked_count, checked_seconds

__all__ = ["RebuildProgress", "is_rebuilding", "rebuild", "rebuild_sync"]

AnyProjector: TypeAlias = Projector[Any, Any, Any]

_TRIES: Final = 10
_rebuilding: Final[ContextVar[bool]] = ContextVar("eventstore_sa_rebuilding", default=False)


class RebuildProgress(Struct, frozen=True):
    """How far a rebuild is.

    Attributes:
        events: How many events were applied so far, an earlier run that was cut short included.
        sequence_number: That of the last one.
        last_sequence_number: That of the last event there was at the beginning: an estimate of how far there is to go.
    """

    events: int
    sequence_number: int
    last_sequence_number: int


def is_rebuilding() -> bool:
    """Tell whether the handler that asks runs in a rebuild.

    A handler makes a state of an event, and had better do nothing else. One that does, say sends a message, asks this
    first, for in a rebuild it is given events that it was given before.
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
    """Make all stored projections of a projector anew from their events, while they are read and updated.

    The new ones grow beside the old, in batches, each of them a transaction. At the end they take the place of the old
    ones in one transaction: until then readers find the old, from then on the new, never some of both. Publishes that
    update these projections inline go on; they only wait while the last events are applied and the places are changed. None
    of what they do is lost.

    A rebuild that was cut short, whatever ended it, is resumed by the next call. When the projector's `version` or the
    source is another by then, it begins anew. A rebuild that is still under way is taken over: the earlier call gives up.

    It takes one connection of the pool at a time, and none while handlers run or `progress` is called; but for the last
    events, which are applied in the transaction that puts the new projections in place.

    With the identifier of a stream, only the projection of that stream is made anew, in one step.

    Args:
        projector: Whose projections.
        store: Where the events are, and the projections beside them; on an engine or in memory, not within a session.
        source: Where events are read from; None: the category, where the projector names a single one, and else the log.
        progress: Called after each batch; what it returns is awaited if it can be. What it raises ends the rebuild.
        batch_size: How many events are applied in a transaction.
        timeout_s: How long to wait at the end for publishes that are under way.

    Returns:
        How many projections there are now.

    Raises:
        ConcurrencyError: A later call has taken the rebuild over.
        LockTimeoutError: A publish was under way for too long at the end; call again to go on.
        ConfigurationError: The store cannot rebuild, the projections of the projector are not of one stream each, it
            is not a projector, its `state_type` is missing, or `batch_size` is not a number from 1.
        MissingProjectionHandlerError: There is no handler for an event, and that is not to be ignored.
    """
    check_storable(projector)
    _check_store(store, EventStore)
    checked_count("batch_size", batch_size)
    checked_seconds("timeout_s", timeout_s)
    if isinstance(source, StreamIdentifier):
        return await _rebuild_stream(projector, store, source)
    target = _target(projector, source)
    storage, adapter = store.adapter.rebuild_storage(projector.name), store.adapter
    run = GreenletRunner(adapter.bind).run if isinstance(adapter, SQLAlchemyEventStorageAdapter) else _at_once
    events = store.log() if isinstance(target, LogIdentifier) else store.category(category=target.category)
    latest = await events.latest()
    done = await run(storage.begin, _plan(projector, target))
    while True:
        after = frozenset({sequence_number_after(done.sequence_number)})
        read = await events.read(constraints=after, limit=batch_size)
        if read:
            with _in_rebuild():
                batch = Batch(projector, read)
                records = await batch.reduced(await run(storage.load, batch.ids) if batch.ids else {})
            done = await run(_save, storage, records, read)
            told = None if progress is None else progress(_told(done, latest))
            if isawaitable(told):
                await told
        if len(read) < batch_size:
            count: int = await run(_finish, storage, projector, target, batch_size, timeout_s)
            return count


def rebuild_sync(
    projector: AnyProjector,
    *,
    store: SyncEventStore,
    source: StreamIdentifier | CategoryIdentifier | LogIdentifier | None = None,
    progress: Callable[[RebuildProgress], object] | None = None,
    batch_size: int = 500,
    timeout_s: float = 10.0,
) -> int:
    """Make all stored projections of a projector anew from their events, without asyncio; see `rebuild`.

    Args:
        projector: As for `rebuild`.
        store: As for `rebuild`.
        source: As for `rebuild`.
        progress: Called after each batch. What it raises ends the rebuild.
        batch_size: As for `rebuild`.
        timeout_s: As for `rebuild`.

    Returns:
        How many projections there are now.

    Raises:
        ConfigurationError: As for `rebuild`; also when a handler is a coroutine function.
        EventStoreError: As for `rebuild`.
    """
    check_storable(projector)
    _check_store(store, SyncEventStore)
    checked_count("batch_size", batch_size)
    checked_seconds("timeout_s", timeout_s)
    if isinstance(source, StreamIdentifier):
        return _rebuild_stream_sync(projector, store, source)
    target = _target(projector, source)
    storage = store.adapter.rebuild_storage(projector.name)
    events = store.log() if isinstance(target, LogIdentifier) else store.category(category=target.category)
    latest = events.latest()
    done = storage.begin(_plan(projector, target))
    while True:
        after = frozenset({sequence_number_after(done.sequence_number)})
        read = events.read(constraints=after, limit=batch_size)
        if read:
            with _in_rebuild():
                batch = Batch(projector, read)
                records = batch.reduced_sync(storage.load(batch.ids) if batch.ids else {})
            done = _save(storage, records, read)
            if progress is not None:
                progress(_told(done, latest))
        if len(read) < batch_size:
            return _finish(storage, projector, target, batch_size, timeout_s)


async def _rebuild_stream(projector: AnyProjector, store: EventStore, source: StreamIdentifier) -> int:
    projections, key = ProjectionStore(store), _id_of(projector, source)
    for _ in range(_TRIES):
        # Before the events: whoever publishes after it was loaded gives it another version.
        stored = await projections.adapter.load_batch(name=projector.name, ids=[key])
        with _in_rebuild():
            events = await store.stream(category=source.category, stream=source.stream).read()
            records = _over(stored, await Batch(projector, events).reduced({}))
        if not records:
            if stored:
                await projections.delete(name=projector.name, id=key)
            return 0
        if await projections.adapter.save_batch(records=records):
            return 1
    raise _outrun(projector, source)


def _rebuild_stream_sync(projector: AnyProjector, store: SyncEventStore, source: StreamIdentifier) -> int:
    projections, key = SyncProjectionStore(store), _id_of(projector, source)
    for _ in range(_TRIES):
        stored = projections.adapter.load_batch(name=projector.name, ids=[key])
        with _in_rebuild():
            events = store.stream(category=source.category, stream=source.stream).read()
            records = _over(stored, Batch(projector, events).reduced_sync({}))
        if not records:
            if stored:
                projections.delete(name=projector.name, id=key)
            return 0
        if projections.adapter.save_batch(records=records):
            return 1
    raise _outrun(projector, source)


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
            "projections are rebuilt from the log, a category or a stream, such as CategoryIdentifier('orders'); got a "
            f"{type(given).__name__}"
        )
    return source


def _check_store(given: object, wanted: type[EventStore | SyncEventStore]) -> None:
    if not isinstance(given, wanted):
        raise ConfigurationError(
            f"a rebuild reads events from a store: give it an {wanted.__name__} on an engine or in memory; got "
            f"{type(given).__name__}"
        )


def _plan(projector: AnyProjector, target: RebuildTarget) -> str:
    return encode_json({"version": str(projector.version), "source": target.serialise()}).decode()


def _save(
    storage: RebuildStorage, records: Sequence[ProjectionRecord], events: Sequence[AnyStoredEvent]
) -> RebuildProgressRecord:
    return storage.save(records, sequence_number=events[-1].sequence_number, events=len(events))


def _finish(
    storage: RebuildStorage, projector: AnyProjector, target: RebuildTarget, page_size: int, timeout_s: float
) -> int:
    def apply(events: Sequence[AnyStoredEvent], load: Load) -> Sequence[ProjectionRecord]:
        with _in_rebuild():
            batch = Batch(projector, events)
            return batch.reduced_sync(load(batch.ids) if batch.ids else {})

    # What cannot be inline is not kept up to date by publishes: there is nobody to be overtaken by.
    last = None if projector.coroutine_handlers else apply
    return storage.finish(target, last, page_size=page_size, timeout_s=timeout_s)


def _told(done: RebuildProgressRecord, latest: AnyStoredEvent | None) -> RebuildProgress:
    last = done.sequence_number if latest is None else max(latest.sequence_number, done.sequence_number)
    return RebuildProgress(done.events, done.sequence_number, last)


def _id_of(projector: AnyProjector, source: StreamIdentifier) -> str:
    if not projector.projects_streams:
        raise ConfigurationError(
            f"the projections of {projector.name!r} are fed by several streams, so that none can be rebuilt from one: "
            "rebuild all of them, without a source"
        )
    return projector.id_of(source)


def _over(stored: Mapping[str, ProjectionRecord], records: Sequence[ProjectionRecord]) -> list[ProjectionRecord]:
    """Put records in the place of what is stored."""
    return [replace(record, version=stored[record.id].version if record.id in stored else 0) for record in records]


def _outrun(projector: AnyProjector, source: StreamIdentifier) -> ConcurrencyError:
    return ConcurrencyError(
        f"stream {f'{source.category}/{source.stream}'!r} was published to {_TRIES} times while its projection "
        f"{projector.name!r} was rebuilt: try again when less is going on"
    )


async def _at_once(work: Callable[..., Any], *arguments: object) -> Any:
    return work(*arguments)

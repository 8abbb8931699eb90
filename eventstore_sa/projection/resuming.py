"""Projections that start from a snapshot: whether it can be used, what is read after it, and when another is taken.

The rules are in `Resumption`, which does no I/O; `resumed` and `resumed_sync` follow them. Like projectors, this module
knows sources, but no store and no database.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeAlias

from eventstore_sa.errors import ConfigurationError, EventStoreError, SerialisationError
from eventstore_sa.projection.reading import closer
from eventstore_sa.sources.constraints import QueryConstraints, position_after, sequence_number_after
from eventstore_sa.steps import Steps, drive, drive_async
from eventstore_sa.types import (
    AnyStoredEvent,
    EventTypes,
    Snapshot,
    SnapshotKey,
    Snapshots,
    StreamIdentifier,
    SyncSnapshots,
    decode_json,
    deserialise_from_json_value,
    encode_json,
    to_json,
)
from eventstore_sa.types.numbers import checked_count

if TYPE_CHECKING:
    from eventstore_sa.projection.projector import Projector

__all__ = ["Resumption", "UnfitSnapshotError", "resumed", "resumed_sync"]

AnyProjector: TypeAlias = "Projector[Any, Any, Any]"
Reached: TypeAlias = tuple[Any, Any]
"""A state and metadata."""

_log = logging.getLogger("eventstore_sa.projection")


class UnfitSnapshotError(Exception):
    """The source no longer has the event that the snapshot was taken at; nothing has been projected yet."""

    def __init__(self, snapshot: Snapshot, reason: str) -> None:
        super().__init__(reason)
        self.snapshot = snapshot
        self.reason = reason


class Resumption:
    """One projection with snapshots, as a state machine without I/O.

    Args:
        projector: Whose snapshots.
        source: What is projected.
        snapshots_in_transaction: Whether snapshots are kept within a transaction of the caller's.
        given: The state and metadata that the caller passed to start from; both must be None.

    Raises:
        ConfigurationError: If snapshots cannot be kept of this source, or of this projector's state.
    """

    def __init__(self, projector: AnyProjector, source: Any, given: Reached, *, snapshots_in_transaction: bool) -> None:
        if any(each is not None for each in given):
            raise ConfigurationError(
                f"projector {projector.name!r} was given a state or metadata to start from, and snapshots as well: pass one "
                "or the other"
            )
        if not getattr(source, "is_complete", False):
            raise ConfigurationError(
                "a snapshot is stored under the identifier of its source, so the source has to contain all events of that "
                "identifier, like the streams, categories, partitions and the log of a store; got "
                f"{type(source).__name__}: project it without snapshots"
            )
        self.source = source
        self.key: SnapshotKey = SnapshotKey.of(projector.name, projector.version, source.identifier)
        self._projector = projector
        self._every = _checked_interval(projector)
        types: EventTypes[Any] | None = getattr(source, "types", None)
        self._bound_to = "" if types is None else types.versions(projector.depends_on)
        self._initial = self._checked_initial()
        self._is_stream = isinstance(source.identifier, StreamIdentifier)
        # What a caller's transaction sees may be rolled back; and of a category or the log it may not see all, yet.
        self._may_take = not source.in_transaction or (self._is_stream and snapshots_in_transaction)
        self._begun_with: Snapshot | None = None
        self._last: AnyStoredEvent | None = None
        self._applied = 0
        self.replaced: Snapshot | None = None

    def in_epoch(self, tags_epoch: str) -> None:
        """Trust only snapshots that were taken since tags were last added to stored events, if the source depends on tags.

        Args:
            tags_epoch: What the epoch was before anything was read.
        """
        if tags_epoch:
            self._bound_to = f"{self._bound_to};tags={tags_epoch}"

    def begin(self, found: Snapshot | None) -> Reached:
        """Return the state and metadata to start from: those of the snapshot, if it can be read.

        Raises:
            SerialisationError: If the snapshot is not of the types that the projector declares.
        """
        if found is None:
            return self._initial
        problem = found.bound_to(self._bound_to).problem
        if problem is not None:
            return self.start_over(found, problem)
        self._begun_with = found
        projector = self._projector
        try:
            return (
                _from_text(projector.state_type, found.state),
                _from_text(projector.metadata_type, found.metadata),
            )
        except SerialisationError as error:
            raise SerialisationError(
                f"the snapshot of {self._described(found)} does not fit the projector any more: {error.message}; change the "
                "projector's version whenever its state changes"
            ) from error

    def start_over(self, unfit: Snapshot, reason: str) -> Reached:
        """Start from the first event after all: this snapshot cannot be used, and will be replaced."""
        _log.warning(
            "the snapshot of %s is not used, and all events are projected again: %s", self._described(unfit), reason
        )
        self.replaced = unfit
        self._begun_with = None
        return self._initial

    @property
    def constraints(self) -> QueryConstraints:
        """What to read: everything, or the event that the snapshot was taken at, as a check, and all that follow."""
        if self._begun_with is None:
            return frozenset()
        before = self._begun_with.place - 1
        return frozenset({position_after(before) if self._is_stream else sequence_number_after(before)})

    def read(self, event: AnyStoredEvent) -> bool:
        """Note the next event; return whether it is to be projected.

        Raises:
            UnfitSnapshotError: If it is not the event that the snapshot was taken at.
        """
        begun_with = self._begun_with
        if begun_with is not None and self._last is None:
            if (self._place(event), event.id) != (begun_with.place, begun_with.event_id):
                raise UnfitSnapshotError(begun_with, "another event is at its position")
            self._last = event
            return False
        self._last = event
        self._applied += 1
        return True

    def end(self) -> None:
        """Note that there are no more events.

        Raises:
            UnfitSnapshotError: If the source ends before the event that the snapshot was taken at.
        """
        if self._begun_with is not None and self._last is None:
            raise UnfitSnapshotError(self._begun_with, "the source ends before it")

    def snapshot(self, state: Any, metadata: Any) -> Snapshot | None:
        """Take a snapshot of the state and metadata if one is due; an unusable snapshot is replaced as soon as possible.

        Raises:
            SerialisationError: If JSON does not preserve the state or the metadata.
        """
        enough = self._every if self.replaced is None else 1
        if self._last is None or self._applied < enough or not self._may_take:
            return None
        projector = self._projector
        taken = Snapshot.taken(
            key=self.key,
            place=self._place(self._last),
            event_id=self._last.id,
            state=_exact_text("state", state, projector.state_type, projector),
            metadata=_exact_text("metadata", metadata, projector.metadata_type, projector),
        )
        return taken.bound_to(self._bound_to)

    def failed(self, error: Exception) -> None:
        """Log that no snapshot could be saved; the projection is returned all the same."""
        reason = error.message if isinstance(error, EventStoreError) else type(error).__name__
        _log.warning(
            "no snapshot of projector %r, version %s, of %s could be saved: %s",
            self.key.projector,
            self.key.version,
            self.key.source,
            reason,
        )

    def _place(self, event: AnyStoredEvent) -> int:
        return event.position if self._is_stream else event.sequence_number

    def _described(self, snapshot: Snapshot) -> str:
        key = self.key
        return f"projector {key.projector!r}, version {key.version}, at {snapshot.place} of {key.source}"

    def _checked_initial(self) -> Reached:
        """Find out at the first use, rather than after hundreds of events, that the types do not fit."""
        projector = self._projector
        state, metadata = projector.initial_state_factory(), projector.initial_metadata_factory()
        try:
            _exact_text("state", state, projector.state_type, projector)
            _exact_text("metadata", metadata, projector.metadata_type, projector)
        except SerialisationError as error:
            raise ConfigurationError(f"snapshots of projector {projector.name!r} cannot be taken: {error}") from error
        return state, metadata


class _EventsToProject:
    """The events that a projection with snapshots reads; iterating over them tells `Resumption` which was the last."""

    def __init__(self, run: Resumption) -> None:
        self._run = run

    async def __aiter__(self) -> AsyncIterator[AnyStoredEvent]:
        events = aiter(self._run.source.iterate(constraints=self._run.constraints))
        close = closer(events, None, "aclose")
        try:
            async for event in events:
                if self._run.read(event):
                    yield event
        finally:
            if close is not None:
                await close()
        self._run.end()

    def __iter__(self) -> Iterator[AnyStoredEvent]:
        events = iter(self._run.source.iterate(constraints=self._run.constraints))
        close = closer(events, None, "close")
        try:
            for event in events:
                if self._run.read(event):
                    yield event
        finally:
            if close is not None:
                close()
        self._run.end()


async def resumed(
    projector: AnyProjector,
    source: Any,
    snapshots: Snapshots,
    *,
    given: Reached,
    reduce: Callable[[Any, Any, Any], Awaitable[Reached]],
) -> Reached:
    """Project a source from its snapshot on; take another snapshot when it is due.

    Args:
        projector: Whose snapshots.
        source: What to project.
        snapshots: Where snapshots are kept.
        given: The state and metadata that the caller passed to start from; both must be None.
        reduce: Projects the events of a source, starting from a state and metadata.

    Returns:
        The state and metadata after the last event.

    Raises:
        ConfigurationError: If snapshots cannot be kept of this source, or of this projector's state.
        SerialisationError: If the snapshot is not of the types that the projector declares.
    """
    _check_store(snapshots, asynchronous=True)
    run = Resumption(projector, source, given, snapshots_in_transaction=snapshots.in_transaction)
    return await drive_async(_resume(run, snapshots, reduce))


def resumed_sync(
    projector: AnyProjector,
    source: Any,
    snapshots: SyncSnapshots,
    *,
    given: Reached,
    reduce: Callable[[Any, Any, Any], Reached],
) -> Reached:
    """Project a source from its snapshot on, without asyncio; see `resumed`."""
    _check_store(snapshots, asynchronous=False)
    run = Resumption(projector, source, given, snapshots_in_transaction=snapshots.in_transaction)
    return drive(_resume(run, snapshots, reduce))


def _resume(
    run: Resumption, snapshots: Snapshots | SyncSnapshots, reduce: Callable[[Any, Any, Any], Any]
) -> Steps[Reached]:
    tags_epoch = getattr(run.source, "tags_epoch", None)
    if tags_epoch is not None:
        run.in_epoch((yield tags_epoch))
    begun = run.begin((yield partial(snapshots.find, key=run.key)))
    try:
        reached: Reached = yield partial(reduce, _EventsToProject(run), *begun)
    except UnfitSnapshotError as unfit:
        begun = run.start_over(unfit.snapshot, unfit.reason)
        reached = yield partial(reduce, _EventsToProject(run), *begun)
    try:
        snapshot = run.snapshot(*reached)
        if snapshot is not None:
            yield partial(snapshots.save, snapshot=snapshot, replacing=run.replaced)
    except Exception as error:  # noqa: BLE001 - whatever it is, the projection is right
        run.failed(error)
    return reached


def _exact_text(what: str, value: object, kind: Any, projector: AnyProjector) -> str:
    """Return a value as JSON text that reads back as an equal value.

    Raises:
        SerialisationError: If JSON does not preserve the value.
    """
    label = f"{what} of projector {projector.name!r}"
    text = encode_json(to_json(value, label=label), label=label).decode()
    again = _from_text(kind, text)
    compares = getattr(type(value), "__eq__", None) is not getattr(object, "__eq__", None)
    if type(again) is not type(value) or (compares and again != value):
        raise SerialisationError(
            f"JSON does not preserve the {label}: {type(value).__name__} became "
            f"{type(again).__name__}{' that is not equal' if type(again) is type(value) else ''}; set {what}_type in the "
            "projector to its type, or use JSON types only"
        )
    return text


def _from_text(kind: Any, text: str) -> Any:
    value = decode_json(text)
    return value if kind is None else deserialise_from_json_value(kind, value)


def _checked_interval(projector: AnyProjector) -> int:
    every: object = projector.snapshot_every
    if every is None:
        raise ConfigurationError(
            f"projector {projector.name!r} does not say when to take snapshots: set snapshot_every in "
            f"{type(projector).__name__} to a number of events, such as 100, or project without snapshots"
        )
    return checked_count(f"{type(projector).__name__}.snapshot_every, a number of events,", every)


def _check_store(snapshots: object, *, asynchronous: bool) -> None:
    find = getattr(snapshots, "find", None)
    if callable(find) and iscoroutinefunction(find) == asynchronous:
        return
    wanted = "project takes a SnapshotStore" if asynchronous else "project_sync takes a SyncSnapshotStore"
    raise ConfigurationError(f"{wanted} for snapshots; got {type(snapshots).__name__}")

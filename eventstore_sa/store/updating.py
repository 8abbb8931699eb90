"""Load, decide, publish: project a stream's state, decide on events, and publish them unless the stream has moved on."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeVar

from eventstore_sa.attempts import Attempts, Backoff
from eventstore_sa.conditions import position_is
from eventstore_sa.errors import ConfigurationError, ConnectionLostError, UnmetWriteConditionError
from eventstore_sa.sources import InMemoryEventSource, SyncInMemoryEventSource
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.steps import Steps, drive, drive_async
from eventstore_sa.store.turns import Leave, is_nested, no_turn
from eventstore_sa.types import AnyStoredEvent, EventTypes, Projection, Snapshots, StreamIdentifier, SyncSnapshots
from eventstore_sa.types.numbers import checked_count

if TYPE_CHECKING:
    from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, SyncEventStorageAdapter
    from eventstore_sa.store.streams import EventStream
    from eventstore_sa.store.sync_streams import SyncEventStream

__all__ = [
    "TRIES_WITHOUT_LOCK",
    "Decide",
    "DecideAsync",
    "LostWithinError",
    "StreamProjector",
    "StreamUpdate",
    "SyncStreamProjector",
    "check_complete",
    "copied",
    "lost_within",
    "update",
    "update_sync",
]

State = TypeVar("State")

# Events are NewEvents, or objects of the store's event types.
Decide = Callable[[State], Sequence[object]]
DecideAsync = Callable[[State], Sequence[object] | Awaitable[Sequence[object]]]

_BACKOFF: Final = Backoff()

TRIES_WITHOUT_LOCK: Final = 3
"""How often others may be faster, before it is seen to that they cannot be."""

_log = logging.getLogger("eventstore_sa.store")


class StreamUpdate(NamedTuple, Generic[State]):
    """The result of an update.

    Attributes:
        state: The state of the stream, including the published events.
        events: The stored events; empty if `decide` returned none.
    """

    state: State
    events: Sequence[AnyStoredEvent]


class StreamProjector(Protocol[State]):
    """What an update needs from a projector, such as `Projector`."""

    async def project(
        self, *, source: Any, state: State | None = None, metadata: Any = None, snapshots: Snapshots | None = None
    ) -> Projection[State, Any]:
        """Reduce all events of a source, starting from the given state or from a snapshot."""
        ...


class SyncStreamProjector(Protocol[State]):
    """The twin of `StreamProjector` without asyncio."""

    def project_sync(
        self, *, source: Any, state: State | None = None, metadata: Any = None, snapshots: SyncSnapshots | None = None
    ) -> Projection[State, Any]:
        """Reduce all events of a source, starting from the given state or from a snapshot."""
        ...


class _Followed:
    """A stream that remembers how far it was read: asking for its position before or after could give another answer."""

    is_complete = True

    def __init__(self, stream: EventStream | SyncEventStream) -> None:
        self.identifier: StreamIdentifier = stream.identifier
        self.in_transaction: bool = stream.in_transaction
        self.types: EventTypes[Any] | None = stream.types
        self.position: int | None = None
        self._stream = stream
        self._events: Any = stream

    def iterate(self, *, constraints: QueryConstraints) -> _Followed:
        """Read only the events that meet the constraints: those from a snapshot on."""
        self._events = self._stream.iterate(constraints=constraints)
        self.position = None
        return self

    async def __aiter__(self) -> AsyncIterator[AnyStoredEvent]:
        async for event in self._events:
            self.position = event.position
            yield event

    def __iter__(self) -> Iterator[AnyStoredEvent]:
        for event in self._events:
            self.position = event.position
            yield event


async def update(
    stream: EventStream,
    projector: StreamProjector[State],
    decide: DecideAsync[State],
    *,
    retries: int,
    snapshots: Snapshots | None,
) -> StreamUpdate[State]:
    """See `EventStream.update`."""
    checked_count("retries", retries, least=0)
    turns = stream.adapter.turns

    def locked(once: Callable[[Any], Steps[_Published[State] | None]]) -> Awaitable[_Published[State] | None]:
        async def work(adapter: EventStorageAdapter) -> _Published[State] | None:
            with lost_within(adapter):
                return await drive_async(once(type(stream)(adapter, stream.identifier)))

        return stream.adapter.locked(stream.identifier, work)

    how = _How(
        load=partial(projector.project, snapshots=snapshots),
        project=projector.project,
        source_of=InMemoryEventSource,
        take_turn=None if turns is None else turns.take,
        locked=locked,
    )
    return await drive_async(_update(stream, decide, how, retries=retries))


def update_sync(
    stream: SyncEventStream,
    projector: SyncStreamProjector[State],
    decide: Decide[State],
    *,
    retries: int,
    snapshots: SyncSnapshots | None,
) -> StreamUpdate[State]:
    """See `SyncEventStream.update`."""
    checked_count("retries", retries, least=0)
    turns = stream.adapter.turns

    def locked(once: Callable[[Any], Steps[_Published[State] | None]]) -> _Published[State] | None:
        def work(adapter: SyncEventStorageAdapter) -> _Published[State] | None:
            with lost_within(adapter):
                return drive(once(type(stream)(adapter, stream.identifier)))

        return stream.adapter.locked(stream.identifier, work)

    how = _How(
        load=partial(projector.project_sync, snapshots=snapshots),
        project=projector.project_sync,
        source_of=SyncInMemoryEventSource,
        take_turn=None if turns is None else turns.take_sync,
        locked=locked,
    )
    return drive(_update(stream, decide, how, retries=retries))


class _Published(NamedTuple, Generic[State]):
    """The projection that was decided on, and the events that were stored."""

    before: Projection[State, Any]
    stored: Sequence[AnyStoredEvent]


class _How(NamedTuple):
    """How an update does its steps, with asyncio or without.

    Attributes:
        load: Projects the stream, perhaps from a snapshot on.
        project: Projects the published events, from a state on.
        source_of: Makes a source of them.
        take_turn: Waits until no other update of the stream is in progress in this process; None: they do not queue.
        locked: Does the steps that a function makes for the stream in one transaction in which the stream is locked.
    """

    load: Callable[..., Any]
    project: Callable[..., Any]
    source_of: Callable[..., Any]
    take_turn: Callable[[StreamIdentifier], Any] | None
    locked: Callable[[Callable[[Any], Steps[Any]]], Any]


class LostWithinError(Exception):
    """The connection of a transaction was lost before its commit: nothing was stored."""


@contextmanager
def lost_within(adapter: EventStorageAdapter | SyncEventStorageAdapter) -> Generator[None]:
    """Raise `LostWithinError` if the connection is lost in a transaction."""
    try:
        yield
    except ConnectionLostError as error:
        if not adapter.in_transaction:
            raise
        raise LostWithinError from error


def _update(
    stream: EventStream | SyncEventStream, decide: DecideAsync[State], how: _How, *, retries: int
) -> Steps[StreamUpdate[State]]:
    """Publish what `decide` returns for the state of a stream, and add it to that state.

    Args:
        stream: The stream.
        decide: Returns the events to publish.
        how: How steps are done.
        retries: How often to do it again when another writer was faster.
    """
    check_complete(is_complete=stream.is_complete, what="the stream")
    nested = is_nested.get()
    leave: Leave = no_turn
    if how.take_turn is not None and not nested and not stream.in_transaction:
        leave = yield partial(how.take_turn, stream.identifier)
    is_nested.set(True)
    try:
        before, stored = yield from _publish_decision(stream, decide, how, retries=retries, nested=nested)
    finally:
        is_nested.set(nested)
        leave()
    if not stored:
        return StreamUpdate(before.state, ())
    new = how.source_of(stored, identifier=stream.identifier)
    after = yield partial(how.project, source=new, state=before.state, metadata=before.metadata)
    return StreamUpdate(after.state, stored)


def _publish_decision(
    stream: EventStream | SyncEventStream, decide: DecideAsync[State], how: _How, *, retries: int, nested: bool
) -> Steps[_Published[State]]:
    """Try until no other writer is faster; after some tries, see to it that none can be.

    An update within another one takes no lock for longer than a statement: two that are nested the other way round, in two
    processes, would wait for each other, and no database would know.
    """
    for attempt in Attempts(retries + 1, on=UnmetWriteConditionError, backoff=_BACKOFF):
        yield attempt.pause
        once = partial(_try_once, attempt=attempt, decide=decide, how=how)
        published: _Published[State] | None
        try:
            if nested or attempt.number <= TRIES_WITHOUT_LOCK:
                published = yield from once(stream)
            else:
                published = yield partial(how.locked, once)
        except LostWithinError as lost:
            _log.info("trying without a lock on the stream: %s", lost.__cause__)
            published = yield from once(stream)
        if published is not None:
            return published
    raise AssertionError("the last attempt returns or raises")


def _try_once(
    stream: EventStream | SyncEventStream, *, attempt: Attempts, decide: DecideAsync[State], how: _How
) -> Steps[_Published[State] | None]:
    """Load, decide and publish; return None if another writer was faster and another attempt follows."""
    followed = _Followed(stream)
    before = yield partial(how.load, source=followed)
    events = yield partial(decide, copied(before.state))
    if not events:
        return _Published(before, ())
    with attempt:
        stored = yield partial(stream.publish, events=events, condition=position_is(followed.position))
        return _Published(before, stored)
    return None


def copied(state: State) -> State:
    """Return a copy for `decide`, which may change it freely: the new state is made from the events alone.

    Raises:
        ConfigurationError: If the state cannot be copied.
    """
    try:
        return deepcopy(state)
    except Exception as error:
        raise ConfigurationError(
            f"{type(state).__name__} cannot be copied ({type(error).__name__}), but `decide` receives a copy of the "
            "state: give the class a __deepcopy__ method, or keep such objects out of the state"
        ) from error


def check_complete(*, is_complete: bool, what: str) -> None:
    """Refuse to decide on events of which some are skipped.

    Raises:
        ConfigurationError: If some are.
    """
    if not is_complete:
        raise ConfigurationError(
            f"a decision needs all events of {what}, but the store's event types skip some: use EventTypes(..., "
            'unknown="keep", invalid="keep") for the store that decides'
        )

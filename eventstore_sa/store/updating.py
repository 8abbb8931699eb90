"""Load, decide, publish: a stream's state through a projector, a decision, and its events if nobody was faster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from copy import deepcopy
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeVar

from eventstore_sa.conditions import position_is
from eventstore_sa.errors import ConfigurationError, UnmetWriteConditionError
from eventstore_sa.sources import InMemoryEventSource, SyncInMemoryEventSource
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.store.transactions import Backoff
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent, Projection, Snapshots, StreamIdentifier, SyncSnapshots
from eventstore_sa.types.numbers import checked_count

if TYPE_CHECKING:
    from eventstore_sa.store.streams import EventStream
    from eventstore_sa.store.sync_streams import SyncEventStream

__all__ = ["Decide", "DecideAsync", "StreamProjector", "StreamUpdate", "SyncStreamProjector", "update", "update_sync"]

State = TypeVar("State")

Decide = Callable[[State], Sequence[AnyNewEvent]]
DecideAsync = Callable[[State], Sequence[AnyNewEvent] | Awaitable[Sequence[AnyNewEvent]]]

_BACKOFF: Final = Backoff()


class StreamUpdate(NamedTuple, Generic[State]):
    """What came of an update.

    Attributes:
        state: The state of the stream, with the events that were published.
        events: The stored events; none when there was nothing to do.
    """

    state: State
    events: Sequence[AnyStoredEvent]


class StreamProjector(Protocol[State]):
    """What an update needs of a projector, such as `Projector`."""

    async def project(
        self, *, source: Any, state: State | None = None, metadata: Any = None, snapshots: Snapshots | None = None
    ) -> Projection[State, Any]:
        """Reduce all events of a source, from the given state on, or from that of a snapshot."""
        ...


class SyncStreamProjector(Protocol[State]):
    """The twin of `StreamProjector` without asyncio."""

    def project_sync(
        self, *, source: Any, state: State | None = None, metadata: Any = None, snapshots: SyncSnapshots | None = None
    ) -> Projection[State, Any]:
        """Reduce all events of a source, from the given state on, or from that of a snapshot."""
        ...


class _Followed:
    """A stream that remembers up to where it was read: the projector may have seen more than any earlier look would tell."""

    is_complete = True

    def __init__(self, stream: EventStream | SyncEventStream) -> None:
        self.identifier: StreamIdentifier = stream.identifier
        self.in_transaction: bool = stream.in_transaction
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
    failures = 0
    while True:
        followed = _Followed(stream)
        before = await projector.project(source=followed, snapshots=snapshots)
        decision = decide(_copied(before.state))
        events = await decision if isawaitable(decision) else decision
        if not events:
            return StreamUpdate(before.state, ())
        try:
            stored = await stream.publish(events=events, condition=position_is(followed.position))
        except UnmetWriteConditionError:
            failures += 1
            if failures > retries:
                raise
            await _BACKOFF.sleep(_BACKOFF.pause_s(failures))
            continue
        new = InMemoryEventSource(stored, identifier=stream.identifier)
        after = await projector.project(source=new, state=before.state, metadata=before.metadata)
        return StreamUpdate(after.state, stored)


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
    failures = 0
    while True:
        followed = _Followed(stream)
        before = projector.project_sync(source=followed, snapshots=snapshots)
        events = decide(_copied(before.state))
        if not events:
            return StreamUpdate(before.state, ())
        try:
            stored = stream.publish(events=events, condition=position_is(followed.position))
        except UnmetWriteConditionError:
            failures += 1
            if failures > retries:
                raise
            _BACKOFF.sleep_sync(_BACKOFF.pause_s(failures))
            continue
        new = SyncInMemoryEventSource(stored, identifier=stream.identifier)
        after = projector.project_sync(source=new, state=before.state, metadata=before.metadata)
        return StreamUpdate(after.state, stored)


def _copied(state: State) -> State:
    """Return a copy for `decide`, which may change it to try things out: what counts is what the events make of it.

    Raises:
        ConfigurationError: It cannot be copied.
    """
    try:
        return deepcopy(state)
    except Exception as error:
        raise ConfigurationError(
            f"a {type(state).__name__} cannot be copied ({type(error).__name__}), but `decide` is given a copy of the "
            "state: give the class a __deepcopy__, or keep such things out of the state"
        ) from error

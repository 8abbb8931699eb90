"""Load, decide, publish: project a stream's state, decide on events, and publish them unless the stream has moved on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeVar

from eventstore_sa.attempts import Attempts, Backoff
from eventstore_sa.conditions import position_is
from eventstore_sa.errors import ConfigurationError, UnmetWriteConditionError
from eventstore_sa.sources import InMemoryEventSource, SyncInMemoryEventSource
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.steps import Steps, drive, drive_async
from eventstore_sa.types import AnyStoredEvent, EventTypes, Projection, Snapshots, StreamIdentifier, SyncSnapshots
from eventstore_sa.types.numbers import checked_count

if TYPE_CHECKING:
    from eventstore_sa.store.streams import EventStream
    from eventstore_sa.store.sync_streams import SyncEventStream

__all__ = ["Decide", "DecideAsync", "StreamProjector", "StreamUpdate", "SyncStreamProjector", "update", "update_sync"]

State = TypeVar("State")

# Events are NewEvents, or objects of the store's event types.
Decide = Callable[[State], Sequence[object]]
DecideAsync = Callable[[State], Sequence[object] | Awaitable[Sequence[object]]]

_BACKOFF: Final = Backoff()


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
    load = partial(projector.project, snapshots=snapshots)
    steps = _update(
        stream, decide, load=load, project=projector.project, source_of=InMemoryEventSource, retries=retries
    )
    return await drive_async(steps)


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
    load, project = partial(projector.project_sync, snapshots=snapshots), projector.project_sync
    return drive(
        _update(stream, decide, load=load, project=project, source_of=SyncInMemoryEventSource, retries=retries)
    )


def _update(
    stream: EventStream | SyncEventStream,
    decide: DecideAsync[State],
    *,
    load: Callable[..., Any],
    project: Callable[..., Any],
    source_of: Callable[..., Any],
    retries: int,
) -> Steps[StreamUpdate[State]]:
    """Publish what `decide` returns for the state of a stream, and add it to that state.

    Args:
        stream: The stream.
        decide: Returns the events to publish.
        load: Projects the stream, perhaps from a snapshot on.
        project: Projects the published events, from a state on.
        source_of: Makes a source of them.
        retries: How often to do it again when another writer was faster.
    """
    if not stream.is_complete:
        raise ConfigurationError(
            "a decision needs all events of the stream, but the store's event types skip some: use EventTypes(..., "
            'unknown="keep", invalid="keep") for the store that decides'
        )
    before, stored = yield from _publish_decision(stream, decide, load, retries)
    if not stored:
        return StreamUpdate(before.state, ())
    new = source_of(stored, identifier=stream.identifier)
    after = yield partial(project, source=new, state=before.state, metadata=before.metadata)
    return StreamUpdate(after.state, stored)


def _publish_decision(
    stream: EventStream | SyncEventStream, decide: DecideAsync[State], load: Callable[..., Any], retries: int
) -> Steps[tuple[Projection[State, Any], Sequence[AnyStoredEvent]]]:
    """Return the projection that was decided on, and the events that were stored."""
    for attempt in Attempts(retries + 1, on=UnmetWriteConditionError, backoff=_BACKOFF):
        yield attempt.pause
        followed = _Followed(stream)
        before = yield partial(load, source=followed)
        events = yield partial(decide, _copied(before.state))
        if not events:
            return before, ()
        with attempt:
            stored = yield partial(stream.publish, events=events, condition=position_is(followed.position))
            return before, stored
    raise AssertionError("the last attempt returns or raises")


def _copied(state: State) -> State:
    """Return a copy for `decide`, which may change it freely: the new state is made from the events alone.

    Raises:
        ConfigurationError: If the state cannot be copied.
    """
    try:
        return deepcopy(state)
    except Exception as error:
        raise ConfigurationError(
            f"a {type(state).__name__} cannot be copied ({type(error).__name__}), but `decide` receives a copy of the "
            "state: give the class a __deepcopy__ method, or keep such objects out of the state"
        ) from error

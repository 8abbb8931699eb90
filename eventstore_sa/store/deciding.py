"""Decisions: states of events that queries choose, and the condition that no other such event has been stored since.

Each item of a query is read by itself, in order of numbers, and the decision remembers its last event. Writers of a tag
exclude each other until they commit, so the events of an item are complete up to the last one that is visible; of the items
together that cannot be said. When a publish checks each item against its own last event, what was read in between does not
matter: it passes only if all items together are still what was read.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from msgspec import Struct

from eventstore_sa.attempts import Attempts, Backoff
from eventstore_sa.conditions import AndCondition, NoEventMatchesCondition, WriteCondition
from eventstore_sa.errors import ConfigurationError, LockTimeoutError, UnmetWriteConditionError
from eventstore_sa.publishing import StreamPublishDefinition, TypedPublishDefinition, own_copy
from eventstore_sa.sources import InMemoryEventSource, SyncInMemoryEventSource
from eventstore_sa.sources.constraints import QueryConstraint, sequence_number_after, sequence_number_before
from eventstore_sa.steps import Steps, drive, drive_async
from eventstore_sa.store.declared_streams import by_stream
from eventstore_sa.store.turns import Leave, is_nested, no_turn
from eventstore_sa.store.updating import (
    TRIES_WITHOUT_LOCK,
    LostWithinError,
    StreamProjector,
    SyncStreamProjector,
    check_complete,
    copied,
    lost_within,
)
from eventstore_sa.types import (
    AnyStoredEvent,
    EventQuery,
    EventTypes,
    Projection,
    QueryItem,
    Snapshots,
    StreamIdentifier,
    SyncSnapshots,
)
from eventstore_sa.types.json import is_mapping
from eventstore_sa.types.numbers import checked_count

if TYPE_CHECKING:
    from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, SyncEventStorageAdapter
    from eventstore_sa.store.event_store import EventStore, SyncEventStore

__all__ = [
    "Decision",
    "DecisionUpdate",
    "Model",
    "Models",
    "Publishes",
    "SyncModel",
    "SyncModels",
    "decide",
    "decide_sync",
    "update_decision",
    "update_decision_sync",
]

State = TypeVar("State")

Model: TypeAlias = tuple[EventQuery, StreamProjector[Any]]
"""A part of a decision: events, and the projector that makes a state of them."""

Models: TypeAlias = Mapping[str, Model]
"""The parts of a decision, by names of the caller's choice."""

SyncModel: TypeAlias = tuple[EventQuery, SyncStreamProjector[Any]]
SyncModels: TypeAlias = Mapping[str, SyncModel]

Publishes: TypeAlias = (
    Mapping[StreamIdentifier, StreamPublishDefinition[Any, Any, Any] | TypedPublishDefinition[Any]] | Sequence[object]
)
"""What a decision comes to, as `publish` takes it: events for each stream, or events whose types declare their streams."""

_BACKOFF: Final = Backoff()
_SINGLE: Final = ""

_log = logging.getLogger("eventstore_sa.store")


class Decision(Struct, Generic[State], frozen=True):
    """What is to be decided on: a state, and which events it was made of.

    Attributes:
        state: What the projector made of the events; for several projectors, a dict of their states.
        items: For each item of the queries the last event that was read, as the condition that nothing was added to it.
    """

    state: State
    items: tuple[NoEventMatchesCondition, ...]

    def unchanged(self) -> WriteCondition:
        """Demand that no event has been stored since that would have been part of this decision.

        It may be combined with other conditions, and be the condition of a publish to any stream, staged or at once. Within
        one transaction, events that are published or staged before count; those of the same publish do not.
        """
        return self.items[0] if len(self.items) == 1 else AndCondition(frozenset(self.items))


class DecisionUpdate(NamedTuple, Generic[State]):
    """The result of an update.

    Attributes:
        state: The state, including the published events.
        events: The stored events of each stream; empty if nothing was decided.
    """

    state: State
    events: Mapping[StreamIdentifier, Sequence[AnyStoredEvent]]


class _Reached(NamedTuple):
    """What a projector has made of some events."""

    state: Any
    metadata: Any

    @classmethod
    def of(cls, projection: Projection[Any, Any]) -> _Reached:
        return cls(projection.state, projection.metadata)


class _Begun(NamedTuple):
    """Where a model begins: what was made of its events up to the last one, which is complete."""

    reached: _Reached | None
    last: AnyStoredEvent | None

    @property
    def place(self) -> int:
        return 0 if self.last is None else self.last.sequence_number


_FROM_THE_START: Final = _Begun(None, None)


class _WatchedSource:
    """The events of a query, up to a number, for projectors with snapshots; notes the last one."""

    is_complete: Final = True

    def __init__(self, source: Any, constraints: frozenset[QueryConstraint]) -> None:
        self._source = source
        self._constraints = constraints
        self.identifier: EventQuery = source.identifier
        self.in_transaction: bool = source.in_transaction
        self.types: Any = source.types
        self.tags_epoch: Callable[[], Any] = source.tags_epoch
        self.last: AnyStoredEvent | None = None

    def _events(self, constraints: frozenset[QueryConstraint]) -> Any:
        self.last = None
        return self._source.iterate(constraints=constraints | self._constraints)


class _AsyncWatchedSource(_WatchedSource):
    """For projectors with asyncio."""

    def __aiter__(self) -> AsyncIterator[AnyStoredEvent]:
        return self.iterate()

    async def iterate(self, *, constraints: frozenset[QueryConstraint] = frozenset()) -> AsyncIterator[AnyStoredEvent]:
        async for event in self._events(constraints):
            self.last = event
            yield event


class _SyncWatchedSource(_WatchedSource):
    """For projectors without asyncio."""

    def __iter__(self) -> Iterator[AnyStoredEvent]:
        return self.iterate()

    def iterate(self, *, constraints: frozenset[QueryConstraint] = frozenset()) -> Iterator[AnyStoredEvent]:
        for event in self._events(constraints):
            self.last = event
            yield event


class _Read(NamedTuple):
    """What was read for a decision."""

    items: tuple[NoEventMatchesCondition, ...]
    reached: Mapping[str, _Reached]

    @property
    def states(self) -> dict[str, Any]:
        return {name: reached.state for name, reached in self.reached.items()}


class _Published(NamedTuple):
    """What was decided on, and what was stored of the decision."""

    before: _Read
    stored: Mapping[StreamIdentifier, Sequence[AnyStoredEvent]]


class _BusyError(Exception):
    """A publish in a transaction that holds locks needs others, whose holders might wait for these: nothing was stored."""


@runtime_checkable
class _Reducer(Protocol):
    """A projector that reduces events without making a projection, which would need an id for the query."""

    def initial_state_factory(self) -> Any: ...
    def initial_metadata_factory(self) -> Any: ...
    async def reduce(self, *, events: Iterable[AnyStoredEvent], state: Any, metadata: Any) -> tuple[Any, Any]: ...


@runtime_checkable
class _SyncReducer(Protocol):
    """The twin of `_Reducer` without asyncio."""

    def initial_state_factory(self) -> Any: ...
    def initial_metadata_factory(self) -> Any: ...
    def reduce_sync(self, *, events: Iterable[AnyStoredEvent], state: Any, metadata: Any) -> tuple[Any, Any]: ...


def _begun(projector: _Reducer | _SyncReducer, reached: _Reached | None) -> dict[str, Any]:
    """Return the state and metadata that a reduction begins with."""
    if reached is None:
        reached = _Reached(projector.initial_state_factory(), projector.initial_metadata_factory())
    return reached._asdict()


def _passed(reached: _Reached | None) -> dict[str, Any]:
    return {} if reached is None else reached._asdict()


async def decide(
    store: EventStore, models: EventQuery | Models, projector: object, snapshots: Snapshots | None
) -> Decision[Any]:
    """See `EventStore.decide`."""
    return await drive_async(_Deciding.of(store, models, projector, snapshots).decision())


def decide_sync(
    store: SyncEventStore, models: EventQuery | SyncModels, projector: object, snapshots: SyncSnapshots | None
) -> Decision[Any]:
    """See `SyncEventStore.decide`."""
    return drive(_Deciding.of_sync(store, models, projector, snapshots).decision())


async def update_decision(
    store: EventStore,
    models: EventQuery | Models,
    projector: object,
    decide: Callable[[Any], Publishes | Awaitable[Publishes]],
    *,
    retries: int,
    snapshots: Snapshots | None,
) -> DecisionUpdate[Any]:
    """See `EventStore.update_decision`."""
    return await drive_async(_Deciding.of(store, models, projector, snapshots).update(decide, retries))


def update_decision_sync(
    store: SyncEventStore,
    models: EventQuery | SyncModels,
    projector: object,
    decide: Callable[[Any], Publishes],
    *,
    retries: int,
    snapshots: SyncSnapshots | None,
) -> DecisionUpdate[Any]:
    """See `SyncEventStore.update_decision`."""
    return drive(_Deciding.of_sync(store, models, projector, snapshots).update(decide, retries))


class _Deciding(NamedTuple):
    """How decisions are made with asyncio, or without.

    Attributes:
        store: The store.
        models: What is decided on.
        single: Whether it is one model without a name, whose state is not in a dict.
        scan: Reads the events of an item.
        project: Projects events with a projector.
        snapshots: Where projectors find snapshots to begin with.
        resume: Projects a source with a projector, from its snapshot on.
        watched: Makes a source of a query that notes which event is its last.
        take_turn: Waits until no other update that decides on an item is in progress in this process; None: they do not
            queue.
        locked: Does the steps that a function makes of the same in one transaction that holds the locks of a publish.
    """

    store: EventStore | SyncEventStore
    models: Mapping[str, tuple[EventQuery, Any]]
    single: bool
    scan: Callable[[EventQuery, frozenset[QueryConstraint]], Any]
    project: Callable[..., Any]
    snapshots: Snapshots | SyncSnapshots | None
    resume: Callable[..., Any]
    watched: Callable[[EventQuery, frozenset[QueryConstraint]], _WatchedSource]
    take_turn: Callable[[str], Any] | None
    locked: Callable[[Mapping[StreamIdentifier, Any], Callable[[_Deciding], Steps[Any]]], Any]

    @classmethod
    def of(
        cls, store: EventStore, models: EventQuery | Models, projector: object, snapshots: Snapshots | None
    ) -> _Deciding:
        async def scan(query: EventQuery, constraints: frozenset[QueryConstraint]) -> Sequence[AnyStoredEvent]:
            return await store.query(query).read(constraints=constraints)

        async def project(
            projector: StreamProjector[Any],
            events: Sequence[AnyStoredEvent],
            query: EventQuery,
            reached: _Reached | None,
        ) -> _Reached:
            if isinstance(projector, _Reducer):
                return _Reached(*await projector.reduce(events=events, **_begun(projector, reached)))
            source = InMemoryEventSource(events, identifier=query)
            return _Reached.of(await projector.project(source=source, **_passed(reached)))

        async def resume(projector: StreamProjector[Any], source: _WatchedSource) -> _Reached:
            return _Reached.of(await projector.project(source=source, snapshots=snapshots))

        def watched(query: EventQuery, constraints: frozenset[QueryConstraint]) -> _WatchedSource:
            return _AsyncWatchedSource(store.query(query), constraints)

        def locked(streams: Mapping[StreamIdentifier, Any], once: Callable[[_Deciding], Steps[Any]]) -> Awaitable[Any]:
            async def work(adapter: EventStorageAdapter) -> Any:
                within = store._over(adapter.untyped)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
                with lost_within(adapter):
                    return await drive_async(once(cls.of(within, models, projector, snapshots)))

            return store.log().adapter.locked(streams, work)

        turns = store.adapter.turns
        take = None if turns is None else turns.take
        checked = _checked(store, models, projector, "project")
        return cls(store, *checked, scan, project, snapshots, resume, watched, take, locked)

    @classmethod
    def of_sync(
        cls, store: SyncEventStore, models: EventQuery | SyncModels, projector: object, snapshots: SyncSnapshots | None
    ) -> _Deciding:
        def scan(query: EventQuery, constraints: frozenset[QueryConstraint]) -> Sequence[AnyStoredEvent]:
            return store.query(query).read(constraints=constraints)

        def project(
            projector: SyncStreamProjector[Any],
            events: Sequence[AnyStoredEvent],
            query: EventQuery,
            reached: _Reached | None,
        ) -> _Reached:
            if isinstance(projector, _SyncReducer):
                return _Reached(*projector.reduce_sync(events=events, **_begun(projector, reached)))
            source = SyncInMemoryEventSource(events, identifier=query)
            return _Reached.of(projector.project_sync(source=source, **_passed(reached)))

        def resume(projector: SyncStreamProjector[Any], source: _WatchedSource) -> _Reached:
            return _Reached.of(projector.project_sync(source=source, snapshots=snapshots))

        def watched(query: EventQuery, constraints: frozenset[QueryConstraint]) -> _WatchedSource:
            return _SyncWatchedSource(store.query(query), constraints)

        def locked(streams: Mapping[StreamIdentifier, Any], once: Callable[[_Deciding], Steps[Any]]) -> Any:
            def work(adapter: SyncEventStorageAdapter) -> Any:
                within = store._over(adapter.untyped)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
                with lost_within(adapter):
                    return drive(once(cls.of_sync(within, models, projector, snapshots)))

            return store.log().adapter.locked(streams, work)

        turns = store.adapter.turns
        take = None if turns is None else turns.take_sync
        checked = _checked(store, models, projector, "project_sync")
        return cls(store, *checked, scan, project, snapshots, resume, watched, take, locked)

    @property
    def items(self) -> Iterable[QueryItem]:
        """All items of the queries, each once."""
        return dict.fromkeys(item for query, _ in self.models.values() for item in query.items)

    def decision(self) -> Steps[Decision[Any]]:
        """Read, and return what is to be decided on."""
        read = yield from self.read()
        return Decision(self._state(read.states), read.items)

    def read(self) -> Steps[_Read]:
        """Read each item of the queries, and project the events of each model in the order of their numbers."""
        # Before the events: tags that are added to earlier ones in between have the decision refused.
        adapter = self.store.adapter
        epoch: str = yield partial(adapter.tags_epoch, current=self.snapshots is not None)
        begun: Mapping[str, _Begun] = {}
        if self.snapshots is not None:
            begun = yield from self._resumed()
        events: dict[int, AnyStoredEvent] = {}
        items: list[NoEventMatchesCondition] = []
        for item in self.items:
            starts = [
                begun.get(name, _FROM_THE_START) for name, (query, _) in self.models.items() if item in query.items
            ]
            start = min(starts, key=_place)
            of_item: Sequence[AnyStoredEvent] = yield from self._read_item(item, start.place)
            events |= {event.sequence_number: event for event in of_item}
            last = of_item[-1] if of_item else start.last
            items.append(
                NoEventMatchesCondition(item)
                if last is None
                else NoEventMatchesCondition(item, last.sequence_number, last.id, epoch if item.tags else None)
            )
        in_order = [events[number] for number in sorted(events)]
        reached: dict[str, _Reached] = {}
        for name, (query, projector) in self.models.items():
            start = begun.get(name, _FROM_THE_START)
            # Copies, because a handler may change what it is given.
            matching = [
                own_copy(event)
                for event in in_order
                if event.sequence_number > start.place and query.met_by(event=event)
            ]
            reached[name] = yield partial(self.project, projector, matching, query, start.reached)
        return _Read(tuple(items), reached)

    def _resumed(self) -> Steps[Mapping[str, _Begun]]:
        """Project the events of models up to a number below which all of them are complete, from snapshots on.

        What follows is read item by item, so a single number is enough for a snapshot. Within a transaction of the caller's,
        reads go beyond that number, so it is asked for.
        """
        constraints: frozenset[QueryConstraint] = frozenset()
        if self.store.adapter.in_transaction:
            watermark = yield self.store.adapter.watermark
            constraints = frozenset([sequence_number_before(watermark.sequence_number + 1)])
        begun: dict[str, _Begun] = {}
        kept = {name for name, (_, each) in self.models.items() if getattr(each, "snapshot_every", None) is not None}
        for name in kept or self.models:
            query, projector = self.models[name]
            source = self.watched(query, constraints)
            reached: _Reached = yield partial(self.resume, projector, source)
            begun[name] = _Begun(reached, source.last)
        return begun

    def update(self, decide: Callable[[Any], Any], retries: int) -> Steps[DecisionUpdate[Any]]:
        """Publish what `decide` returns for the states, and add it to them."""
        checked_count("retries", retries, least=0)
        nested = is_nested.get()
        leave = no_turn if nested else (yield from self._take_turns())
        is_nested.set(True)
        try:
            before, stored = yield from self._publish_decision(decide, retries, nested=nested)
        finally:
            is_nested.set(nested)
            leave()
        return (yield from self._updated(before, stored)) if stored else DecisionUpdate(self._state(before.states), {})

    def _take_turns(self) -> Steps[Leave]:
        """Wait for the turns of the items that are written, each only after all before it."""
        turns = self.store.adapter.turns
        if turns is None or self.take_turn is None or self.store.adapter.in_transaction:
            return no_turn
        with ExitStack() as taken:
            for item in turns.worthwhile({self._turn_of(item) for item in self.items}):
                leave: Leave = yield partial(self.take_turn, item)
                taken.callback(leave)
                if leave is no_turn:
                    break
            return taken.pop_all().close

    def _turn_of(self, item: QueryItem) -> str:
        """Return what stands for an item: the tag that it locks, so that items which differ in names queue together."""
        tags = self.store.adapter.boundary_of(item.tags)
        return f"tag {min(tags)}" if tags else f"item {EventQuery([item]).json()}"

    def _publish_decision(self, decide: Callable[[Any], Any], retries: int, *, nested: bool) -> Steps[_Published]:
        """Try until no other writer is faster; after some tries, see to it that none can be.

        What is locked then is what the last try wanted to publish, with the tags that it has depended on. If this one needs
        more, it gets that only if nobody has it, because whoever has it may wait for the former.
        """
        most = 1 if self.store.adapter.in_transaction else retries + 1
        wanted: dict[StreamIdentifier, Any] = {}
        for attempt in Attempts(most, on=UnmetWriteConditionError, backoff=_BACKOFF):
            yield attempt.pause
            once = partial(_Deciding._try_once, attempt=attempt, decide=decide, wanted=wanted)
            published: _Published | None
            try:
                if nested or attempt.number <= TRIES_WITHOUT_LOCK:
                    published = yield from once(self)
                else:
                    published = yield partial(self.locked, dict(wanted), once)
            except (_BusyError, LostWithinError) as error:
                _log.info("trying without locks on the decision: %s", error.__cause__)
                published = yield from once(self)
            if published is not None:
                self._note(published.stored)
                return published
        raise AssertionError("the last attempt returns or raises")

    def _try_once(
        self, *, attempt: Attempts, decide: Callable[[Any], Any], wanted: dict[StreamIdentifier, Any]
    ) -> Steps[_Published | None]:
        """Read, decide and publish; return None if another writer was faster and another attempt follows.

        Args:
            attempt: The attempt.
            decide: Returns what to publish.
            wanted: Becomes what was to be published.
        """
        before: _Read = yield from self.read()
        decided = yield partial(decide, copied(self._state(before.states)))
        streams = _conditional(decided, Decision(None, before.items).unchanged(), self.store.types)
        wanted.clear()
        wanted.update(streams)
        if not streams:
            return _Published(before, {})
        with attempt:
            try:
                stored = yield partial(self.store.publish, streams=streams)
            except LockTimeoutError as error:
                if attempt.number <= TRIES_WITHOUT_LOCK or not self.store.adapter.in_transaction:
                    raise
                raise _BusyError from error
            return _Published(before, stored)
        return None

    def _note(self, stored: Mapping[StreamIdentifier, Sequence[AnyStoredEvent]]) -> None:
        """Note of which items there are new events: others that decide on these queue."""
        turns = self.store.adapter.turns
        if turns is None or not stored:
            return
        written: dict[str, bool] = {}
        for item in self.items:
            turn = self._turn_of(item)
            written[turn] = written.get(turn, False) or any(
                item.met_by(event=event) for of_one in stored.values() for event in of_one
            )
        for turn, is_written in written.items():
            turns.note(turn, is_written=is_written)

    def _read_item(self, item: QueryItem, after: int) -> Steps[Sequence[AnyStoredEvent]]:
        constraints: set[QueryConstraint] = {sequence_number_after(after)} if after else set()
        adapter = self.store.adapter
        if adapter.in_transaction and not adapter.boundary_of(item.tags):
            # Reads within a transaction go beyond the watermark, below which alone such an item is complete.
            watermark = yield adapter.watermark
            constraints.add(sequence_number_before(watermark.sequence_number + 1))
        events: Sequence[AnyStoredEvent] = yield partial(self.scan, EventQuery([item]), frozenset(constraints))
        return events

    def _updated(
        self, before: _Read, stored: Mapping[StreamIdentifier, Sequence[AnyStoredEvent]]
    ) -> Steps[DecisionUpdate[Any]]:
        in_order = sorted((event for of_one in stored.values() for event in of_one), key=_number)
        states: dict[str, Any] = {}
        for name, (query, projector) in self.models.items():
            matching = [event for event in in_order if query.met_by(event=event)]
            after: _Reached = yield partial(self.project, projector, matching, query, before.reached[name])
            states[name] = after.state
        return DecisionUpdate(self._state(states), stored)

    def _state(self, states: Mapping[str, Any]) -> Any:
        return states[_SINGLE] if self.single else states


def _conditional(
    decided: Any, unchanged: WriteCondition, types: EventTypes[Any] | None
) -> Mapping[StreamIdentifier, Any]:
    """Return what was decided, with the condition on the first stream: it is about all of them."""
    if isinstance(decided, Sequence) and not isinstance(decided, str | bytes):
        events = cast("Sequence[object]", decided)
        decided = by_stream(types, None, events, None) if events else {}
    if not isinstance(decided, Mapping):
        raise ConfigurationError(
            "a decision returns the events for each stream, such as {StreamIdentifier('orders', '42'): {'events': [...]}}, "
            f"or {{}} to publish nothing; got {type(decided).__name__}"
        )
    streams: dict[Any, Any] = {**decided}
    for key, definition in streams.items():
        if is_mapping(definition):
            own = definition.get("condition")
            streams[key] = {**definition, "condition": unchanged if own is None else unchanged & own}
        break
    return streams


def _checked(
    store: EventStore | SyncEventStore, models: object, projector: object, method: str
) -> tuple[Mapping[str, tuple[EventQuery, Any]], bool]:
    """Return the models by name, with queries for all names of event types, and whether it is a single one.

    Raises:
        ConfigurationError: If they are not models.
    """
    single = isinstance(models, EventQuery)
    named: object = {_SINGLE: (models, projector)} if single else models
    if not is_mapping(named) or not named or (projector is not None and not single):
        raise ConfigurationError(
            "a decision takes a query and a projector, or a dict of such pairs: {'course': (query, projector)}"
        )
    for model in named.values():
        match model:
            case (EventQuery(), each) if callable(getattr(each, method, None)):
                pass
            case _:
                raise ConfigurationError(f"each part of a decision is an EventQuery and a projector; got {model!r}")
    types = store.types
    if types is not None:
        check_complete(is_complete=not types.skips, what="the queries")
        # The condition of the publish must see events under old names too.
        named = {name: (types.with_all_names(query), each) for name, (query, each) in named.items()}
    return named, single


def _number(event: AnyStoredEvent) -> int:
    return event.sequence_number


def _place(begun: _Begun) -> int:
    return begun.place

"""Decisions: states of events that queries choose, and the condition that no other such event has been stored since.

Each item of a query is read by itself, in order of numbers, and the decision remembers its last event. Writers of a tag
exclude each other until they commit, so the events of an item are complete up to the last one that is visible; of the items
together that cannot be said. When a publish checks each item against its own last event, what was read in between does not
matter: it passes only if all items together are still what was read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from msgspec import Struct

from eventstore_sa.attempts import Attempts, Backoff
from eventstore_sa.conditions import AndCondition, NoEventMatchesCondition, WriteCondition
from eventstore_sa.errors import ConfigurationError, UnmetWriteConditionError
from eventstore_sa.publishing import StreamPublishDefinition, TypedPublishDefinition, own_copy
from eventstore_sa.sources import InMemoryEventSource, SyncInMemoryEventSource
from eventstore_sa.sources.constraints import QueryConstraint, sequence_number_before
from eventstore_sa.steps import Steps, drive, drive_async
from eventstore_sa.store.updating import StreamProjector, SyncStreamProjector, check_complete, copied
from eventstore_sa.types import AnyStoredEvent, EventQuery, Projection, QueryItem, StreamIdentifier
from eventstore_sa.types.json import is_mapping
from eventstore_sa.types.numbers import checked_count

if TYPE_CHECKING:
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

Publishes: TypeAlias = Mapping[StreamIdentifier, StreamPublishDefinition[Any, Any, Any] | TypedPublishDefinition[Any]]
"""What a decision comes to: the events for each stream, as `publish` takes them."""

_BACKOFF: Final = Backoff()
_SINGLE: Final = ""


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


class _Read(NamedTuple):
    """What was read for a decision."""

    items: tuple[NoEventMatchesCondition, ...]
    projections: Mapping[str, Projection[Any, Any]]

    @property
    def states(self) -> dict[str, Any]:
        return {name: projection.state for name, projection in self.projections.items()}


async def decide(store: EventStore, models: EventQuery | Models, projector: object) -> Decision[Any]:
    """See `EventStore.decide`."""
    return await drive_async(_Deciding.of(store, models, projector).decision())


def decide_sync(store: SyncEventStore, models: EventQuery | SyncModels, projector: object) -> Decision[Any]:
    """See `SyncEventStore.decide`."""
    return drive(_Deciding.of_sync(store, models, projector).decision())


async def update_decision(
    store: EventStore,
    models: EventQuery | Models,
    projector: object,
    decide: Callable[[Any], Publishes | Awaitable[Publishes]],
    *,
    retries: int,
) -> DecisionUpdate[Any]:
    """See `EventStore.update_decision`."""
    return await drive_async(_Deciding.of(store, models, projector).update(decide, retries))


def update_decision_sync(
    store: SyncEventStore,
    models: EventQuery | SyncModels,
    projector: object,
    decide: Callable[[Any], Publishes],
    *,
    retries: int,
) -> DecisionUpdate[Any]:
    """See `SyncEventStore.update_decision`."""
    return drive(_Deciding.of_sync(store, models, projector).update(decide, retries))


class _Deciding(NamedTuple):
    """How decisions are made with asyncio, or without.

    Attributes:
        store: The store.
        models: What is decided on.
        single: Whether it is one model without a name, whose state is not in a dict.
        scan: Reads the events of an item.
        project: Projects events with a projector.
    """

    store: EventStore | SyncEventStore
    models: Mapping[str, tuple[EventQuery, Any]]
    single: bool
    scan: Callable[[EventQuery, frozenset[QueryConstraint]], Any]
    project: Callable[..., Any]

    @classmethod
    def of(cls, store: EventStore, models: EventQuery | Models, projector: object) -> _Deciding:
        async def scan(query: EventQuery, constraints: frozenset[QueryConstraint]) -> Sequence[AnyStoredEvent]:
            return await store.query(query).read(constraints=constraints)

        async def project(
            projector: StreamProjector[Any], events: Sequence[AnyStoredEvent], query: EventQuery, **reached: Any
        ) -> Projection[Any, Any]:
            return await projector.project(source=InMemoryEventSource(events, identifier=query), **reached)

        return cls(store, *_checked(store, models, projector, "project"), scan, project)

    @classmethod
    def of_sync(cls, store: SyncEventStore, models: EventQuery | SyncModels, projector: object) -> _Deciding:
        def scan(query: EventQuery, constraints: frozenset[QueryConstraint]) -> Sequence[AnyStoredEvent]:
            return store.query(query).read(constraints=constraints)

        def project(
            projector: SyncStreamProjector[Any], events: Sequence[AnyStoredEvent], query: EventQuery, **reached: Any
        ) -> Projection[Any, Any]:
            return projector.project_sync(source=SyncInMemoryEventSource(events, identifier=query), **reached)

        return cls(store, *_checked(store, models, projector, "project_sync"), scan, project)

    def decision(self) -> Steps[Decision[Any]]:
        """Read, and return what is to be decided on."""
        read = yield from self.read()
        return Decision(self._state(read.states), read.items)

    def read(self) -> Steps[_Read]:
        """Read each item of the queries, and project the events of each model in the order of their numbers."""
        events: dict[int, AnyStoredEvent] = {}
        items: list[NoEventMatchesCondition] = []
        for item in dict.fromkeys(item for query, _ in self.models.values() for item in query.items):
            of_item: Sequence[AnyStoredEvent] = yield from self._read_item(item)
            events |= {event.sequence_number: event for event in of_item}
            last = of_item[-1] if of_item else None
            items.append(
                NoEventMatchesCondition(item)
                if last is None
                else NoEventMatchesCondition(item, last.sequence_number, last.id)
            )
        in_order = [events[number] for number in sorted(events)]
        projections: dict[str, Projection[Any, Any]] = {}
        for name, (query, projector) in self.models.items():
            # Copies, because a handler may change what it is given.
            matching = [own_copy(event) for event in in_order if query.met_by(event=event)]
            projections[name] = yield partial(self.project, projector, matching, query)
        return _Read(tuple(items), projections)

    def update(self, decide: Callable[[Any], Any], retries: int) -> Steps[DecisionUpdate[Any]]:
        """Publish what `decide` returns for the states, and add it to them."""
        checked_count("retries", retries, least=0)
        most = 1 if self.store.adapter.in_transaction else retries + 1
        for attempt in Attempts(most, on=UnmetWriteConditionError, backoff=_BACKOFF):
            yield attempt.pause
            before: _Read = yield from self.read()
            decided = yield partial(decide, copied(self._state(before.states)))
            streams = _conditional(decided, Decision(None, before.items).unchanged())
            if not streams:
                return DecisionUpdate(self._state(before.states), {})
            with attempt:
                stored = yield partial(self.store.publish, streams=streams)
                return (yield from self._updated(before, stored))
        raise AssertionError("the last attempt returns or raises")

    def _read_item(self, item: QueryItem) -> Steps[Sequence[AnyStoredEvent]]:
        constraints: frozenset[QueryConstraint] = frozenset()
        adapter = self.store.adapter
        if adapter.in_transaction and not adapter.boundary_of(item.tags):
            # Reads within a transaction go beyond the watermark, below which alone such an item is complete.
            watermark = yield adapter.watermark
            constraints = frozenset([sequence_number_before(watermark.sequence_number + 1)])
        events: Sequence[AnyStoredEvent] = yield partial(self.scan, EventQuery([item]), constraints)
        return events

    def _updated(
        self, before: _Read, stored: Mapping[StreamIdentifier, Sequence[AnyStoredEvent]]
    ) -> Steps[DecisionUpdate[Any]]:
        in_order = sorted((event for of_one in stored.values() for event in of_one), key=_number)
        states: dict[str, Any] = {}
        for name, (query, projector) in self.models.items():
            reached = before.projections[name]
            matching = [event for event in in_order if query.met_by(event=event)]
            after = yield partial(
                self.project, projector, matching, query, state=reached.state, metadata=reached.metadata
            )
            states[name] = after.state
        return DecisionUpdate(self._state(states), stored)

    def _state(self, states: Mapping[str, Any]) -> Any:
        return states[_SINGLE] if self.single else states


def _conditional(decided: Any, unchanged: WriteCondition) -> Publishes:
    """Return what was decided, with the condition on the first stream: it is about all of them."""
    if not isinstance(decided, Mapping):
        raise ConfigurationError(
            "a decision returns the events for each stream, such as {StreamIdentifier('orders', '42'): {'events': [...]}}, "
            f"or {{}} to publish nothing; got a {type(decided).__name__}"
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

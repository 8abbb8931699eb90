"""Code as it was written for `logicblocks.event.store`: imports, type parameters, keyword arguments. Never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, assert_type

from eventstore_sa.projection import Projector
from eventstore_sa.projection.store import ProjectionStore
from eventstore_sa.projection.store.adapters import InMemoryProjectionStorageAdapter, ProjectionStorageAdapter
from eventstore_sa.query import Lookup
from eventstore_sa.sources import ConstrainedEventSource, EventSource, EventSourceFactory, InMemoryEventSource
from eventstore_sa.sources.constraints import QueryConstraint
from eventstore_sa.store import (
    EventStorageAdapter,
    EventStore,
    EventStoreEventSourceFactory,
    InMemoryEventStorageAdapter,
    InMemoryStoredEventSource,
    StreamPublishDefinition,
    UnmetWriteConditionError,
    stream_publish_definition,
)
from eventstore_sa.store.conditions import WriteCondition
from eventstore_sa.types import (
    Event,
    JsonValue,
    NewEvent,
    Projection,
    StoredEvent,
    StreamIdentifier,
    deserialise_projection,
    str_serialisation_fallback,
)
from eventstore_sa.types.event import Event as EventOfModule
from eventstore_sa.types.identifier import EventSequenceIdentifier, target


@dataclass(frozen=True)
class BelowCondition(WriteCondition):
    position: int


@dataclass(frozen=True)
class NameConstraint(QueryConstraint):
    name: str

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return bool(event.name == self.name)


class TotalProjector(Projector[StreamIdentifier, int]):
    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> JsonValue:
        return {}

    def id_factory(self, state: int, source: StreamIdentifier) -> str:
        return source.stream

    @staticmethod
    def order_placed(state: int, event: StoredEvent[str, int]) -> int:
        return state + event.payload


class Numbers(EventSource[StreamIdentifier, StoredEvent[str, int]]):
    @property
    def identifier(self) -> StreamIdentifier:
        return StreamIdentifier("orders", "1")

    async def latest(self) -> StoredEvent[str, int] | None:
        return None

    def iterate(
        self, *, constraints: AbstractSet[QueryConstraint] = frozenset(), **options: Any
    ) -> AsyncIterator[StoredEvent[str, int]]:
        raise NotImplementedError


async def sources_have_a_type_of_events(
    numbers: Numbers, given: Sequence[StoredEvent[str, int]], factory: EventSourceFactory[StoredEvent[str, int]]
) -> None:
    assert_type(await numbers.read(), Sequence[StoredEvent[str, int]])
    constrained: EventSource[StreamIdentifier, StoredEvent[str, int]] = ConstrainedEventSource(
        numbers, {NameConstraint("a")}
    )
    assert_type(await constrained.latest(), StoredEvent[str, int] | None)
    in_memory = InMemoryEventSource[StreamIdentifier, StoredEvent[str, int]](given, StreamIdentifier("orders", "1"))
    assert_type(await in_memory.latest(), StoredEvent[str, int] | None)
    stored: InMemoryStoredEventSource[StreamIdentifier] = InMemoryStoredEventSource([], StreamIdentifier("a", "b"))
    assert_type(stored.identifier, StreamIdentifier)
    assert_type(
        factory.construct(StreamIdentifier("orders", "1")), EventSource[StreamIdentifier, StoredEvent[str, int]]
    )


async def projections(
    source: EventSource[StreamIdentifier, StoredEvent],
    adapter: ProjectionStorageAdapter,
    stored: Projection[JsonValue, JsonValue],
) -> None:
    projection = await TotalProjector().project(source=source)
    assert_type(projection, Projection[int, JsonValue])
    store = ProjectionStore(adapter=InMemoryProjectionStorageAdapter())
    await store.save(projection=projection)
    found = await adapter.find_one(lookup=Lookup(filters=[]), state_type=int, metadata_type=dict[str, int])
    assert_type(found, Projection[int, dict[str, int]] | None)
    deserialise_projection(stored, int, state_fallback=lambda kind, value: 0)
    projection.summarise(str_serialisation_fallback)
    projection.source.serialise(str_serialisation_fallback)


async def publishing() -> None:
    adapter: EventStorageAdapter = InMemoryEventStorageAdapter()
    store = EventStore(adapter=adapter)
    EventStoreEventSourceFactory(adapter=adapter)
    definition: StreamPublishDefinition[str, int] = {"events": [NewEvent(name="placed", payload=1)]}
    plain: StreamPublishDefinition = {"events": [NewEvent(name="placed", payload=1)], "condition": BelowCondition(4)}
    streams: Mapping[str, StreamPublishDefinition[str, int]] = {
        "1": definition,
        "2": stream_publish_definition(events=[NewEvent(name="placed", payload=2)]),
    }
    try:
        await store.category(category="orders").publish(streams=streams)
        await store.category(category="orders").publish(streams={"3": plain})
    except UnmetWriteConditionError as error:
        print(error.message)
    log: EventSequenceIdentifier = target()
    print(log)


def summary(event: Event, same: EventOfModule) -> Sequence[Mapping[str, Any]]:
    return [event.summarise(), same.summarise()]


def events_can_be_summed_up(event: NewEvent[str, int], stored: StoredEvent[str, int]) -> None:
    summary(event, stored)

"""Factories make the sources that identifiers name, and learn how to make others."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore_sa import NewEvent
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.sources import EventSourceFactory, SyncEventSourceFactory
from eventstore_sa.store import (
    EventCategory,
    EventLog,
    EventPartition,
    EventSelection,
    EventStore,
    EventStoreEventSourceFactory,
    EventStream,
    InMemoryEventSource,
    SyncEventCategory,
    SyncEventLog,
    SyncEventPartition,
    SyncEventSelection,
    SyncEventStore,
    SyncEventStoreEventSourceFactory,
    SyncEventStream,
    SyncInMemoryEventSource,
)
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventQuery,
    EventSourceIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    QueryPartitionIdentifier,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
)

FACES = pytest.mark.parametrize(
    ("factory_type", "adapter_type", "sources"),
    [
        pytest.param(
            EventStoreEventSourceFactory,
            InMemoryEventStorageAdapter,
            (EventLog, EventCategory, EventStream, EventPartition, EventSelection, InMemoryEventSource),
            id="async",
        ),
        pytest.param(
            SyncEventStoreEventSourceFactory,
            SyncInMemoryEventStorageAdapter,
            (
                SyncEventLog,
                SyncEventCategory,
                SyncEventStream,
                SyncEventPartition,
                SyncEventSelection,
                SyncInMemoryEventSource,
            ),
            id="sync",
        ),
    ],
)


class Archive(EventSourceIdentifier):
    def serialise(self) -> Any:
        return {"type": "archive"}


class OldArchive(Archive):
    pass


@FACES
def test_identifiers_of_a_store_name_its_sources(factory_type: Any, adapter_type: Any, sources: Any) -> None:
    adapter = adapter_type()
    factory = factory_type(adapter)
    log, category, stream, partition, selection, _ = sources
    query = EventQuery.tagged("course:1")

    for identifier, expected in (
        (LogIdentifier(), log),
        (CategoryIdentifier("orders"), category),
        (StreamIdentifier("orders", "42"), stream),
        (LogPartitionIdentifier(1, 2), partition),
        (CategoryPartitionIdentifier("orders", 1, 2), partition),
        (StreamNamePrefixPartitionIdentifier("orders", "eu-"), partition),
        (query, selection),
        (QueryPartitionIdentifier(query, 1, 2), partition),
    ):
        assert factory.construct(identifier) == expected(adapter, identifier)
    assert factory.construct(LogIdentifier()) == log(adapter)
    assert isinstance(factory, EventSourceFactory | SyncEventSourceFactory)


@FACES
def test_constructors_are_registered_for_a_type_and_its_subclasses(
    factory_type: Any, adapter_type: Any, sources: Any
) -> None:
    adapter, source_type = adapter_type(), sources[-1]
    given: list[Any] = []

    def construct(identifier: Any, of_adapter: Any) -> Any:
        given.append((identifier, of_adapter))
        return source_type([], identifier)

    factory = factory_type(adapter)
    assert factory.register_constructor(Archive, construct) is factory

    for identifier in (Archive(), OldArchive()):
        assert factory.construct(identifier) == source_type([], identifier)
        assert given[-1] == (identifier, adapter)


@FACES
def test_a_constructor_may_take_the_place_of_another(factory_type: Any, adapter_type: Any, sources: Any) -> None:
    factory = factory_type(adapter_type())
    other = sources[-1]([], LogIdentifier())

    factory.register_constructor(LogIdentifier, lambda identifier, adapter: other)

    assert factory.construct(LogIdentifier()) is other


@FACES
def test_identifiers_that_nobody_knows_are_refused(factory_type: Any, adapter_type: Any, sources: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"register_constructor\(Archive, \.\.\.\)"):
        factory_type(adapter_type()).construct(Archive())


def test_stores_hand_out_partitions() -> None:
    adapter = InMemoryEventStorageAdapter()
    store, prefix = EventStore(adapter), StreamNamePrefixPartitionIdentifier("orders", "eu-")

    assert store.partition(prefix) == EventPartition(adapter, prefix)
    assert store.log().partitions(2) == [EventPartition(adapter, LogPartitionIdentifier(n, 2)) for n in range(2)]
    assert store.category(category="orders").partitions(2) == [
        EventPartition(adapter, CategoryPartitionIdentifier("orders", n, 2)) for n in range(2)
    ]


def test_sync_stores_hand_out_partitions() -> None:
    adapter = SyncInMemoryEventStorageAdapter()
    store, prefix = SyncEventStore(adapter), StreamNamePrefixPartitionIdentifier("orders", "eu-")

    assert store.partition(prefix) == SyncEventPartition(adapter, prefix)
    assert store.log().partitions(2) == [SyncEventPartition(adapter, LogPartitionIdentifier(n, 2)) for n in range(2)]
    assert store.category(category="orders").partitions(2) == [
        SyncEventPartition(adapter, CategoryPartitionIdentifier("orders", n, 2)) for n in range(2)
    ]


async def test_a_store_lists_its_streams_and_categories() -> None:
    adapter = InMemoryEventStorageAdapter()
    store, sync_store = EventStore(adapter), SyncEventStore(adapter)
    streams = [StreamIdentifier("a", "1"), StreamIdentifier("b", "1"), StreamIdentifier("b", "2")]
    for stream in streams:
        await store.stream(category=stream.category, stream=stream.stream).publish(events=[])
    assert list(sync_store.streams()) == []
    await store.publish(streams={stream: {"events": [NewEvent(name="a", payload=1)]} for stream in streams})

    assert [stream async for stream in store.streams()] == list(sync_store.streams()) == streams
    assert [stream async for stream in store.streams(category="b")] == streams[1:]
    assert list(sync_store.streams(category="b")) == streams[1:]
    assert [category.category async for category in store.categories()] == ["a", "b"]
    assert [category.category for category in sync_store.categories()] == ["a", "b"]
    with pytest.raises(ValueError, match="empty"):
        store.streams(category="")


def test_stores_hand_out_queries_tags_and_their_parts() -> None:
    query = EventQuery.tagged("course:1")
    adapter, sync_adapter = InMemoryEventStorageAdapter(), SyncInMemoryEventStorageAdapter()
    store, sync_store = EventStore(adapter), SyncEventStore(sync_adapter)
    parts = [QueryPartitionIdentifier(query, part, 2) for part in range(2)]

    assert store.query(query) == store.tag("course:1") == EventSelection(adapter, query)
    assert store.tag("course:1").partitions(2) == [EventPartition(adapter, part) for part in parts]
    assert store.partition(parts[0]) == EventPartition(adapter, parts[0])
    assert sync_store.query(query) == sync_store.tag("course:1") == SyncEventSelection(sync_adapter, query)
    assert sync_store.tag("course:1").partitions(2) == [SyncEventPartition(sync_adapter, part) for part in parts]
    assert sync_store.partition(parts[0]) == SyncEventPartition(sync_adapter, parts[0])

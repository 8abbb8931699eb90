"""What mypy --strict and pyright strict must infer about publishes to many streams. Never run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, assert_type

from eventstore_sa import EventStore, NewEvent, StoredEvent, StreamIdentifier, SyncEventStore
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.store import StreamPublishDefinition, stream_publish_definition


class Placed:
    pass


class PlacedOnline(Placed):
    pass


Definition: TypeAlias = StreamPublishDefinition[str, Placed, None]
Stored: TypeAlias = Sequence[StoredEvent[str, Placed, None]]

ONE, OTHER = StreamIdentifier("orders", "1"), StreamIdentifier("orders", "2")


def literals_are_definitions(placed: NewEvent[str, Placed, None]) -> tuple[Definition, Definition]:
    with_condition: Definition = {"events": [placed], "condition": stream_is_empty()}
    return with_condition, {"events": [placed]}


def a_specific_definition_passes_for_a_general_one(
    specific: StreamPublishDefinition[str, PlacedOnline, None],
) -> Definition:
    return specific


async def literals_are_published(store: EventStore, sync_store: SyncEventStore) -> None:
    placed = NewEvent(name="placed", payload=Placed())
    in_category: Mapping[str, Stored] = await store.category(category="orders").publish(
        streams={"1": {"events": [placed], "condition": position_is(1)}, "2": {"events": [placed]}}
    )
    in_log: Mapping[StreamIdentifier, Stored] = await store.publish(
        streams={ONE: {"events": [placed], "condition": position_is(1)}, OTHER: {"events": [placed]}}
    )
    assert_type(in_category["1"], Stored)
    assert_type(in_log[ONE], Stored)
    in_category = sync_store.category(category="orders").publish(
        streams={"1": {"events": [placed], "condition": position_is(1)}, "2": {"events": [placed]}}
    )
    in_log = sync_store.publish(
        streams={ONE: {"events": [placed], "condition": position_is(1)}, OTHER: {"events": [placed]}}
    )


async def streams_may_get_events_of_different_types(store: EventStore, sync_store: SyncEventStore) -> None:
    await store.publish(
        streams={
            ONE: {"events": [NewEvent(name="placed", payload={"total": 12})]},
            OTHER: {"events": [NewEvent(name="paid", payload=12, metadata="by card")], "condition": stream_is_empty()},
        }
    )
    sync_store.category(category="orders").publish(
        streams={
            "1": {"events": [NewEvent(name="placed", payload={"total": 12})]},
            "2": {"events": [NewEvent(name="paid", payload=12, metadata="by card")], "condition": stream_is_empty()},
        }
    )


async def results_have_the_types_of_their_definitions(
    store: EventStore, sync_store: SyncEventStore, definition: Definition, by_name: Mapping[str, Definition]
) -> None:
    assert_type(await store.publish(streams={ONE: definition}), Mapping[StreamIdentifier, Stored])
    assert_type(await store.category(category="orders").publish(streams=by_name), Mapping[str, Stored])
    assert_type(sync_store.publish(streams={ONE: definition}), Mapping[StreamIdentifier, Stored])
    assert_type(sync_store.category(category="orders").publish(streams=by_name), Mapping[str, Stored])


def definitions_are_built_with_their_types(
    placed: NewEvent[str, Placed, None], anything: NewEvent[Any, Any, Any]
) -> None:
    assert_type(stream_publish_definition(events=[placed]), Definition)
    assert_type(stream_publish_definition(events=[anything]), StreamPublishDefinition[Any, Any, Any])


def literals_of_another_shape_are_refused(store: SyncEventStore, placed: NewEvent[str, Placed, None]) -> None:
    definition: Definition = {"events": placed}  # type: ignore[typeddict-item]  # pyright: ignore[reportAssignmentType]
    misspelt: Definition = {"event": [placed]}  # type: ignore[typeddict-item]  # pyright: ignore[reportAssignmentType]
    print(definition, misspelt)

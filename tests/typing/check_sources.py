"""What mypy --strict and pyright strict must infer about sources, factories and decorators. Never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import Any, assert_type

from sqlalchemy import ColumnElement, Table

from eventstore_sa import EventQuery, EventStore, StreamIdentifier, SyncEventStore
from eventstore_sa.sources.constraints import QueryConstraint, name_in, occurred_between
from eventstore_sa.store import (
    ConstrainedEventSource,
    EventPartition,
    EventSource,
    EventStoreEventSourceFactory,
    InMemoryEventSource,
    InMemoryStoredEventSource,
    ignore_on_unmet_condition_error,
    retry_on_error,
)
from eventstore_sa.store.adapters import SQLAlchemyEventStorageAdapter
from eventstore_sa.types import CategoryIdentifier, LogPartitionIdentifier, StoredEvent


class ByCustomer(QueryConstraint, frozen=True):
    customer: str

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return bool(event.payload["customer"] == self.customer)


def as_sql(constraint: ByCustomer, events: Table) -> ColumnElement[bool]:
    return events.c.stream == constraint.customer


def constraints_are_registered_with_converters_for_their_type(adapter: SQLAlchemyEventStorageAdapter) -> None:
    adapter.register_constraint(ByCustomer, as_sql)
    adapter.register_constraint(type(name_in([])), as_sql)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def sources_know_what_they_are_read_from(store: EventStore, moment: datetime) -> None:
    constrained = ConstrainedEventSource(store.category(category="orders"), {occurred_between(moment, None)})
    assert_type(constrained.identifier, CategoryIdentifier)
    assert_type(InMemoryEventSource([], StreamIdentifier("orders", "42")).identifier, StreamIdentifier)
    assert_type(InMemoryStoredEventSource([], StreamIdentifier("orders", "42")).identifier, StreamIdentifier)
    assert_type(await constrained.latest(), StoredEvent[Any, Any, Any] | None)


def factories_keep_the_type_of_the_identifier(factory: EventStoreEventSourceFactory) -> None:
    assert_type(factory.construct(CategoryIdentifier("orders")), EventSource[CategoryIdentifier])


def stores_list_identifiers(store: EventStore, sync_store: SyncEventStore) -> None:
    assert_type(store.streams(category="orders"), AsyncIterator[StreamIdentifier])
    assert_type(sync_store.categories(), Iterator[CategoryIdentifier])
    assert_type(store.log().partitions(4), Sequence[EventPartition])
    assert_type(store.partition(LogPartitionIdentifier(0, 4)), EventPartition)
    assert_type(store.tag("course:c1").identifier, EventQuery)
    assert_type(sync_store.query(EventQuery.all()).read(), Sequence[StoredEvent[Any, Any, Any]])


@retry_on_error(3)
async def place_order(number: int, *, name: str) -> bytes:
    return name.encode() * number


@ignore_on_unmet_condition_error()
async def try_to_place_order(number: int) -> bytes:
    return bytes(number)


@ignore_on_unmet_condition_error()
def try_to_place_order_sync(number: int) -> bytes:
    return bytes(number)


async def decorated_functions_keep_their_types() -> None:
    assert_type(await place_order(1, name="order"), bytes)
    assert_type(await try_to_place_order(1), bytes | None)
    assert_type(try_to_place_order_sync(1), bytes | None)
    await place_order("1", name="order")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

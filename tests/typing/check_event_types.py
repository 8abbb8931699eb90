"""What mypy --strict and pyright strict must infer about stores with event types, and refuse. Never run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_type

from eventstore_sa import EventStore, NewEvent, Projector, StoredEvent, StreamIdentifier, SyncEventStore
from eventstore_sa.projection import TableProjection, project
from eventstore_sa.store import EventStream, SyncEventStream
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.types import EventTypes, event


@event("order-placed", version=2, upcast={1: lambda payload: {**payload, "currency": "EUR"}})
@dataclass(frozen=True)
class OrderPlaced:
    total: int
    currency: str


@event("order-paid")
@dataclass(frozen=True)
class OrderPaid:
    amount: int


OrderEvent: TypeAlias = OrderPlaced | OrderPaid
TYPES: EventTypes[OrderEvent] = EventTypes(OrderPlaced, OrderPaid, write={"order-placed": 2}, unknown="skip")


class OrderRow:
    total: int


def decorated_classes_keep_their_types() -> None:
    assert_type(OrderPlaced(12, "EUR"), OrderPlaced)
    assert_type(OrderPlaced(12, "EUR").total, int)


async def reads_are_typed(adapter: InMemoryEventStorageAdapter) -> None:
    store = EventStore(adapter, types=TYPES)
    assert_type(store, EventStore[OrderEvent])
    stream = store.stream(category="orders", stream="1")
    assert_type(stream, EventStream[OrderEvent])
    assert_type(await stream.read(), Sequence[StoredEvent[Any, OrderEvent, Any]])
    assert_type(await store.log().latest(), StoredEvent[Any, OrderEvent, Any] | None)
    async for stored in store.category(category="orders").stream(stream="1"):
        if isinstance(stored.payload, OrderPlaced):
            assert_type(stored.payload.currency, str)
    for part in store.log().partitions(2):
        assert_type(await part.latest(), StoredEvent[Any, OrderEvent, Any] | None)


def reads_without_asyncio_are_typed(adapter: InMemoryEventStorageAdapter) -> None:
    store = SyncEventStore(adapter, types=TYPES)
    assert_type(store.stream(category="orders", stream="1"), SyncEventStream[OrderEvent])
    assert_type(store.log().read(), Sequence[StoredEvent[Any, OrderEvent, Any]])


async def publishes_are_typed(store: EventStore[OrderEvent], one: StreamIdentifier) -> None:
    stream = store.stream(category="orders", stream="1")
    placed = OrderPlaced(12, "EUR")
    assert_type(await stream.publish(events=[placed]), Sequence[StoredEvent[Any, OrderEvent, Any]])
    assert_type(
        await stream.publish(events=[NewEvent(name="order-placed", payload=placed)]),
        Sequence[StoredEvent[str, OrderPlaced, None]],
    )
    await stream.publish(events=[placed, NewEvent(name="order-paid", payload=OrderPaid(12), metadata={"by": "ada"})])
    await store.publish(streams={one: {"events": [placed, OrderPaid(12)]}})
    of_types = await store.publish(events=[placed, OrderPaid(12)])
    assert_type(of_types, Mapping[StreamIdentifier, Sequence[StoredEvent[Any, OrderEvent, Any]]])
    in_category = await store.category(category="orders").publish(streams={"1": {"events": [placed]}})
    in_category_too: Mapping[str, Sequence[StoredEvent[Any, OrderEvent, Any]]] = in_category
    stream.stage(events=[placed])
    print(in_category_too)


async def objects_of_other_types_are_refused(store: EventStore[OrderEvent]) -> None:
    stream = store.stream(category="orders", stream="1")
    await stream.publish(events=["order-placed"])  # type: ignore[arg-type]
    stream.stage(events=[12])  # type: ignore[arg-type]
    EventTypes(OrderPlaced, unknown="ignore")  # type: ignore[arg-type]


class OrderProjector(Projector[StreamIdentifier, dict[str, int], None]):
    def initial_state_factory(self) -> dict[str, int]:
        return {"total": 0}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, int], source: StreamIdentifier) -> str:
        return source.stream

    def placed(self, state: dict[str, int], placed: OrderPlaced) -> dict[str, int]:
        return {"total": placed.total}

    def paid(self, state: dict[str, int], event: StoredEvent[str, OrderPaid]) -> dict[str, int]:
        return {"total": state["total"] - event.payload.amount}

    # As the pages print handlers of events without a type.
    def order_moved(self, state: dict[str, int], event: StoredEvent) -> dict[str, int]:
        return {"total": state["total"] + event.payload["total"]}


@project(OrderRow)
class OrderRows(TableProjection):
    def placed(self, row: OrderRow, placed: OrderPlaced) -> None:
        row.total = placed.total

    def order_moved(self, row: OrderRow, event: StoredEvent) -> None:
        row.total = event.payload["total"]


async def typed_streams_are_projected_and_updated(store: EventStore[OrderEvent]) -> None:
    stream = store.stream(category="orders", stream="1")
    assert_type((await OrderProjector().project(source=stream)).state, dict[str, int])
    update = await stream.update(OrderProjector(), lambda state: [OrderPaid(state["total"])])
    assert_type(update.state, dict[str, int])


def stores_without_types_hold_anything(store: EventStore, sync_store: SyncEventStore) -> None:
    assert_type(store, EventStore[Any])
    assert_type(sync_store.log().read(), Sequence[StoredEvent[Any, Any, Any]])

"""Stores with event types: objects are published, staged, recorded, projected and read, on every kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import (
    EventQuery,
    EventStore,
    EventStoreSchema,
    NewEvent,
    Projection,
    ProjectionStore,
    Projector,
    QueryItem,
    RecordsEvents,
    StoredEvent,
    StreamIdentifier,
    SyncEventStore,
    SyncProjectionStore,
)
from eventstore_sa.conditions import no_event_matches, position_is
from eventstore_sa.errors import (
    ConfigurationError,
    InvalidPayloadError,
    SerialisationError,
    UnknownEventTypeError,
    UnmetWriteConditionError,
)
from eventstore_sa.projection import (
    DELETE,
    RowDeletion,
    SnapshotStore,
    SyncSnapshotStore,
    TableProjection,
    project,
    rebuild,
    rebuild_sync,
)
from eventstore_sa.sources.constraints import QueryConstraint, name_in, position_after
from eventstore_sa.store import EventStoreEventSourceFactory, EventStream
from eventstore_sa.store.adapters import EventStorageAdapter, InMemoryEventStorageAdapter
from eventstore_sa.store.adapters.event_memory import SyncInMemoryEventStorageAdapter
from eventstore_sa.types import Compression, Encryption, EventTypes, event
from tests.awaiting import collected, settled
from tests.hosts import Host, each_driver


@event("order-placed", version=2, aliases=["placed"], upcast={1: lambda payload: {**payload, "currency": "EUR"}})
@dataclass(frozen=True)
class OrderPlaced:
    total: int
    currency: str


@event("order-paid", encrypted=["card"])
class OrderPaid(msgspec.Struct, frozen=True):
    card: str


@event("order-closed")
@dataclass(frozen=True)
class OrderClosed:
    pass


PIPELINE = [Encryption(lambda: {"key": bytes(32)}), Compression(over=100)]
TYPES: EventTypes[Any] = EventTypes(OrderPlaced, OrderPaid, OrderClosed, pipeline=PIPELINE)
FIRST, SECOND = OrderPlaced(12, "USD"), OrderPaid("4711" * 100)
ONE, OTHER = StreamIdentifier("orders", "1"), StreamIdentifier("orders", "2")
DRIVERS = ("sqlite", "sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg2")


class OrderProjector(Projector[StreamIdentifier, dict[str, Any], None]):
    name = "orders"
    snapshot_every = 1

    def initial_state_factory(self) -> dict[str, Any]:
        return {"seen": []}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
        return getattr(source, "stream", "all")

    def place(self, state: dict[str, Any], placed: OrderPlaced) -> dict[str, Any]:
        return {"seen": [*state["seen"], f"{placed.total} {placed.currency}"]}

    def pay(self, state: dict[str, Any], event: StoredEvent[str, OrderPaid]) -> dict[str, Any]:
        return {"seen": [*state["seen"], event.payload.card[:4]]}

    def order_closed(self, state: dict[str, Any], event: StoredEvent) -> dict[str, Any]:
        return {"seen": [*state["seen"], type(event.payload).__name__]}


def typed(host: Host, types: EventTypes[Any] = TYPES, bind: Any = None) -> Any:
    kind: Any = EventStore if host.asynchronous else SyncEventStore
    return kind(host.engine if bind is None else bind, types=types)


def payloads(events: Sequence[StoredEvent]) -> list[Any]:
    return [event.payload for event in events]


async def projected(projector: OrderProjector, source: Any, **arguments: Any) -> Projection[dict[str, Any], None]:
    if isinstance(source, EventStream):
        return await projector.project(source=source, **arguments)
    return projector.project_sync(source=source, **arguments)


@each_driver()
async def test_objects_are_published_and_read_through_every_face_of_a_store(host: Host) -> None:
    store = typed(host)
    stream, category = store.stream(category="orders", stream="1"), store.category(category="orders")

    stored = await settled(
        stream.publish(events=[FIRST, NewEvent(name="order-paid", payload=SECOND, metadata={"by": 1})])
    )
    in_category = await settled(category.publish(streams={"2": {"events": [OrderClosed()]}}))
    in_log = await settled(store.publish(streams={OTHER: {"events": [FIRST]}}))

    assert stored[0].payload is FIRST
    assert stored[1].payload is SECOND
    assert (stored[0].name, stored[0].version, stored[1].metadata) == ("order-placed", 2, {"by": 1})
    assert payloads(in_category["2"]) == [OrderClosed()]
    assert payloads(in_log[OTHER]) == [FIRST]
    assert list(await settled(stream.read())) == stored
    assert payloads(await settled(stream.read(backwards=True, limit=1))) == [SECOND]
    assert payloads(await settled(stream.read(constraints={position_after(0)}))) == [SECOND]
    assert payloads(await collected(category.iterate())) == [FIRST, SECOND, OrderClosed(), FIRST]
    assert payloads(await collected(store.log())) == [FIRST, SECOND, OrderClosed(), FIRST]
    parts = [await settled(part.read()) for part in store.log().partitions(2)]
    assert sorted(map(repr, (payload for part in parts for payload in payloads(part)))) == sorted(
        map(repr, [FIRST, SECOND, OrderClosed(), FIRST])
    )
    assert (await settled(stream.latest())).payload == SECOND
    assert (await settled(store.log().latest())).payload == FIRST
    assert payloads(await settled(category.stream(stream="2").read())) == [OrderClosed(), FIRST]


@each_driver(*DRIVERS)
async def test_repeated_publish_returns_what_is_stored(host: Host) -> None:
    stream = typed(host).stream(category="orders", stream="1")
    events = [NewEvent(name="order-placed", payload=FIRST), NewEvent(name="order-paid", payload=SECOND)]

    first = await settled(stream.publish(events=events))
    again = await settled(stream.publish(events=events))

    assert again == first
    assert len(await settled(stream.read())) == 2


@each_driver(*DRIVERS)
async def test_events_of_old_versions_and_names_are_read_and_found(host: Host) -> None:
    host.ground.publish("placed", payload={"total": 5})
    stream = typed(host).stream(category="orders", stream="1")
    await settled(stream.publish(events=[FIRST, OrderClosed()]))

    found = await settled(stream.read(constraints={name_in(["order-placed"])}))
    by_class = await settled(stream.read(constraints={name_in([OrderPlaced])}))

    assert payloads(found) == payloads(by_class) == [OrderPlaced(5, "EUR"), FIRST]
    query = typed(host).query(EventQuery([QueryItem(names=["order-placed"])]))
    assert payloads(await settled(query.read())) == [OrderPlaced(5, "EUR"), FIRST]
    assert (await settled(query.latest())).payload == FIRST
    parts = [payloads(await settled(part.read())) for part in query.partitions(2)]
    assert sorted(parts, key=len) == [[], [OrderPlaced(5, "EUR"), FIRST]]
    assert [(event.name, event.version) for event in found] == [("order-placed", 1), ("order-placed", 2)]


@each_driver(*DRIVERS)
async def test_nothing_is_stored_of_a_publish_with_one_wrong_payload(host: Host) -> None:
    stream = typed(host).stream(category="orders", stream="1")

    with pytest.raises(SerialisationError, match="payload of event 'order-placed'"):
        await settled(stream.publish(events=[FIRST, OrderPlaced(float("nan"), "EUR")]))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="got str"):
        await settled(stream.publish(events=[FIRST, "order-placed"]))

    assert host.ground.names() == []


@each_driver(*DRIVERS)
async def test_events_before_an_unreadable_one_are_read(host: Host) -> None:
    stream = typed(host).stream(category="orders", stream="1")
    await settled(stream.publish(events=[FIRST]))
    host.ground.publish("order-lost", payload={})
    host.ground.publish("order-placed", payload={"total": "much"})
    read: list[Any] = []

    async def read_on() -> None:
        for found in await collected(noting(stream.iterate(), read)):
            assert found

    with pytest.raises(UnknownEventTypeError, match="'order-lost' in version 1, at position 1 of stream 'orders/1'"):
        await read_on()
    assert payloads(read) == [FIRST]
    with pytest.raises(InvalidPayloadError, match="at position 2"):
        await settled(stream.latest())


def noting(events: Any, seen: list[Any]) -> Any:
    if hasattr(events, "__aiter__"):

        async def each() -> AsyncIterator[Any]:
            async for found in events:
                seen.append(found)
                yield found

        return each()

    def each_sync() -> Iterator[Any]:
        for found in events:
            seen.append(found)
            yield found

    return each_sync()


@each_driver("sqlite", "postgresql+asyncpg")
async def test_skipped_events_change_neither_limits_nor_the_latest(host: Host) -> None:
    types: EventTypes[Any] = EventTypes(OrderPlaced, OrderClosed, unknown="skip", invalid="skip")
    stream = typed(host, types).stream(category="orders", stream="1")
    for number in range(3):
        host.ground.publish("order-lost", payload={})
        host.ground.publish("order-placed", payload={"total": "much"})
        host.ground.publish("order-closed", payload={}, version=9)
        await settled(stream.publish(events=[OrderPlaced(number, "EUR")]))
    host.ground.publish("order-placed", payload={"total": "much"})

    assert [payload.total for payload in payloads(await settled(stream.read(limit=2)))] == [0, 1]
    assert [payload.total for payload in payloads(await settled(stream.read(limit=2, backwards=True)))] == [2, 1]
    assert payloads(await settled(stream.read(limit=0))) == []
    assert (await settled(stream.latest())).payload.total == 2
    with pytest.raises(ConfigurationError, match="a decision needs all events of the stream"):
        await settled(stream.update(OrderProjector(), lambda _: []))


@each_driver(*DRIVERS)
async def test_staged_objects_are_stored_with_the_commit_and_told_of(host: Host) -> None:
    told: list[Any] = []

    async def tell(events: Sequence[StoredEvent]) -> None:
        told.extend(payloads(events))

    async with host.caller("within session") as (session, _):
        store = typed(host).within(session)
        if host.asynchronous:
            store.after_commit(tell)
        store.after_commit(lambda events: told.extend(payloads(events)))
        staged = store.stream(category="orders", stream="1").stage(events=[FIRST, SECOND])
        in_category = store.category(category="orders").stage(streams={"2": {"events": [OrderClosed()]}})
        published = await settled(store.stream(category="orders", stream="3").publish(events=[FIRST]))
        await settled(session.commit())

    assert payloads(published) == [FIRST]
    assert staged.events[0].payload is FIRST
    assert payloads(staged.events) == [FIRST, SECOND]
    assert payloads(in_category.events["2"]) == [OrderClosed()]
    assert sorted(map(repr, told)) == sorted(
        map(repr, [FIRST, FIRST, SECOND, OrderClosed()] * (2 if host.asynchronous else 1))
    )


@each_driver(*DRIVERS)
async def test_projections_and_rebuilds_receive_objects(host: Host) -> None:
    kind: Any = ProjectionStore if host.asynchronous else SyncProjectionStore
    store = typed(host).with_projections(OrderProjector())
    projections = kind(store)
    stream = store.stream(category="orders", stream="1")
    host.ground.publish("placed", payload={"total": 5})
    await settled(stream.publish(events=[FIRST, SECOND, OrderClosed()]))

    assert (await settled(projections.load(id="1", name="orders"))).state == {"seen": ["12 USD", "4711", "OrderClosed"]}
    count = (
        await rebuild(OrderProjector(), store=store)
        if host.asynchronous
        else rebuild_sync(OrderProjector(), store=store)
    )
    everything = {"seen": ["5 EUR", "12 USD", "4711", "OrderClosed"]}
    assert count == 1
    assert (await settled(projections.load(id="1", name="orders"))).state == everything
    assert (await projected(OrderProjector(), stream)).state == everything
    await settled(projections.delete(id="1", name="orders"))
    await settled(projections.project(OrderProjector(), events=await settled(stream.read())))
    assert (await settled(projections.load(id="1", name="orders"))).state == everything


@each_driver("sqlite", "postgresql+asyncpg")
async def test_decisions_take_objects_and_see_events_under_all_names(host: Host) -> None:
    store = typed(host)
    query = EventQuery([QueryItem(names=["order-placed"], tags={"order:1"})])
    host.ground.publish("placed", payload={"total": 5}, tags={"order:1"})

    decision = await settled(store.decide(query, OrderProjector()))
    assert decision.state == {"seen": ["5 EUR"]}
    host.ground.publish("placed", payload={"total": 6}, tags={"order:1"})
    with pytest.raises(UnmetWriteConditionError):
        await settled(
            store.publish(streams={ONE: {"events": [OrderClosed()], "condition": decision.unchanged()}}),
        )

    none_placed = no_event_matches(query) & position_is(1)
    with pytest.raises(UnmetWriteConditionError):
        await settled(
            store.stream(category="orders", stream="1").publish(events=[OrderClosed()], condition=none_placed)
        )

    update = await settled(
        store.update_decision(
            query,
            OrderProjector(),
            decide=lambda state: {
                ONE: {
                    "events": [
                        NewEvent(name="order-placed", payload=FIRST, tags={"order:1", f"n:{len(state['seen'])}"})
                    ]
                }
            },
        )
    )
    assert update.state == {"seen": ["5 EUR", "6 EUR", "12 USD"]}
    assert payloads(update.events[ONE]) == [FIRST]
    skipping = typed(host, EventTypes(OrderPlaced, unknown="skip"))
    with pytest.raises(ConfigurationError, match="a decision needs all events of the queries"):
        await settled(skipping.decide(query, OrderProjector()))


@each_driver("sqlite", "sqlite+aiosqlite")
async def test_updates_publish_the_objects_that_are_decided_on(host: Host) -> None:
    stream = typed(host).stream(category="orders", stream="1")
    await settled(stream.publish(events=[FIRST]))

    update = await settled(stream.update(OrderProjector(), lambda state: [OrderPlaced(len(state["seen"]), "CHF")]))

    assert update.state == {"seen": ["12 USD", "1 CHF"]}
    assert payloads(update.events) == [OrderPlaced(1, "CHF")]


@each_driver("sqlite", "sqlite+aiosqlite")
async def test_snapshots_from_other_versions_of_the_handled_types_are_not_used(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    @event("order-placed", version=3, upcast={1: lambda old: old, 2: lambda old: {**old, "total": old["total"] * 100}})
    @dataclass(frozen=True)
    class InCents(OrderPlaced):
        currency: str = "EUR"

    @event("order-mentioned", version=2, upcast={1: lambda old: old})
    @dataclass(frozen=True)
    class Mentioned:
        pass

    class Placed(OrderProjector):
        snapshot_every = 1

        def order_placed(self, state: dict[str, Any], event: StoredEvent) -> dict[str, Any]:
            return {"seen": [*state["seen"], event.payload.total]}

        place = None

    snapshots: Any = (SnapshotStore if host.asynchronous else SyncSnapshotStore)(host.engine)
    await settled(typed(host).stream(category="orders", stream="1").publish(events=[FIRST]))

    async def state(*types: type) -> Any:
        store = typed(host, EventTypes(*types, pipeline=PIPELINE))
        source = store.stream(category="orders", stream="1")
        return (await projected(Placed(), source, snapshots=snapshots)).state["seen"]

    assert await state(OrderPlaced) == [12]
    assert await state(OrderPlaced, Mentioned) == [12]
    assert caplog.records == []
    assert await state(InCents) == [1200]
    assert "taken with other versions of the event types" in caplog.text
    caplog.clear()
    assert await state(InCents) == [1200]
    assert caplog.records == []
    skipping = typed(host, EventTypes(OrderPlaced, unknown="skip")).stream(category="orders", stream="1")
    with pytest.raises(ConfigurationError, match="has to contain all events"):
        await projected(Placed(), skipping, snapshots=snapshots)


class Base(DeclarativeBase):
    pass


class OrderRow(Base):
    __tablename__ = "typed_order_rows"
    id: Mapped[str] = mapped_column(primary_key=True)
    total: Mapped[int] = mapped_column(default=0)


@project(OrderRow)
class OrderRows(TableProjection):
    def place(self, row: OrderRow, placed: OrderPlaced) -> None:
        row.total += placed.total

    def close(self, row: OrderRow, event: StoredEvent[str, OrderClosed]) -> RowDeletion:
        return DELETE


class Order(RecordsEvents, Base):
    __tablename__ = "orders"
    __event_types__ = TYPES
    __event_projections__ = (OrderRows(),)
    id: Mapped[int] = mapped_column(primary_key=True)

    def place(self, total: int) -> None:
        self.record(OrderPlaced(total, "EUR"), NewEvent(name="placed", payload={"total": 1, "currency": "EUR"}))


EventStoreSchema(Base.metadata)


def test_table_projections_and_recorded_objects() -> None:
    with SyncEventStore("sqlite://", types=TYPES) as store:
        engine: Any = store.adapter.bind.engine  # type: ignore[attr-defined]
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            order = Order(id=1)
            order.place(3)
            session.add(order)
            order.place(4)
            session.commit()

        assert payloads(store.stream(category="orders", stream="1").read()) == [
            OrderPlaced(3, "EUR"),
            OrderPlaced(1, "EUR"),
            OrderPlaced(4, "EUR"),
            OrderPlaced(1, "EUR"),
        ]
        with Session(engine) as session:
            assert session.get_one(OrderRow, "1").total == 9
        store.with_projections(OrderRows()).stream(category="orders", stream="1").publish(events=[OrderClosed()])
        with Session(engine) as session:
            assert session.get(OrderRow, "1") is None
        with pytest.raises(ConfigurationError, match="got int"):
            order.record(12)


def test_recording_objects_needs_types() -> None:
    class Untyped(RecordsEvents):
        pass

    with pytest.raises(ConfigurationError, match="set __event_types__"):
        Untyped().record(FIRST)


def test_publishing_objects_needs_types() -> None:
    store = SyncEventStore(InMemoryEventStorageAdapter())

    with pytest.raises(ConfigurationError, match=r"give the store types=EventTypes\(\.\.\.\)"):
        store.stream(category="orders", stream="1").publish(events=[FIRST])
    with pytest.raises(ConfigurationError, match="types are EventTypes"):
        SyncEventStore(InMemoryEventStorageAdapter(), types=[OrderPlaced])  # type: ignore[arg-type]


async def test_memory_keeps_objects_as_databases_do() -> None:
    adapter = InMemoryEventStorageAdapter()
    store = EventStore(adapter, types=TYPES).with_projections(OrderProjector())
    stream = store.stream(category="orders", stream="1")

    await stream.publish(events=[FIRST, SECOND])

    assert payloads(await stream.read()) == [FIRST, SECOND]
    assert payloads([event async for event in store.log().iterate(limit=1)]) == [FIRST]
    assert payloads(SyncEventStore(adapter, types=TYPES).log().read()) == [FIRST, SECOND]
    assert await rebuild(OrderProjector(), store=store) == 1
    loaded = await ProjectionStore(store).load(id="1", name="orders")
    assert loaded is not None
    assert loaded.state == {"seen": ["12 USD", "4711"]}
    under_its_old_name = EventStore(adapter, types=EventTypes(OrderPlaced, write={"placed": 2}))
    renamed = under_its_old_name.stream(category="orders", stream="2")
    assert await renamed.publish(events=[FIRST]) == await renamed.read()
    assert (await EventStore(adapter).stream(category="orders", stream="2").read())[0].name == "placed"
    factory = EventStoreEventSourceFactory(adapter, types=TYPES)
    assert payloads(await factory.construct(ONE).read()) == [FIRST, SECOND]
    plain = await EventStore(adapter).log().read()
    assert plain[0].payload == {"total": 12, "currency": "USD"}
    assert [*plain[1].payload["card"]] == ["$aesgcm"]


class Cheaper(QueryConstraint, frozen=True):
    """A constraint of the application's own, which looks at what is stored."""

    than: int

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return bool(event.payload.get("total", 0) < self.than)


def test_constraints_on_payloads_see_json_in_memory_and_objects_are_made_of_text() -> None:
    adapter = InMemoryEventStorageAdapter()
    store = SyncEventStore(adapter, types=TYPES)
    store.stream(category="orders", stream="1").publish(events=[FIRST, SECOND])

    texts = adapter.sync_adapter.scan_text(target=ONE, constraints=frozenset({Cheaper(100)}), limit=1, backwards=False)
    read = [*store.log().iterate(constraints=frozenset({Cheaper(12)}))]

    assert [msgspec.json.decode(found.payload) for found in texts] == [{"total": 12, "currency": "USD"}]
    assert payloads(read) == [SECOND]
    assert payloads(store.log().read()) == payloads(store.log().read()) == [FIRST, SECOND]


class OnlyAsynchronous(EventStorageAdapter):
    """An adapter of a third party: what the contract demands, and no synchronous one behind it."""

    def __init__(self) -> None:
        self._events = SyncInMemoryEventStorageAdapter()

    async def save(self, **arguments: Any) -> Any:  # type: ignore[override]
        return self._events.save(**arguments)

    async def latest(self, **arguments: Any) -> Any:
        return self._events.latest(**arguments)

    async def scan(self, **arguments: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        for found in self._events.scan(**arguments):
            yield found


async def test_adapters_of_third_parties_are_typed_too() -> None:
    adapter = OnlyAsynchronous()
    stream = EventStore(adapter, types=TYPES).stream(category="orders", stream="1")
    await stream.publish(events=[FIRST, SECOND])
    skipping = EventStore(adapter, types=EventTypes(OrderPlaced, unknown="skip")).stream(category="orders", stream="1")

    assert payloads(await stream.read()) == [FIRST, SECOND]
    assert payloads([event async for event in stream.iterate(backwards=True, limit=1)]) == [SECOND]
    latest = await stream.latest()
    assert latest is not None
    assert latest.payload == SECOND
    assert payloads(await skipping.read(limit=5)) == [FIRST]
    assert payloads(await skipping.read(limit=0)) == []
    assert (await skipping.latest()) == (await stream.read(limit=1))[0]
    assert [stream.stream async for stream in EventStore(adapter, types=TYPES).streams()] == ["1"]


def test_payload_of_other_sql_that_is_no_json_is_named() -> None:
    with SyncEventStore("sqlite://", types=TYPES) as store:
        store.create_schema()
        stream = store.stream(category="orders", stream="1")
        stream.publish(events=[FIRST])
        engine: Any = store.adapter.bind.engine  # type: ignore[attr-defined]
        with engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at) "
                    "SELECT '018f0000000070008000000000000001', category, stream, 1, name, 'no JSON', observed_at, "
                    "occurred_at FROM es_events"
                )
            )

        with pytest.raises(InvalidPayloadError, match="at position 1"):
            stream.read()


def test_stores_without_types_do_without_the_typed_face() -> None:
    """Not a statement, call or object more for an event."""
    adapter = SyncInMemoryEventStorageAdapter()
    plain, typed_store = SyncEventStore(adapter), SyncEventStore(adapter, types=TYPES)

    assert plain.log()._adapter is adapter
    assert plain.with_projections()._face is not adapter
    assert plain.stream(category="orders", stream="1")._adapter is plain.adapter
    assert typed_store.adapter is adapter
    assert typed_store.log()._adapter is not adapter

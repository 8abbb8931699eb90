"""Table projections that the publishes of a store update in their transactions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import (
    EventStore,
    EventStoreSchema,
    NewEvent,
    ProjectionStore,
    Projector,
    RecordsEvents,
    StreamIdentifier,
    SyncEventStore,
    SyncProjectionStore,
)
from eventstore_sa.errors import ConfigurationError, StorageError
from eventstore_sa.projection import DELETE, MissingHandlerBehaviour, RowDeletion, TableProjection, project
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from tests.awaiting import collected, entered, settled
from tests.hosts import CALLERS, Host, each_driver, each_kind_of_driver, new_event, statements_of
from tests.tables import AnyEvent, applied, committing, rows

some_drivers = each_driver("sqlite+aiosqlite", "sqlite", "postgresql+asyncpg", "postgresql+psycopg")
sqlite_and_postgresql = each_driver("sqlite", "postgresql+psycopg")


class Base(DeclarativeBase):
    pass


class OrderRow(Base):
    __tablename__ = "inline_orders"

    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    total: Mapped[int] = mapped_column(default=0)
    note: Mapped[str | None]


class CustomerRow(Base):
    __tablename__ = "inline_customers"

    id: Mapped[str] = mapped_column(primary_key=True)
    orders: Mapped[int] = mapped_column(default=0)


EventStoreSchema(Base.metadata)


@project(OrderRow)
class OrderProjection(TableProjection):
    def order_placed(self, row: OrderRow, event: AnyEvent) -> None:
        row.state = "placed"
        row.total += event.payload["total"]

    def order_failed(self, row: OrderRow, event: AnyEvent) -> None:
        row.state = "half-way"
        raise LookupError("no such invoice")

    def order_cancelled(self, row: OrderRow, event: AnyEvent) -> RowDeletion:
        return DELETE


@project(CustomerRow)
class CustomerProjection(TableProjection):
    def key(self, event: AnyEvent) -> str:
        return str(event.payload["customer"])

    def order_placed(self, row: CustomerRow, event: AnyEvent) -> None:
        row.orders += 1


class Cart(RecordsEvents, Base):
    __tablename__ = "inline_carts"
    __event_category__ = "orders"
    __event_projections__: ClassVar[Any] = (OrderProjection(),)

    id: Mapped[int] = mapped_column(primary_key=True)


class CountProjector(Projector[StreamIdentifier, int, None]):
    name = "z-count"  # after the others, which are called in the order of their names

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: StreamIdentifier) -> str:
        return source.stream

    def order_placed(self, state: int, event: AnyEvent) -> int:
        if event.payload.get("poison"):
            raise LookupError("poison")
        return state + 1


def placed(total: int = 5, customer: str = "ada", **more: Any) -> NewEvent[str, Any, Any]:
    return new_event("order-placed", payload={"total": total, "customer": customer, **more})


async def publish(store: Any, *events: Any, stream: str = "1") -> Any:
    return await settled(store.stream(category="orders", stream=stream).publish(events=events))


def orders(host: Host) -> list[tuple[str, str, int]]:
    return [(row.id, row.state, row.total) for row in rows(host, OrderRow)]


def customers(host: Host) -> dict[str, int]:
    return {row.id: row.orders for row in rows(host, CustomerRow)}


TABLES = [OrderRow.__table__, CustomerRow.__table__, Cart.__table__]


@pytest.fixture
def tables(host: Host) -> Iterator[None]:
    """Make the tables of this module for the length of a test."""
    Base.metadata.create_all(host.ground.outside, tables=TABLES, checkfirst=False)
    yield
    Base.metadata.drop_all(host.ground.outside, tables=TABLES)


pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.keeps_connections]


@each_kind_of_driver()
async def test_publish_of_its_own_changes_rows_and_stores_events(host: Host) -> None:
    store = host.store.with_projections(OrderProjection(), CustomerProjection())

    await publish(store, placed(5), placed(7))
    await publish(store, placed(1, "bob"), stream="2")
    await publish(store, new_event("order-cancelled"), new_event("unheard-of"), stream="2")

    assert orders(host) == [("1", "placed", 12)]
    assert customers(host) == {"ada": 2, "bob": 1}
    assert len(host.ground.names()) == 5


@sqlite_and_postgresql
async def test_publish_to_many_streams_loads_and_saves_rows_once(host: Host) -> None:
    store = host.store.with_projections(OrderProjection())
    streams = {str(number): {"events": [placed(), placed()]} for number in range(50)}
    category = store.category(category="orders")
    await settled(category.publish(streams=streams))

    with statements_of(host.engine) as statements:
        await settled(category.publish(streams={name: {"events": [placed()]} for name in streams}))

    sent = [statement.split()[0] for statement in statements if "inline_orders" in statement]
    assert sent == ["SELECT", "UPDATE"]
    assert {row.total for row in rows(host, OrderRow)} == {15}


@some_drivers
async def test_repetition_of_a_publish_changes_no_row(host: Host) -> None:
    store = host.store.with_projections(OrderProjection())
    event = placed(5)

    for _ in range(2):
        await publish(store, event)

    assert orders(host) == [("1", "placed", 5)]


@some_drivers
async def test_failing_handler_stores_neither_rows_nor_events(host: Host) -> None:
    store = host.store.with_projections(OrderProjection())
    await publish(store, placed(5))

    with pytest.raises(LookupError, match="no such invoice") as caught:
        await publish(store, placed(7), new_event("order-failed"))

    assert "projector 'order' was at event 'order-failed'" in caught.value.__notes__[0]
    assert "of stream 'orders/1', position 2" in caught.value.__notes__[0]
    assert orders(host) == [("1", "placed", 5)]
    assert host.ground.names() == ["order-placed"]


class IncompleteProjection(OrderProjection):
    def order_placed(self, row: OrderRow, event: AnyEvent) -> None:
        pass


@some_drivers
async def test_rows_that_the_database_refuses_store_nothing_and_name_the_projection(host: Host) -> None:
    with pytest.raises(StorageError, match="state") as caught:
        await publish(host.store.with_projections(IncompleteProjection()), placed(5))

    assert caught.value.__notes__[0].startswith("projector 'incomplete' was at event 'order-placed' (id")
    assert (orders(host), host.ground.names()) == ([], [])


@some_drivers
@pytest.mark.parametrize("kind", CALLERS)
async def test_rows_that_the_database_refuses_leave_the_hosts_transaction_usable(host: Host, kind: str) -> None:
    async with host.caller(kind) as (caller, store):
        await host.write(caller, "before")
        with pytest.raises(StorageError, match="state"):
            await publish(store.with_projections(IncompleteProjection()), placed(5))
        await host.write(caller, "afterwards")
        await publish(store.with_projections(OrderProjection()), placed(7))
        await settled(caller.commit())

    assert (orders(host), host.ground.names()) == ([("1", "placed", 7)], ["order-placed"])
    assert host.ground.notes() == ["afterwards", "before"]


@some_drivers
@pytest.mark.parametrize("bound_to", ["engine", "connection"])
async def test_store_on_a_session_factory_changes_rows(host: Host, bound_to: str) -> None:
    async with entered(host.engine.connect()) as connection:
        factory = host.factory(host.engine if bound_to == "engine" else connection)
        store = host.store_on(factory).with_projections(OrderProjection())
        await publish(store, placed(5))
        with pytest.raises(LookupError):
            await publish(store, placed(7), new_event("order-failed"))
        await publish(store, placed(1))
        await settled(connection.commit())

    assert (orders(host), host.ground.names()) == ([("1", "placed", 6)], ["order-placed"] * 2)


@each_kind_of_driver()
@pytest.mark.parametrize("kind", CALLERS)
async def test_publish_within_a_transaction_of_the_host_is_part_of_it(host: Host, kind: str) -> None:
    for ending, expected in (("rollback", []), ("commit", [("1", "placed", 5)])):
        async with host.caller(kind) as (caller, store):
            await host.write(caller, f"of the host, {ending}")
            await publish(store.with_projections(OrderProjection()), placed(5))
            assert await host.execute(caller, "SELECT total FROM inline_orders") == 5
            await settled(getattr(caller, ending)())

        assert orders(host) == expected


@some_drivers
async def test_rows_are_those_of_the_hosts_session(host: Host) -> None:
    await publish(host.store.with_projections(OrderProjection()), placed(5))
    async with committing(host) as session:
        known = await settled(session.get(OrderRow, "1"))
        known.note = "of the host"
        here = host.store.within(session).with_projections(OrderProjection())

        await publish(here, placed(7))
        assert known.total == 12
        await publish(here, placed(2), stream="2")
        made = await settled(session.get(OrderRow, "2"))
        made.note = "made by the publish"

    assert [(row.total, row.note) for row in rows(host, OrderRow)] == [(12, "of the host"), (2, "made by the publish")]


@some_drivers
@pytest.mark.parametrize("autoflush", [True, False])
async def test_failing_publish_leaves_the_hosts_session_as_it_was(host: Host, autoflush: bool) -> None:
    await publish(host.store.with_projections(OrderProjection()), placed(5))
    store = host.store.with_projections(OrderProjection(), CountProjector())
    async with committing(host, autoflush=autoflush) as session:
        known = await settled(session.get(OrderRow, "1"))
        known.note = "of the host"
        session.add(OrderRow(id="9", state="of the host"))
        here = store.within(session)

        for bad in (new_event("order-failed"), placed(7, poison=True)):
            with pytest.raises(LookupError):
                await publish(here, placed(7), bad)
            await settled(session.refresh(known))
            assert (known.state, known.total, known.note) == ("placed", 5, "of the host")
        await publish(here, placed(1))

    assert orders(host) == [("1", "placed", 6), ("9", "of the host", 0)]
    assert host.ground.names() == ["order-placed"] * 2


@each_kind_of_driver()
async def test_staged_publishes_change_rows_at_the_commit(host: Host) -> None:
    store = host.store.with_projections(OrderProjection(), CustomerProjection())
    async with entered(host.session()) as session:
        here = store.within(session)
        for stream in "121":
            here.stream(category="orders", stream=stream).stage(events=[placed(5)])
        savepoint = session.begin_nested()
        savepoint = await savepoint if host.asynchronous else savepoint
        here.stream(category="orders", stream="3").stage(events=[placed(5)])
        await settled(savepoint.rollback())
        with statements_of(host.engine) as statements:
            await settled(session.commit())

    assert orders(host) == [("1", "placed", 10), ("2", "placed", 5)]
    assert customers(host) == {"ada": 3}
    assert len([statement for statement in statements if "FROM inline_orders" in statement]) == 1


@some_drivers
async def test_staged_publish_whose_handler_fails_fails_the_commit(host: Host) -> None:
    store = host.store.with_projections(OrderProjection())
    async with entered(host.session()) as session:
        session.add(CustomerRow(id="of the host"))
        store.within(session).stream(category="orders", stream="1").stage(events=[placed(5), new_event("order-failed")])
        with pytest.raises(LookupError):
            await settled(session.commit())
        await settled(session.rollback())

    assert (orders(host), customers(host), host.ground.names()) == ([], {}, [])


@some_drivers
async def test_entities_that_record_events_update_rows(host: Host) -> None:
    async with entered(host.session()) as session:
        cart = Cart(id=7)
        session.add(cart)
        cart.record(placed(5), placed(7))
        await settled(session.commit())

    assert orders(host) == [("7", "placed", 12)]


@sqlite_and_postgresql
async def test_handlers_get_the_session_of_the_host_or_of_the_publish(host: Host) -> None:
    seen: list[Any] = []

    @project(Session)
    class Ledger(TableProjection):
        def order_placed(self, session: Session, event: AnyEvent) -> None:
            seen.append(session)
            session.add(OrderRow(id=event.stream, state=f"after {len(session.scalars(select(OrderRow)).all())}"))

    store = host.store.with_projections(Ledger())
    await publish(store, placed())
    async with committing(host) as session:
        await publish(store.within(session), placed(), stream="2")
        assert seen[1] is session

    assert orders(host) == [("1", "after 0", 0), ("2", "after 1", 0)]


@sqlite_and_postgresql
async def test_handlers_see_events_as_a_read_returns_them(host: Host) -> None:
    @dataclass
    class Placed:
        total: int
        customer: str

    await publish(host.store.with_projections(OrderProjection()), new_event("order-placed", payload=Placed(5, "ada")))

    assert orders(host) == [("1", "placed", 5)]


@some_drivers
async def test_the_same_class_catches_up_from_the_log(host: Host) -> None:
    await publish(host.store, placed(5), placed(7))
    events = await collected(host.store.log())

    async with committing(host) as session:
        await applied(session, OrderProjection(), events)

    assert orders(host) == [("1", "placed", 12)]


@sqlite_and_postgresql
@pytest.mark.parametrize("locking", ["advisory", "row"])
async def test_rows_are_changed_in_every_mode_of_locking(host: Host, locking: Any) -> None:
    store = SyncEventStore(host.engine, schema=EventStoreSchema(prefix=f"{locking}_", locking=locking))
    store.create_schema()

    await publish(store.with_projections(OrderProjection()), placed(5))

    assert orders(host) == [("1", "placed", 5)]
    store.drop_schema()


@sqlite_and_postgresql
async def test_missing_handler_of_its_categories_refuses_the_publish(host: Host) -> None:
    class Strict(OrderProjection):
        categories = ("orders",)

    class Lenient(Strict):
        missing_handler_behaviour = MissingHandlerBehaviour.IGNORE

    with pytest.raises(Exception, match="no handler for the event 'order-shipped'"):
        await publish(host.store.with_projections(Strict()), placed(5), new_event("order-shipped"))
    await publish(host.store.with_projections(Lenient()), placed(5), new_event("order-shipped"))

    assert orders(host) == [("1", "placed", 5)]


@sqlite_and_postgresql
async def test_what_cannot_be_inline_is_refused_at_once(host: Host) -> None:
    class Undecorated(TableProjection):
        pass

    @project(dict)
    class Unmapped(TableProjection):
        pass

    with pytest.raises(ConfigurationError, match="does not say whose rows it changes"):
        host.store.with_projections(Undecorated())
    with pytest.raises(ConfigurationError, match=r"@project\(dict\) needs a mapped class"):
        host.store.with_projections(Unmapped())


@pytest.mark.parametrize("kind", [EventStore, SyncEventStore])
@each_driver("sqlite")
async def test_store_in_memory_refuses_them_and_says_why(host: Host, kind: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="memory"):
        kind(InMemoryEventStorageAdapter()).with_projections(OrderProjection())


@sqlite_and_postgresql
async def test_rows_of_one_event_share_nothing_of_it(host: Host) -> None:
    seen: list[Any] = []

    @project(CustomerRow)
    class Greedy(TableProjection):
        def key(self, event: AnyEvent) -> Any:
            return event.payload["customers"]

        def order_placed(self, row: CustomerRow, event: AnyEvent) -> None:
            seen.append(list(event.payload["lines"]))
            event.payload["lines"].append(row.id)

    store = host.store.with_projections(Greedy())
    await publish(store, new_event("order-placed", payload={"customers": ["ada", "bob"], "lines": [1]}))

    assert seen == [[1], [1]]


# Many at once


@each_driver("postgresql+psycopg")
@pytest.mark.parametrize("staged", [False, True])
def test_many_publishers_lose_no_update_of_few_rows(host: Host, staged: bool) -> None:
    store: SyncEventStore = host.store.with_projections(CustomerProjection())

    def work(seed: int) -> None:
        choice = random.Random(seed)
        for number in range(15):
            names = choice.sample("abcdef", 3)
            events = [placed(customer=name) for name in names]
            if not staged:
                store.stream(category="orders", stream=f"{seed}-{number}").publish(events=events)
                continue
            with host.session() as session:
                here = store.within(session)
                here.stream(category="orders", stream=f"{seed}-{number}").stage(events=events)
                session.commit()

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))

    assert sum(customers(host).values()) == 16 * 15 * 3
    assert len(host.ground.names()) == 16 * 15 * 3


@each_driver("postgresql+asyncpg")
async def test_many_tasks_lose_no_update_of_a_row(host: Host) -> None:
    store = host.store.with_projections(CustomerProjection())

    await asyncio.gather(*(publish(store, placed(customer="ada"), stream=str(number)) for number in range(30)))

    assert customers(host) == {"ada": 30}


@sqlite_and_postgresql
async def test_rows_of_stored_projections_and_tables_are_updated_together(host: Host) -> None:
    store = host.store.with_projections(OrderProjection(), CountProjector())

    await publish(store, placed(5), placed(7))

    projections: Any = ProjectionStore(store) if host.asynchronous else SyncProjectionStore(store)
    counted = await settled(projections.load(name="z-count", id="1"))
    assert (counted.state, orders(host)) == (2, [("1", "placed", 12)])

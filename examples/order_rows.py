"""An existing orders table: events change its rows in the transaction that stores them.

Run it with `python examples/order_rows.py`, on a SQLite file in a temporary directory, or give it the URL of another
database, such as `postgresql+asyncpg://...`, in which it creates its tables.
"""

from __future__ import annotations

import asyncio
import sys
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventstore_sa import EventStore, EventStoreSchema, NewEvent, StoredEvent, configure_sqlite
from eventstore_sa.projection import DELETE, RowDeletion, TableProjection, handles, project

Event = StoredEvent[str, Any]


class Base(DeclarativeBase):
    """The base of the application's mapped classes."""


class Order(Base):
    """The table that the application's reports, joins and screens already read."""

    __tablename__ = "orders"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    customer: Mapped[str]
    total: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(default="open")
    note: Mapped[str | None]  # written by the application itself


class Customer(Base):
    __tablename__ = "customers"
    name: Mapped[str] = mapped_column(primary_key=True)
    orders: Mapped[int] = mapped_column(default=0)
    spent: Mapped[int] = mapped_column(default=0)


@project(Order)
class OrderProjection(TableProjection):
    """One row for each stream of the category "orders"; its key is the name of the stream."""

    categories = ("orders",)

    def order_placed(self, row: Order, event: Event) -> None:
        row.customer = event.payload["customer"]
        row.total = event.payload["total"]

    def order_paid(self, row: Order, event: Event) -> None:
        row.state = "paid"

    @handles("order-erased")
    def forget(self, row: Order, event: Event) -> RowDeletion:
        return DELETE


@project(Customer)
class CustomerProjection(TableProjection):
    """One row for each customer, fed by the streams of all orders."""

    def key(self, event: Event) -> str:
        return str(event.payload["customer"])

    def order_placed(self, row: Customer, event: Event) -> None:
        row.orders += 1
        row.spent += int(event.payload["total"])


def placed(customer: str, total: int) -> NewEvent[str, dict[str, Any], None]:
    return NewEvent(name="order-placed", payload={"customer": customer, "total": total})


async def main(url: str) -> None:
    engine = create_async_engine(url)
    configure_sqlite(engine)
    schema = EventStoreSchema(Base.metadata)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    store = EventStore(engine, schema=schema).with_projections(OrderProjection(), CustomerProjection())
    first, second = uuid4(), uuid4()

    print("1. A publish changes the rows, in its own transaction")
    await store.stream(category="orders", stream=str(first)).publish(events=[placed("Ada", 30)])
    await show(sessions, "Ada")

    print("2. Within a transaction of the application, the rows are objects of its own session")
    async with sessions.begin() as session:
        order = await session.get_one(Order, first)
        order.note = "leave it at the door"
        orders = store.within(session).category(category="orders")
        await orders.publish(
            streams={
                str(first): {"events": [NewEvent(name="order-paid", payload=None)]},
                str(second): {"events": [placed("Ada", 12)]},
            }
        )
        print(f"   {order.state}, with the note {order.note!r}")
    await show(sessions, "Ada")

    print("3. If a handler fails, the event is not stored either")
    try:
        await store.stream(category="orders", stream=str(uuid4())).publish(
            events=[NewEvent(name="order-placed", payload={"customer": "Bob"})]
        )
    except KeyError as error:
        print(f"   KeyError: {error}; {error.__notes__[0].split(' (id')[0]}")
    await show(sessions, "Bob")

    print("4. The same class applies stored events to a table that is empty or out of date")
    async with sessions.begin() as session:
        await session.delete(await session.get_one(Order, first))
        events = await store.stream(category="orders", stream=str(first)).read()
        await session.run_sync(OrderProjection().apply, events)
    await show(sessions, "Ada")
    await engine.dispose()


async def show(sessions: async_sessionmaker[AsyncSession], customer: str) -> None:
    """Read the table as the application already does."""
    query = select(Order.state, func.count(), func.sum(Order.total)).where(Order.customer == customer)
    async with sessions() as session:
        found = (await session.execute(query.group_by(Order.state).order_by(Order.state))).all()
    rows = ", ".join(f"{number} {state} for {total}" for state, number, total in found)
    print(f"   orders of {customer}: {rows or 'none'}")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite+aiosqlite:///{folder}/shop.db"))

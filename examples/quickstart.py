"""A tour of the event store: `make demo`, or `python examples/quickstart.py`.

It needs no server: it uses a SQLite file in a temporary directory. To run it on PostgreSQL, in separate tables that are
dropped afterwards: `python examples/quickstart.py postgresql+asyncpg://user@localhost/database`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from sqlalchemy import update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventstore_sa import (
    EventStore,
    EventStoreSchema,
    NewEvent,
    Projector,
    StoredEvent,
    StreamIdentifier,
    configure_sqlite,
)
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.store import stream_publish_definition


class Base(DeclarativeBase):
    """The base of the application's mapped classes."""


class Customer(Base):
    __tablename__ = "quickstart_customers"
    name: Mapped[str] = mapped_column(primary_key=True)


# The tables of the events join those of the application. The prefix is "es_" unless you choose another.
SCHEMA = EventStoreSchema(Base.metadata, prefix="quickstart_")


class BalanceProjector(Projector[StreamIdentifier, int, None]):
    """The balance of an account. Each event is passed to the method with its name."""

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: StreamIdentifier) -> str:
        return source.stream

    def account_opened(self, state: int, event: StoredEvent[str, int]) -> int:
        return event.payload

    def money_deposited(self, state: int, event: StoredEvent[str, int]) -> int:
        return state + event.payload

    def money_withdrawn(self, state: int, event: StoredEvent[str, int]) -> int:
        return state - event.payload


def show(*events: StoredEvent[str, int]) -> None:
    for event in events:
        at = f"{event.observed_at:%H:%M:%S}"
        print(f"   {event.stream:>5} #{event.position}  {event.name:<15} {event.payload:>3}  {at}")


def places(events: Sequence[StoredEvent[str, int]]) -> str:
    return " ".join(f"{event.stream}#{event.position}" for event in events)


async def main(url: str) -> None:
    engine = create_async_engine(url)
    configure_sqlite(engine)  # gives SQLite real transactions; no effect on other databases
    store = EventStore(engine, schema=SCHEMA)

    print(f"1. Create the tables on {engine.dialect.name}: the application's and the event store's.")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)  # in case an interrupted run has left tables
        await connection.run_sync(Base.metadata.create_all)
    print("  ", ", ".join(sorted(Base.metadata.tables)))

    await tour(store, async_sessionmaker(engine))

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


async def tour(store: EventStore, sessions: async_sessionmaker[AsyncSession]) -> None:
    print("2. Publish two events to the stream of Ada's account. They get the positions 0 and 1.")
    accounts = store.category(category="accounts")
    ada, grace = accounts.stream(stream="ada"), accounts.stream(stream="grace")
    opening, deposit = NewEvent(name="account-opened", payload=0), NewEvent(name="money-deposited", payload=100)
    show(*await ada.publish(events=[opening, deposit]))

    print(
        "3. Two tellers have both seen position 1, and a balance of 100. The first pays out 70; the second is refused."
    )
    withdrawal = NewEvent(name="money-withdrawn", payload=70)
    show(*await ada.publish(events=[withdrawal], condition=position_is(1)))
    try:
        await ada.publish(events=[NewEvent(name="money-withdrawn", payload=80)], condition=position_is(1))
    except UnmetWriteConditionError as error:
        print(f"   {type(error).__name__}: {error}")

    print("4. The first teller never received the reply: she sends the same event again, and it is stored once.")
    show(*await ada.publish(events=[withdrawal], condition=position_is(1)))

    print("5. Transfer 25 to a new account: two streams, each with its own condition, both or neither.")
    outgoing, incoming = NewEvent(name="money-withdrawn", payload=25), NewEvent(name="account-opened", payload=25)
    transfer = await accounts.publish(
        streams={
            "ada": stream_publish_definition(events=[outgoing], condition=position_is(2)),
            "grace": stream_publish_definition(events=[incoming], condition=stream_is_empty()),
        }
    )
    show(*transfer["ada"], *transfer["grace"])

    print("6. Read the history: one stream; the newest two events of the category; the whole log.")
    show(*[event async for event in ada])
    print("   newest:", places(await accounts.read(backwards=True, limit=2)))
    print("   log:   ", places(await store.log().read()))

    print("7. Project the events of each account to its balance.")
    for account in (ada, grace):
        balance = await BalanceProjector().project(source=account)
        print(f"   {balance.name} of {balance.id}: {balance.state}")

    print("8. Publish in a transaction of the application: row and event are rolled back or committed together.")
    mary = accounts.stream(stream="mary")
    for outcome in ("rolled back", "committed"):
        async with sessions() as session:
            session.add(Customer(name="mary"))
            here = store.within(session).stream(category="accounts", stream="mary")
            await here.publish(events=[NewEvent(name="account-opened", payload=5)], condition=stream_is_empty())
            await (session.commit() if outcome == "committed" else session.rollback())
            row = await session.get(Customer, "mary")
        print(f"   {outcome}: the row is {'there' if row else 'gone'}, the stream has {len(await mary.read())} events")

    print("9. Try to rewrite history. The database refuses, even outside the library.")
    try:
        async with sessions() as session:
            await session.execute(update(SCHEMA.events).values(name="nothing-happened"))
    except DBAPIError as error:
        print(f"   {str(error.orig).splitlines()[0]}")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite+aiosqlite:///{folder}/events.db"))

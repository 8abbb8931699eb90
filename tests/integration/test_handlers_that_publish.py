"""Handlers of table projections that stage or record events of their own: these are stored on every way of publishing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import EventStoreSchema, RecordsEvents, SyncEventStore
from eventstore_sa.conditions import position_is
from eventstore_sa.errors import ConcurrencyError, TransactionError, UnmetWriteConditionError
from eventstore_sa.projection import TableProjection, project
from tests.awaiting import entered, settled
from tests.hosts import CALLERS, Host, each_driver, each_kind_of_driver, new_event
from tests.tables import AnyEvent

pytestmark = pytest.mark.keeps_connections

some_drivers = each_driver("sqlite+aiosqlite", "sqlite", "postgresql+asyncpg", "postgresql+psycopg")


class Base(DeclarativeBase):
    pass


class OrderRow(RecordsEvents, Base):
    __tablename__ = "publishing_orders"
    __event_category__ = "order-rows"
    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="placed")


class Invoice(RecordsEvents, Base):
    __tablename__ = "publishing_invoices"
    __event_category__ = "invoices"
    id: Mapped[int] = mapped_column(primary_key=True)


SCHEMA = EventStoreSchema(Base.metadata)
TABLES = [OrderRow.__table__, Invoice.__table__]


@project(OrderRow)
class Recording(TableProjection):
    """Records on its row, which is new or loaded."""

    def order_placed(self, row: OrderRow, event: AnyEvent) -> None:
        row.state = "placed"
        row.record(new_event("row-placed"))


@project(Session)
class Staging(TableProjection):
    """Adds rows that have recorded something, and stages; the events that it handles are never its own."""

    def __init__(self, schema: EventStoreSchema = SCHEMA) -> None:
        self.told: list[str] = []
        self.schema = schema

    def order_placed(self, session: Session, event: AnyEvent) -> None:
        invoice = Invoice()
        invoice.record(new_event("invoice-made"))
        session.add(invoice)
        store = SyncEventStore(session, schema=self.schema)
        store.after_commit(lambda events: self.told.extend(event.name for event in events))
        store.stream(category="mails", stream="1").stage(events=[new_event("mail-wanted")])

    def order_refused(self, session: Session, event: AnyEvent) -> None:
        store = SyncEventStore(session, schema=self.schema)
        store.stream(category="mails", stream="1").stage(events=[new_event("mail-wanted")], condition=position_is(7))


@project(Session)
class Endless(TableProjection):
    """Stages one more event for each, also for its own."""

    def again(self, session: Session, event: AnyEvent) -> None:
        store = SyncEventStore(session, schema=SCHEMA).with_projections(self)
        store.stream(category="loop", stream="1").stage(events=[new_event("again")])


@asynccontextmanager
async def tables(host: Host) -> AsyncIterator[None]:
    Base.metadata.create_all(host.ground.outside, tables=TABLES)
    try:
        yield
    finally:
        Base.metadata.drop_all(host.ground.outside, tables=TABLES)


def of(store: Any, stream: str = "1") -> Any:
    return store.stream(category="orders", stream=stream)


WAYS = ("plain", *CALLERS, "staged")


async def publish(host: Host, way: str, name: str, *projections: TableProjection) -> None:
    """Publish one event to a store with projections, in one of the ways there are."""
    events = [new_event(name)]
    if way == "plain":
        await settled(of(host.store.with_projections(*projections)).publish(events=events))
        return
    async with host.caller("within session" if way == "staged" else way) as (caller, store):
        stream = of(store.with_projections(*projections))
        try:
            if way == "staged":
                stream.stage(events=events)
            else:
                await settled(stream.publish(events=events))
            await settled(caller.commit())
        finally:
            await settled(caller.rollback())


@pytest.mark.parametrize("way", WAYS)
@each_kind_of_driver()
async def test_what_handlers_stage_and_record_is_stored_with_the_publish(host: Host, way: str) -> None:
    staging = Staging()
    async with tables(host):
        await publish(host, way, "order-placed", Recording(), staging)

    names = host.ground.names()
    assert names[0] == "order-placed"
    assert sorted(names[1:]) == ["invoice-made", "mail-wanted", "row-placed"]
    # Whoever publishes on a connection of its own shares the session of the handlers with nobody.
    assert set(staging.told) >= {"invoice-made", "mail-wanted"}


@pytest.mark.parametrize("way", WAYS)
@some_drivers
async def test_unmet_condition_of_what_a_handler_stages_fails_the_publish(host: Host, way: str) -> None:
    async with tables(host):
        with pytest.raises(UnmetWriteConditionError, match=re.escape("mails/1")):
            await publish(host, way, "order-refused", Staging())

    assert host.ground.names() == []


@pytest.mark.parametrize("way", ["plain", "within session", "staged"])
@some_drivers
async def test_handler_that_stages_for_its_own_events_is_stopped(host: Host, way: str) -> None:
    async with tables(host):
        with pytest.raises(TransactionError, match=r"100 times in a row"):
            await publish(host, way, "again", Endless())

    assert host.ground.names() == []


@some_drivers
async def test_factory_bound_to_a_connection_stores_what_handlers_stage(host: Host) -> None:
    """As test suites bind it."""
    async with tables(host), entered(host.engine.connect()) as connection:
        outer = await settled(connection.begin())
        store = host.store_on(host.factory(connection, join_transaction_mode="create_savepoint"))
        await settled(of(store.with_projections(Staging())).publish(events=[new_event("order-placed")]))
        names = [event.name for event in await settled(store.log().read())]
        await settled(outer.rollback())

    assert sorted(names) == ["invoice-made", "mail-wanted", "order-placed"]
    assert host.ground.names() == []


@some_drivers
async def test_apply_stores_what_handlers_stage_with_the_commit_of_its_session(host: Host) -> None:
    async with tables(host):
        await settled(of(host.store).publish(events=[new_event("order-placed")]))
        events = await settled(host.store.log().read())
        for end in ("rollback", "commit"):
            async with entered(host.session()) as session:
                if host.asynchronous:
                    await session.run_sync(Recording().apply, events)
                else:
                    Recording().apply(session, events)
                await settled(getattr(session, end)())

    assert host.ground.names() == ["order-placed", "row-placed"]


@pytest.mark.parametrize("way", WAYS)
@some_drivers
async def test_handler_that_fails_behind_a_flush_has_its_own_error_raised(host: Host, way: str) -> None:
    """Warnings are errors here: one in the place of the error would be raised."""

    class Failing(Staging):
        def order_placed(self, session: Session, event: AnyEvent) -> None:
            super().order_placed(session, event)
            session.flush()
            raise ValueError("not this one")

    async with tables(host):
        with pytest.raises(ValueError, match="not this one"):
            await publish(host, way, "order-placed", Failing())

    assert host.ground.names() == []


@some_drivers
async def test_publish_that_is_done_again_stores_what_handlers_stage_once(host: Host) -> None:
    """Only what the attempt that is committed has staged is stored."""
    attempts: list[int] = []

    class Losing(Staging):
        def order_placed(self, session: Session, event: AnyEvent) -> None:
            super().order_placed(session, event)
            session.flush()
            attempts.append(len(attempts))
            if len(attempts) < 3:
                raise ConcurrencyError("another was faster")

    async with tables(host):
        await publish(host, "plain", "order-placed", Losing())

    assert len(attempts) == 3
    assert sorted(host.ground.names()) == ["invoice-made", "mail-wanted", "order-placed"]


@each_driver("sqlite", "postgresql+psycopg", "postgresql+asyncpg")
async def test_call_after_the_commit_of_a_publish_finds_its_connection_back_in_the_pool(host: Host) -> None:
    small = Host(host.ground, host.driver, poolclass=None, pool_size=1, max_overflow=0, pool_timeout=5)
    found: list[str] = []

    async def ask() -> None:
        found.append((await settled(small.store.log().latest())).name)

    def ask_at_once() -> None:
        found.append(small.store.log().latest().name)

    class Asking(Staging):
        def order_placed(self, session: Session, event: AnyEvent) -> None:
            super().order_placed(session, event)
            here = SyncEventStore(session, schema=self.schema)
            here.after_commit(lambda _: ask() if small.asynchronous else ask_at_once())

    async with tables(host):
        await publish(small, "plain", "order-placed", Asking())

    assert found == ["mail-wanted"]
    await small.aclose()

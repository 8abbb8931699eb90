"""Entities that record events: published with the commit that stores the entity, to the entity's stream."""

from __future__ import annotations

import gc
import pickle
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, event, inspect, select
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column, registry

from eventstore_sa import (
    CategoryIdentifier,
    EventStoreSchema,
    NewEvent,
    RecordsEvents,
    StreamIdentifier,
    configure_sqlite,
)
from eventstore_sa.errors import ConfigurationError, TransactionError, UnmetWriteConditionError
from tests.awaiting import entered, settled
from tests.hosts import Host, each_driver, new_event, statements_of

pytestmark = pytest.mark.keeps_connections

some_drivers = each_driver("sqlite+aiosqlite", "sqlite", "postgresql+asyncpg", "postgresql+psycopg")


class Base(DeclarativeBase):
    pass


class Order(RecordsEvents, Base):
    __tablename__ = "recorded_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="placed")

    def change(self, state: str) -> None:
        self.state = state
        self.record(new_event(f"order-{state}"))


class Versioned(RecordsEvents, Base):
    __tablename__ = "versioned_orders"
    __event_category__ = "versioned"
    __event_version__ = "version"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(default=0)


class Elsewhere(RecordsEvents, Base):
    """Goes to a stream that is told by a test."""

    __tablename__ = "elsewhere"
    id: Mapped[int] = mapped_column(primary_key=True)
    goes_to: ClassVar[Any] = None

    def event_stream(self) -> StreamIdentifier:
        found: StreamIdentifier = self.goes_to()
        return found


class Line(RecordsEvents, Base):
    __tablename__ = "order_lines"
    order: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


EventStoreSchema(Base.metadata)


@asynccontextmanager
async def recording(host: Host) -> AsyncIterator[Any]:
    """Open a session in which orders can be stored."""
    tables = [mapped.__table__ for mapped in (Order, Versioned, Elsewhere, Line)]
    sync_engine = host.ground.outside
    Base.metadata.create_all(sync_engine, tables=tables)
    async with entered(host.session(expire_on_commit=False)) as session:
        yield session
    Base.metadata.drop_all(sync_engine, tables=tables)


def stored(host: Host) -> list[tuple[str, str, str]]:
    with host.ground.outside.connect() as connection:
        rows = connection.exec_driver_sql("SELECT category, stream, name FROM es_events ORDER BY sequence_number")
        return [tuple(row) for row in rows]


@some_drivers
async def test_events_of_a_new_entity_go_to_the_stream_of_its_generated_key(host: Host) -> None:
    async with recording(host) as session:
        order = Order()
        order.change("placed")
        session.add(order)
        order.change("paid")
        await settled(session.commit())
        key = str(order.id)

    assert stored(host) == [("recorded_orders", key, "order-placed"), ("recorded_orders", key, "order-paid")]


@some_drivers
async def test_deleted_expunged_expired_and_collected_entities_lose_nothing(host: Host) -> None:
    async with recording(host) as session:
        session.add_all([Order(id=number) for number in range(1, 6)])
        await settled(session.commit())

        deleted = await settled(session.get(Order, 1))
        deleted.change("deleted")
        await settled(session.delete(deleted))
        expunged = await settled(session.get(Order, 2))
        expunged.change("expunged")
        session.expunge(expunged)
        expired = await settled(session.get(Order, 3))
        expired.record(new_event("order-expired"))
        session.expire(expired)
        collected = await settled(session.get(Order, 4))
        collected.record(new_event("order-collected"))
        del collected
        gc.collect()
        merged = await settled(session.merge(Order(id=5, state="merged")))
        merged.change("merged")
        await settled(session.commit())

    assert stored(host) == [
        ("recorded_orders", str(number), f"order-{state}")
        for number, state in enumerate(("deleted", "expunged", "expired", "collected", "merged"), start=1)
    ]


@some_drivers
async def test_rollback_drops_what_was_recorded_and_savepoints_theirs(host: Host) -> None:
    async with recording(host) as session:
        order = Order(id=1)
        session.add(order)
        await settled(session.commit())
        order.record(new_event("rolled-back"))
        await settled(session.rollback())
        order.record(new_event("kept"))
        savepoint = await settled(session.begin_nested())
        order.record(new_event("dropped"))
        await settled(savepoint.rollback())
        await settled(session.commit())

    assert [name for _, _, name in stored(host)] == ["kept"]


@some_drivers
async def test_new_entity_that_is_added_again_after_a_rollback_brings_its_events_along(host: Host) -> None:
    async with recording(host) as session:
        order = Order(id=1)
        order.change("placed")
        session.add(order)
        await settled(session.rollback())
        session.add(order)
        await settled(session.commit())

    assert stored(host) == [("recorded_orders", "1", "order-placed")]


@pytest.mark.parametrize(
    ("undone_by", "flushed"),
    [
        ("rollback", True),
        ("savepoint", True),
        ("rollback", False),
        ("savepoint", False),
        ("close", False),
        ("expunge", False),
    ],
)
@some_drivers
async def test_object_that_is_new_again_has_its_events_and_its_version_again(
    host: Host, undone_by: str, flushed: bool
) -> None:
    """What was recorded before it was added, and after."""
    async with recording(host) as session:
        order = Versioned(id=1, version=0)
        order.record(new_event("before"))
        savepoint = await settled(session.begin_nested()) if undone_by == "savepoint" else None
        session.add(order)
        order.record(new_event("after"))
        if flushed:
            await settled(session.flush())
        if undone_by == "expunge":
            session.expunge(order)
        else:
            await settled(getattr(session, undone_by)() if savepoint is None else savepoint.rollback())
        assert order.version == 0
        async with entered(host.session(expire_on_commit=False)) as other:
            await settled(session.commit())
            assert stored(host) == []
            other.add(order)
            await settled(other.commit())
            assert order.version == 2
            order.record(new_event("later"))
            await settled(other.commit())

    assert [name for _, _, name in stored(host)] == ["before", "after", "later"]


def test_object_whose_events_are_refused_is_not_stored_without_them() -> None:
    class NoStore(DeclarativeBase):
        pass

    class Stray(RecordsEvents, NoStore):
        __tablename__ = "stray"
        id: Mapped[int] = mapped_column(primary_key=True)

    with sqlite_session(NoStore.metadata) as session:
        stray = Stray(id=1)
        stray.record(new_event())
        for attempt in (lambda: session.add(stray), session.commit):
            with pytest.raises(ConfigurationError, match="there is no event store"):
                attempt()
        session.rollback()
        assert session.scalars(select(Stray.id)).all() == []


@some_drivers
async def test_entity_that_is_never_added_publishes_nothing(host: Host) -> None:
    async with recording(host) as session:
        Order(id=1).change("placed")
        await settled(session.commit())

    assert stored(host) == []


@pytest.mark.parametrize("flushed_by", ["the writing of what is staged", "the commit, after that"])
@some_drivers
async def test_entity_that_a_listener_of_the_flush_adds_during_the_commit_has_its_key(
    host: Host, flushed_by: str
) -> None:
    """As an audit log does: one more object for what was flushed, with a generated key."""
    async with recording(host) as session:
        sync_session = getattr(session, "sync_session", session)
        audits: list[Order] = []

        def audit(_: Session, __: Any) -> None:
            if not audits:
                audits.append(Order())
                audits[0].change("audited")
                sync_session.add(audits[0])

        def late(_: Session) -> None:
            sync_session.add(Order())

        order = Order(id=7)
        session.add(order)
        if flushed_by == "the commit, after that":
            await settled(session.flush())
            order.record(new_event("recorded"))
            event.listen(sync_session, "before_commit", late)
        else:
            order.record(new_event("recorded"))
        event.listen(sync_session, "after_flush", audit)
        await settled(session.commit())

    assert sorted(name for _, _, name in stored(host)) == ["order-audited", "recorded"]


@some_drivers
async def test_version_column_guards_the_stream(host: Host) -> None:
    async with recording(host) as session:
        entity = Versioned(id=1)
        session.add(entity)
        entity.record(new_event("first"), new_event("second"))
        await settled(session.commit())
        assert entity.version == 2
        async with entered(host.session()) as other:
            same = await settled(other.get(Versioned, 1))
            same.record(new_event("third"))
            await settled(other.commit())

        entity.record(new_event("too late"))
        with pytest.raises(UnmetWriteConditionError):
            await settled(session.commit())
        await settled(session.rollback())

    assert [name for _, _, name in stored(host)] == ["first", "second", "third"]


@each_driver("sqlite", "postgresql+psycopg")
async def test_composite_keys_are_joined(host: Host) -> None:
    async with recording(host) as session:
        line = Line(order=7, number=2)
        session.add(line)
        line.record(new_event("added"))
        await settled(session.commit())

    assert stored(host) == [("order_lines", "7:2", "added")]


@some_drivers
async def test_recorded_and_staged_events_are_one_statement(host: Host) -> None:
    async with recording(host) as session:
        session.add(Order(id=1))
        await settled(session.commit())
        order = await settled(session.get(Order, 1))
        store = host.store_on(session, schema=EventStoreSchema.all_on(Base.metadata)[0])
        await settled(store.log().latest())  # the first use of a store compares its mode of locking
        with statements_of(host.engine) as statements:
            order.record(new_event("recorded"))
            store.stream(category="orders", stream="1").stage(events=[new_event("staged")])
            await settled(session.commit())

    assert len(statements) == 1
    assert len(stored(host)) == 2


@contextmanager
def sqlite_session(metadata: MetaData) -> Iterator[Session]:
    engine = create_engine("sqlite://")
    configure_sqlite(engine)
    metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_dataclasses_record() -> None:
    class DataBase(MappedAsDataclass, DeclarativeBase):
        pass

    class Thing(RecordsEvents, DataBase):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    schema = EventStoreSchema(DataBase.metadata)
    with sqlite_session(DataBase.metadata) as session:
        thing = Thing(id=1, name="x")
        thing.record(NewEvent(name="made", payload=None))
        session.add(thing)
        session.commit()
        assert session.scalars(select(schema.EventRecord.stream)).all() == ["1"]


def test_imperatively_mapped_classes_record() -> None:
    metadata = MetaData()
    table = Table("plain", metadata, Column("id", Integer, primary_key=True), Column("name", String))

    class Plain(RecordsEvents):
        def __init__(self, name: str) -> None:
            self.name = name

    registry(metadata=metadata).map_imperatively(Plain, table)
    schema = EventStoreSchema(metadata)
    with sqlite_session(metadata) as session:
        plain = Plain("x")
        session.add(plain)
        plain.record(NewEvent(name="made", payload=None))
        session.commit()
        assert session.scalars(select(schema.EventRecord.category)).all() == ["plain"]


def test_entity_without_an_event_store_says_what_to_do() -> None:
    class Lonely(DeclarativeBase):
        pass

    class Thing(RecordsEvents, Lonely):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)

    with sqlite_session(Lonely.metadata) as session:
        thing = Thing(id=1)
        session.add(thing)
        with pytest.raises(ConfigurationError, match="EventStoreSchema"):
            thing.record(NewEvent(name="made", payload=None))
        with pytest.raises(ConfigurationError, match="NewEvents"):
            thing.record("made")  # type: ignore[arg-type]


async def coroutine() -> StreamIdentifier:
    return StreamIdentifier("orders", "1")


@some_drivers
@pytest.mark.parametrize(
    ("goes_to", "said"),
    [
        (lambda: "a1", r"returned the str 'a1': return StreamIdentifier\('elsewhere', 'a1'\)"),
        (lambda: ("orders", "a1"), "returned a value of type tuple: return a StreamIdentifier"),
        (lambda: None, "returned a value of type NoneType: return a StreamIdentifier"),
        (
            lambda: CategoryIdentifier("orders"),
            "returned a value of type CategoryIdentifier: return a StreamIdentifier",
        ),
        (coroutine, "returned a value of type coroutine: return a StreamIdentifier"),
    ],
    ids=["str", "tuple", "None", "category", "coroutine"],
)
async def test_an_overridden_stream_that_is_none_fails_the_commit(host: Host, goes_to: Any, said: str) -> None:
    async with recording(host) as session:
        entity = Elsewhere(id=1)
        entity.__dict__["goes_to"] = goes_to
        session.add(entity)
        entity.record(new_event("recorded"))
        with pytest.raises(ConfigurationError, match=rf"Elsewhere\.event_stream\(\) {said}.*roll the session back"):
            await settled(session.commit())
        await settled(session.rollback())

        order = Order(id=1)
        session.add(order)
        order.change("placed")
        await settled(session.commit())

        assert await settled(session.get(Elsewhere, 1)) is None
    assert stored(host) == [("recorded_orders", "1", "order-placed")]


@some_drivers
async def test_merge_publishes_what_was_recorded_on_the_original(host: Host) -> None:
    """Detached or new, with a key or without one, changed or not."""
    async with recording(host) as session:
        session.add_all([Order(id=101), Order(id=102)])
        await settled(session.commit())
        detached = await settled(session.get(Order, 101))
        unchanged = await settled(session.get(Order, 102))
        session.expunge_all()
        detached.change("paid")
        unchanged.record(new_event("order-seen"))
        new, without_key = Order(id=103), Order(id=None)
        new.change("new")
        without_key.change("keyless")
        copy = await settled(session.merge(unchanged))
        for original in (detached, new, without_key):
            await settled(session.merge(original))
        await settled(session.commit())
        published = stored(host)
        # It is published once, whatever becomes of the original.
        await settled(session.merge(detached))
        await settled(session.commit())
        assert copy is await settled(session.get(Order, 102))

    assert stored(host) == published
    assert sorted(name for _, _, name in published) == ["order-keyless", "order-new", "order-paid", "order-seen"]


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("known", [True, False])
@some_drivers
async def test_merge_that_is_rolled_back_leaves_the_events_with_the_original(
    host: Host, flushed: bool, known: bool
) -> None:
    async with recording(host) as session:
        original = Order(id=1)
        if known:
            session.add(original)
            await settled(session.commit())
            session.expunge(original)
        original.change("paid")
        copies: list[Order] = []  # a session remembers unchanged objects only as long as somebody has them
        for end in ("savepoint", "transaction", "close"):
            savepoint = await settled(session.begin_nested())
            copies.append(await settled(session.merge(original)))
            if flushed:
                await settled(session.flush())
            if end == "savepoint":
                await settled(savepoint.rollback())
                await settled(session.commit())
            else:
                await settled(session.rollback() if end == "transaction" else session.close())
        assert stored(host) == []
        await settled(session.merge(original))
        await settled(session.commit())

    assert [name for _, _, name in stored(host)] == ["order-paid"]


@some_drivers
async def test_copy_that_is_added_again_after_a_rollback_brings_the_events_along(host: Host) -> None:
    async with recording(host) as session:
        original = Order(id=1)
        original.change("paid")
        copy = await settled(session.merge(original))
        await settled(session.flush())
        await settled(session.rollback())
        session.add(copy)
        await settled(session.commit())

    assert [name for _, _, name in stored(host)] == ["order-paid"]


@pytest.mark.parametrize("kind", ["new", "without a key", "detached"])
@some_drivers
async def test_bulk_operation_refuses_objects_that_have_recorded_events(host: Host, kind: str) -> None:
    async with recording(host) as session:
        order = Order() if kind == "without a key" else Order(id=101)
        if kind == "detached":
            session.add(order)
            await settled(session.commit())
            session.expunge(order)
        order.change("paid")
        others = [Order(id=number, state="another") for number in (102, 103)]

        def save(objects: Sequence[object]) -> None:
            getattr(session, "sync_session", session).bulk_save_objects(objects)

        async def bulk(*objects: object) -> None:
            if host.asynchronous:
                await session.run_sync(lambda _: save(objects))
            else:
                save(objects)

        with pytest.raises(TransactionError, match="bulk operation"):
            await bulk(others[0], order)
        await settled(session.rollback())
        await bulk(*others)
        session.add(order)
        await settled(session.commit())

    assert [name for _, _, name in stored(host)] == ["order-paid"]


@pytest.mark.parametrize("way", ["add", "merge"])
def test_pickled_objects_keep_what_they_have_recorded(way: str) -> None:
    with sqlite_session(Base.metadata) as session:
        original = Order(id=1)
        original.record(new_event("recorded"))
        unpickled = pickle.loads(pickle.dumps(original))
        del original
        getattr(session, way)(unpickled)
        session.commit()
        assert session.scalars(select(EventStoreSchema.all_on(Base.metadata)[0].EventRecord.name)).all() == ["recorded"]


def test_merge_copies_the_place_where_events_are_kept() -> None:
    """It comes along with what loads single attributes; this is red when SQLAlchemy copies that no longer."""
    with sqlite_session(Base.metadata) as session:
        original = Order(id=1)
        original.record(new_event("recorded"))
        state = inspect(original)
        assert state.callables.keys() == inspect(session.merge(original)).callables.keys() != set()
        session.rollback()
        session.add(original)
        assert "callables" not in state.__dict__

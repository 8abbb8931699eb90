"""What is staged and published in sessions, real ones and fakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import Engine, ForeignKey, create_engine, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.pool import StaticPool

from eventstore_sa import (
    EventStore,
    EventStoreSchema,
    NewEvent,
    RecordsEvents,
    StoredEvent,
    SyncEventStore,
    configure_sqlite,
)
from eventstore_sa.conditions import position_is
from eventstore_sa.errors import ConfigurationError, TransactionError
from eventstore_sa.testing import (
    FakeAsyncSession,
    FakeSession,
    assert_published,
    matching,
    published_in,
    staged_in,
)

PLACED = NewEvent(name="order-placed", payload={"total": 12}, metadata={"by": "ada"})
PAID = NewEvent(name="order-paid", payload=None)


class Base(DeclarativeBase):
    pass


class Order(RecordsEvents, Base):
    __tablename__ = "orders"
    __event_version__ = "version"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(default=0)
    token: Mapped[str] = mapped_column(default=lambda: "made")


class SpecialOrder(Order):
    __tablename__ = "special_orders"
    id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)


class Line(Base):
    __tablename__ = "lines"
    order: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(primary_key=True)


SCHEMA = EventStoreSchema(Base.metadata)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    configure_sqlite(engine)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def store() -> SyncEventStore:
    """A store whose database nobody looks for."""
    return SyncEventStore("sqlite:////nowhere/at/all.db", schema=SCHEMA)


@pytest.fixture
def fake() -> FakeSession:
    return FakeSession()


def stage(store: SyncEventStore, session: Session, *events: NewEvent[Any, Any, Any], stream: str = "42") -> Any:
    return store.within(session).stream(category="orders", stream=stream).stage(events=events)


def names(events: Sequence[Any]) -> list[str]:
    return [event.name for event in events]


def test_staged_events_are_seen_until_they_are_stored(engine: Engine) -> None:
    store = SyncEventStore(engine, schema=SCHEMA)
    with Session(engine) as session:
        assert staged_in(session) == []
        stream = store.within(session).stream(category="orders", stream="42")
        stream.stage(events=[PLACED], condition=position_is(None))
        (staged,) = staged_in(session)
        assert (staged.category, staged.stream, staged.event) == ("orders", "42", PLACED)
        assert (staged.name, staged.payload, staged.metadata) == (PLACED.name, PLACED.payload, PLACED.metadata)
        assert staged.condition == position_is(None)
        assert staged == matching("order-placed", payload={"total": 12}, category="orders", stream="42")
        assert published_in(session, schema=SCHEMA) == []

        with session.begin_nested():
            stream.stage(events=[PAID])
            assert names(staged_in(session)) == ["order-placed", "order-paid"]
            session.get_nested_transaction().rollback()  # type: ignore[union-attr]
        assert names(staged_in(session)) == ["order-placed"]

        store.within(session).flush()
        assert staged_in(session) == []
        assert_published(published_in(session, schema=SCHEMA), PLACED, only=True)
        session.rollback()
        assert published_in(session, schema=SCHEMA) == []


def test_recorded_events_are_staged_once_their_object_has_a_key(engine: Engine) -> None:
    with Session(engine) as session:
        order = Order()
        session.add(order)
        order.record(PLACED)
        with pytest.raises(ConfigurationError, match="no primary key"):
            staged_in(session)
        session.flush()
        assert staged_in(session) == [matching("order-placed", category="orders", stream="1")]


def test_joined_transactions_see_what_their_sessions_commit(engine: Engine) -> None:
    store = SyncEventStore(engine, schema=SCHEMA)
    with engine.connect() as connection, connection.begin() as transaction:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            stage(store, session, PLACED)
            session.commit()
            assert_published(published_in(session, schema=SCHEMA), "order-placed", only=True)
        transaction.rollback()
    assert_published(store, only=True)


async def test_asyncio_and_scoped_sessions_are_looked_into() -> None:
    async_engine = create_async_engine("sqlite+aiosqlite://")
    configure_sqlite(async_engine)
    store = EventStore(async_engine, schema=SCHEMA)
    async with AsyncSession(async_engine) as session:
        await (await session.connection()).run_sync(Base.metadata.create_all)
        store.within(session).stream(category="orders", stream="42").stage(events=[PLACED])
        assert names(staged_in(session)) == ["order-placed"]
        await session.commit()
        assert names(await published_in(session, schema=SCHEMA)) == ["order-placed"]
        scoped: Any = async_scoped_session(lambda: session, lambda: 1)
        assert staged_in(scoped) == []
        assert names(await published_in(scoped, schema=SCHEMA)) == ["order-placed"]
    await async_engine.dispose()


def test_scoped_sessions_are_looked_into(engine: Engine) -> None:
    scoped = scoped_session(sessionmaker(engine))
    stage(SyncEventStore(engine, schema=SCHEMA), scoped(), PLACED)

    assert names(staged_in(scoped)) == ["order-placed"]
    assert published_in(scoped, schema=SCHEMA) == []
    scoped.remove()


@pytest.mark.parametrize("look", [staged_in, published_in])
@pytest.mark.parametrize("mock", [Mock(), Mock(spec=AsyncSession), Mock(spec=Session)], ids=["any", "asyncio", "sync"])
def test_mocks_are_refused_with_the_remedy(look: Any, mock: Any) -> None:
    with pytest.raises(ConfigurationError, match="got Mock: a mock is none, use FakeSession or FakeAsyncSession"):
        look(mock)


def test_a_mock_of_an_asyncio_session_has_no_transaction_to_stage_in() -> None:
    """As docs/testing.md says."""
    store = EventStore("sqlite+aiosqlite:////nowhere/at/all.db", schema=SCHEMA).within(Mock(spec=AsyncSession))

    with pytest.raises(AttributeError, match="sync_session"):
        store.stream(category="orders", stream="42").stage(events=[PLACED])


def test_a_fake_commits_what_is_staged(fake: FakeSession, store: SyncEventStore) -> None:
    told: list[Any] = []
    staged = stage(store, fake, PLACED)
    store.within(fake).after_commit(told.extend)
    assert names(staged_in(fake)) == ["order-placed"]
    assert published_in(fake) == []

    fake.commit()
    with fake.begin():
        stage(store, fake, PAID)
        stage(store, fake, PLACED, stream="43")

    assert staged_in(fake) == []
    published: Sequence[StoredEvent] = published_in(fake)
    assert list(staged.events) == told == list(published[:1])
    assert [(each.stream, each.position, each.sequence_number) for each in published] == [
        ("42", 0, 1),
        ("42", 1, 2),
        ("43", 0, 3),
    ]


def test_a_fake_forgets_what_is_rolled_back(fake: FakeSession, store: SyncEventStore) -> None:
    rolled_back = stage(store, fake, PLACED)
    fake.rollback()
    with fake.begin():
        stage(store, fake, PAID)
        with pytest.raises(ValueError, match="no"), fake.begin_nested():  # noqa: PT012
            stage(store, fake, PLACED)
            store.within(fake).flush()
            assert names(published_in(fake)) == ["order-paid", "order-placed"]
            raise ValueError("no")
        with fake.begin_nested():
            stage(store, fake, PLACED)

    assert names(published_in(fake)) == ["order-paid", "order-placed"]
    with pytest.raises(TransactionError, match="rolled back"):
        _ = rolled_back.events
    stage(store, fake, PAID)
    fake.close()
    assert names(published_in(fake)) == ["order-paid", "order-placed"]


def test_a_fake_keeps_objects_and_what_they_record(fake: FakeSession) -> None:
    order = Order(version=0)
    fake.add(order)
    order.record(PLACED)
    fake.flush()
    assert order.id == 1
    assert staged_in(fake) == [matching("order-placed", stream="1")]

    fake.commit()
    order.record(PAID)
    fake.commit()
    fake.refresh(order)

    assert order.version == 2
    assert [(each.name, each.position) for each in published_in(fake)] == [("order-placed", 0), ("order-paid", 1)]


def test_a_fake_finds_the_objects_that_it_was_given() -> None:
    order, line = Order(id=7, version=0), Line(order=7, sku="bolts")
    fake = FakeSession([order])
    fake.add(line)

    assert fake.get(Order, 7) is fake.get_one(Order, 7) is order
    assert fake.get(Line, (7, "bolts")) is line
    assert fake.get(Order, 8) is None
    with pytest.raises(NoResultFound, match="was given no Order with the primary key 8"):
        fake.get_one(Order, 8)

    fake.rollback()
    assert fake.get(Line, (7, "bolts")) is None
    assert fake.get(Order, 7) is order
    order.record(PLACED)
    fake.commit()
    assert names(published_in(fake)) == ["order-placed"]
    fake.delete(order)
    assert fake.get(Order, 7) is None


def test_a_fake_fills_in_what_a_flush_would() -> None:
    known, special, line = Order(id=1), SpecialOrder(), Line(order=1)
    fake = FakeSession([known])
    fake.add_all([special, line])
    fake.flush()

    assert (special.id, special.version, special.token) == (2, 0, "made")
    assert (line.order, line.sku) == (1, None)
    known.version = 3
    fake.flush()
    assert known.version == 3


class Points(MappedAsDataclass, DeclarativeBase):
    """Objects that are equal by value, and so not hashable."""


class Point(Points):
    __tablename__ = "points"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    x: Mapped[int]


def test_a_fake_commits_objects_without_events_too() -> None:
    fake, points = FakeSession(), [Point(1), Point(1)]
    fake.add_all(points)

    fake.commit()

    assert [point.id for point in points] == [1, 2]
    assert fake.get(Point, 2) is points[1]
    fake.delete(points[1])
    assert fake.get(Point, 2) is None
    assert fake.get(Point, 1) is points[0]


def test_a_fake_says_what_it_cannot_do(fake: FakeSession, store: SyncEventStore) -> None:
    message = "this session has no database: .* use|this session has no database"
    with pytest.raises(ConfigurationError, match=message):
        fake.scalars(select(Order)).all()
    with pytest.raises(ConfigurationError, match=message):
        store.within(fake).stream(category="orders", stream="42").publish(events=[PLACED])
    with pytest.raises(ConfigurationError, match=message):
        store.within(fake).log().read()


async def test_the_fake_for_asyncio_does_the_same() -> None:
    store = EventStore("sqlite+aiosqlite:////nowhere/at/all.db", schema=SCHEMA)
    fake, told = FakeAsyncSession([Order(id=7, version=0)]), []

    async def tell(events: Sequence[Any]) -> None:
        told.extend(events)

    async with fake.begin():
        order = await fake.get_one(Order, 7)
        order.record(PLACED)
        store.within(fake).stream(category="orders", stream="8").stage(events=[PAID])
        store.within(fake).after_commit(tell)
        assert names(staged_in(fake)) == ["order-placed", "order-paid"]
    await fake.commit()
    async with fake.begin():
        store.within(fake).stream(category="orders", stream="8").stage(events=[PAID])
        await fake.rollback()

    assert names(await published_in(fake)) == names(told) == ["order-placed", "order-paid"]
    with pytest.raises(ConfigurationError, match="no database"):
        await fake.execute(select(Order))
    scoped: Any = async_scoped_session(lambda: fake, lambda: 1)
    assert len(await published_in(scoped)) == 2
    await fake.close()

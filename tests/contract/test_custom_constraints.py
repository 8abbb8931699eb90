"""Constraints of one's own: registered with an adapter on every database, and working as they are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Engine, Table, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from eventstore_sa import EventStore, NewEvent, SyncEventStore
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.constraints import ConstraintConverters
from eventstore_sa.sources.constraints import (
    QueryConstraint,
    SequenceNumberAfterConstraint,
    name_in,
    position_after,
    sequence_number_after,
)
from eventstore_sa.store.adapters import (
    SQLAlchemyEventStorageAdapter,
    SyncInMemoryEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import StoredEvent
from tests.databases import PostgresDatabase


class InStreamsLike(QueryConstraint, frozen=True):
    ending: str

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return event.stream.endswith(self.ending)


class InStreamsMuchLike(InStreamsLike, frozen=True):
    pass


class NotAfter(SequenceNumberAfterConstraint, frozen=True):
    """Says the contrary of what its base says."""

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return event.sequence_number <= self.sequence_number


def ends(constraint: InStreamsLike, events: Table) -> ColumnElement[bool]:
    return events.c.stream.endswith(constraint.ending, autoescape=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = create_engine("sqlite://")
    else:
        database: PostgresDatabase = request.getfixturevalue("postgres_database")
        engine = create_engine(database.url("psycopg"))
    yield engine
    engine.dispose()


def filled(store: SyncEventStore) -> SyncEventStore:
    store.create_schema()
    for number in range(12):
        stream = store.stream(category="orders", stream=f"{number % 3}%")
        stream.publish(events=[NewEvent(name="placed" if number % 2 else "paid", payload=number)])
    return store


def numbers(store: SyncEventStore, *constraints: QueryConstraint, **arguments: Any) -> list[int]:
    return [event.payload for event in store.log().iterate(constraints=set(constraints), **arguments)]


def test_a_registered_constraint_goes_with_the_built_in_ones(engine: Engine) -> None:
    adapter = SyncSQLAlchemyEventStorageAdapter(engine, page_size=2)
    adapter.register_constraint(InStreamsLike, ends)
    in_memory = SyncInMemoryEventStorageAdapter()

    for store in (filled(SyncEventStore(adapter)), filled(SyncEventStore(in_memory))):
        first = next(store.log().iterate()).sequence_number
        constraint = InStreamsLike("1%")
        assert numbers(store, constraint) == [1, 4, 7, 10]
        assert numbers(store, constraint, limit=3, backwards=True) == [10, 7, 4]
        assert numbers(store, constraint, name_in(["placed"]), sequence_number_after(first + 1)) == [7]
        assert numbers(store, InStreamsMuchLike("1%"), position_after(0)) == [4, 7, 10]


def test_stores_within_a_session_know_it_too(engine: Engine) -> None:
    adapter = SyncSQLAlchemyEventStorageAdapter(engine)
    store = filled(SyncEventStore(adapter))

    with Session(engine) as session:
        within = store.within(session)
        adapter.register_constraint(InStreamsLike, ends)
        assert numbers(within, InStreamsLike("2%")) == [2, 5, 8, 11]


def test_adapters_may_share_their_converters() -> None:
    converters = ConstraintConverters()
    engine = create_engine("sqlite://")
    store = filled(SyncEventStore(SyncSQLAlchemyEventStorageAdapter(engine, constraint_converters=converters)))

    converters.register(InStreamsLike, ends)

    assert numbers(store, InStreamsLike("2%")) == [2, 5, 8, 11]
    engine.dispose()


def test_a_constraint_that_is_not_registered_is_refused_and_says_how_to_register_it(engine: Engine) -> None:
    store = filled(SyncEventStore(engine))

    for constraint in (InStreamsLike("1%"), NotAfter(3)):
        with pytest.raises(ConfigurationError, match=rf"register_constraint\({type(constraint).__name__}, lambda"):
            numbers(store, constraint)
    assert len(numbers(store)) == 12


def test_the_last_converter_registered_counts() -> None:
    adapter = SyncSQLAlchemyEventStorageAdapter("sqlite://")
    store = filled(SyncEventStore(adapter))
    adapter.register_constraint(InStreamsLike, lambda constraint, events: events.c.position == 0)

    assert numbers(store, InStreamsLike("1%")) == [0, 1, 2]
    adapter.register_constraint(InStreamsLike, ends)

    assert numbers(store, InStreamsLike("1%")) == [1, 4, 7, 10]
    adapter.register_constraint(NotAfter, lambda constraint, events: events.c.sequence_number <= 2)
    assert numbers(store, NotAfter(99)) == [0, 1]
    adapter.close()


@in_turn("kind", [SequenceNumberAfterConstraint, int, "InStreamsLike", None])
def test_only_constraints_of_ones_own_can_be_registered(kind: Any) -> None:
    adapter = SyncSQLAlchemyEventStorageAdapter("sqlite://")

    with pytest.raises(ConfigurationError, match="your own subclasses of QueryConstraint"):
        adapter.register_constraint(kind, ends)
    adapter.close()


async def test_async_adapters_take_them_as_well() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    adapter = SQLAlchemyEventStorageAdapter(engine)
    adapter.register_constraint(InStreamsLike, ends)
    store = EventStore(adapter)
    await store.create_schema()
    for name in ("1", "2"):
        await store.stream(category="orders", stream=name).publish(events=[NewEvent(name="a", payload=name)])

    events = await store.category(category="orders").read(constraints={InStreamsLike("2")})

    assert [event.payload for event in events] == ["2"]
    await engine.dispose()

"""Staging and recording where writers exclude each other by other means than the fence alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
from sqlalchemy import URL, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import EventSerialisationGuarantee, EventStoreSchema, RecordsEvents, SyncEventStore
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import UnmetWriteConditionError
from tests.hosts import new_event


@pytest.mark.parametrize("guarantee", EventSerialisationGuarantee)
@pytest.mark.parametrize("locking", ["advisory", "row"])
def test_staged_and_recorded_events_are_stored_whatever_the_locking(
    postgres_url: Callable[[str], URL], locking: Literal["advisory", "row"], guarantee: EventSerialisationGuarantee
) -> None:
    class Base(DeclarativeBase):
        pass

    class Order(RecordsEvents, Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)

    schema = EventStoreSchema(Base.metadata, locking=locking, serialisation_guarantee=guarantee)
    engine = create_engine(postgres_url("psycopg"))
    Base.metadata.create_all(engine)
    store = SyncEventStore(engine, schema=schema)

    with Session(engine) as session:
        order = Order(id=1)
        session.add(order)
        order.record(new_event("recorded"))
        stream = store.within(session).stream(category="orders", stream="1")
        event = new_event("staged", payload={"items": [1]}, metadata={"tags": []})
        staged = stream.stage(events=[event], condition=position_is(0))
        session.commit()
        assert [event.position for event in staged.events] == [1]

        order.record(new_event("recorded alone"))
        session.commit()

        order.record(new_event("dropped"))
        stream.stage(events=[new_event("dropped")], condition=stream_is_empty())
        with pytest.raises(UnmetWriteConditionError):
            session.commit()
        session.rollback()

        names = session.scalars(select(schema.EventRecord.name).order_by(schema.EventRecord.position)).all()
        stored = list(stream.iterate())[1]
    engine.dispose()
    assert names == ["recorded", "staged", "recorded alone"]
    assert (stored.payload, stored.metadata) == ({"items": [1]}, {"tags": []})


@pytest.mark.parametrize("locking", ["advisory", "row"])
def test_a_process_that_only_records_needs_no_store(
    postgres_url: Callable[[str], URL], locking: Literal["advisory", "row"]
) -> None:
    class Base(DeclarativeBase):
        pass

    schema = EventStoreSchema(Base.metadata, locking=locking)

    class Order(RecordsEvents, Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)

    engine = create_engine(postgres_url("psycopg"))
    Base.metadata.create_all(engine)

    for _ in range(2):
        with Session(engine) as session, session.begin():
            order = Order()
            session.add(order)
            order.record(new_event("recorded"))

    with Session(engine) as session:
        streams = session.scalars(select(schema.EventRecord.stream).order_by(schema.EventRecord.sequence_number)).all()
    engine.dispose()
    assert streams == ["1", "2"]

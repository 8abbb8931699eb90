"""The event store without asyncio: a warehouse, in a SQLite file in a temporary directory.

Run it with `python examples/quickstart_sync.py`; `quickstart.py` shows more, with asyncio.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import (
    EventStoreSchema,
    NewEvent,
    Projector,
    StoredEvent,
    StreamIdentifier,
    SyncEventStore,
    configure_sqlite,
)
from eventstore_sa.conditions import position_is
from eventstore_sa.errors import UnmetWriteConditionError


class Base(DeclarativeBase):
    """The base of the application's mapped classes."""


class Shipment(Base):
    __tablename__ = "shipments"
    id: Mapped[int] = mapped_column(primary_key=True)
    article: Mapped[str]


SCHEMA = EventStoreSchema(Base.metadata)


class StockProjector(Projector[StreamIdentifier, int, None]):
    """How many pieces of an article are in stock."""

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: StreamIdentifier) -> str:
        return source.stream

    def received(self, state: int, event: StoredEvent[str, int]) -> int:
        return state + event.payload

    def shipped(self, state: int, event: StoredEvent[str, int]) -> int:
        return state - event.payload


def main(url: str) -> None:
    engine = create_engine(url)
    configure_sqlite(engine)
    Base.metadata.create_all(engine)
    store = SyncEventStore(engine, schema=SCHEMA)
    bolts = store.stream(category="articles", stream="bolts")

    print("Publish: 500 bolts are received.")
    received = bolts.publish(events=[NewEvent(name="received", payload=500)])[-1]

    print("Ship 120 of them: the row and the event are committed together, if nothing was published in between.")
    with Session(engine) as session, session.begin():
        session.add(Shipment(id=1, article="bolts"))
        here = store.within(session).stream(category="articles", stream="bolts")
        here.publish(events=[NewEvent(name="shipped", payload=120)], condition=position_is(received.position))

    print("Ship another 450, based on the position that was read before the first shipment.")
    with Session(engine) as session:
        session.add(Shipment(id=2, article="bolts"))
        here = store.within(session).stream(category="articles", stream="bolts")
        try:
            here.publish(events=[NewEvent(name="shipped", payload=450)], condition=position_is(received.position))
        except UnmetWriteConditionError as error:
            print(f"  {type(error).__name__}: {error}")
            session.rollback()
        print("  remaining shipments:", [row.id for row in session.query(Shipment)])

    print("Read the stream, and project it to the remaining stock.")
    for event in bolts:
        print(f"  {event.position}: {event.name} {event.payload}")
    stock = StockProjector().project_sync(source=bolts)
    print(f"  {stock.name} of {stock.id}: {stock.state}")
    engine.dispose()


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        main(f"sqlite:///{folder}/events.db")

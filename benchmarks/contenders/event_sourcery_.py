"""The library `python-event-sourcery` on SQLAlchemy."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID

from event_sourcery import StreamId
from event_sourcery.event import Event
from event_sourcery.exceptions import ConcurrentStreamWriteError
from event_sourcery.interfaces import StorageStrategy
from event_sourcery_sqlalchemy import SQLAlchemyBackend, configure_models
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Session

from benchmarks.contenders.contender import ConflictError, Contender
from benchmarks.databases import Database
from benchmarks.samples import INSERT_ORDER, order_placed

__all__ = ["EventSourcery"]

Result = TypeVar("Result")


class _Base(DeclarativeBase):
    pass


class OrderPlaced(Event):
    """The payload in fields, as its models of pydantic want it."""

    order_id: str
    customer: str
    total: float
    currency: str
    lines: list[dict[str, Any]]


configure_models(_Base)


class EventSourcery(Contender):
    """An event store on a new session for each call, which is committed."""

    name = "python-event-sourcery"
    setup = "`SQLAlchemyBackend` with a `Session` for each call (psycopg2, blocking; writers in threads)"
    gives_up = (
        "asyncio, conditions other than the version, metadata (not measured), the latest event without its number; readers "
        "of the log wait at each gap in the numbers, so those of a category, which has gaps everywhere, wait for a time "
        "limit at each batch (not measured)"
    )
    blocks = True

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    @asynccontextmanager
    async def opened(cls, db: Database, connections: int) -> AsyncIterator[EventSourcery]:
        engine = create_engine(db.url("psycopg2"), pool_size=connections, max_overflow=0)
        _Base.metadata.create_all(engine)
        try:
            yield cls(engine)
        finally:
            engine.dispose()

    def in_session(self, work: Callable[[SQLAlchemyBackend, Session], Result]) -> Result:
        """Do something with a backend on a session, and commit."""
        with Session(self.engine) as session:
            result = work(SQLAlchemyBackend().configure(session), session)
            session.commit()
            return result

    def new_events(self, category: str, stream: int, size: int, *, after: int) -> Any:
        return [OrderPlaced(**order_placed(number)) for number in range(size)]

    async def append(self, category: str, stream: int, events: Any, *, after: int) -> None:
        stream_id = StreamId(UUID(int=stream), category=category)
        try:
            self.in_session(
                lambda backend, _: backend.event_store.append(*events, stream_id=stream_id, expected_version=after + 1)
            )
        except (ConcurrentStreamWriteError, IntegrityError) as error:
            raise ConflictError(str(error)) from error

    async def read_stream(self, category: str, stream: int) -> int:
        stream_id = StreamId(UUID(int=stream), category=category)
        return self.in_session(lambda backend, _: len(backend.event_store.load_stream(stream_id)))

    async def read_log(self) -> int:
        return self.in_session(_read_log)

    async def transact(self, stream: int, events: Any, work_s: float) -> None:
        stream_id = StreamId(UUID(int=stream), category="orders")

        def work(backend: SQLAlchemyBackend, session: Session) -> None:
            session.execute(INSERT_ORDER, {"id": stream})
            backend.event_store.append(*events, stream_id=stream_id, expected_version=0)
            time.sleep(work_s)

        self.in_session(work)


def _read_log(backend: SQLAlchemyBackend, session: Session) -> int:
    """Ask for as many events as there are: a batch that cannot be filled would be waited for."""
    last = backend[StorageStrategy].current_position
    position = 0
    while position < last:
        size = min(1000, last - position)
        batch = next(backend.subscriber.start_from(position).build_batch(size, timelimit=1))
        position = batch[-1].position
        session.expunge_all()
    return position

"""The library `eventsource-py` on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from eventsource import DomainEvent, ExpectedVersion, OptimisticLockError, StreamId, register_event
from eventsource.adapters.postgresql import PostgreSQLEventStore
from eventsource.ports import FeedReadOptions, ReadDirection, StreamReadOptions

from benchmarks.contenders.contender import ConflictError, Contender
from benchmarks.databases import Database
from benchmarks.samples import METADATA, order_placed

__all__ = ["EventSourcePy"]


@register_event
class OrderPlaced(DomainEvent):
    """The payload in fields, as its models of pydantic want it."""

    aggregate_type: str = "orders"
    order_id: str
    customer: str
    total: float
    currency: str
    lines: list[dict[str, Any]]


class EventSourcePy(Contender):
    """A `PostgreSQLEventStore` on an engine of asyncpg."""

    name = "eventsource-py"
    setup = "`PostgreSQLEventStore(create_schema=True)` on asyncpg"
    gives_up = (
        "conditions other than the version, several streams in one call, transactions of the host, names of streams; "
        "reads of a whole category or log hold all of it in memory unless they are limited"
    )

    def __init__(self, store: PostgreSQLEventStore) -> None:
        self.store = store

    @classmethod
    @asynccontextmanager
    async def opened(cls, db: Database, connections: int) -> AsyncIterator[EventSourcePy]:
        store = PostgreSQLEventStore(db.engine(pool_size=connections), create_schema=True)
        await store.get_stream_version(StreamId(aggregate_id=UUID(int=0), category="orders"))
        yield cls(store)

    def new_events(self, category: str, stream: int, size: int, *, after: int) -> Any:
        return [
            OrderPlaced(
                aggregate_id=UUID(int=stream),
                aggregate_type=category,
                aggregate_version=after + 2 + number,
                metadata=METADATA,
                **order_placed(number),
            )
            for number in range(size)
        ]

    async def append(self, category: str, stream: int, events: Any, *, after: int) -> None:
        try:
            await self.store.append(_stream(category, stream), events, ExpectedVersion.exact(after + 1))
        except OptimisticLockError as error:
            raise ConflictError(str(error)) from error

    async def read_stream(self, category: str, stream: int) -> int:
        return len([event async for event in self.store.read_stream(_stream(category, stream))])

    async def read_category(self, category: str) -> int:
        return len([event async for event in self.store.read_category(category)])

    async def read_log(self) -> int:
        seen, position = 0, None
        while page := [event async for event in self.store.read_all(position, FeedReadOptions(limit=1000))]:
            seen, position = seen + len(page), page[-1].position
        return seen

    async def read_latest(self, category: str, stream: int) -> None:
        options = StreamReadOptions(direction=ReadDirection.BACKWARD, limit=1)
        if not [event async for event in self.store.read_stream(_stream(category, stream), options)]:
            raise AssertionError(f"stream {stream} is empty")


def _stream(category: str, number: int) -> StreamId:
    return StreamId(aggregate_id=UUID(int=number), category=category)

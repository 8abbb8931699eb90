"""The library `eventsourcing`: its recorder for PostgreSQL, and its recorder for dynamic consistency boundaries (DCB)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

import msgspec
from eventsourcing.application import Application
from eventsourcing.dcb.api import DCBAppendCondition, DCBEvent, DCBQuery, DCBQueryItem
from eventsourcing.dcb.application import DCBApplication
from eventsourcing.domain import DomainEvent, datetime_now_with_tzinfo
from eventsourcing.persistence import IntegrityError, Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from benchmarks.contenders.contender import ConflictError, Contender
from benchmarks.databases import Database
from benchmarks.samples import METADATA, NAME, changed, order_placed

__all__ = ["AggregateEvents", "EventSourcing", "EventSourcingDcb", "OrderPlaced"]

_SECTION = 1000


class OrderPlaced(DomainEvent):
    """The payload in fields, as its frozen dataclasses want it."""

    order_id: str
    customer: str
    total: float
    currency: str
    lines: list[dict[str, Any]]
    metadata: dict[str, Any]


class AggregateEvents(Contender):
    """Whatever recorder an application of the library has; its event store maps events to JSON and back."""

    blocks = True

    def __init__(self, application: Application[UUID]) -> None:
        self.application = application

    def new_events(self, category: str, stream: int, size: int, *, after: int) -> Any:
        now = datetime_now_with_tzinfo()
        return [
            OrderPlaced(
                originator_id=UUID(int=stream),
                originator_version=after + 2 + number,
                timestamp=now,
                **order_placed(number),
                metadata=METADATA,
            )
            for number in range(size)
        ]

    async def append(self, category: str, stream: int, events: Any, *, after: int) -> None:
        # The condition is in the versions of the events, which are unique.
        try:
            self.application.events.put(events)
        except IntegrityError as error:
            raise ConflictError(str(error)) from error

    async def read_stream(self, category: str, stream: int) -> int:
        return sum(1 for _ in self.application.events.get(UUID(int=stream)))

    async def read_log(self) -> int:
        seen, start = 0, 1
        while section := self.application.recorder.select_notifications(start, _SECTION):
            seen += len([self.application.mapper.to_domain_event(notification) for notification in section])
            start = section[-1].id + 1
        return seen

    async def read_latest(self, category: str, stream: int) -> None:
        if not list(self.application.events.get(UUID(int=stream), desc=True, limit=1)):
            raise AssertionError(f"stream {stream} is empty")


class EventSourcing(AggregateEvents):
    """An application on `eventsourcing.postgres`."""

    name = "eventsourcing"
    setup = "`Application` with `eventsourcing.postgres` (psycopg, blocking; writers in threads)"
    gives_up = (
        "asyncio, categories, conditions other than the next version, transactions of the host; every writer locks the "
        "table until it commits, so that the log reads complete"
    )

    @classmethod
    @asynccontextmanager
    async def opened(cls, db: Database, connections: int) -> AsyncIterator[EventSourcing]:
        application: Application[UUID] = Application(
            env={"PERSISTENCE_MODULE": "eventsourcing.postgres", **_environment(db, connections)}
        )
        with _closed(application):
            yield cls(application)

    async def catch_up(self, run: str) -> int:
        view = _View(self.application.recorder.datastore, tracking_table_name="tracking")
        view.create_table()
        seen, start = 0, 1
        while section := self.application.recorder.select_notifications(start, _SECTION):
            for notification in section:
                event = self.application.mapper.to_domain_event(notification)
                view.change(event, Tracking(run, notification.id))
            seen, start = seen + len(section), section[-1].id + 1
        return seen


class _View(PostgresTrackingRecorder):
    """A materialised view: its rows change in the transaction that records how far it has come."""

    def create_table(self) -> None:
        self.sql_create_statements.append(
            SQL("CREATE TABLE IF NOT EXISTS summaries (name text, id uuid, state jsonb, PRIMARY KEY (name, id))")
        )
        super().create_table()

    def change(self, event: OrderPlaced, tracking: Tracking) -> None:
        key = (tracking.application_name, event.originator_id)
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute("SELECT state FROM summaries WHERE name = %s AND id = %s FOR UPDATE", key, prepare=True)
            stored = cursor.fetchone()
            state = changed(stored["state"] if stored else {"changes": 0, "total": 0}, {"total": event.total})
            cursor.execute(
                "INSERT INTO summaries VALUES (%s, %s, %s) ON CONFLICT (name, id) DO UPDATE SET state = excluded.state",
                (*key, Jsonb(state)),
                prepare=True,
            )


class EventSourcingDcb(Contender):
    """An application on `eventsourcing.dcb.postgres_tt`; a stream is a tag, and JSON is encoded as anybody would."""

    name = "eventsourcing DCB"
    setup = "`DCBApplication` with `eventsourcing.dcb.postgres_tt` (psycopg, blocking; writers in threads)"
    gives_up = (
        "asyncio, positions in streams, categories other than as tags (not measured), ids and times of events, transactions "
        "of the host; the condition asks for no newer event of the stream's tag"
    )
    blocks = True

    def __init__(self, application: DCBApplication) -> None:
        self.recorder = application.recorder
        # Where the log was at the last append to a stream: a condition asks for what came later.
        self._heads: dict[int, int] = {}
        self._heads_of_tags: dict[tuple[str, ...], int] = {}

    @classmethod
    @asynccontextmanager
    async def opened(cls, db: Database, connections: int) -> AsyncIterator[EventSourcingDcb]:
        application = DCBApplication(
            env={"PERSISTENCE_MODULE": "eventsourcing.dcb.postgres_tt", **_environment(db, connections)}
        )
        with _closed(application):
            yield cls(application)

    def new_events(self, category: str, stream: int, size: int, *, after: int) -> Any:
        return [order_placed(number) for number in range(size)]

    async def append(self, category: str, stream: int, events: Any, *, after: int) -> None:
        self._append(stream, events, head=None if after == -1 else self._heads[stream])

    def _append(self, stream: int, events: Any, *, head: int | None) -> None:
        tags = [f"order-{stream}"]
        condition = DCBAppendCondition(DCBQuery([DCBQueryItem(tags=tags)]), after=head)
        rows = [DCBEvent(NAME, msgspec.json.encode([event, METADATA]), tags) for event in events]
        try:
            self._heads[stream] = self.recorder.append(rows, condition)
        except IntegrityError as error:
            raise ConflictError(str(error)) from error

    def append_on_tags(self, tags: Sequence[str], payload: Any) -> None:
        """Append an event with tags, unless another with one of them has been appended since the last call with these."""
        query = DCBQuery([DCBQueryItem(tags=[tag]) for tag in tags])
        condition = DCBAppendCondition(query, after=self._heads_of_tags.get(tuple(tags)))
        event = DCBEvent(NAME, msgspec.json.encode([payload, METADATA]), list(tags))
        self._heads_of_tags[tuple(tags)] = self.recorder.append([event], condition)

    async def append_decided(self, category: str, stream: int) -> int:
        attempts = 0
        while True:
            attempts += 1
            _, head = self._read(stream)
            try:
                self._append(stream, self.new_events(category, stream, 1, after=0), head=head)
            except ConflictError:
                continue
            return attempts

    async def read_stream(self, category: str, stream: int) -> int:
        return self._read(stream)[0]

    async def read_log(self) -> int:
        seen, after = 0, None
        while True:
            response = self.recorder.read(after=after, limit=_SECTION)
            page = [(event.position, msgspec.json.decode(event.event.data)) for event in response]
            if not page:
                return seen
            seen, after = seen + len(page), page[-1][0]

    def _read(self, stream: int) -> tuple[int, int | None]:
        """Read a stream; return the number of its events, and where the log was."""
        response = self.recorder.read(DCBQuery([DCBQueryItem(tags=[f"order-{stream}"])]))
        return len([msgspec.json.decode(event.event.data) for event in response]), response.head


def _environment(db: Database, connections: int) -> dict[str, str]:
    url = db.url(None)
    return {
        "POSTGRES_DBNAME": db.name,
        "POSTGRES_HOST": str(url.host),
        "POSTGRES_PORT": str(url.port),
        "POSTGRES_USER": str(url.username),
        "POSTGRES_PASSWORD": url.password or "trusted",
        "POSTGRES_POOL_SIZE": str(connections),
        "POSTGRES_MAX_OVERFLOW": "0",
    }


@contextmanager
def _closed(application: Any) -> Iterator[None]:
    try:
        yield
    finally:
        application.close()

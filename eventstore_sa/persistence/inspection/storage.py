"""Looking at an event store as whole operations on a database: connections are opened and closed here.

Synchronous; asyncio runs it in greenlets. Each operation is short, so nothing holds a connection while somebody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection

from eventstore_sa.contracts.inspection import (
    CategorySummary,
    Statistics,
    StreamSummary,
    TraceSlice,
    WatermarkReport,
)
from eventstore_sa.persistence.events.storage import EventStorage
from eventstore_sa.persistence.inspection.indexes import index_name
from eventstore_sa.persistence.inspection.listings import Listings
from eventstore_sa.persistence.inspection.servers import Server, server_of
from eventstore_sa.persistence.inspection.statistics import Figures
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.running import TransactionRunner
from eventstore_sa.sources.constraints import correlation_is, sequence_number_after, sequence_number_before
from eventstore_sa.types import AnyStoredEvent, LogIdentifier

__all__ = ["SQLInspectionStorage"]

T = TypeVar("T")


class _Statements:
    """The statements of one event store on one kind of database."""

    def __init__(self, schema: EventStoreSchema, database: str) -> None:
        self.server: Server = server_of(schema, database)
        self.listings: Listings = Listings(schema, database)
        self.figures: Figures = Figures(schema, database, self.server, self.listings)


class SQLInspectionStorage:
    """What can be asked about one event store; see `InspectionStorage`.

    Args:
        bind: Where connections come from.
        events: The events.
    """

    def __init__(self, bind: Bind, events: EventStorage) -> None:
        self._events = events
        self._schema = events.schema
        self._runner = TransactionRunner(bind)

    def find_all(self, ids: Sequence[UUID]) -> Mapping[UUID, AnyStoredEvent]:
        return self._events.find_all(ids)

    def categories(self, *, after: str | None, limit: int) -> Sequence[CategorySummary]:
        return self._read(
            lambda connection, statements: statements.listings.categories(connection, after=after, size=limit)
        )

    def streams(self, *, category: str, after: str | None, limit: int) -> Sequence[StreamSummary]:
        return self._read(
            lambda connection, statements: statements.listings.streams(
                connection, category=category, after=after, size=limit
            )
        )

    def trace(self, correlation_id: str, *, before: int | None, limit: int, within: int) -> TraceSlice:
        name = index_name("correlation", self._schema.prefix)
        indexed = self._read(lambda connection, statements: statements.server.has_index(connection, name))
        end = self._events.last_number() + 1 if before is None else before
        start = 0 if indexed else max(0, end - 1 - within)
        page = self._events.page(
            LogIdentifier(),
            constraints={
                correlation_is(correlation_id),
                sequence_number_after(start),
                sequence_number_before(end),
            },
            limit=limit,
            backwards=True,
        )
        if page.unreadable is not None and not page.events:
            raise page.unreadable
        if page.more or page.unreadable is not None:
            return TraceSlice(page.events, page.events[-1].sequence_number)
        return TraceSlice(page.events, start + 1 if start > 0 else None)

    def first_since(self, moment: datetime) -> int | None:
        return self._read(lambda connection, statements: statements.figures.first_since(connection, moment))

    def watermark(self) -> WatermarkReport:
        self._events.mode.check_watermark()
        return self._read(lambda connection, statements: statements.server.watermark(connection))

    def statistics(self, *, exact: bool, top: int, moments: Mapping[str, datetime]) -> Statistics:
        now = datetime.now(UTC)
        return self._read(
            lambda connection, statements: statements.figures.statistics(
                connection, exact=exact, top=top, moments=moments, now=now
            )
        )

    def _read(self, work: Callable[[Connection, _Statements], T]) -> T:
        for attempt in self._runner.attempts():
            with attempt, self._runner.reading() as scope:
                connection = scope.connection
                self._schema.locking_record.check(connection)
                return work(connection, made_once(_Statements, self._schema, connection.dialect.name))
        raise AssertionError("the last attempt returns or raises")

"""The statements behind the figures about an event store: counts of all events, or estimates from a sample.

A sample is some numbers of events, drawn at random and looked up by the primary key. The longer a stream is, the surer one
of its events is among them; how many events it has is then looked up, because its last position says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from random import Random
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select

from eventstore_sa.contracts.inspection import CategoryCount, Growth, Statistics, StreamSummary, growth_since
from eventstore_sa.persistence.events.constraints import ConstraintConverters
from eventstore_sa.persistence.events.dialects import EventDialect, event_dialect
from eventstore_sa.persistence.inspection.listings import Listings
from eventstore_sa.persistence.inspection.servers import Server
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.sources.constraints import observed_between

__all__ = ["Figures"]

_SAMPLE: Final = 2_000
_AT_ONCE: Final = 500
# Which streams are looked up: of a stream that has fewer events in the sample there are probably longer ones.
_CANDIDATES: Final = 10


class _Range(Struct, frozen=True):
    """The first and the last event."""

    first: int
    last: int
    first_observed_at: datetime
    last_observed_at: datetime


class Figures:
    """The figures of one event store on one kind of database.

    Args:
        schema: The tables.
        database: SQLAlchemy's name of the database.
        server: What the server knows.
        listings: Where streams end.
    """

    def __init__(self, schema: EventStoreSchema, database: str, server: Server, listings: Listings) -> None:
        self._events = schema.events
        self._dialect: EventDialect = event_dialect(database, schema)
        self._server = server
        self._listings = listings

    def statistics(
        self, connection: Connection, *, exact: bool, top: int, moments: Mapping[str, datetime], now: datetime
    ) -> Statistics:
        """Return the figures; see `InspectionStorage.statistics`."""
        sizes, total_bytes = self._server.sizes(connection, exact=exact)
        found = self._range(connection)
        if found is None:
            growth = {name: Growth(since, 0, 0.0) for name, since in moments.items()}
            return Statistics(exact, 0, 0, None, None, growth, (), (), sizes, total_bytes)
        count = self._count if exact else self._estimated_growth
        if exact:
            events = self._count(connection, found, None)
            categories, streams = self._largest(connection, top)
        else:
            estimate = self._server.estimated_events(connection)
            span = found.last - found.first + 1
            # Numbers are drawn once for each event, and some for none.
            events = span if estimate is None else min(estimate, span)
            categories, streams = self._sampled(connection, found, events, top)
        growth = {
            name: growth_since(since, min(count(connection, found, since), events), now)
            for name, since in moments.items()
        }
        return Statistics(
            exact,
            events,
            found.last,
            found.first_observed_at,
            found.last_observed_at,
            growth,
            categories,
            streams,
            sizes,
            total_bytes,
        )

    def first_since(self, connection: Connection, moment: datetime) -> int | None:
        """Return the lowest number of an event that was recorded at a moment or later."""
        number: int | None = connection.scalar(
            select(func.min(self._events.c.sequence_number)).where(self._since(moment))
        )
        return number

    def _since(self, moment: datetime) -> ColumnElement[bool]:
        return ConstraintConverters().expression(observed_between(moment, None), self._events)

    def _range(self, connection: Connection) -> _Range | None:
        ends = [self._end(connection, backwards=backwards) for backwards in (False, True)]
        first, last = ends
        if first is None or last is None:
            return None
        return _Range(first[0], last[0], self._dialect.read_time(first[1]), self._dialect.read_time(last[1]))

    def _end(self, connection: Connection, *, backwards: bool) -> Any:
        c = self._events.c
        order = c.sequence_number.desc() if backwards else c.sequence_number
        return connection.execute(
            select(c.sequence_number, self._dialect.time_column(c.observed_at)).order_by(order).limit(1)
        ).one_or_none()

    def _count(self, connection: Connection, _: _Range, since: datetime | None) -> int:
        counted: Select[Any] = select(func.count()).select_from(self._events)
        if since is not None:
            counted = counted.where(self._since(since))
        return connection.scalar(counted) or 0

    def _estimated_growth(self, connection: Connection, found: _Range, since: datetime) -> int:
        """Find the number from which on events were recorded since a moment, as if times grew with the numbers."""
        low, high = found.first, found.last + 1
        while low < high:
            middle = (low + high) // 2
            moment = self._observed_from(connection, middle)
            if moment is None or moment >= since:
                high = middle
            else:
                low = middle + 1
        return found.last + 1 - low

    def _observed_from(self, connection: Connection, number: int) -> datetime | None:
        """Return when the first event from a number on was recorded."""
        c = self._events.c
        statement = (
            select(self._dialect.time_column(c.observed_at))
            .where(c.sequence_number >= bindparam("number", type_=c.sequence_number.type))
            .order_by(c.sequence_number)
            .limit(1)
        )
        value: Any = connection.scalar(statement, {"number": number})
        return None if value is None else self._dialect.read_time(value)

    def _largest(self, connection: Connection, top: int) -> tuple[list[CategoryCount], list[StreamSummary]]:
        c = self._events.c
        number = func.count().label("number")
        by_category = select(c.category, number).group_by(c.category).order_by(number.desc(), c.category).limit(top)
        categories = [CategoryCount(name, count) for name, count in connection.execute(by_category)]
        by_stream = (
            select(c.category, c.stream, number)
            .group_by(c.category, c.stream)
            .order_by(number.desc(), c.category, c.stream)
            .limit(top)
        )
        rows = connection.execute(by_stream).all()
        return categories, self._summaries(connection, [(category, stream) for category, stream, _ in rows], top)

    def _sampled(
        self, connection: Connection, found: _Range, events: int, top: int
    ) -> tuple[list[CategoryCount], list[StreamSummary]]:
        numbers = range(found.first, found.last + 1)
        # Always the same ones of the same events: two looks at a quiet store agree.
        chosen = sorted(Random(found.last).sample(numbers, min(_SAMPLE, len(numbers))))  # noqa: S311 - nothing secret
        c = self._events.c
        statement = select(c.category, c.stream).where(c.sequence_number.in_(bindparam("numbers", expanding=True)))
        sample: list[tuple[str, str]] = []
        for start in range(0, len(chosen), _AT_ONCE):
            rows = connection.execute(statement, {"numbers": chosen[start : start + _AT_ONCE]})
            sample += [(category, stream) for category, stream in rows]
        by_category = Counter(category for category, _ in sample)
        categories = [
            CategoryCount(name, round(count * events / len(sample)))
            for name, count in sorted(by_category.items(), key=lambda item: (-item[1], item[0]))[:top]
        ]
        by_stream = sorted(Counter(sample).items(), key=lambda item: (-item[1], item[0]))
        return categories, self._summaries(connection, [key for key, _ in by_stream[: _CANDIDATES * top]], top)

    def _summaries(self, connection: Connection, streams: Sequence[tuple[str, str]], top: int) -> list[StreamSummary]:
        found = [self._listings.stream(connection, *key) for key in streams]
        known = [summary for summary in found if summary is not None]
        return sorted(known, key=lambda summary: (-summary.events, summary.category, summary.stream))[:top]

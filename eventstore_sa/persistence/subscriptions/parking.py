"""The statements on the tables of parked streams and events. Transactions are neither begun nor ended here.

A parked stream has one row. Whoever parks, holds back, replays or discards an event of it locks this row: so no event of the
stream overtakes another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, or_, select, update

from eventstore_sa.contracts.subscriptions import ParkedEvent, ParkedState
from eventstore_sa.persistence.events.dialects import event_dialect
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.subscriptions.dialects import subscription_dialect
from eventstore_sa.types import EARLIEST_TIME, AnyStoredEvent, StreamIdentifier

__all__ = ["Parking"]

_IN_ONE_STATEMENT = 500


class Parking:
    """Keeps events aside. All stores on a schema share one for each kind of database.

    Args:
        schema: The tables.
        database: SQLAlchemy's name for the database.
    """

    def __init__(self, schema: EventStoreSchema, database: str) -> None:
        self._dialect = subscription_dialect(database)
        self._streams = schema.parked_streams
        self._events = schema.parked_events
        self._event_dialect = event_dialect(database, schema)

    def has_parked(self, connection: Connection, name: str) -> bool:
        """Return whether any stream of a subscription is parked."""
        c = self._streams.c
        return connection.execute(select(c.stream).where(c.subscription == name).limit(1)).first() is not None

    def lock(self, connection: Connection, name: str, streams: Collection[StreamIdentifier]) -> set[StreamIdentifier]:
        """Lock the rows of those streams that are parked, and return these; in one order, so that nobody deadlocks."""
        c = self._streams.c
        found: set[StreamIdentifier] = set()
        wanted = sorted(streams)
        for start in range(0, len(wanted), _IN_ONE_STATEMENT):
            some = wanted[start : start + _IN_ONE_STATEMENT]
            any_of = or_(*(and_(c.category == each.category, c.stream == each.stream) for each in some))
            rows = connection.execute(
                select(c.category, c.stream)
                .where(c.subscription == name, any_of)
                .order_by(c.category, c.stream)
                .with_for_update()
            )
            found.update(StreamIdentifier(*row) for row in rows)
        return found

    def keep(
        self,
        connection: Connection,
        name: str,
        events: Sequence[AnyStoredEvent],
        state: ParkedState,
        *,
        attempts: int = 0,
        error: str | None = None,
    ) -> None:
        """Keep events aside."""
        for event in events:
            if state is ParkedState.PARKED:
                stream = {"subscription": name, "category": event.category, "stream": event.stream}
                connection.execute(self._dialect.insert_or_ignore(self._streams).values(stream))
            values = {
                "subscription": name,
                "sequence_number": event.sequence_number,
                "event_id": event.id,
                "category": event.category,
                "stream": event.stream,
                "state": state.value,
                "attempts": attempts,
                "error": error,
                "parked_at": self._dialect.now(),
            }
            # What is parked stays so when it is read again.
            held = state is ParkedState.HELD
            insert = self._dialect.insert_or_ignore(self._events).values(values)
            connection.execute(insert if held else self._dialect.upsert(self._events, values))

    def find(self, connection: Connection, name: str, sequence_number: int) -> ParkedEvent | None:
        """Return an event that is kept aside."""
        row = connection.execute(
            select(*self._columns()).where(
                self._events.c.subscription == name, self._events.c.sequence_number == sequence_number
            )
        ).one_or_none()
        return None if row is None else self._parked(row)

    def events(
        self, connection: Connection, name: str, stream: StreamIdentifier | None, *, after: int, limit: int
    ) -> list[ParkedEvent]:
        """Return events that are kept aside, by number."""
        c = self._events.c
        statement = select(*self._columns()).where(c.subscription == name, c.sequence_number > after)
        if stream is not None:
            statement = statement.where(self._of(stream), c.state != ParkedState.SKIPPED.value)
        rows = connection.execute(statement.order_by(c.sequence_number).limit(limit))
        return [self._parked(row) for row in rows]

    def discard(self, connection: Connection, event: ParkedEvent) -> bool:
        """Forget an event, and its stream if it was the last; return whether it was there."""
        self._dialect.limit_waits(connection)
        c, streams = self._events.c, self._streams.c
        self.lock(connection, event.subscription, [event.stream])
        gone = delete(self._events).where(
            c.subscription == event.subscription, c.sequence_number == event.sequence_number
        )
        found = connection.execute(gone).rowcount > 0
        left = exists().where(
            c.subscription == event.subscription, self._of(event.stream), c.state != ParkedState.SKIPPED.value
        )
        of_stream = and_(
            streams.subscription == event.subscription,
            streams.category == event.stream.category,
            streams.stream == event.stream.stream,
        )
        connection.execute(delete(self._streams).where(of_stream, ~left))
        return found

    def failed_again(self, connection: Connection, event: ParkedEvent, error: str) -> None:
        """Count another attempt."""
        c = self._events.c
        connection.execute(
            update(self._events)
            .where(c.subscription == event.subscription, c.sequence_number == event.sequence_number)
            .values(state=ParkedState.PARKED.value, attempts=c.attempts + 1, error=error)
        )

    def forget(self, connection: Connection, name: str, *, beyond: int | None = None) -> None:
        """Forget what a subscription has parked, all of it or beyond a number."""
        c, streams = self._events.c, self._streams.c
        gone = delete(self._events).where(c.subscription == name)
        if beyond is not None:
            gone = gone.where(c.sequence_number > beyond)
        connection.execute(gone)
        left = exists().where(
            c.subscription == streams.subscription,
            c.category == streams.category,
            c.stream == streams.stream,
            c.state != ParkedState.SKIPPED.value,
        )
        connection.execute(delete(self._streams).where(streams.subscription == name, ~left))

    def _of(self, stream: StreamIdentifier) -> ColumnElement[bool]:
        return and_(self._events.c.category == stream.category, self._events.c.stream == stream.stream)

    def _columns(self) -> list[ColumnElement[Any]]:
        return [
            *(column for column in self._events.c if column.key != "parked_at"),
            self._event_dialect.time_column(self._events.c.parked_at).label("parked_at"),
        ]

    def _parked(self, row: Row[Any]) -> ParkedEvent:
        try:
            parked_at = self._event_dialect.read_time(row.parked_at)
        except (ValueError, TypeError, OverflowError):
            parked_at = EARLIEST_TIME
        return ParkedEvent(
            row.subscription,
            row.sequence_number,
            UUID(bytes=row.event_id.bytes),
            StreamIdentifier(row.category, row.stream),
            ParkedState(row.state),
            row.attempts,
            row.error,
            parked_at,
        )

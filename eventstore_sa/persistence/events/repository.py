"""The statements on the table of events, written once: a connection in, values out.

A repository never begins, commits or rolls back, and holds no connection. Who opens connections, and when transactions
end, is decided in `transactions/` and by those who call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Final
from uuid import UUID

from msgspec.structs import replace
from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from eventstore_sa.conditions import EMPTY_STREAM_POSITION, unmet_condition_error
from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.persistence.events.dialects import (
    Appended,
    AppendedEach,
    AppendOutcome,
    EventDialect,
    Unmet,
    constraints_of_events,
    event_dialect,
)
from eventstore_sa.persistence.events.document import PublishDocument
from eventstore_sa.persistence.events.hydration import Page, hydrated, unreadable_event
from eventstore_sa.persistence.events.names import NameReads
from eventstore_sa.persistence.events.reads import EventReads, Wanted
from eventstore_sa.persistence.events.tags_epoch import FIRST_EPOCH
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.failures import Failure, FailureKind, Refusal
from eventstore_sa.publishing import StreamPublication, replayed, stored_events
from eventstore_sa.types import AnyStoredEvent, StreamIdentifier

__all__ = ["EventRepository", "stored_by", "unmet_by"]

_LOOKUP_BATCH: Final = 1000


class EventRepository:
    """Appends and reads the events of one event store on one kind of database.

    All stores on a schema share one for each kind of database, with its statements: see `made_once`.

    Args:
        schema: The tables.
        database: SQLAlchemy's name of the database.
    """

    def __init__(self, schema: EventStoreSchema, database: str) -> None:
        self.dialect: Final[EventDialect] = event_dialect(database, schema)
        self.names: Final = NameReads(schema)
        self._reads = EventReads(schema, self.dialect)
        self._constraints = constraints_of_events(schema.prefix)
        self._tags_epoch = select(schema.version.c.tags_epoch)

    def append(self, connection: Connection, document: PublishDocument, *, guarded: bool) -> AppendOutcome:
        """Store a publish, all or none; see `EventDialect.append`."""
        try:
            return self.dialect.append(connection, document, guarded=guarded)
        except DBAPIError as error:
            return self._duplicate(error)

    def append_loading(
        self, connection: Connection, document: PublishDocument, wanted: Mapping[str, str]
    ) -> tuple[AppendOutcome, Sequence[ProjectionRecord] | None]:
        """Store a publish, and load projections of its stream; see `EventDialect.append_loading`."""
        try:
            return self.dialect.append_loading(connection, document, wanted)
        except DBAPIError as error:
            return self._duplicate(error), None

    def append_each(self, connection: Connection, documents: Sequence[PublishDocument]) -> AppendedEach:
        """Store several publishes, each of which stands for itself; see `EventDialect.append_each`.

        Raises:
            Refusal: If the database refused all of them.
        """
        appended = self.dialect.append_each(connection, documents)
        if isinstance(appended, Failure):
            raise Refusal(appended)
        return appended

    def _duplicate(self, error: DBAPIError) -> Failure:
        """Return what it means that an id is taken; raise any other error again."""
        failure = self.dialect.database.failure_of(error).refined(self._constraints)
        if failure.kind is not FailureKind.DUPLICATE_ID:
            raise error
        return failure

    def results(
        self, connection: Connection, parts: Sequence[StreamPublication], outcome: AppendOutcome
    ) -> list[list[AnyStoredEvent]]:
        """Turn the outcome of an append into the stored events of each part.

        If a condition was not met, or an id is taken, the ids are looked up: a repetition of a publish that is already
        stored gets the stored events.

        Args:
            connection: Where the ids are looked up; its transaction must be usable.
            parts: What was to be stored.
            outcome: What came of it.

        Raises:
            UnmetWriteConditionError: If a condition was not met.
            DuplicateEventError: If some ids are stored, and it is not a repetition.
            Refusal: If the database refused.
        """
        error: Exception
        match outcome:
            case Appended():
                return stored_by(parts, outcome)
            case Unmet():
                error = unmet_by(parts, outcome)
                if not outcome.may_be_repeated:
                    raise error
            case Failure(kind):
                error = Refusal(outcome)
                if kind is not FailureKind.DUPLICATE_ID:
                    raise error
        stored = self.find(connection, (event.id for part in parts for event in part.events))
        if not stored:
            raise error
        return replayed(parts, stored)

    def add_tags(self, connection: Connection, added: Mapping[int, AbstractSet[str]], epoch: str) -> int:
        """Add tags to stored events; see `EventDialect.add_tags`."""
        return self.dialect.add_tags(connection, added, epoch)

    def tags_epoch(self, connection: Connection) -> str:
        """Return the epoch of tags that is recorded."""
        return connection.scalar(self._tags_epoch) or FIRST_EPOCH

    def find(self, connection: Connection, ids: Iterable[UUID]) -> dict[UUID, AnyStoredEvent]:
        """Look up events by id, wherever they are stored; ids that are not stored are left out."""
        wanted = list(ids)
        found: dict[UUID, AnyStoredEvent] = {}
        for start in range(0, len(wanted), _LOOKUP_BATCH):
            statement = self._reads.with_ids(wanted[start : start + _LOOKUP_BATCH])
            events, unreadable = hydrated(connection.execute(statement).all(), self.dialect.read_time)
            if unreadable is not None:
                raise unreadable
            found |= {event.id: event for event in events}
        return found

    def find_text(
        self, connection: Connection, ids: Sequence[UUID], sequence_numbers: Sequence[int]
    ) -> list[AnyStoredEvent]:
        """Look up events by id, or by sequence number; their payloads are JSON text."""
        statement = self._reads.with_ids(ids) if ids else self._reads.with_numbers(sequence_numbers)
        rows = connection.execute(statement).all()
        events, unreadable = hydrated(rows, self.dialect.read_time, as_text=True)
        if unreadable is not None:
            raise unreadable
        return events

    def page(self, connection: Connection, wanted: Wanted) -> Page:
        """Read a page, which ends where its events have become too many bytes, or where one cannot be read."""
        try:
            rows = self._reads.page(connection, wanted)
        except (DBAPIError, UnicodeDecodeError) as error:
            if not self.dialect.database.is_undecodable(error):
                raise
            return self._page_before_what_is_undecodable(connection, wanted)
        events, unreadable = hydrated(rows, self.dialect.read_time, as_text=wanted.as_text)
        return Page(events, len(rows) == wanted.size or bool(rows and rows[-1][-1]), unreadable)

    def check_whole(self, connection: Connection, wanted: Wanted, events: Sequence[AnyStoredEvent]) -> None:
        """Refuse a page of a stream that lacks a stored event: the snapshot of the caller's transaction does not show it.

        Where constraints leave events out, that cannot be told.

        Raises:
            Refusal: If an event is missing that a locking read, which needs no snapshot, finds.
        """
        stream = wanted.target
        if not isinstance(stream, StreamIdentifier) or wanted.conditions or not events:
            return
        if wanted.backwards:
            low, high = events[-1].position, events[0].position if wanted.high is None else wanted.high
        else:
            after = EMPTY_STREAM_POSITION if wanted.low is None else max(wanted.low, EMPTY_STREAM_POSITION)
            low, high = after + 1, events[-1].position
        if high - low < len(events):
            return
        stored = connection.scalars(self._reads.locked_positions(stream, low, high)).all()
        missing = {*stored} - {event.position for event in events}
        if missing:
            said = f"it has stored event {min(missing)} of stream {f'{stream.category}/{stream.stream}'!r}, which is missing"
            raise Refusal(Failure(FailureKind.SERIALISATION_FAILURE, f"{said} in the snapshot of this one"))

    def first_numbers(self, connection: Connection, wanted: Wanted) -> tuple[int, int] | None:
        """Return sequence number and position of the first event that is wanted, if there is one, without reading it."""
        return next(iter(self._reads.numbers(connection, replace(wanted, size=1))), None)

    def _page_before_what_is_undecodable(self, connection: Connection, wanted: Wanted) -> Page:
        """Find the event whose text the driver cannot decode, by trying ever shorter pages."""
        numbers = self._reads.numbers(connection, wanted)
        readable, failing = 0, len(numbers)
        events: list[AnyStoredEvent] = []
        while failing - readable > 1:
            middle = (readable + failing) // 2
            try:
                rows = self._reads.page(connection, replace(wanted, size=middle))
            except (DBAPIError, UnicodeDecodeError) as error:
                if not self.dialect.database.is_undecodable(error):
                    raise
                failing = middle
                continue
            events, unreadable = hydrated(rows, self.dialect.read_time, as_text=wanted.as_text)
            if unreadable is not None or len(rows) < middle:
                return Page(events, more=True, unreadable=unreadable)
            readable = middle
        sequence_number, position = numbers[readable]
        reason = "it contains text that is not in the encoding of the database"
        return Page(
            events, more=True, unreadable=unreadable_event(reason, sequence_number=sequence_number, position=position)
        )


def stored_by(parts: Sequence[StreamPublication], appended: Appended) -> list[list[AnyStoredEvent]]:
    """Return the stored events of each part of a publish."""
    numbers = iter(appended.sequence_numbers)
    return [
        stored_events(part, first_position=first, sequence_numbers=[*islice(numbers, len(part.events))])
        for part, first in zip(parts, appended.first_positions, strict=True)
    ]


def unmet_by(parts: Sequence[StreamPublication], unmet: Unmet) -> UnmetWriteConditionError:
    """Return the error of a publish whose condition was not met."""
    part = parts[unmet.item]
    actual = None if unmet.last_position == EMPTY_STREAM_POSITION else unmet.last_position
    return unmet_condition_error(part.stream, part.condition, actual)

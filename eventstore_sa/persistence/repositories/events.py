"""The statements on the table of events, written once: a connection in, values out.

A repository never begins, commits or rolls back, and holds no connection. Who opens connections, and when transactions
end, is decided in `binds.py` and by those who call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from msgspec.json import Decoder
from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from eventstore_sa.conditions import EMPTY_STREAM_POSITION, unmet_condition_error
from eventstore_sa.persistence.dialects import Appended, AppendOutcome, EventDialect, Unmet, event_dialect
from eventstore_sa.persistence.document import PublishDocument
from eventstore_sa.persistence.problems import Problem, ProblemKind, Refusal
from eventstore_sa.persistence.queries import ConstraintConverters
from eventstore_sa.persistence.repositories.names import NameReads
from eventstore_sa.persistence.repositories.reads import EventReads
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.publishing import AnyStoredEvent, StreamPublication, replayed, stored_events
from eventstore_sa.sources.constraints import QueryConstraint
from eventstore_sa.types import EventPartitionIdentifier, EventSequenceIdentifier, StoredEvent
from eventstore_sa.types.uuid7 import uuid_of

__all__ = ["EventRepository"]

_LOOKUP_BATCH: Final = 1000
_decode = Decoder().decode


class EventRepository:
    """Appends and reads the events of one event store on one kind of database."""

    def __init__(self, schema: EventStoreSchema, database: str, converters: ConstraintConverters) -> None:
        self.dialect: Final[EventDialect] = event_dialect(database, schema)
        self.names: Final = NameReads(schema)
        self._events = schema.events
        self._reads = EventReads(schema, self.dialect, converters)

    def append(self, connection: Connection, document: PublishDocument, *, guarded: bool) -> AppendOutcome:
        """Store a publish, all or none; see `EventDialect.append`."""
        try:
            return self.dialect.append(connection, document, guarded=guarded)
        except DBAPIError as error:
            problem = self.dialect.problem_of(error)
            if problem.kind is not ProblemKind.DUPLICATE_ID:
                raise
            return problem

    def results(
        self, connection: Connection, parts: Sequence[StreamPublication], outcome: AppendOutcome
    ) -> list[list[AnyStoredEvent]]:
        """Turn the outcome of an append into the stored events of each part.

        When a condition was not met, or an id is taken, it looks the ids up: a repetition of a publish that is stored
        already gets the stored events.

        Args:
            connection: Where the ids are looked up; its transaction must be usable.
            parts: What was to be stored.
            outcome: What came of it.

        Raises:
            UnmetWriteConditionError: A condition was not met.
            DuplicateEventError: Some ids are stored, and it is no repetition.
            Refusal: The database refused.
        """
        match outcome:
            case Appended(first_positions, sequence_numbers):
                return _numbered(parts, first_positions, sequence_numbers)
            case Unmet(item, last_position):
                part = parts[item]
                actual = None if last_position == EMPTY_STREAM_POSITION else last_position
                failure: Exception = unmet_condition_error(part.stream, part.condition, actual)
            case Problem(ProblemKind.DUPLICATE_ID):
                failure = Refusal(outcome)
            case Problem():
                raise Refusal(outcome)
            case _:
                raise TypeError(outcome)
        stored = self.find(connection, (event.id for part in parts for event in part.events))
        if not stored:
            raise failure
        return replayed(parts, stored)

    def find(self, connection: Connection, ids: Iterable[UUID]) -> dict[UUID, AnyStoredEvent]:
        """Look up events by id, wherever they are stored; ids that are not stored are left out."""
        wanted = list(ids)
        found: dict[UUID, AnyStoredEvent] = {}
        for start in range(0, len(wanted), _LOOKUP_BATCH):
            batch = wanted[start : start + _LOOKUP_BATCH]
            statement = select(*self._reads.columns).where(self._events.c.id.in_(batch))
            found |= {event.id: event for event in self._hydrate(connection.execute(statement).all())}
        return found

    def page(
        self,
        connection: Connection,
        target: EventSequenceIdentifier | EventPartitionIdentifier,
        *,
        constraints: Iterable[QueryConstraint] = (),
        after: int | None = None,
        up_to: int | None = None,
        size: int,
        backwards: bool = False,
    ) -> list[AnyStoredEvent]:
        """Read some events of a target in order.

        Args:
            connection: Where.
            target: What: a stream is ordered by position, everything else by sequence number.
            constraints: Only events that meet all of them.
            after: Only those behind this position or number, in the direction of the read.
            up_to: Only those up to this position or number.
            size: At most so many.
            backwards: Last to first.
        """
        rows = self._reads.page(
            connection, target, constraints=constraints, after=after, up_to=up_to, size=size, backwards=backwards
        )
        return self._hydrate(rows)

    def _hydrate(self, rows: Sequence[Any]) -> list[AnyStoredEvent]:
        read_time = self.dialect.read_time
        return [
            StoredEvent(
                # asyncpg has a UUID class of its own: pickles of it can only be read where asyncpg is installed.
                id if type(id) is UUID else uuid_of(id.int),
                name,
                stream,
                category,
                position,
                sequence_number,
                _decode(payload),
                None if metadata is None else _decode(metadata),
                read_time(observed_at),
                read_time(occurred_at),
            )
            for (
                id,  # noqa: A001
                name,
                stream,
                category,
                position,
                sequence_number,
                payload,
                metadata,
                observed_at,
                occurred_at,
            ) in rows
        ]


def _numbered(
    parts: Sequence[StreamPublication], first_positions: Sequence[int], sequence_numbers: Sequence[int]
) -> list[list[AnyStoredEvent]]:
    results: list[list[AnyStoredEvent]] = []
    start = 0
    for part, first_position in zip(parts, first_positions, strict=True):
        end = start + len(part.events)
        results.append(stored_events(part, first_position=first_position, sequence_numbers=sequence_numbers[start:end]))
        start = end
    return results

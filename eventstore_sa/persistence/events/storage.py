"""Publishing and reading as whole operations: connections are opened and closed here, and statements run in order.

Synchronous; the asyncio adapter runs it in a greenlet. This is the only place that decides when a transaction of our own
commits, and that turns errors of drivers into those of the library.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, TypeVar

from msgspec.structs import replace
from sqlalchemy import Connection, text
from sqlalchemy.schema import CreateSchema

from eventstore_sa.conditions import NoCondition, custom_conditions
from eventstore_sa.contracts.inline_projections import LostRace, Projections
from eventstore_sa.persistence.events.conditions import ConditionEvaluators
from eventstore_sa.persistence.events.constraints import ConstraintConverters
from eventstore_sa.persistence.events.dialects import Appended, AppendOutcome, NotReadCommitted
from eventstore_sa.persistence.events.document import PublishDocument, publish_document
from eventstore_sa.persistence.events.hydration import Page
from eventstore_sa.persistence.events.reads import Wanted, is_by_position
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.persistence.events.row_conditions import verdicts_on_rows
from eventstore_sa.persistence.events.stall import StallWatch
from eventstore_sa.persistence.projections.publishes import update_projections
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.ddl import effective_schema
from eventstore_sa.persistence.schema.locking import LockingMode
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.running import Workplaces
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.types import (
    AnyStoredEvent,
    CategoryIdentifier,
    EventPartitionIdentifier,
    EventSequenceIdentifier,
    LogIdentifier,
    PartitionIdentifier,
    StreamIdentifier,
)
from eventstore_sa.types.watermark import Watermark

__all__ = ["EventStorage"]

T = TypeVar("T")

_TRIES_OF_PROJECTIONS: Final = 10

_ALONE: Final = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('eventstore_sa.create_schema'))"

_log = logging.getLogger("eventstore_sa.store")


class EventStorage:
    """The events of one event store, on one bind.

    Args:
        bind: Where connections come from.
        schema: The tables.
        page_size: How many events a scan fetches at a time.
        evaluators: How conditions of the application's own are evaluated.
        stall_warning_s: After how many seconds of standing still the log is complained of in a warning.
        constraint_converters: How the constraints of reads are translated to SQL.
        projections: What publishes update in their transactions.
    """

    def __init__(
        self,
        bind: Bind,
        schema: EventStoreSchema,
        *,
        page_size: int,
        evaluators: ConditionEvaluators,
        constraint_converters: ConstraintConverters,
        stall_warning_s: float = 30.0,
        projections: Projections = (),
    ) -> None:
        self.schema: Final = schema
        self.projections: Final = projections
        self.mode: Final[LockingMode] = schema.locking_mode
        self.evaluators: Final = evaluators
        self._stall = StallWatch(stall_warning_s)
        self._bind = bind
        self._page_size = page_size
        self._places = Workplaces(bind, schema, constraint_converters=constraint_converters)

    def publish(
        self, parts: Sequence[StreamPublication], projections: Sequence[Projections] | None = None
    ) -> list[list[AnyStoredEvent]]:
        """Store a publish, all or none; return the stored events of each part.

        One statement does it, unless writers lock rows, a condition is the application's own, or projections are updated
        with it. In a transaction of our own it is tried again when a concurrent transaction got in the way, or the
        connection broke: the ids keep it from being stored twice.

        Args:
            parts: The publish.
            projections: The projections of each part; by default all those of this storage.
        """
        wanted = [self.projections] * len(parts) if projections is None else projections
        return self._places.retried(partial(self._publish, parts, wanted))

    def _publish(
        self, parts: Sequence[StreamPublication], projections: Sequence[Projections]
    ) -> list[list[AnyStoredEvent]]:
        if not parts:
            return []
        conditions = [condition for part in parts for condition in custom_conditions(part.condition)]
        self.mode.check_conditions(conditions)
        if conditions:
            return self._publish_in_steps(parts, partial(self._decided, parts), projections)
        document = publish_document(parts, serialise=self.mode.serialise)
        if self.mode.locking == "row" or any(projections):
            return self._publish_in_steps(parts, lambda _, __: document, projections)
        results = self._append(document, parts)
        if results is None:
            self._bind.require_read_committed()
            results = self._append(document, parts) or []
        _log.debug("stored %d events in %d streams", sum(document.counts), len(document.counts))
        return results

    def _append(
        self, document: PublishDocument, parts: Sequence[StreamPublication]
    ) -> list[list[AnyStoredEvent]] | None:
        """Append; or do nothing and return None where transactions of our own turn out not to be READ COMMITTED."""
        with self._places.enter(self._bind.writing(), publishing=True) as (workplace, repository):
            outcome = repository.append(workplace.connection, document, guarded=workplace.guarded)
            if isinstance(outcome, NotReadCommitted):
                return None
            return repository.results(workplace.connection, parts, outcome)

    def _publish_in_steps(
        self,
        parts: Sequence[StreamPublication],
        document_of: Callable[[Connection, EventRepository], PublishDocument],
        projections: Sequence[Projections],
    ) -> list[list[AnyStoredEvent]]:
        """Append and project by several statements in one transaction, or in a savepoint of the caller's.

        When nothing was stored, that is rolled back before ids are looked up: so the locks are given back, and what the
        database refused does no harm. When a projection has lost a race, it is rolled back and done again.

        Args:
            parts: The publish.
            document_of: Gives its document; called in that transaction.
            projections: The projections of each part.
        """
        before: LostRace | None = None
        for tries_left in range(_TRIES_OF_PROJECTIONS - 1, -1, -1):
            try:
                return self._append_and_project(parts, document_of, projections)
            except _NotStored as refusal:
                outcome = refusal.outcome
            except LostRace as lost:
                lost.check_passing(before)
                if tries_left == 0:
                    raise lost.error from lost.error.__cause__
                _log.info("projecting again: %s", lost.error)
                before = lost
                continue
            with self._places.enter(self._bind.reading()) as (workplace, repository):
                return repository.results(workplace.connection, parts, outcome)
        raise AssertionError("the last try returns or raises")

    def _append_and_project(
        self,
        parts: Sequence[StreamPublication],
        document_of: Callable[[Connection, EventRepository], PublishDocument],
        projections: Sequence[Projections],
    ) -> list[list[AnyStoredEvent]]:
        in_session = any(projection.needs_session for each in projections for projection in each)
        place = self._bind.deciding(in_session=in_session)
        with self._places.enter(place, publishing=True) as (workplace, repository):
            document = document_of(workplace.connection, repository)
            if any(projections) and workplace.connection.dialect.name == "sqlite":
                # An engine in autocommit mode has no transaction here, and one that is not configured none yet.
                repository.dialect.lock(workplace.connection, document)
            appended = _appended(repository.append(workplace.connection, document, guarded=workplace.guarded))
            _log.debug("stored %d events in %d streams", sum(document.counts), len(document.counts))
            results = repository.results(workplace.connection, parts, appended)
            if any(projections):
                update_projections(workplace, self.schema, projections, parts, results)
            return results

    def _decided(
        self, parts: Sequence[StreamPublication], connection: Connection, repository: EventRepository
    ) -> PublishDocument:
        """Lock, then evaluate the conditions of the application's own."""
        streams = [StreamPublication(part.stream, (), part.condition) for part in parts]
        serialise = self.mode.serialise
        locks = publish_document(streams, conditions=[NoCondition()] * len(parts), serialise=serialise)
        found = verdicts_on_rows(connection, parts)
        repository.dialect.lock(connection, locks)
        conditions = self.evaluators.decide(connection, self.schema.events, parts, repository, known=found)
        return publish_document(parts, conditions=conditions, serialise=serialise)

    def latest(self, target: EventSequenceIdentifier | EventPartitionIdentifier) -> AnyStoredEvent | None:
        """Return the last event of a target."""
        return self._places.retried(partial(self._latest, target))

    def _latest(self, target: EventSequenceIdentifier | EventPartitionIdentifier) -> AnyStoredEvent | None:
        with self._places.enter(self._bind.reading()) as (workplace, repository):
            up_to = self._watermark_for(target, repository, workplace.connection)
            page = repository.page(workplace.connection, Wanted(target, 1, up_to=up_to, backwards=True))
        return next(iter(page.checked_events()), None)

    def pages(
        self,
        target: EventSequenceIdentifier | EventPartitionIdentifier,
        *,
        constraints: QueryConstraints,
        limit: int | None,
        backwards: bool,
    ) -> Iterator[list[AnyStoredEvent]]:
        """Yield the events of a target, page by page; no connection of our own is held in between.

        What is stored after the first page was read is not part of the scan, so that it comes to an end.
        """
        by_position = is_by_position(target)
        wanted = Wanted(target, self._page_size, constraints, backwards=backwards)
        remaining, looks_ahead = limit, self._page_size
        while remaining is None or remaining > 0:
            size = looks_ahead if remaining is None else min(looks_ahead, remaining)
            page, up_to = self._places.retried(partial(self._page, replace(wanted, size=size), last=size == remaining))
            if page.events:
                yield page.events
            if page.unreadable is not None:
                raise page.unreadable
            count = len(page.events)
            if not page.more or count == 0:
                return
            last = page.events[-1]
            wanted = replace(wanted, after=last.position if by_position else last.sequence_number, up_to=up_to)
            remaining = None if remaining is None else remaining - count
            # Databases that copy values look at the sizes of all rows that a page might have.
            looks_ahead = min(self._page_size, 2 * count)

    def _page(self, wanted: Wanted, *, last: bool) -> tuple[Page, int | None]:
        """Read a page; return it with the end of the scan, which is fixed when the first page is read.

        It is looked up only where needed: when another page may follow.

        Args:
            wanted: The page.
            last: Whether it is the last one when it has as many events as are wanted.
        """
        up_to = wanted.up_to
        with self._places.enter(self._bind.reading()) as (workplace, repository):
            connection = workplace.connection
            if wanted.after is None:
                up_to = self._watermark_for(wanted.target, repository, connection)
            page = repository.page(connection, replace(wanted, up_to=up_to))
            ends = not page.more or (last and len(page.events) == wanted.size)
            if up_to is None and not ends and not wanted.backwards:
                up_to = self._last_place(wanted.target, repository, connection)
        return page, up_to

    def category_pages(self) -> Iterator[list[CategoryIdentifier]]:
        """Yield the categories that have events, page by page, in code-point order."""
        after: str | None = None
        while True:
            page = self._places.retried(partial(self._category_page, after))
            if page:
                yield [CategoryIdentifier(category) for category in page]
                after = page[-1]
            if len(page) < self._page_size:
                return

    def _category_page(self, after: str | None) -> Sequence[str]:
        with self._places.enter(self._bind.reading()) as (workplace, repository):
            return repository.names.categories(workplace.connection, after=after, size=self._page_size)

    def stream_pages(self, target: LogIdentifier | CategoryIdentifier) -> Iterator[list[StreamIdentifier]]:
        """Yield the streams of a category or of the log that have events, page by page, in code-point order."""
        category = target.category if isinstance(target, CategoryIdentifier) else None
        after: tuple[str, str] | None = None
        while True:
            page = self._places.retried(partial(self._stream_page, category, after))
            if page:
                yield [StreamIdentifier(*pair) for pair in page]
                after = page[-1]
            if len(page) < self._page_size:
                return

    def _stream_page(self, category: str | None, after: tuple[str, str] | None) -> Sequence[tuple[str, str]]:
        with self._places.enter(self._bind.reading()) as (workplace, repository):
            names = repository.names
            return names.streams(workplace.connection, category=category, after=after, size=self._page_size)

    def watermark(self) -> Watermark:
        """Tell how far the log is complete, and who holds it back."""
        return self._places.retried(self._watermark)

    def _watermark(self) -> Watermark:
        self.mode.check_watermark()
        with self._places.enter(self._bind.reading()) as (workplace, repository):
            return repository.dialect.watermark(workplace.connection)

    def create_schema(self) -> None:
        """Create the tables, functions and triggers that are missing, and the database schema if one is named.

        The mode of locking is recorded with them; if the tables are there, it must be the one that is.
        """
        with self._places.enter(self._bind.transaction(), checked=False) as (workplace, _):
            connection = workplace.connection
            schema = effective_schema(connection, self.schema.schema)
            if connection.dialect.name == "postgresql":
                # Two processes that start together must not both find nothing.
                connection.execute(text(_ALONE))
                if schema is not None:
                    connection.execute(CreateSchema(schema, if_not_exists=True))
            self.schema.locking_record.check_database(connection)
            self.schema.metadata.create_all(connection, tables=self.schema.tables)
            self.schema.locking_record.check(connection)

    def drop_schema(self) -> None:
        """Drop the tables, functions and triggers, with all events in them."""
        with self._places.enter(self._bind.transaction(), checked=False) as (workplace, _):
            self.schema.metadata.drop_all(workplace.connection, tables=self.schema.tables)

    def _watermark_for(
        self,
        target: EventSequenceIdentifier | EventPartitionIdentifier,
        repository: EventRepository,
        connection: Connection,
    ) -> int | None:
        """Return up to where a read of the target is complete; None when all of it is.

        The writers of a stream exclude each other until they commit, so it is complete as it stands; and reads within a
        transaction of the caller's are ordinary reads of that transaction.
        """
        if self._bind.hosted:
            return None
        self.mode.check_read(target)
        if isinstance(target, StreamIdentifier) or not self.mode.has_watermark:
            return None
        last_number, watermark = repository.dialect.complete_up_to(connection)
        stalled_s = self._stall.observe(last_number=last_number, watermark=watermark)
        if stalled_s is not None:
            _log.warning(
                "readers of the log have seen nothing beyond %d of %d for %.0f s, because a transaction is still open: %s",
                watermark,
                last_number,
                stalled_s,
                repository.dialect.watermark(connection).holder,
            )
        return watermark

    def _last_place(
        self,
        target: EventSequenceIdentifier | EventPartitionIdentifier,
        repository: EventRepository,
        connection: Connection,
    ) -> int | None:
        """Return where a scan of the target ends that begins now; a partition's ends where all of the log does."""
        whole = LogIdentifier() if isinstance(target, PartitionIdentifier) else target
        last = repository.last_place(connection, Wanted(whole, 1, backwards=True))
        if last is None:
            return None
        sequence_number, position = last
        return position if is_by_position(target) else sequence_number


class _NotStored(Exception):  # noqa: N818 - it never leaves this module
    """Takes an outcome out of a transaction, which is rolled back on the way."""

    def __init__(self, outcome: AppendOutcome) -> None:
        super().__init__()
        self.outcome = outcome


def _appended(outcome: AppendOutcome) -> Appended:
    if not isinstance(outcome, Appended):
        raise _NotStored(outcome)
    return outcome

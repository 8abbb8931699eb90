"""Publishing and reading as whole operations: connections are opened and closed here, and statements run in order.

Synchronous; the asyncio adapter runs it in a greenlet. This is the only place that decides when a transaction of our own
in which events are stored commits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import copy
from functools import partial
from typing import Final, TypeAlias, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import Connection

from eventstore_sa.attempts import Attempts
from eventstore_sa.conditions import custom_conditions, decided
from eventstore_sa.contracts.inline_projections import LostRace, Projections, known_ids
from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.errors import ConnectionLostError, StorageError, UnmetWriteConditionError
from eventstore_sa.persistence.events.conditions import ConditionEvaluators, verdicts_on_rows
from eventstore_sa.persistence.events.constraints import ConstraintConverters
from eventstore_sa.persistence.events.dialects import (
    Appended,
    AppendOutcome,
    NotTried,
    Unmet,
    constraints_of_events,
)
from eventstore_sa.persistence.events.document import PublishDocument, holding_document, publish_document
from eventstore_sa.persistence.events.hydration import Page
from eventstore_sa.persistence.events.reads import Wanted
from eventstore_sa.persistence.events.repository import EventRepository, stored_by, unmet_by
from eventstore_sa.persistence.events.scanning import EventPages
from eventstore_sa.persistence.events.stall import StallWatch
from eventstore_sa.persistence.events.tags_epoch import FIRST_EPOCH, KnownEpoch
from eventstore_sa.persistence.projections.publishes import SQLPublishPlace, update_projections
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.locking import LockingMode
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.persistence.transactions.binds import Bind, ConnectionBind, ConnectionScope
from eventstore_sa.persistence.transactions.databases import limit_idleness, limit_waits
from eventstore_sa.persistence.transactions.failures import Failure, FailureKind
from eventstore_sa.persistence.transactions.running import TransactionRunner
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.sources.constraints import QueryConstraints, order_range
from eventstore_sa.types import (
    AnyStoredEvent,
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    EventSequenceIdentifier,
    LogIdentifier,
    QueryIdentifier,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
)
from eventstore_sa.types.watermark import Watermark

__all__ = ["EachResult", "EventStorage"]

_ATTEMPTS_AT_PROJECTIONS: Final = 10
_LONGEST_IDLE_S: Final = 10.0
_BEFORE_ALL: Final = -1

_log = logging.getLogger("eventstore_sa.store")

T = TypeVar("T")

AnyTarget = EventSequenceIdentifier | EventPartitionIdentifier | QueryIdentifier

EachResult: TypeAlias = list[list[AnyStoredEvent]] | UnmetWriteConditionError | StorageError | NotTried
"""What became of one of several publishes."""


class EventStorage:
    """The events of one event store, on one bind.

    Args:
        bind: Where connections come from.
        schema: The tables.
        page_size: How many events a scan fetches at a time.
        evaluators: How conditions of the application's own are evaluated.
        stall_warning_s: For how many seconds the watermark may stand still before a warning is logged.
        constraint_converters: How the constraints of reads are translated to SQL.
        projections: What publishes update in their transactions.
        known_epoch: What is known of the epoch of tags, shared by all storage of a store.
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
        known_epoch: KnownEpoch | None = None,
    ) -> None:
        self.schema: Final = schema
        self.projections: Final = projections
        self.mode: Final[LockingMode] = schema.locking_mode
        self.evaluators: Final = evaluators
        self._converters = constraint_converters
        self._known_epoch = KnownEpoch() if known_epoch is None else known_epoch
        self._page_size = page_size
        self._stall = StallWatch(stall_warning_s)
        self._runner = TransactionRunner(bind, constraints_of_events(schema.prefix))

    def on(self, bind: Bind) -> EventStorage:
        """Return the same storage on another bind."""
        storage = copy(self)
        storage._runner = TransactionRunner(bind, constraints_of_events(self.schema.prefix))  # noqa: SLF001
        return storage

    def publish(
        self,
        parts: Sequence[StreamPublication],
        projections: Sequence[Projections] | None = None,
        *,
        document: PublishDocument | None = None,
    ) -> list[list[AnyStoredEvent]]:
        """Store a publish, all or none; return the stored events of each part.

        One statement does it, unless writers lock rows, a condition is the application's own, or projections are updated
        with it. In a transaction of our own it is tried again when a concurrent transaction got in the way, or the
        connection broke: the ids keep it from being stored twice.

        Args:
            parts: The publish.
            projections: The projections of each part; by default all those of this storage.
            document: That of the parts, if it is known already.
        """
        if not parts:
            return []
        each = [self.projections] * len(parts) if projections is None else projections
        conditions = [condition for part in parts for condition in custom_conditions(part.condition)]
        if conditions:
            self.mode.check_conditions(conditions)
        if document is None and not conditions:
            document = publish_document(parts, mode=self.mode)
        try:
            results = self._publish(parts, document, each)
        except UnmetWriteConditionError:
            self._known_epoch.doubt()
            raise
        if not self._runner.bind.in_transaction:
            # Otherwise they are not committed yet, and whoever publishes in the transaction follows its end.
            self.schema.wakeups.wake()
        return results

    def document_of_single_statement(self, parts: Sequence[StreamPublication]) -> PublishDocument | None:
        """Return the document of a publish of ours that takes one statement, which `publish_each` can make with others.

        None if it takes several, or the database has no such statement.
        """
        engine = self._runner.bind.engine
        if engine is None or not parts or self.projections or self.mode.locking == "row":
            return None
        if not made_once(EventRepository, self.schema, engine.dialect.name).dialect.appends_each:
            return None
        if any(True for part in parts for _ in custom_conditions(part.condition)):
            return None
        return publish_document(parts, mode=self.mode)

    def publish_each(
        self, publishes: Sequence[tuple[Sequence[StreamPublication], PublishDocument]]
    ) -> tuple[list[EachResult], int | None]:
        """Store several publishes by one statement, each of which stands for itself; nothing is waited for.

        An error that is raised is about all of them: each may be published by itself then. That there is no connection is
        not raised, but the error of each.

        Args:
            publishes: The parts and the document of each.

        Returns:
            For each publish the stored events of each part, or the error, or why it was not tried; and how many locks the
            publishes of one call should need at most, if that is known.
        """
        scope: ConnectionScope | None = None
        try:
            with self._runner.writing(publishing=True) as scope:
                repository = self._repository(scope.connection)
                appended = repository.append_each(scope.connection, [document for _, document in publishes])
        except StorageError as error:
            if scope is not None or isinstance(error, ConnectionLostError):
                raise
            # Each by itself would wait in vain as well, and one after the other.
            return [StorageError(error.message) for _ in publishes], None
        self.schema.wakeups.wake()
        results: list[EachResult] = []
        for (parts, _), outcome in zip(publishes, appended.outcomes, strict=True):
            match outcome:
                case Appended():
                    results.append(stored_by(parts, outcome))
                case Unmet():
                    self._known_epoch.doubt()
                    results.append(unmet_by(parts, outcome))
                case NotTried():
                    results.append(outcome)
        _log.debug("stored %d publishes together", len(results))
        return results, appended.most_locks

    def locked(
        self, parts: Sequence[StreamPublication], work: Callable[[Bind], T], *, patience_s: float | None = None
    ) -> T:
        """Lock what a publish writes or depends on, do some work in the same transaction of ours, and commit it.

        A transaction that is idle for long is ended by the server: what the work waits for may wait for the locks.

        Args:
            parts: The publish.
            work: Is given a bind to the transaction.
            patience_s: How long each further lock may be waited for; None: as in any publish. Whoever has it might wait for
                one of these.
        """
        document = holding_document(parts, mode=self.mode)
        with self._runner.savepoint(publishing=True) as scope:
            limit_idleness(scope.connection, _LONGEST_IDLE_S)
            self._repository(scope.connection).dialect.lock(scope.connection, document)
            if patience_s is not None:
                limit_waits(scope.connection, patience_s)
            done = work(ConnectionBind(scope.connection))
        self.schema.wakeups.wake()
        return done

    def repeated(self, parts: Sequence[StreamPublication]) -> list[list[AnyStoredEvent]]:
        """Return the stored events of a publish some of whose ids are stored already, if it is a repetition.

        Raises:
            DuplicateEventError: If it is not.
        """
        taken = Failure(FailureKind.DUPLICATE_ID)
        return self._read(lambda connection, repository: repository.results(connection, parts, taken))

    def _publish(
        self, parts: Sequence[StreamPublication], document: PublishDocument | None, each: Sequence[Projections]
    ) -> list[list[AnyStoredEvent]]:
        for attempt in self._runner.attempts():
            with attempt:
                if document is None or self.mode.locking == "row" or any(each):
                    return self._publish_in_steps(parts, document, each)
                return self._append(document, parts)
        raise AssertionError("the last attempt returns or raises")

    def _append(self, document: PublishDocument, parts: Sequence[StreamPublication]) -> list[list[AnyStoredEvent]]:
        with self._runner.writing(publishing=True) as scope:
            repository = self._repository(scope.connection)
            outcome = repository.append(scope.connection, document, guarded=not scope.single_statement)
            results = repository.results(scope.connection, parts, outcome)
        _log.debug("stored %d events in %d streams", sum(document.counts), len(document.counts))
        return results

    def _publish_in_steps(
        self,
        parts: Sequence[StreamPublication],
        document: PublishDocument | None,
        projections: Sequence[Projections],
    ) -> list[list[AnyStoredEvent]]:
        """Append and project by several statements in one transaction, or in a savepoint of the caller's.

        When nothing was stored, that is rolled back before ids are looked up: so the locks are given back, and what the
        database refused does no harm. When a projection has lost a race, it is rolled back and done again.

        Args:
            parts: The publish.
            document: Its document; None if the application has to check conditions first, while the locks are held.
            projections: The projections of each part.
        """
        lost: LostRace | None = None

        def is_passing(error: Exception) -> bool:
            nonlocal lost
            if not isinstance(error, LostRace):
                return False
            error.check_passing(lost)
            lost = error
            return True

        try:
            for attempt in Attempts(_ATTEMPTS_AT_PROJECTIONS, on=is_passing):
                if lost is not None:
                    _log.info("projecting again: %s", lost.error)
                with attempt:
                    known = known_ids(projections[0], parts[0]) if len(parts) == 1 and lost is None else {}
                    return self._append_and_project(parts, document, projections, known)
        except _NotStored as refusal:
            outcome = refusal.outcome
        except LostRace as race:
            raise race.error from race.error.__cause__
        else:
            raise AssertionError("the last attempt returns or raises")
        with self._runner.reading() as scope:
            return self._repository(scope.connection).results(scope.connection, parts, outcome)

    def _append_and_project(
        self,
        parts: Sequence[StreamPublication],
        document: PublishDocument | None,
        projections: Sequence[Projections],
        known: Mapping[str, str],
    ) -> list[list[AnyStoredEvent]]:
        """Append and project once.

        Args:
            parts: The publish.
            document: Its document, if there is one yet.
            projections: The projections of each part.
            known: Ids of projections that are loaded when the events are stored.
        """
        in_session = any(projection.needs_session for each in projections for projection in each)
        with self._runner.savepoint(in_session=in_session, publishing=True) as scope:
            connection, repository = scope.connection, self._repository(scope.connection)
            if document is None:
                document = self._decided(parts, connection, repository)
            if any(projections):
                repository.dialect.database.begin_writing(connection)
            loaded: Sequence[ProjectionRecord] | None = None
            if known:
                outcome, loaded = repository.append_loading(connection, document, known)
            else:
                outcome = repository.append(connection, document, guarded=True)
            if not isinstance(outcome, Appended):
                raise _NotStored(outcome)
            _log.debug("stored %d events in %d streams", sum(document.counts), len(document.counts))
            results = repository.results(connection, parts, outcome)
            if any(projections):
                place = SQLPublishPlace(scope, self.schema)
                if loaded is not None:
                    place.keep(known, loaded)
                update_projections(place, projections, parts, results)
            return results

    def _decided(
        self, parts: Sequence[StreamPublication], connection: Connection, repository: EventRepository
    ) -> PublishDocument:
        """Lock, then evaluate the conditions of the application's own."""
        assumed = [decided(part.condition, lambda _: True) for part in parts]
        locks = publish_document(parts, conditions=assumed, mode=self.mode, locks_only=True)
        found = verdicts_on_rows(connection, parts)
        repository.dialect.lock(connection, locks)
        conditions = self.evaluators.decide(connection, self.schema.events, parts, repository, known=found)
        return publish_document(parts, conditions=conditions, mode=self.mode)

    def add_tags(self, added: Mapping[int, AbstractSet[str]]) -> int:
        """Add tags to stored events, by their numbers, in a transaction of our own; return how many events got any."""
        epoch = uuid4().hex
        for attempt in self._runner.attempts():
            with attempt, self._runner.savepoint() as scope:
                return self._repository(scope.connection).add_tags(scope.connection, added, epoch)
        raise AssertionError("the last attempt returns or raises")

    def tags_epoch(self, *, current: bool) -> str:
        """Return the epoch of tags: the current one, or one that was current when it was last asked for."""
        if self._known_epoch.is_first and not current:
            return FIRST_EPOCH
        epoch = self._read(lambda connection, repository: repository.tags_epoch(connection))
        self._known_epoch.learn(epoch)
        return epoch

    def latest(self, target: AnyTarget) -> AnyStoredEvent | None:
        """Return the last event of a target."""

        def read(connection: Connection, repository: EventRepository) -> Page:
            up_to = self._watermark_for(target, repository, connection)
            return repository.page(connection, Wanted(target, 1, high=up_to, backwards=True))

        return next(iter(self._read(read).checked_events()), None)

    def pages(
        self,
        target: AnyTarget,
        *,
        constraints: QueryConstraints,
        limit: int | None,
        backwards: bool,
        as_text: bool = False,
    ) -> EventPages:
        """Return the events of a target, page by page; no connection of our own is held in between.

        What is stored after the first page was read is not part of the scan, so that it comes to an end. With `as_text`,
        payloads remain JSON text.
        """
        low, high, others = order_range(constraints, by_position=isinstance(target, StreamIdentifier))
        conditions = [self._converters.expression(other, self.schema.events) for other in others]
        wanted = Wanted(target, self._page_size, low, high, conditions, backwards, as_text)

        def read(wanted: Wanted, is_first: bool, is_last: bool) -> tuple[Page, Wanted]:
            if is_first and self._needs_end_first:
                wanted, is_first = wanted.up_to(self._read(partial(self._complete_end_of, target))), False
            return self._read(partial(self._page, wanted, is_first=is_first, is_last=is_last))

        return EventPages(read, wanted, limit)

    @property
    def _needs_end_first(self) -> bool:
        """Whether a read is complete only up to an end that an earlier snapshot has shown."""
        # Other modes need not look for their database.
        return self.mode.locking == "row" and not self._runner.bind.database.has_whole_snapshots

    def _complete_end_of(self, target: AnyTarget, connection: Connection, repository: EventRepository) -> int:
        """Return up to where snapshots from now on are complete: its writers waited for all earlier ones to end."""
        if not self._runner.bind.in_transaction:
            self.mode.check_read(target)
        last = self._end_of(target, repository, connection)
        return _BEFORE_ALL if last is None else last

    def _page(
        self, wanted: Wanted, connection: Connection, repository: EventRepository, *, is_first: bool, is_last: bool
    ) -> tuple[Page, Wanted]:
        """Read a page; return it with what is wanted of the scan, whose end is fixed when the first page is read.

        It is looked up only where needed: when another page may follow.

        Args:
            wanted: The page.
            connection: Where it is read.
            repository: The statements for this database.
            is_first: Whether it is the first of the scan.
            is_last: Whether it is the last one if it has as many events as are wanted.
        """
        up_to = self._watermark_for(wanted.target, repository, connection) if is_first else None
        wanted = wanted.up_to(up_to)
        page = repository.page(connection, wanted)
        if self._runner.bind.in_transaction and self._needs_end_first:
            repository.check_whole(connection, wanted, page.events)
        ends = not page.more or (is_last and len(page.events) == wanted.size)
        if is_first and up_to is None and not ends and not wanted.backwards:
            wanted = wanted.up_to(self._end_of(wanted.target, repository, connection))
        return page, wanted

    def page(self, target: AnyTarget, *, constraints: QueryConstraints, limit: int, backwards: bool = False) -> Page:
        """Read a page without asking for the watermark: for readers that know it, and have it among the constraints."""
        low, high, others = order_range(constraints, by_position=isinstance(target, StreamIdentifier))
        conditions = [self._converters.expression(other, self.schema.events) for other in others]
        wanted = Wanted(target, limit, low, high, conditions, backwards)
        return self._read(lambda connection, repository: repository.page(connection, wanted))

    def complete_up_to(self) -> tuple[int, int]:
        """Return the last number that was drawn, and the watermark."""
        self.mode.check_watermark()
        return self._read(lambda connection, repository: repository.dialect.complete_up_to(connection))

    def last_number(self) -> int:
        """Return the last number that was drawn."""
        return self._read(lambda connection, repository: repository.dialect.last_number(connection))

    def find(self, event_id: UUID) -> AnyStoredEvent | None:
        """Return the event with an id."""
        return self.find_all([event_id]).get(event_id)

    def find_all(self, ids: Sequence[UUID]) -> Mapping[UUID, AnyStoredEvent]:
        """Return those events with some ids that are stored."""
        return self._read(lambda connection, repository: repository.find(connection, ids))

    def find_text(self, ids: Sequence[UUID], sequence_numbers: Sequence[int]) -> list[AnyStoredEvent]:
        """Return events by id, or by sequence number; their payloads are JSON text."""
        return self._read(lambda connection, repository: repository.find_text(connection, ids, sequence_numbers))

    def category_pages(self) -> Iterator[list[CategoryIdentifier]]:
        """Yield the categories that have events, page by page, in code-point order."""
        after: str | None = None

        def read(connection: Connection, repository: EventRepository) -> Sequence[str]:
            return repository.names.categories(connection, after=after, size=self._page_size)

        while True:
            page = self._read(read)
            if page:
                yield [CategoryIdentifier(category) for category in page]
                after = page[-1]
            if len(page) < self._page_size:
                return

    def stream_pages(self, target: LogIdentifier | CategoryIdentifier) -> Iterator[list[StreamIdentifier]]:
        """Yield the streams of a category or of the log that have events, page by page, in code-point order."""
        category = target.category if isinstance(target, CategoryIdentifier) else None
        after: tuple[str, str] | None = None

        def read(connection: Connection, repository: EventRepository) -> Sequence[tuple[str, str]]:
            return repository.names.streams(connection, category=category, after=after, size=self._page_size)

        while True:
            page = self._read(read)
            if page:
                yield [StreamIdentifier(*pair) for pair in page]
                after = page[-1]
            if len(page) < self._page_size:
                return

    def watermark(self) -> Watermark:
        """Return how far the log is complete, and which transaction holds it back."""
        self.mode.check_watermark()
        return self._read(lambda connection, repository: repository.dialect.watermark(connection))

    def _read(self, work: Callable[[Connection, EventRepository], T]) -> T:
        for attempt in self._runner.attempts():
            with attempt, self._runner.reading() as scope:
                return work(scope.connection, self._repository(scope.connection))
        raise AssertionError("the last attempt returns or raises")

    def _repository(self, connection: Connection) -> EventRepository:
        """Return the statements for a connection, whose database must record the schema's mode of locking."""
        self.schema.locking_record.check(connection)
        return made_once(EventRepository, self.schema, connection.dialect.name)

    def _watermark_for(self, target: AnyTarget, repository: EventRepository, connection: Connection) -> int | None:
        """Return up to where a read of the target is complete; None when all of it is.

        Reads within a transaction of the caller's are ordinary reads of that transaction.
        """
        if self._runner.bind.in_transaction:
            return None
        self.mode.check_read(target)
        if self.mode.is_complete_as_it_stands(target) or not self.mode.has_watermark:
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

    @staticmethod
    def _end_of(target: AnyTarget, repository: EventRepository, connection: Connection) -> int | None:
        """Return where a scan of a target ends that begins now; that of a partition or query ends where its whole does."""
        whole = Wanted(_whole_of(target), 1, backwards=True)
        last = repository.first_numbers(connection, whole)
        if last is None:
            return None
        sequence_number, position = last
        return position if whole.by_position else sequence_number


def _whole_of(target: AnyTarget) -> EventSequenceIdentifier:
    match target:
        case CategoryPartitionIdentifier(category) | StreamNamePrefixPartitionIdentifier(category):
            return CategoryIdentifier(category)
        case LogIdentifier() | CategoryIdentifier() | StreamIdentifier():
            return target
        case _:
            return LogIdentifier()


class _NotStored(Exception):  # noqa: N818 - it never leaves this module
    """Carries an outcome out of a transaction, which is rolled back on the way."""

    def __init__(self, outcome: AppendOutcome) -> None:
        super().__init__()
        self.outcome = outcome

"""Subscriptions as whole operations on a database: connections are opened and closed here.

Synchronous; asyncio runs it in greenlets. What is given a session is part of its transaction, which is not ended here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from msgspec.structs import replace
from sqlalchemy import Connection, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from eventstore_sa.contracts.subscriptions import (
    Advance,
    Definition,
    Lease,
    Node,
    ParkedEvent,
    ParkedState,
    PartitionRecord,
    PartitionState,
    Survey,
)
from eventstore_sa.errors import ConfigurationError, EventStoreError
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.persistence.events.storage import EventStorage
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.persistence.sqlalchemy_internals import most_connections
from eventstore_sa.persistence.subscriptions.checkpoints import Checkpoints
from eventstore_sa.persistence.subscriptions.notifications import PostgreSQLEar, notify
from eventstore_sa.persistence.subscriptions.parking import Parking
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.running import TransactionRunner
from eventstore_sa.sources.constraints import QueryConstraints, observed_between
from eventstore_sa.types import AnyStoredEvent, LogIdentifier, StreamIdentifier

__all__ = ["SQLSubscriptionStorage"]

# Rows of nodes are small, and their names help to read logs.
_FORGET_NODES_S: Final = 3600.0

_log = logging.getLogger("eventstore_sa.subscriptions")

T = TypeVar("T")


class SQLSubscriptionStorage:
    """The subscriptions beside the events of one store; see `SubscriptionStorage`.

    Args:
        bind: Where connections come from.
        events: The events.

    Raises:
        ConfigurationError: If the bind is a single transaction, or subscriptions cannot be kept in this database.
    """

    in_memory: bool = False

    def __init__(self, bind: Bind, events: EventStorage) -> None:
        engine = bind.engine
        if engine is None:
            raise ConfigurationError(
                "a subscription commits its checkpoints, and cannot run within a transaction of yours: give it a store on "
                "an engine"
            )
        self._engine = engine
        self._events = events
        self._schema = events.schema
        self._runner = TransactionRunner(bind)
        made_once(Checkpoints, self._schema, engine.dialect.name)

    @property
    def key(self) -> Hashable:
        return (self._engine, self._schema)

    @property
    def most_connections(self) -> int | None:
        return 1 if self._engine.dialect.name == "sqlite" else most_connections(self._engine.pool)

    def check_use(self, *, sessions: bool, threads: bool) -> None:
        self._events.mode.check_watermark()
        pool = self._engine.pool
        if (sessions and isinstance(pool, StaticPool)) or (threads and isinstance(pool, SingletonThreadPool)):
            raise ConfigurationError(
                f"this engine has {type(pool).__name__}, as for a SQLite database in memory, and cannot give each "
                "transaction a connection of its own: use a file"
            )

    def last_number(self) -> int:
        return self._events.last_number()

    def complete_up_to(self) -> tuple[int, int]:
        return self._events.complete_up_to()

    def notify(self, sender: str) -> None:
        if self._has_notifications:
            with self._runner.writing() as scope:
                notify(scope.connection, self._channel, sender)

    def ear(self) -> PostgreSQLEar | None:
        return PostgreSQLEar(self._engine, self._channel) if self._has_notifications else None

    @property
    def _has_notifications(self) -> bool:
        return self._engine.dialect.name == "postgresql"

    @property
    def _channel(self) -> str:
        # Without the database schema, which only the search path may know: others hear too much, never too little.
        return f"{self._schema.prefix}events"

    def number_at(self, moment: datetime) -> int:
        since = frozenset({observed_between(moment, None)})
        page = self._events.page(LogIdentifier(), constraints=since, limit=1)
        first = next(iter(page.checked_events()), None)
        return self.complete_up_to()[1] if first is None else first.sequence_number - 1

    def page(self, target: Any, constraints: QueryConstraints, limit: int) -> tuple[Sequence[AnyStoredEvent], bool]:
        page = self._events.page(target, constraints=constraints, limit=limit)
        if page.unreadable is not None and not page.events:
            raise page.unreadable
        return page.events, page.more or page.unreadable is not None

    def find_event(self, event: ParkedEvent) -> AnyStoredEvent | None:
        return self._events.find(event.event_id)

    def register(self, definition: Definition) -> None:
        def work(connection: Connection, checkpoints: Checkpoints) -> None:
            checkpoints.forget_nodes(connection, _FORGET_NODES_S)
            if checkpoints.insert(connection, definition):
                return
            rows = checkpoints.locked(connection, definition.name)
            checkpoints.check_source(definition, rows[0])
            if rows[0].projection != definition.projection:
                checkpoints.note_projection(connection, definition)
            wanted = rows[0].next_partitions or rows[0].partitions
            if wanted == definition.partitions:
                return
            halted = [row.partition for row in rows if row.status != PartitionState.RUNNING.value]
            if halted:
                raise ConfigurationError(
                    f"subscription {definition.name!r} has {rows[0].partitions} partitions and cannot be given "
                    f"{definition.partitions}, because {halted} of them are stopped or paused: resume it first"
                )
            checkpoints.drain(connection, definition, rows)

        self._do(work)

    def forget(self, name: str) -> bool:
        def work(connection: Connection, checkpoints: Checkpoints) -> bool:
            self._parking(connection).forget(connection, name)
            return checkpoints.forget(connection, name)

        return self._do(work)

    def heartbeat(self, node: Node, lease_s: float) -> None:
        self._do(lambda connection, checkpoints: checkpoints.heartbeat(connection, node, lease_s))

    def survey(self, names: Collection[str] | None = None) -> Survey:
        return self._read(lambda connection, checkpoints: checkpoints.survey(connection, names))

    def take(self, node: UUID, record: PartitionRecord) -> Lease | None:
        if record.owner is not None:
            self._terminate(record.owner, (record.name, record.partition, record.epoch))
        return self._do(lambda connection, checkpoints: checkpoints.take(connection, node, record))

    def _terminate(self, owner: UUID, lease: tuple[str, int, int]) -> None:
        """End the transaction of an owner that is gone, which may be stuck, and keep rows locked for ever."""
        try:
            ended = self._do(
                lambda connection, checkpoints: checkpoints.dialect.terminate(connection, owner=owner, lease=lease)
            )
        except EventStoreError as error:
            _log.warning(
                "could not end the transaction of the node that held partition %d of %s: %s", lease[1], lease[0], error
            )
        else:
            if ended:
                _log.warning("ended the transaction of a node that held partition %d of %s", lease[1], lease[0])

    def renewed(self, lease: Lease) -> Lease | None:
        return self._read(lambda connection, checkpoints: checkpoints.renewed(connection, lease))

    def release(self, lease: Lease) -> None:
        self._do(lambda connection, checkpoints: checkpoints.give_back(connection, lease))

    def evict(self, lease: Lease) -> None:
        self._terminate(lease.owner, (lease.name, lease.partition, lease.epoch))
        self.release(lease)

    def leave(self, node: UUID) -> None:
        self._do(lambda connection, checkpoints: checkpoints.leave(connection, node))

    def resplit(self, name: str) -> bool:
        return self._do(lambda connection, checkpoints: checkpoints.resplit(connection, name))

    def guard(self, session: Session, lease: Lease, *, longest_s: float) -> None:
        connection = self._connection_of(session)
        self._checkpoints(connection).dialect.guard(connection, lease, longest_s=longest_s)

    def parked_streams(
        self, session: Session | None, name: str, streams: Collection[StreamIdentifier]
    ) -> Collection[StreamIdentifier]:
        if session is None:
            return self._do(lambda connection, _: self._parking(connection).lock(connection, name, streams))
        connection = self._connection_of(session)
        return self._parking(connection).lock(connection, name, streams)

    def has_parked(self, name: str) -> bool:
        return self._read(lambda connection, _: self._parking(connection).has_parked(connection, name))

    def advance(
        self, session: Session | None, lease: Lease, advance: Advance, held: Sequence[AnyStoredEvent] = ()
    ) -> Advance | None:
        if session is not None:
            return self._advance(self._connection_of(session), lease, advance, held)
        if not held:
            with self._runner.writing() as scope:
                return self._advance(scope.connection, lease, advance, held)
        return self._do(lambda connection, _: self._advance(connection, lease, advance, held))

    def _advance(
        self, connection: Connection, lease: Lease, advance: Advance, held: Sequence[AnyStoredEvent]
    ) -> Advance | None:
        if held:
            parking = self._parking(connection)
            streams = {StreamIdentifier(event.category, event.stream) for event in held}
            parked = parking.lock(connection, lease.name, streams)
            freed = [event for event in held if StreamIdentifier(event.category, event.stream) not in parked]
            if freed:
                advance = replace(advance, to=freed[0].sequence_number - 1)
                held = [event for event in held if event.sequence_number <= advance.to]
            parking.keep(connection, lease.name, held, ParkedState.HELD)
        return advance if self._checkpoints(connection).advance(connection, lease, advance) else None

    def set_aside(
        self,
        lease: Lease,
        advance: Advance,
        event: AnyStoredEvent,
        *,
        state: ParkedState,
        attempts: int,
        error: str,
    ) -> bool:
        def work(connection: Connection, checkpoints: Checkpoints) -> bool:
            # First of all: nothing is kept aside by who has lost the lease.
            if not checkpoints.advance(connection, lease, advance):
                return False
            self._parking(connection).keep(connection, lease.name, [event], state, attempts=attempts, error=error)
            return True

        return self._do(work)

    def stop(self, lease: Lease, error: str) -> bool:
        return self._do(
            lambda connection, checkpoints: checkpoints.give_back(
                connection, lease, status=PartitionState.STOPPED.value, last_error=error
            )
        )

    def note_error(self, lease: Lease, error: str) -> None:
        self._do(lambda connection, checkpoints: checkpoints.note_error(connection, lease, error))

    def set_state(self, name: str, state: PartitionState) -> bool:
        return self._do(lambda connection, checkpoints: checkpoints.set_state(connection, name, state))

    def move(self, name: str, sequence_number: int) -> bool:
        def work(connection: Connection, checkpoints: Checkpoints) -> bool:
            found = checkpoints.move(connection, name, sequence_number)
            self._parking(connection).forget(connection, name, beyond=sequence_number)
            return found

        return self._do(work)

    def parked_events(
        self, name: str, stream: StreamIdentifier | None = None, *, after: int = 0, limit: int = 1000
    ) -> Sequence[ParkedEvent]:
        return self._read(
            lambda connection, _: self._parking(connection).events(connection, name, stream, after=after, limit=limit)
        )

    def find_parked(self, name: str, sequence_number: int) -> ParkedEvent | None:
        return self._read(lambda connection, _: self._parking(connection).find(connection, name, sequence_number))

    def first_parked(self, session: Session | None, name: str, stream: StreamIdentifier) -> ParkedEvent | None:
        if session is None:
            return next(iter(self.parked_events(name, stream, limit=1)), None)
        connection = self._connection_of(session)
        parking = self._parking(connection)
        if not parking.lock(connection, name, [stream]):
            return None
        return next(iter(parking.events(connection, name, stream, after=0, limit=1)), None)

    def discard(self, session: Session | None, event: ParkedEvent) -> bool:
        if session is None:
            return self._do(lambda connection, _: self._parking(connection).discard(connection, event))
        connection = self._connection_of(session)
        return self._parking(connection).discard(connection, event)

    def failed_again(self, event: ParkedEvent, error: str) -> None:
        self._do(lambda connection, _: self._parking(connection).failed_again(connection, event, error))

    def lag(self, record: PartitionRecord) -> tuple[int, float]:
        numbers = max(0, self.last_number() - record.sequence_number)
        if not numbers:
            return 0, 0.0
        c = self._schema.events.c
        with self._runner.reading() as scope:
            repository = made_once(EventRepository, self._schema, scope.connection.dialect.name)
            column = repository.dialect.time_column(c.observed_at)
            statement = select(column).where(c.sequence_number > record.sequence_number)
            found = scope.connection.scalar(statement.order_by(c.sequence_number).limit(1))
            if found is None:
                return 0, 0.0
            waited = datetime.now(UTC) - repository.dialect.read_time(found)
        return numbers, max(0.0, waited.total_seconds())

    def _do(self, work: Callable[[Connection, Checkpoints], T]) -> T:
        """Run statements in a transaction of our own."""
        for attempt in self._runner.attempts():
            with attempt, self._runner.savepoint() as scope:
                return work(scope.connection, self._checkpoints(scope.connection))
        raise AssertionError("the last attempt returns or raises")

    def _read(self, work: Callable[[Connection, Checkpoints], T]) -> T:
        """Run statements that only read; each sees what is committed when it begins."""
        for attempt in self._runner.attempts():
            with attempt, self._runner.reading() as scope:
                return work(scope.connection, self._checkpoints(scope.connection))
        raise AssertionError("the last attempt returns or raises")

    def _connection_of(self, session: Session) -> Connection:
        return session.connection(bind_arguments={"mapper": self._schema.EventRecord})

    def _checkpoints(self, connection: Connection) -> Checkpoints:
        return made_once(Checkpoints, self._schema, connection.dialect.name)

    def _parking(self, connection: Connection) -> Parking:
        return made_once(Parking, self._schema, connection.dialect.name)

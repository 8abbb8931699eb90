"""Subscriptions of an in-memory store: checkpoints, leases and parked events, behind one lock.

Handlers have no session here, so a checkpoint is moved after them, and an event may be handled again after a failure.
Leases are fenced as in a database.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import islice
from threading import RLock
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

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
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.types import AnyStoredEvent, LogIdentifier, StreamIdentifier

if TYPE_CHECKING:
    from eventstore_sa.store.adapters.memory_storage import InMemoryEventStorage

__all__ = ["InMemorySubscriptionStorage", "InMemorySubscriptions"]


class _Row(Struct):
    """What is stored of a partition, besides its record."""

    record: PartitionRecord
    source: str
    projection: str | None


class InMemorySubscriptions:
    """What is stored of all subscriptions."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[Any] = RLock()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self.lock:
            self.rows: dict[tuple[str, int], _Row] = {}
            self.nodes: dict[UUID, tuple[Node, float]] = {}
            self.parked: dict[tuple[str, int], ParkedEvent] = {}

    def set_back(self, projection: str, number: int) -> None:
        """Set subscriptions back that update projections which were rebuilt up to a number."""
        with self.lock:
            for row in self.rows.values():
                if row.projection == projection and row.record.sequence_number > number:
                    epoch = row.record.epoch + 1
                    row.record = replace(row.record, owner=None, epoch=epoch, sequence_number=number)


class InMemorySubscriptionStorage:
    """The subscriptions beside the events of an in-memory store; see `SubscriptionStorage`."""

    in_memory: bool = True
    most_connections: int | None = None

    def __init__(self, events: InMemoryEventStorage) -> None:
        self._events = events
        self._state = events.subscriptions

    @property
    def key(self) -> Hashable:
        return id(self._events)

    def check_use(self, *, sessions: bool, threads: bool) -> None:
        if sessions:
            raise ConfigurationError(
                "this store keeps its events in memory, so no session's transaction can hold the checkpoint of a "
                "subscription: leave sessions out, or use a store on a database, such as SQLite in a file"
            )

    def last_number(self) -> int:
        return self._events.length

    def complete_up_to(self) -> tuple[int, int]:
        length = self._events.length
        return length, length

    def notify(self, sender: str) -> None:
        """Do nothing: there are no other processes."""

    def ear(self) -> None:
        return None

    def number_at(self, moment: datetime) -> int:
        number = 0
        for event in self._scan(LogIdentifier(), frozenset()):
            if event.observed_at >= moment:
                break
            number = event.sequence_number
        return number

    def page(self, target: Any, constraints: QueryConstraints, limit: int) -> tuple[Sequence[AnyStoredEvent], bool]:
        events = list(islice(self._scan(target, constraints), limit))
        return events, len(events) == limit

    def find_event(self, event: ParkedEvent) -> AnyStoredEvent | None:
        found = (each for each in self._scan(event.stream, frozenset()) if each.id == event.event_id)
        return next(found, None)

    def _scan(self, target: Any, constraints: QueryConstraints) -> Iterator[AnyStoredEvent]:
        return self._events.scan(target=target, constraints=constraints, limit=None, backwards=False)

    def register(self, definition: Definition) -> None:
        with self._state.lock:
            rows = self._rows(definition.name)
            if not rows:
                self._insert(definition, generation=1)
                return
            first = rows[0].record
            if rows[0].source != definition.source:
                raise ConfigurationError(
                    f"subscription {definition.name!r} is stored with the source {rows[0].source}, and now reads "
                    f"{definition.source}: its checkpoint means something else there. Give it another name, or forget the "
                    "stored one first"
                )
            for row in rows:
                row.projection = definition.projection
            if (first.next_partitions or first.partitions) == definition.partitions:
                return
            halted = [row.record.partition for row in rows if row.record.state is not PartitionState.RUNNING]
            if halted:
                raise ConfigurationError(
                    f"subscription {definition.name!r} has {first.partitions} partitions and cannot be given "
                    f"{definition.partitions}, because {halted} of them are stopped or paused: resume it first"
                )
            drain_to: int | None = None
            following: int | None = None
            if definition.partitions != first.partitions:
                drain_to = first.drain_to or max(row.record.sequence_number for row in rows)
                following = definition.partitions
            self._change(definition.name, drain_to=drain_to, next_partitions=following)

    def _insert(self, definition: Definition, *, generation: int) -> None:
        for partition in range(definition.partitions):
            record = PartitionRecord(
                definition.name,
                partition,
                definition.partitions,
                generation,
                0,
                definition.start,
                PartitionState.RUNNING,
                None,
                None,
                True,
                None,
                None,
                0,
                0.0,
                datetime.now(UTC),
                None,
            )
            self._state.rows[definition.name, partition] = _Row(record, definition.source, definition.projection)

    def forget(self, name: str) -> bool:
        with self._state.lock:
            found = self._rows(name)
            for row in found:
                del self._state.rows[name, row.record.partition]
            self._forget_parked(name, beyond=-1)
            return bool(found)

    def heartbeat(self, node: Node, lease_s: float) -> None:
        with self._state.lock:
            self._state.nodes[node.id] = (node, time.monotonic() + lease_s)

    def survey(self, names: Collection[str] | None = None) -> Survey:
        with self._state.lock:
            alive = {each: node for each, (node, expires) in self._state.nodes.items() if expires > time.monotonic()}
            records = [
                replace(
                    row.record,
                    owner_name=node.name if (node := _owner(row.record, alive)) else None,
                    expired=_owner(row.record, alive) is None,
                )
                for _, row in sorted(self._state.rows.items())
                if names is None or row.record.name in names
            ]
            return Survey(records, list(alive.values()))

    def take(self, node: UUID, record: PartitionRecord) -> Lease | None:
        with self._state.lock:
            row = self._state.rows.get((record.name, record.partition))
            if row is None or row.record.epoch != record.epoch or not record.is_free:
                return None
            row.record = replace(row.record, owner=node, epoch=record.epoch + 1)
            return self._lease(row.record)

    def _lease(self, record: PartitionRecord) -> Lease | None:
        if record.owner is None:
            return None
        behind = record.sequence_number > self._events.length
        return Lease(
            record.name,
            record.partition,
            record.partitions,
            record.generation,
            record.owner,
            record.epoch,
            record.sequence_number,
            record.drain_to,
            behind,
            self.has_parked(record.name),
        )

    def renewed(self, lease: Lease) -> Lease | None:
        with self._state.lock:
            row = self._held(lease)
            return None if row is None else self._lease(row.record)

    def release(self, lease: Lease) -> None:
        self._give_back(lease)

    def evict(self, lease: Lease) -> None:
        self._give_back(lease)

    def _give_back(self, lease: Lease, **values: Any) -> bool:
        with self._state.lock:
            row = self._held(lease)
            if row is None:
                return False
            row.record = replace(row.record, owner=None, epoch=lease.epoch + 1, **values)
            return True

    def leave(self, node: UUID) -> None:
        with self._state.lock:
            self._state.nodes.pop(node, None)
            for row in self._state.rows.values():
                if row.record.owner == node:
                    row.record = replace(row.record, owner=None, epoch=row.record.epoch + 1)

    def resplit(self, name: str) -> bool:
        with self._state.lock:
            rows = self._rows(name)
            if not rows or not all(row.record.is_drained for row in rows):
                return False
            first = rows[0].record
            for row in rows:
                del self._state.rows[name, row.record.partition]
            following = first.next_partitions or first.partitions
            projection = rows[0].projection
            definition = Definition(name, rows[0].source, following, first.sequence_number, projection)
            self._insert(definition, generation=first.generation + 1)
            return True

    def guard(self, session: Any, lease: Lease, *, longest_s: float) -> None:
        raise TypeError("there are no sessions in memory")

    def parked_streams(
        self, session: Any, name: str, streams: Collection[StreamIdentifier]
    ) -> Collection[StreamIdentifier]:
        with self._state.lock:
            return {each.stream for each in self._of(name) if each.stream in streams}

    def has_parked(self, name: str) -> bool:
        with self._state.lock:
            return bool(self._of(name))

    def advance(
        self, session: Any, lease: Lease, advance: Advance, held: Sequence[AnyStoredEvent] = ()
    ) -> Advance | None:
        with self._state.lock:
            row = self._held(lease)
            if row is None or row.record.sequence_number != advance.since:
                return None
            parked = {each.stream for each in self._of(lease.name)}
            for event in held:
                if StreamIdentifier(event.category, event.stream) not in parked:
                    advance = replace(advance, to=event.sequence_number - 1)
                    break
                if (lease.name, event.sequence_number) not in self._state.parked:
                    self._keep(lease.name, event, ParkedState.HELD, 0, None)
            row.record = replace(
                row.record,
                sequence_number=advance.to,
                handled=row.record.handled + advance.handled,
                events_per_s=advance.events_per_s,
                moved_at=datetime.now(UTC),
            )
            return advance

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
        with self._state.lock:
            if self.advance(None, lease, advance) is None:
                return False
            self._keep(lease.name, event, state, attempts, error)
            return True

    def _keep(self, name: str, event: AnyStoredEvent, state: ParkedState, attempts: int, error: str | None) -> None:
        stream = StreamIdentifier(event.category, event.stream)
        self._state.parked[name, event.sequence_number] = ParkedEvent(
            name, event.sequence_number, event.id, stream, state, attempts, error, datetime.now(UTC)
        )

    def stop(self, lease: Lease, error: str) -> bool:
        return self._give_back(lease, state=PartitionState.STOPPED, last_error=error)

    def note_error(self, lease: Lease, error: str) -> None:
        with self._state.lock:
            row = self._held(lease)
            if row is not None:
                row.record = replace(row.record, last_error=error)

    def set_state(self, name: str, state: PartitionState) -> bool:
        values: dict[str, Any] = {"last_error": None} if state is PartitionState.RUNNING else {}
        return self._change(name, state=state, **values)

    def move(self, name: str, sequence_number: int) -> bool:
        with self._state.lock:
            self._forget_parked(name, beyond=sequence_number)
            return self._change(name, sequence_number=sequence_number, drain_to=None, next_partitions=None)

    def parked_events(
        self, name: str, stream: StreamIdentifier | None = None, *, after: int = 0, limit: int = 1000
    ) -> Sequence[ParkedEvent]:
        with self._state.lock:
            found = [
                each
                for (subscription, number), each in sorted(self._state.parked.items())
                if subscription == name
                and number > after
                and (stream is None or (each.stream == stream and each.state is not ParkedState.SKIPPED))
            ]
        return found[:limit]

    def find_parked(self, name: str, sequence_number: int) -> ParkedEvent | None:
        return self._state.parked.get((name, sequence_number))

    def first_parked(self, session: Any, name: str, stream: StreamIdentifier) -> ParkedEvent | None:
        return next(iter(self.parked_events(name, stream, limit=1)), None)

    def discard(self, session: Any, event: ParkedEvent) -> bool:
        with self._state.lock:
            return self._state.parked.pop((event.subscription, event.sequence_number), None) is not None

    def failed_again(self, event: ParkedEvent, error: str) -> None:
        with self._state.lock:
            key = (event.subscription, event.sequence_number)
            if key in self._state.parked:
                failed = replace(event, state=ParkedState.PARKED, attempts=event.attempts + 1, error=error)
                self._state.parked[key] = failed

    def lag(self, record: PartitionRecord) -> tuple[int, float]:
        numbers = max(0, self._events.length - record.sequence_number)
        for event in self._scan(LogIdentifier(), frozenset()):
            if event.sequence_number > record.sequence_number:
                return numbers, max(0.0, (datetime.now(UTC) - event.observed_at).total_seconds())
        return numbers, 0.0

    def _rows(self, name: str) -> list[_Row]:
        return [row for (subscription, _), row in sorted(self._state.rows.items()) if subscription == name]

    def _held(self, lease: Lease) -> _Row | None:
        row = self._state.rows.get((lease.name, lease.partition))
        return row if row is not None and row.record.epoch == lease.epoch else None

    def _of(self, name: str) -> list[ParkedEvent]:
        parked = self._state.parked.values()
        return [each for each in parked if each.subscription == name and each.state is not ParkedState.SKIPPED]

    def _change(self, name: str, **values: Any) -> bool:
        with self._state.lock:
            rows = self._rows(name)
            for row in rows:
                row.record = replace(row.record, owner=None, epoch=row.record.epoch + 1, **values)
            return bool(rows)

    def _forget_parked(self, name: str, *, beyond: int) -> None:
        for key in [key for key in self._state.parked if key[0] == name and key[1] > beyond]:
            del self._state.parked[key]


def _owner(record: PartitionRecord, alive: Mapping[UUID, Node]) -> Node | None:
    return None if record.owner is None else alive.get(record.owner)

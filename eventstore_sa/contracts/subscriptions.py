"""The storage of subscriptions: checkpoints, leases, and the events that are parked.

What memory and databases agree on is here; what a subscription does with it is in `subscriptions/`. Every method is one
transaction of its own, except those that are given a session: these are part of its transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from msgspec import Struct

from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.types import AnyStoredEvent, EventSourceIdentifier, StreamIdentifier

__all__ = [
    "Advance",
    "Definition",
    "Ear",
    "Lease",
    "Node",
    "ParkedEvent",
    "ParkedState",
    "PartitionRecord",
    "PartitionState",
    "SubscriptionStorage",
    "Survey",
]


class PartitionState(StrEnum):
    """Whether a partition is processed."""

    RUNNING = "running"
    """Some node processes it, or will."""

    PAUSED = "paused"
    """Nobody does, until it is resumed."""

    STOPPED = "stopped"
    """An event failed and the subscription stops at failures: nobody does, until it is resumed."""


class ParkedState(StrEnum):
    """Why an event is kept aside."""

    PARKED = "parked"
    """It failed."""

    HELD = "held"
    """An earlier event of its stream is parked."""

    SKIPPED = "skipped"
    """It failed, and was skipped: later events of its stream are handled."""


class Definition(Struct, frozen=True):
    """What is stored of a subscription.

    Attributes:
        name: Its name.
        source: What it reads, as text; a subscription with the same name and another source is another subscription.
        partitions: How many partitions it is to have.
        start: The checkpoint to begin with.
        projection: The name of the stored projections that it updates: a rebuild of these sets it back. None: none.
    """

    name: str
    source: str
    partitions: int
    start: int
    projection: str | None = None


class Node(Struct, frozen=True):
    """A process that runs subscriptions.

    Attributes:
        id: Different for each run.
        name: For people: host and process id.
        subscriptions: The names of the subscriptions that it runs.
    """

    id: UUID
    name: str
    subscriptions: frozenset[str]


class Lease(Struct, frozen=True):
    """The right to process a partition, until somebody else takes it.

    Attributes:
        name: The subscription.
        partition: The partition, from 0.
        partitions: How many there are.
        generation: How often the number of partitions has changed.
        owner: The node that holds it.
        epoch: The fencing token: whoever takes the partition over increments it, and whoever moves the checkpoint names it.
        sequence_number: The checkpoint.
        drain_to: Process up to here and no further, because the number of partitions changes; None: no limit.
        is_behind_its_log: Whether the log no longer has the event that the checkpoint remembers.
        has_parked: Whether any stream of the subscription is parked.
    """

    name: str
    partition: int
    partitions: int
    generation: int
    owner: UUID
    epoch: int
    sequence_number: int
    drain_to: int | None = None
    is_behind_its_log: bool = False
    has_parked: bool = False


class PartitionRecord(Struct, frozen=True):
    """What is stored of a partition; see `Lease` for what is not explained here.

    Attributes:
        state: Whether it is processed.
        owner: The node that processes it.
        owner_name: Its name, if the node is known.
        expired: Whether the owner has not been heard of for the time of a lease; True if there is none.
        handled: How many events were handled.
        events_per_s: How many were handled each second, lately.
        moved_at: When the checkpoint last moved.
        last_error: The last error of a handler.
        next_partitions: How many partitions there will be, once all have been drained.
    """

    name: str
    partition: int
    partitions: int
    generation: int
    epoch: int
    sequence_number: int
    state: PartitionState
    owner: UUID | None
    owner_name: str | None
    expired: bool
    drain_to: int | None
    next_partitions: int | None
    handled: int
    events_per_s: float
    moved_at: datetime
    last_error: str | None

    @property
    def is_free(self) -> bool:
        """Whether it waits for a node to take it."""
        return self.state is PartitionState.RUNNING and self.expired and not self.is_drained

    @property
    def is_drained(self) -> bool:
        """Whether it has come to where the number of partitions changes."""
        return self.drain_to is not None and self.sequence_number >= self.drain_to


class Survey(Struct, frozen=True):
    """All partitions of some subscriptions, and the nodes that are alive."""

    partitions: Sequence[PartitionRecord]
    nodes: Sequence[Node]


class Advance(Struct, frozen=True):
    """How a checkpoint moves.

    Attributes:
        since: Where it was; the checkpoint does not move if it is elsewhere.
        to: Where to.
        handled: How many events were handled on the way.
        events_per_s: How many events are handled each second.
    """

    since: int
    to: int
    handled: int = 0
    events_per_s: float = 0.0


class ParkedEvent(Struct, frozen=True):
    """An event that is kept aside.

    Attributes:
        subscription: By which subscription.
        sequence_number: Its sequence number.
        event_id: Its id.
        stream: Its stream.
        state: Why.
        attempts: How often a handler was called for it.
        error: What the last call raised; None if the event is held back.
        parked_at: When this was stored.
    """

    subscription: str
    sequence_number: int
    event_id: UUID
    stream: StreamIdentifier
    state: ParkedState
    attempts: int
    error: str | None
    parked_at: datetime


class Ear(Protocol):
    """Hears of commits in other processes."""

    def listen(self, sender: str, heard: Callable[[], object]) -> None:
        """Listen until `stop` is called.

        Args:
            sender: Who listens; what it has sent itself is not passed on.
            heard: Called at the beginning, and for what others have sent.

        Raises:
            StorageError: If nothing can be heard any more.
        """
        ...

    def stop(self) -> None:
        """Have `listen` return."""
        ...


class SubscriptionStorage(Protocol):
    """The subscriptions beside the events of one store."""

    @property
    def key(self) -> Hashable:
        """Equal for storages of the same tables through the same engine."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether there is no database."""
        ...

    def check_use(self, *, sessions: bool, threads: bool) -> None:
        """Refuse a use that cannot work.

        Args:
            sessions: Whether the checkpoint is to be part of the transactions of sessions.
            threads: Whether it is used in several threads.

        Raises:
            ConfigurationError: If there are no sessions, or not a connection for each of them.
        """
        ...

    @property
    def most_connections(self) -> int | None:
        """How many connections can be used at once; None: any number."""
        ...

    def last_number(self) -> int:
        """Return the last sequence number that was drawn; cheap, and no promise that anything is complete up to there."""
        ...

    def complete_up_to(self) -> tuple[int, int]:
        """Return the last sequence number, and the watermark."""
        ...

    def notify(self, sender: str) -> None:
        """Tell other processes that events were committed, if there can be others."""
        ...

    def ear(self) -> Ear | None:
        """Return what hears of commits in other processes; None if there cannot be others.

        Raises:
            ConfigurationError: If the driver cannot receive notifications.
        """
        ...

    def number_at(self, moment: datetime) -> int:
        """Return the highest sequence number before the first event that was observed at a moment or later."""
        ...

    def page(
        self, target: EventSourceIdentifier, constraints: QueryConstraints, limit: int
    ) -> tuple[Sequence[AnyStoredEvent], bool]:
        """Read up to `limit` events of a target, and whether there may be more.

        A watermark must have been read before, and be among the constraints.
        """
        ...

    def find_event(self, event: ParkedEvent) -> AnyStoredEvent | None:
        """Return the event that was parked."""
        ...

    def register(self, definition: Definition) -> None:
        """Store a subscription that is new; begin to change the number of partitions of one that is not.

        Raises:
            ConfigurationError: If it is stored with another source, or the number of partitions has to change while one of
                them is stopped or paused.
        """
        ...

    def forget(self, name: str) -> bool:
        """Delete all that is stored of a subscription; return whether there was anything."""
        ...

    def heartbeat(self, node: Node, lease_s: float) -> None:
        """Say that a node is alive, for the time of a lease."""
        ...

    def survey(self, names: Collection[str] | None = None) -> Survey:
        """Return the partitions of some subscriptions, or of all, and the nodes that are alive."""
        ...

    def take(self, node: UUID, record: PartitionRecord) -> Lease | None:
        """Take a partition that is free, with a new fencing token; None if somebody else was faster.

        If the owner before has expired, its transaction is ended, however stuck it is.
        """
        ...

    def renewed(self, lease: Lease) -> Lease | None:
        """Return a lease as it is stored now; None if it is lost."""
        ...

    def release(self, lease: Lease) -> None:
        """Give a partition back, if it is still held."""
        ...

    def evict(self, lease: Lease) -> None:
        """Take a partition from the own process, whose handler hangs: give it back, and end its transaction."""
        ...

    def leave(self, node: UUID) -> None:
        """Give back everything that a node holds, and forget the node."""
        ...

    def resplit(self, name: str) -> bool:
        """Replace the partitions of a subscription by their next number, if all are drained; return whether they were."""
        ...

    def guard(self, session: Any, lease: Lease, *, longest_s: float) -> None:
        """Prepare the transaction of a session for a lease: it can be found, and does not outlive a process that stalls.

        Args:
            session: The session, whose transaction this begins.
            lease: For which partition.
            longest_s: How long it may wait for the process; as a whole it may take twice as long.
        """
        ...

    def parked_streams(
        self, session: Any, name: str, streams: Collection[StreamIdentifier]
    ) -> Collection[StreamIdentifier]:
        """Return which of some streams are parked; in a session's transaction these stay so until it ends."""
        ...

    def has_parked(self, name: str) -> bool:
        """Return whether any stream of a subscription is parked."""
        ...

    def advance(
        self, session: Any, lease: Lease, advance: Advance, held: Sequence[AnyStoredEvent] = ()
    ) -> Advance | None:
        """Move a checkpoint; return how it has moved, or None if the lease is lost.

        Args:
            session: Whose transaction it is part of; None: one of its own.
            lease: The lease.
            advance: How.
            held: Events on the way that were not handled, because an earlier event of their stream is parked. If that is no
                longer so for one of them, the checkpoint moves only to the event before it.
        """
        ...

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
        """Move a checkpoint beyond an event that failed, and keep it aside; return False if the lease is lost."""
        ...

    def stop(self, lease: Lease, error: str) -> bool:
        """Stop a partition because of an error, and give it back; return False if the lease is lost."""
        ...

    def note_error(self, lease: Lease, error: str) -> None:
        """Store an error of a handler that is tried again."""
        ...

    def set_state(self, name: str, state: PartitionState) -> bool:
        """Pause or resume all partitions of a subscription; return whether there are any. Whoever holds one loses it."""
        ...

    def move(self, name: str, sequence_number: int) -> bool:
        """Set the checkpoints of all partitions, and forget what is parked beyond; return whether there are any.

        Whoever holds a partition loses it.
        """
        ...

    def parked_events(
        self, name: str, stream: StreamIdentifier | None = None, *, after: int = 0, limit: int = 1000
    ) -> Sequence[ParkedEvent]:
        """Return events that are kept aside, by sequence number."""
        ...

    def find_parked(self, name: str, sequence_number: int) -> ParkedEvent | None:
        """Return an event that is kept aside."""
        ...

    def first_parked(self, session: Any, name: str, stream: StreamIdentifier) -> ParkedEvent | None:
        """Lock a parked stream, and return its first event; None if it is not parked.

        In memory, and without a session, nothing is locked.
        """
        ...

    def discard(self, session: Any, event: ParkedEvent) -> bool:
        """Forget an event that is kept aside, and free its stream if it was the last; return whether it was there."""
        ...

    def failed_again(self, event: ParkedEvent, error: str) -> None:
        """Store that a parked event has failed once more."""
        ...

    def lag(self, record: PartitionRecord) -> tuple[int, float]:
        """Return how many sequence numbers a checkpoint is behind, and for how many seconds the next event has waited."""
        ...

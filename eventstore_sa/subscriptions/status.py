"""How a subscription is getting on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from eventstore_sa.contracts.subscriptions import PartitionRecord, PartitionState, SubscriptionStorage

__all__ = ["PartitionStatus", "SubscriptionProgress", "statuses"]


class PartitionStatus(Struct, frozen=True):
    """How a partition is getting on.

    Attributes:
        subscription: The name of the subscription.
        partition: Which partition, from 0.
        partitions: How many there are.
        state: Whether it is processed.
        sequence_number: The checkpoint: everything up to this number is handled, parked or skipped.
        lag_events: How many sequence numbers were drawn since; with a filter, how many events may have to be looked at.
        lag_s: For how many seconds the next event of the log has waited.
        handled: How many events were handled, all in all.
        events_per_s: How many were handled each second, lately.
        owner: Which node processes it: host and process id; None: none does.
        moved_at: When the checkpoint last moved.
        last_error: What a handler raised last; None if it has been resumed since.
        draining_for: How many partitions there will be, once all have come to one number; None: as many as there are.
    """

    subscription: str
    partition: int
    partitions: int
    state: PartitionState
    sequence_number: int
    lag_events: int
    lag_s: float
    handled: int
    events_per_s: float
    owner: str | None
    moved_at: datetime
    last_error: str | None
    draining_for: int | None


class SubscriptionProgress(Struct, frozen=True):
    """How far `catch_up` has got.

    Attributes:
        sequence_number: Everything up to this number is done, in all partitions.
        last_sequence_number: Where the log was complete up to when the call began.
        handled: How many events were handled since then.
    """

    sequence_number: int
    last_sequence_number: int
    handled: int


def statuses(storage: SubscriptionStorage, names: Sequence[str] | None = None) -> list[PartitionStatus]:
    """Return the state of subscriptions, or of all that are stored."""
    return [_status(record, *storage.lag(record)) for record in storage.survey(names).partitions]


def _status(record: PartitionRecord, lag_events: int, lag_s: float) -> PartitionStatus:
    return PartitionStatus(
        record.name,
        record.partition,
        record.partitions,
        record.state,
        record.sequence_number,
        lag_events,
        lag_s,
        record.handled,
        record.events_per_s,
        record.owner_name,
        record.moved_at,
        record.last_error,
        record.next_partitions,
    )

"""Which of the records in memory a read returns, and in which order: without decoding any that it leaves out.

For `memory_storage.py` alone. Records are in the order of their sequence numbers, which within a stream is that of
positions, so the ends of a read are found by bisection.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from operator import attrgetter
from typing import Final, Protocol

from eventstore_sa.sources.constraints import (
    NameInConstraint,
    ObservedBetweenConstraint,
    OccurredBetweenConstraint,
    PositionAfterConstraint,
    PositionBeforeConstraint,
    QueryConstraint,
    QueryConstraints,
    SequenceNumberAfterConstraint,
    SequenceNumberBeforeConstraint,
    order_range,
)
from eventstore_sa.store.adapters.event_contract import Scannable
from eventstore_sa.types import AnyStoredEvent, PartitionIdentifier, StreamIdentifier, TaggedEvent, query_of

__all__ = ["Readable", "selected"]

_sequence_number_of = attrgetter("sequence_number")
_position_of = attrgetter("position")

# By exact type: a subclass may look at the payload.
_NEED_NO_PAYLOAD: Final = frozenset(
    {
        SequenceNumberAfterConstraint,
        SequenceNumberBeforeConstraint,
        PositionAfterConstraint,
        PositionBeforeConstraint,
        NameInConstraint,
        OccurredBetweenConstraint,
        ObservedBetweenConstraint,
    }
)


class Readable(Protocol):
    """What a read needs of a record."""

    @property
    def stream(self) -> StreamIdentifier:
        """The stream it belongs to."""
        ...

    @property
    def content(self) -> TaggedEvent:
        """Its name and its tags."""
        ...

    def event(self) -> AnyStoredEvent:
        """Return it as an event with its own payload and metadata."""
        ...

    def text_event(self) -> AnyStoredEvent:
        """Return it as an event whose payload is JSON text."""
        ...

    def outline(self) -> AnyStoredEvent:
        """Return it as an event without payload and metadata."""
        ...


def selected(
    records: Sequence[Readable],
    end: int,
    target: Scannable,
    constraints: QueryConstraints,
    *,
    backwards: bool,
    as_text: bool = False,
) -> Iterator[AnyStoredEvent]:
    """Yield the events of a target that meet all constraints.

    Args:
        records: The records to pick from.
        end: How many of them there are for this read: what is appended meanwhile is not part of it.
        target: What is read; only for partitions and queries there may be records that do not belong to it.
        constraints: What the events have to meet.
        backwards: Last to first.
        as_text: Whether payloads remain JSON text.
    """
    remaining: Collection[QueryConstraint] = constraints
    start, stop = 0, end
    # By position only within a stream; elsewhere records are in the order of their numbers alone.
    for by_position in (False, True) if isinstance(target, StreamIdentifier) else (False,):
        low, high, remaining = order_range(remaining, by_position=by_position)
        key = _position_of if by_position else _sequence_number_of
        if low is not None:
            start = max(start, bisect_right(records, low, hi=end, key=key))
        if high is not None:
            stop = min(stop, bisect_right(records, high, hi=end, key=key))
    plain = [constraint for constraint in remaining if type(constraint) in _NEED_NO_PAYLOAD]
    others = [constraint for constraint in remaining if type(constraint) not in _NEED_NO_PAYLOAD]
    partition = target if isinstance(target, PartitionIdentifier) else None
    query = query_of(target)

    def events() -> Iterator[AnyStoredEvent]:
        indices = range(start, stop)
        for index in reversed(indices) if backwards else indices:
            record = records[index]
            if partition is not None and not partition.covers(record.stream):
                continue
            if query is not None and not query.met_by(event=record.content):
                continue
            if plain and not _meets(record.outline(), plain):
                continue
            if as_text and not others:
                yield record.text_event()
                continue
            event = record.event()
            if _meets(event, others):
                yield record.text_event() if as_text else event

    return events()


def _meets(event: AnyStoredEvent, constraints: Sequence[QueryConstraint]) -> bool:
    return all(constraint.met_by(event=event) for constraint in constraints)

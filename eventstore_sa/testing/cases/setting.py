"""What the cases are set in: the flags of optional capabilities, and a small vocabulary.

No case is here. The groups of cases subclass `EventStorageSetting`; `event_storage` puts them together and provides the
fixture `adapter` that every case takes: storage in which nothing is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import cached_property
from itertools import count
from random import Random
from typing import Any, ClassVar, TypeAlias, TypeVar

from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee
from eventstore_sa.sources.constraints import QueryConstraints, sequence_number_after
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter, Scannable
from eventstore_sa.types import (
    AnyNewEvent,
    AnyStoredEvent,
    CategoryIdentifier,
    LogIdentifier,
    NewEvent,
    PartitionIdentifier,
    StreamIdentifier,
    query_of,
)

__all__ = [
    "LOG",
    "ORDERS",
    "EventStorageSetting",
    "Operation",
    "Outcome",
    "belongs",
    "new_event",
    "new_events",
    "outcome_of",
    "read",
    "scanned",
    "stored_in",
    "stream",
]

T = TypeVar("T")

Operation: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]
"""Something to do with an adapter, started by calling it."""

Outcome: TypeAlias = Any
"""What an operation returned, or the exception that it raised."""

LOG = LogIdentifier()
ORDERS = CategoryIdentifier("orders")

_event_numbers = count(1)


class EventStorageSetting:
    """Optional capabilities of an adapter under test.

    Attributes:
        scans_are_snapshots: Whether a scan omits events that are published after its first event was requested. If
            False, it may return such events after the others.
        publishes_run_concurrently: Whether several publishes can run at once. If False, as for storage behind a single
            connection, the concurrency cases publish one after the other.
        reads_are_complete_within: The scope in which reads that run beside publishes have no gaps. Below LOG, wider reads
            and the watermark are refused; the fixture `adapter` must still serve wider reads, to show what is stored.
        keeps_tags: Whether events keep their tags, and queries find events by them. If False, cases of tags are skipped.
        adds_tags: Whether tags can be added to stored events. If False, that is refused.
        checks_queries: Whether conditions on events of queries can be checked. If False, they are refused.
        keeps_subscriptions: Whether subscriptions are kept beside the events. If False, the default, `subscription_storage`
            has to refuse.
        can_be_inspected: Whether `inspection_storage` answers. If False, cases of inspection are skipped.
        thorough: Whether cases combine every value with every direction and limit, and publish up to 20,000 events at
            once. If False, they try each value with two combinations, and publish up to 8,000: enough for a further driver
            of a database on which another class is thorough.
    """

    scans_are_snapshots: ClassVar[bool] = False
    publishes_run_concurrently: ClassVar[bool] = True
    reads_are_complete_within: ClassVar[EventSerialisationGuarantee] = EventSerialisationGuarantee.LOG
    keeps_tags: ClassVar[bool] = True
    adds_tags: ClassVar[bool] = True
    checks_queries: ClassVar[bool] = True
    keeps_subscriptions: ClassVar[bool] = False
    can_be_inspected: ClassVar[bool] = True
    thorough: ClassVar[bool] = True

    @cached_property
    def random(self) -> Random:
        """What picks combinations where not all are tried: the same ones each time a case runs."""
        return Random(0)

    async def run_concurrently(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Run all operations at the same time; return their results or exceptions, in order."""
        raise NotImplementedError


def stream(name: str = "42", category: str = ORDERS.category) -> StreamIdentifier:
    """Name a stream."""
    return StreamIdentifier(category, name)


def new_event(name: Any = "order-placed", **fields: Any) -> AnyNewEvent:
    """Make an event that differs from all others."""
    payload: Any = fields.pop("payload", {"number": next(_event_numbers)})
    return NewEvent(name=name, payload=payload, **fields)


def new_events(amount: int) -> list[AnyNewEvent]:
    """Make events that differ from one another."""
    return [new_event() for _ in range(amount)]


async def read(
    adapter: EventStorageAdapter,
    target: Scannable = LOG,
    *,
    after: int | None = None,
    limit: int | None = None,
    backwards: bool = False,
) -> list[AnyStoredEvent]:
    """Scan to the end; `after` is a sequence number."""
    constraints = frozenset(() if after is None else (sequence_number_after(after),))
    return await scanned(adapter, target, constraints, limit=limit, backwards=backwards)


async def scanned(
    adapter: EventStorageAdapter,
    target: Scannable,
    constraints: QueryConstraints,
    *,
    limit: int | None = None,
    backwards: bool = False,
) -> list[AnyStoredEvent]:
    """Scan to the end."""
    scan = adapter.scan(target=target, constraints=constraints, limit=limit, backwards=backwards)
    return [event async for event in scan]


def belongs(event: AnyStoredEvent, target: Scannable) -> bool:
    """Tell whether a read of the target returns the event."""
    query = query_of(target)
    if query is not None and not query.met_by(event=event):
        return False
    if isinstance(target, PartitionIdentifier):
        return target.covers(StreamIdentifier(event.category, event.stream))
    category = getattr(target, "category", event.category)
    name = getattr(target, "stream", event.stream)
    return (event.category, event.stream) == (category, name)


async def stored_in(adapter: EventStorageAdapter, *streams: StreamIdentifier, events: int = 1) -> list[AnyStoredEvent]:
    """Publish so many new events to each of the streams, in turn; return them in log order."""
    stored: list[AnyStoredEvent] = []
    for target in streams:
        stored += await adapter.save(target=target, events=new_events(events))
    return stored


async def outcome_of(awaitable: Awaitable[Any]) -> Outcome:
    """Return what comes of it: a result or an exception."""
    try:
        return await awaitable
    except Exception as error:  # noqa: BLE001 - the cases judge it
        return error

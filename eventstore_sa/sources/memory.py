"""Event sources over events that are in memory already: for tests, and to read again what was read before.

Only the sequence is copied, nothing is sorted, and there is no I/O. For the storage adapters in memory, see
`store/adapters/event_memory.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic

from typing_extensions import TypeVar

from eventstore_sa.sources.base import AnySource, EventSource, SyncEventSource, checked_limit
from eventstore_sa.sources.constraints import QueryConstraints, checked_constraints
from eventstore_sa.types import AnyStoredEvent, EventQuery, EventSourceIdentifier

__all__ = [
    "InMemoryEventSource",
    "InMemoryStoredEventSource",
    "SyncInMemoryEventSource",
    "SyncInMemoryStoredEventSource",
]

I = TypeVar("I", bound=EventSourceIdentifier, covariant=True, default=EventSourceIdentifier)  # noqa: E741

E = TypeVar("E", bound=AnyStoredEvent, covariant=True, default=AnyStoredEvent)
T = TypeVar("T", bound=AnyStoredEvent)


class _Given(AnySource[I], Generic[I, E]):
    """Events that are in memory already."""

    def __init__(self, events: Sequence[E], identifier: I) -> None:
        self._events: tuple[E, ...] = tuple(events)
        self._identifier = identifier

    @property
    def identifier(self) -> I:
        return self._identifier

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self._identifier, self._events) == (other._identifier, other._events)

    def __hash__(self) -> int:
        return hash((self._identifier, self._events))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._events)} events, {self._identifier!r})"


class InMemoryEventSource(_Given[I, E], EventSource[I, E], Generic[I, E]):
    """The given events, in the order given; equal to another with the same identifier and events.

    It never changes, so `wait_for` has nothing to wait for.

    Args:
        events: The events, first to last.
        identifier: The identifier of the source.
    """

    @classmethod
    def matching(cls, events: Iterable[T], query: EventQuery) -> InMemoryEventSource[EventQuery, T]:
        """Return a source of those events that match a query, as `store.query(query)` is one."""
        return InMemoryEventSource([event for event in events if query.met_by(event=event)], query)

    async def latest(self) -> E | None:
        return self._events[-1] if self._events else None

    def iterate(
        self,
        *,
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
        wait_for: AnyStoredEvent | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[E]:
        return _awaitable(_selected(self._events, constraints, limit=limit, backwards=backwards))


class SyncInMemoryEventSource(_Given[I, E], SyncEventSource[I, E], Generic[I, E]):
    """The given events, in the order given; the twin of `InMemoryEventSource` without asyncio.

    Args:
        events: The events, first to last.
        identifier: The identifier of the source.
    """

    @classmethod
    def matching(cls, events: Iterable[T], query: EventQuery) -> SyncInMemoryEventSource[EventQuery, T]:
        """Return a source of those events that match a query, as `store.query(query)` is one."""
        return SyncInMemoryEventSource([event for event in events if query.met_by(event=event)], query)

    def latest(self) -> E | None:
        return self._events[-1] if self._events else None

    def iterate(
        self,
        *,
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
        wait_for: AnyStoredEvent | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[E]:
        return _selected(self._events, constraints, limit=limit, backwards=backwards)


InMemoryStoredEventSource = InMemoryEventSource
"""The same: all events of a source are stored ones."""

SyncInMemoryStoredEventSource = SyncInMemoryEventSource
"""The same: all events of a source are stored ones."""


def _selected(events: Sequence[T], constraints: QueryConstraints, *, limit: int | None, backwards: bool) -> Iterator[T]:
    most, checked = checked_limit(limit), checked_constraints(constraints)
    ordered = reversed(events) if backwards else iter(events)
    matching = (event for event in ordered if all(constraint.met_by(event=event) for constraint in checked))
    return islice(matching, len(events) if most is None else min(most, len(events)))


async def _awaitable(events: Iterator[T]) -> AsyncIterator[T]:
    for event in events:
        yield event

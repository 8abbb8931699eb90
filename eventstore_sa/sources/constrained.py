"""A source seen through constraints: reads return the events that meet them, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Generic

from typing_extensions import TypeVar

from eventstore_sa.sources.base import AnySource, EventSource, SyncEventSource
from eventstore_sa.sources.constraints import QueryConstraint, QueryConstraints, checked_constraints
from eventstore_sa.types import AnyStoredEvent, EventSourceIdentifier, EventTypes

__all__ = ["ConstrainedEventSource", "SyncConstrainedEventSource"]

I = TypeVar("I", bound=EventSourceIdentifier, covariant=True, default=EventSourceIdentifier)  # noqa: E741
E = TypeVar("E", bound=AnyStoredEvent, covariant=True, default=AnyStoredEvent)
Delegate = TypeVar("Delegate", bound=AnySource[Any], covariant=True, default=AnySource[Any])


class _Constrained(AnySource[I], Generic[I, Delegate]):
    """What is known of a constrained source without reading it."""

    def __init__(self, delegate: Delegate, constraints: Iterable[QueryConstraint]) -> None:
        given: object = constraints
        self._delegate: Delegate = delegate
        self._constraints = checked_constraints(frozenset(given) if isinstance(given, Iterable) else given)

    @property
    def identifier(self) -> I:
        identifier: I = self._delegate.identifier
        return identifier

    @property
    def types(self) -> EventTypes[Any] | None:
        return self._delegate.types

    @property
    def in_transaction(self) -> bool:
        return self._delegate.in_transaction

    @property
    def delegate(self) -> Delegate:
        """Where the events are read from."""
        return self._delegate

    @property
    def constraints(self) -> QueryConstraints:
        """What all events of this source meet."""
        return self._constraints

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self._delegate, self._constraints) == (other._delegate, other._constraints)

    def __hash__(self) -> int:
        return hash((self._delegate, self._constraints))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._delegate!r}, {set(self._constraints)!r})"


class ConstrainedEventSource(_Constrained[I, EventSource[I, E]], EventSource[I, E], Generic[I, E]):
    """Those events of another source that meet all constraints; `latest` is the last of them.

    Equal to another over an equal source with the same constraints.

    Args:
        delegate: Where the events are read from.
        constraints: The constraints that they must meet, besides those of each read.
    """

    async def latest(self) -> E | None:
        for event in await self.read(limit=1, backwards=True):
            return event
        return None

    def iterate(
        self,
        *,
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
        wait_for: AnyStoredEvent | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[E]:
        return self._delegate.iterate(
            constraints=self._constraints | checked_constraints(constraints),
            limit=limit,
            backwards=backwards,
            wait_for=wait_for,
            timeout_s=timeout_s,
        )


class SyncConstrainedEventSource(_Constrained[I, SyncEventSource[I, E]], SyncEventSource[I, E], Generic[I, E]):
    """Those events of another source that meet all constraints; the twin of `ConstrainedEventSource` without asyncio.

    Args:
        delegate: Where the events are read from.
        constraints: The constraints that they must meet, besides those of each read.
    """

    def latest(self) -> E | None:
        for event in self.read(limit=1, backwards=True):
            return event
        return None

    def iterate(
        self,
        *,
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
        wait_for: AnyStoredEvent | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[E]:
        return self._delegate.iterate(
            constraints=self._constraints | checked_constraints(constraints),
            limit=limit,
            backwards=backwards,
            wait_for=wait_for,
            timeout_s=timeout_s,
        )

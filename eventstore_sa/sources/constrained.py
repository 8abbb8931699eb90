"""A source seen through constraints: reads return the events that meet them, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator

from typing_extensions import TypeVar

from eventstore_sa.sources.base import EventSource, SyncEventSource
from eventstore_sa.sources.constraints import QueryConstraint, QueryConstraints, checked_constraints
from eventstore_sa.types import AnyStoredEvent, EventSourceIdentifier

__all__ = ["ConstrainedEventSource", "SyncConstrainedEventSource"]

I = TypeVar("I", bound=EventSourceIdentifier, covariant=True, default=EventSourceIdentifier)  # noqa: E741


class ConstrainedEventSource(EventSource[I]):
    """Those events of another source that meet all constraints; `latest` is the last of them.

    Equal to another over an equal source with the same constraints.

    Args:
        delegate: Where the events are read from.
        constraints: The constraints that they must meet, besides those of each read.
    """

    def __init__(self, delegate: EventSource[I], constraints: Iterable[QueryConstraint]) -> None:
        self._delegate = delegate
        self._constraints = _as_set(constraints)

    @property
    def identifier(self) -> I:
        return self._delegate.identifier

    @property
    def in_transaction(self) -> bool:
        return self._delegate.in_transaction

    @property
    def constraints(self) -> QueryConstraints:
        """What all events of this source meet."""
        return self._constraints

    async def latest(self) -> AnyStoredEvent | None:
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
    ) -> AsyncIterator[AnyStoredEvent]:
        return self._delegate.iterate(
            constraints=self._constraints | checked_constraints(constraints),
            limit=limit,
            backwards=backwards,
            wait_for=wait_for,
            timeout_s=timeout_s,
        )

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self._delegate, self._constraints) == (other._delegate, other._constraints)

    def __hash__(self) -> int:
        return hash((self._delegate, self._constraints))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._delegate!r}, {set(self._constraints)!r})"


class SyncConstrainedEventSource(SyncEventSource[I]):
    """Those events of another source that meet all constraints; the twin of `ConstrainedEventSource` without asyncio.

    Args:
        delegate: Where the events are read from.
        constraints: The constraints that they must meet, besides those of each read.
    """

    def __init__(self, delegate: SyncEventSource[I], constraints: Iterable[QueryConstraint]) -> None:
        self._delegate = delegate
        self._constraints = _as_set(constraints)

    @property
    def identifier(self) -> I:
        return self._delegate.identifier

    @property
    def in_transaction(self) -> bool:
        return self._delegate.in_transaction

    @property
    def constraints(self) -> QueryConstraints:
        """What all events of this source meet."""
        return self._constraints

    def latest(self) -> AnyStoredEvent | None:
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
    ) -> Iterator[AnyStoredEvent]:
        return self._delegate.iterate(
            constraints=self._constraints | checked_constraints(constraints),
            limit=limit,
            backwards=backwards,
            wait_for=wait_for,
            timeout_s=timeout_s,
        )

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self._delegate, self._constraints) == (other._delegate, other._constraints)

    def __hash__(self) -> int:
        return hash((self._delegate, self._constraints))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._delegate!r}, {set(self._constraints)!r})"


def _as_set(constraints: Iterable[QueryConstraint]) -> QueryConstraints:
    given: object = constraints
    return checked_constraints(frozenset(given) if isinstance(given, Iterable) else given)

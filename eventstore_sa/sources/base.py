"""Event sources: whatever events can be read from, in order.

`EventSource` is read with asyncio, `SyncEventSource` without; the names, parameters and guarantees are the same. Streams,
categories and the log of a store are sources; others can be written by implementing `identifier`, `latest` and `iterate`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Generic

from typing_extensions import TypeVar

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.types import AnyStoredEvent, EventSourceIdentifier, EventTypes

__all__ = ["AnySource", "EventSource", "SyncEventSource", "checked_limit"]

I = TypeVar("I", bound=EventSourceIdentifier, covariant=True, default=EventSourceIdentifier)  # noqa: E741
E = TypeVar("E", bound=AnyStoredEvent, covariant=True, default=AnyStoredEvent)


class AnySource(ABC, Generic[I]):
    """What is known of a source without reading it, with asyncio and without."""

    @property
    @abstractmethod
    def identifier(self) -> I:
        """What the events are read from."""
        raise NotImplementedError

    @property
    def is_complete(self) -> bool:
        """Whether it yields all events of what its identifier names, and can be read from any of them onwards.

        Only what is made from such a source may be stored under its identifier, as snapshots are.
        """
        return False

    @property
    def types(self) -> EventTypes[Any] | None:
        """The types of the events, if their payloads are not plain JSON."""
        return None

    @property
    def in_transaction(self) -> bool:
        """Whether it is read in a transaction of the caller, and so may return events that are rolled back later."""
        return False


class EventSource(AnySource[I], Generic[I, E]):
    """Events in order: by position within a stream, by sequence number elsewhere. Read with asyncio.

    Its parameters are the types of its identifier and of its events: `EventSource[StreamIdentifier, StoredEvent]`.
    """

    @abstractmethod
    async def latest(self) -> E | None:
        """Return the last event, or None if there is none."""
        raise NotImplementedError

    @abstractmethod
    def iterate(
        self,
        *,
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
        wait_for: AnyStoredEvent | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[E]:
        """Iterate over the events, first to last.

        Args:
            constraints: Only events that meet all of them.
            limit: The maximum number of events; None: all.
            backwards: Last to first.
            wait_for: Start only when this event is visible: an open transaction that wrote earlier may hold back the log
                and categories for a while.
            timeout_s: How long to wait for it, in seconds; None: for ever.

        Raises:
            WaitTimeoutError: If `wait_for` does not become visible in time.
        """
        raise NotImplementedError

    async def read(
        self,
        *,
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
        wait_for: AnyStoredEvent | None = None,
        timeout_s: float | None = None,
    ) -> Sequence[E]:
        """Read the events into a list; parameters, order and errors are those of `iterate`."""
        events = self.iterate(
            constraints=constraints, limit=limit, backwards=backwards, wait_for=wait_for, timeout_s=timeout_s
        )
        return [event async for event in events]

    def __aiter__(self) -> AsyncIterator[E]:
        return self.iterate()


class SyncEventSource(AnySource[I], Generic[I, E]):
    """Events in order: by position within a stream, by sequence number elsewhere. The twin of `EventSource`."""

    @abstractmethod
    def latest(self) -> E | None:
        """Return the last event, or None if there is none."""
        raise NotImplementedError

    @abstractmethod
    def iterate(
        self,
        *,
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
        wait_for: AnyStoredEvent | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[E]:
        """Iterate over the events, first to last; see `EventSource.iterate`."""
        raise NotImplementedError

    def read(
        self,
        *,
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
        wait_for: AnyStoredEvent | None = None,
        timeout_s: float | None = None,
    ) -> Sequence[E]:
        """Read the events into a list; parameters, order and errors are those of `iterate`."""
        return list(
            self.iterate(
                constraints=constraints, limit=limit, backwards=backwards, wait_for=wait_for, timeout_s=timeout_s
            )
        )

    def __iter__(self) -> Iterator[E]:
        return self.iterate()


def checked_limit(limit: int | None) -> int | None:
    """Return a limit if it is a number of events.

    Raises:
        ConfigurationError: If it is negative, or not an integer.
    """
    checked: object = limit
    if checked is None:
        return None
    if not isinstance(checked, int) or isinstance(checked, bool) or checked < 0:
        raise ConfigurationError(f"a limit is a number of events of 0 or more, or None for all; got {checked!r}")
    return checked

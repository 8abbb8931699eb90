"""Event sources by identifier: for code that knows what it is to read only by name, such as a stored subscription.

The factories over a store's adapter are in `store/source_factory.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic

from typing_extensions import TypeVar

from eventstore_sa.sources.base import EventSource, SyncEventSource
from eventstore_sa.types import AnyStoredEvent, EventSourceIdentifier

__all__ = ["EventSourceFactory", "SyncEventSourceFactory"]

I = TypeVar("I", bound=EventSourceIdentifier)  # noqa: E741
E = TypeVar("E", bound=AnyStoredEvent, covariant=True, default=AnyStoredEvent)


class EventSourceFactory(ABC, Generic[E]):
    """Makes event sources that are read with asyncio."""

    @abstractmethod
    def construct(self, identifier: I) -> EventSource[I, E]:
        """Return the source that an identifier names; no I/O.

        Raises:
            ConfigurationError: If there are no sources for identifiers of this type.
        """
        raise NotImplementedError


class SyncEventSourceFactory(ABC, Generic[E]):
    """Makes event sources that are read without asyncio: the twin of `EventSourceFactory`."""

    @abstractmethod
    def construct(self, identifier: I) -> SyncEventSource[I, E]:
        """Return the source that an identifier names; see `EventSourceFactory.construct`."""
        raise NotImplementedError

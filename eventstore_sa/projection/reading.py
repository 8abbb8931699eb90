"""What projectors read: anything with an identifier that can be iterated over, an `EventSource` or not; or batches.

Nothing is read here; projectors read, from the beginning (`projector.py`) or from a snapshot on (`resuming.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, Protocol, TypeVar, cast
from uuid import UUID

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.types import AnyStoredEvent, EventSourceIdentifier, StoredEvent

__all__ = ["ProjectableSource", "SyncProjectableSource", "batch_of", "check_source", "closer"]

SourceIdentifier = TypeVar("SourceIdentifier", bound=EventSourceIdentifier, covariant=True)


class ProjectableSource(Protocol[SourceIdentifier]):
    """What `Projector.project` reads: every `EventSource`, and any other asynchronous iterable with an identifier."""

    @property
    def identifier(self) -> SourceIdentifier:
        """What the events are read from."""
        ...

    def __aiter__(self) -> AsyncIterator[AnyStoredEvent]: ...


class SyncProjectableSource(Protocol[SourceIdentifier]):
    """What `Projector.project_sync` reads: every `SyncEventSource`, and any other iterable with an identifier."""

    @property
    def identifier(self) -> SourceIdentifier:
        """What the events are read from."""
        ...

    def __iter__(self) -> Iterator[AnyStoredEvent]: ...


def check_source(source: object, *, iterator: str) -> None:
    """Refuse a source without an identifier or without the method `iterator`.

    Raises:
        ConfigurationError: If the source cannot be read this way; the message says how it can, if at all.
    """
    kind = type(source)
    if hasattr(kind, iterator) and hasattr(source, "identifier"):
        return
    if iterator == "__aiter__" and hasattr(kind, "__iter__") and hasattr(source, "identifier"):
        remedy = "read without asyncio: call projector.project_sync(source=...), or pass a source of an EventStore"
    elif iterator == "__iter__" and hasattr(kind, "__aiter__") and hasattr(source, "identifier"):
        remedy = "read with asyncio: call `await projector.project(source=...)`, or pass a source of a SyncEventStore"
    else:
        remedy = (
            "not an event source: pass a stream, a category or the log of a store, or an iterable with an identifier"
        )
    raise ConfigurationError(f"{kind.__name__} is {remedy}")


def batch_of(events: object) -> list[AnyStoredEvent]:
    """Return the events of a batch, each of them once, in the order of their sequence numbers.

    Raises:
        ConfigurationError: If this is a source, or contains anything but stored events.
    """
    kind = type(events)
    if not hasattr(kind, "__iter__") or hasattr(kind, "identifier") or issubclass(kind, str | bytes | dict):
        raise ConfigurationError(
            f"events are applied in batches, as lists of stored events; got {kind.__name__}: read it first, as in "
            "events=await store.log().read(limit=500)"
        )
    by_id: dict[UUID, AnyStoredEvent] = {}
    for event in cast("Iterable[AnyStoredEvent]", events):
        given: object = event
        if not isinstance(given, StoredEvent):
            raise ConfigurationError(f"only stored events can be applied to projections; got {type(event).__name__}")
        by_id.setdefault(event.id, event)
    return sorted(by_id.values(), key=attrgetter("sequence_number"))


def closer(events: object, source: object, method: str) -> Callable[[], Any] | None:
    """Return the method that closes an iterator early; None if the iterator is the source itself.

    A generator that is not closed keeps its resources until it is garbage collected.
    """
    return None if events is source else getattr(events, method, None)

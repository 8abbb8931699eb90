"""Metadata that goes with every event published inside of a block, such as who acts, and on whose request.

It lives in a context variable: tasks and threads that are started inside of the block see it, or not, as `contextvars` say.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, cast

from eventstore_sa.types.events import NewEvent, StoredEvent

__all__ = ["event_metadata", "with_ambient_metadata"]

_ambient: Final[ContextVar[Mapping[str, Any]]] = ContextVar(
    "eventstore_sa.event_metadata", default=MappingProxyType({})
)


@contextmanager
def event_metadata(*, caused_by: StoredEvent[Any, Any, Any] | None = None, **metadata: Any) -> Generator[None]:
    """Add metadata to all events that are published, staged or recorded inside of the block.

    Blocks nest, the inner one wins, and so does what an event has of its own. Metadata of an event's own that is no mapping
    stays as it is.

    Args:
        caused_by: The event that is being handled: its id becomes `causation_id`, and its `correlation_id`, or else its id,
            the `correlation_id`.
        metadata: What to add, by key: JSON, or what `to_json` converts.

    Examples:
        >>> from eventstore_sa import NewEvent
        >>> with event_metadata(actor="ada"):
        ...     with_ambient_metadata(NewEvent(name="order-placed", payload=None)).metadata
        {'actor': 'ada'}
    """
    token = _ambient.set({**_ambient.get(), **_of_cause(caused_by), **metadata})
    try:
        yield
    finally:
        _ambient.reset(token)


def with_ambient_metadata(event: NewEvent[Any, Any, Any]) -> NewEvent[Any, Any, Any]:
    """Return an event with the metadata of the blocks around added to its own."""
    ambient = _ambient.get()
    own = _as_mapping(event.metadata)
    if not ambient or own is None:
        return event
    return NewEvent(
        id=event.id,
        name=event.name,
        payload=event.payload,
        metadata={**ambient, **own},
        observed_at=event.observed_at,
        occurred_at=event.occurred_at,
        tags=event.tags,
        version=event.version,
    )


def _of_cause(event: StoredEvent[Any, Any, Any] | None) -> dict[str, Any]:
    if event is None:
        return {}
    known = _as_mapping(event.metadata) or {}
    return {"correlation_id": known.get("correlation_id", str(event.id)), "causation_id": str(event.id)}


def _as_mapping(metadata: Any) -> Mapping[str, Any] | None:
    if metadata is None:
        return {}
    return cast("Mapping[str, Any]", metadata) if isinstance(metadata, Mapping) else None

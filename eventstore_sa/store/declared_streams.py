"""Publishing events whose types say which streams they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from eventstore_sa.conditions import WriteCondition
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.types import EventTypes, StreamIdentifier
from eventstore_sa.types.json import is_mapping

__all__ = ["by_stream"]


def by_stream(
    types: EventTypes[Any] | None,
    streams: Mapping[StreamIdentifier, Any] | None,
    events: object,
    condition: WriteCondition | None,
) -> Mapping[StreamIdentifier, Any]:
    """Return what to publish by stream: as it is given, or events by the streams that their types declare.

    Args:
        types: The types of the store.
        streams: What is given by stream already.
        events: What is given without streams.
        condition: The condition that goes with the events.

    Raises:
        ConfigurationError: If not one of both is given, or it cannot be known where an event belongs.
    """
    if streams is not None and events is None and condition is None:
        return streams
    if streams is not None or events is None:
        raise ConfigurationError(
            "publish takes streams, with a condition for each, or events and a condition: publish(events=[...])"
        )
    if types is None:
        raise ConfigurationError(
            "publish(events=[...]) needs a store with event types, which say what streams events belong to: give it "
            "types=EventTypes(...), or say which stream by publish(streams={...})"
        )
    if is_mapping(events) or isinstance(events, str | bytes) or not isinstance(events, Iterable):
        raise ConfigurationError(f"events are passed as a list, even a single one; got {type(events).__name__}")
    found: dict[StreamIdentifier, Any] = {}
    for event in cast("Iterable[object]", events):
        found.setdefault(types.stream_of(event), {"events": []})["events"].append(event)
    if condition is not None:
        if not found:
            raise ConfigurationError("without events there is no stream whose condition this could be")
        next(iter(found.values()))["condition"] = condition
    return found

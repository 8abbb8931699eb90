"""What goes wrong while events are applied, said in the same words by projectors and by table projections."""

from __future__ import annotations

import keyword
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from eventstore_sa.errors import MissingProjectionHandlerError
from eventstore_sa.projection.naming import snake_case
from eventstore_sa.types import AnyStoredEvent

__all__ = ["missing_handler", "note_event", "noting"]


def note_event(error: Exception, projection: str, event: AnyStoredEvent) -> None:
    """Note on an error at which event a projection was."""
    error.add_note(f"projector {projection!r} was at {_place(event)}")


@contextmanager
def noting(projection: str, events: Sequence[AnyStoredEvent]) -> Generator[None]:
    """Note on what is raised in a block at which events a projection was."""
    try:
        yield
    except Exception as error:
        if len(events) == 1:
            note_event(error, projection, events[0])
        else:
            error.add_note(
                f"projector {projection!r} was at {len(events)} events, from {_place(events[0])} to {_place(events[-1])}"
            )
        raise


def missing_handler(
    projector: object, projection: str, event_name: str, argument: str
) -> MissingProjectionHandlerError:
    """Build the error for an event without a handler.

    Args:
        projector: What has no handler.
        projection: Its name.
        event_name: The name of the event.
        argument: What its handlers get beside the event: "state", "row" or "session".
    """
    method = snake_case(event_name)
    can_be_defined = method.isidentifier() and not keyword.iskeyword(method) and not hasattr(projector, method)
    remedy = f"define `{method}(self, {argument}, event)`" if can_be_defined else "define a method of any name"
    decorator = f"{', or decorate one' if can_be_defined else ' and decorate it'} with @handles({event_name!r})"
    return MissingProjectionHandlerError(
        f"projector {projection!r} has no handler for the event {event_name!r}: in {type(projector).__name__}, "
        f"{remedy}{decorator}; or let it pass over events without a handler by missing_handler_behaviour = "
        "MissingHandlerBehaviour.IGNORE",
        projector=projection,
        event_name=event_name,
    )


def _place(event: AnyStoredEvent) -> str:
    stream = f"{event.category}/{event.stream}"
    return f"event {event.name!r} (id {event.id}) of stream {stream!r}, position {event.position}"

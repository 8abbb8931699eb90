"""Events, under the path that `logicblocks.event.store` has: everything is in `eventstore_sa.types`.

The package imports this module before the decorator `event`, whose name it has: so the name remains the decorator's, and
`from eventstore_sa.types.event import NewEvent` finds the module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from eventstore_sa.replacements import replaced
from eventstore_sa.types.events import NewEvent, StoredEvent

__all__ = ["Event", "NewEvent", "StoredEvent"]


class Event(Protocol):
    """What can be summed up for a log: `NewEvent` and `StoredEvent`."""

    def summarise(self) -> Mapping[str, Any]:
        """Return what may be logged, as JSON."""
        ...


if not TYPE_CHECKING:
    __getattr__ = replaced(__name__, {"serialise_stored_event": "the method serialise(fallback) of the event"})

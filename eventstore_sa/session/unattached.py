"""Events of objects that are in no session: kept until the object, or a copy that `Session.merge` makes of it, is in one.

`recording.py` decides what becomes of them; `bulk_operations.py` refuses to write the row of an object without them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from threading import Lock, get_ident
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.attributes import instance_state

from eventstore_sa.types import AnyNewEvent

__all__ = ["Unattached", "has_kept", "keep", "kept_here", "kept_in", "recorders", "take"]

# SQLAlchemy keeps here what loads single attributes of an object, by their names, and `merge` copies it to the copy.
_KEY: Final = "eventstore_sa.unattached"
_lock: Final = Lock()


class Unattached:
    """Events of one object, which a copy that `merge` makes of it shares."""

    def __init__(self) -> None:
        self._events: list[AnyNewEvent] = []
        _kept[self] = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (tuple(self._events),)

    def add(self, *events: AnyNewEvent) -> None:
        """Keep events."""
        self._events.extend(events)

    def take(self) -> Sequence[AnyNewEvent]:
        """Remove and return the events."""
        events, self._events = self._events, []
        return events

    @property
    def is_empty(self) -> bool:
        """Whether no events are kept."""
        return not self._events


# The thread or task that has recorded events on each object for which some are kept.
recorders: Final[WeakKeyDictionary[InstanceState[Any], tuple[int, int]]] = WeakKeyDictionary()
_kept: Final[WeakKeyDictionary[Unattached, None]] = WeakKeyDictionary()


def keep(instance: object, kept: Unattached | None = None) -> Unattached:
    """Return where events are kept for an object until it, or a copy of it, is in a session.

    Args:
        instance: The object.
        kept: Where to keep them from now on; by default where they are kept already, or else in a new `Unattached`.
    """
    state: InstanceState[Any] = inspect(instance, raiseerr=True)
    keeping = kept or _kept_for(state) or Unattached()
    with _lock:
        callables: dict[str, Any] = {**state.callables, _KEY: keeping}
        state.callables = callables
        recorders[state] = _here()
    return keeping


def take(state: InstanceState[Any]) -> Unattached | None:
    """Remove and return the events that are kept for an object."""
    kept = _kept_for(state)
    if kept is not None:
        with _lock:
            del state.callables[_KEY]
            if not state.callables:
                # Otherwise `merge` would replace those of a copy with none.
                del state.callables
            recorders.pop(state, None)
    return kept


def has_kept(state: InstanceState[Any]) -> bool:
    """Return whether events are kept for an object."""
    kept = _kept_for(state)
    return kept is not None and not kept.is_empty


def kept_in(session: Session) -> Sequence[object]:
    """Return the objects of a session for which events are kept: copies that a merge has made, mostly."""
    if not _kept:
        return ()
    states = [*session.identity_map.all_states(), *map(instance_state, session.new)]
    objects = [state.obj() for state in states if _KEY in state.callables]
    return [instance for instance in objects if instance is not None]


def kept_here() -> Sequence[InstanceState[Any]]:
    """Return the objects for which this thread, or task, has kept events."""
    with _lock:
        here = _here()
        return [state for state, where in recorders.items() if where == here]


def _unpickled(events: Sequence[AnyNewEvent]) -> Unattached:
    kept = Unattached()
    kept.add(*events)
    return kept


def _kept_for(state: InstanceState[Any]) -> Unattached | None:
    """Return what is kept for an object, or for the one that it is a copy of."""
    return cast("Unattached | None", state.callables.get(_KEY))


def _here() -> tuple[int, int]:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return get_ident(), id(task)

"""What the application is told when a session's transaction has ended: its callbacks after a commit, or a warning.

Callbacks are called as soon as the commit is durable, and can neither undo nor hide it. The commit of a session that has
joined a transaction of its connection is not durable yet; the call then waits for that transaction, see
`connection_watch.py`. The warning is for events that were dropped although the rows written with them may stay.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from inspect import currentframe, isawaitable
from pathlib import Path
from types import FrameType
from typing import Final, TypeAlias

import sqlalchemy
from greenlet import getcurrent  # type: ignore[import-untyped]
from sqlalchemy import Connection

from eventstore_sa.errors import DroppedEventsWarning
from eventstore_sa.persistence.sqlalchemy_internals import await_in_greenlet
from eventstore_sa.session.connection_watch import watch
from eventstore_sa.types import AnyStoredEvent

__all__ = ["CommitCallback", "call_when_durable", "warn_of_dropped"]

CommitCallback: TypeAlias = Callable[[Sequence[AnyStoredEvent]], object]
"""Takes the stored events; an awaitable that it returns is awaited, in the event loop of the session."""

# SQLAlchemy also compiles functions from text.
_LIBRARIES: Final = ("<", str(Path(__file__).parents[1]), str(Path(sqlalchemy.__file__ or "").parent))

_log: Final = logging.getLogger("eventstore_sa.session")


def call_when_durable(
    connections: Iterable[Connection], callbacks: Sequence[CommitCallback], events: Sequence[AnyStoredEvent]
) -> None:
    """Call functions now or, while an outer transaction of a connection is open, after its commit."""
    joined = [connection for connection in connections if not connection.closed and connection.in_transaction()]
    if joined:
        watch(joined[0]).add(when_durable=lambda: call_when_durable(joined[1:], callbacks, events))
        return
    for callback in callbacks:
        _call(callback, events)


def _call(callback: CommitCallback, events: Sequence[AnyStoredEvent]) -> None:
    try:
        result = callback(events)
        if isawaitable(result):
            await_in_greenlet(result)
    except Exception:  # noqa: BLE001 - whatever it is, the commit has happened
        _log.exception("a callback after the commit failed; what was committed stays committed")


def warn_of_dropped(count: int) -> None:
    """Warn at the line of the application that has closed the session."""
    were = "one staged or recorded publish was" if count == 1 else f"{count} staged or recorded publishes were"
    message = (
        f"{were} dropped because the session was closed without a commit; but the session had joined its connection's "
        "transaction, where everything that it has written stays: commit the session, or roll it back"
    )
    frame = _frame_of_application()
    if frame is None:
        warnings.warn(message, DroppedEventsWarning, stacklevel=2)
        return
    warnings.warn_explicit(
        message,
        DroppedEventsWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _frame_of_application() -> FrameType | None:
    """Find the innermost frame outside of this library and SQLAlchemy; with asyncio it is in an outer greenlet."""
    frame, greenlet = currentframe(), getcurrent()
    while True:
        while frame is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
            frame = frame.f_back
        if frame is not None or greenlet.parent is None:
            return frame
        greenlet = greenlet.parent
        frame = greenlet.gr_frame

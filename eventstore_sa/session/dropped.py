"""The warning that events were dropped, although what was written with them may be committed."""

from __future__ import annotations

import warnings
from inspect import currentframe
from pathlib import Path
from types import FrameType
from typing import Final

import sqlalchemy
from greenlet import getcurrent  # type: ignore[import-untyped]

from eventstore_sa.errors import DroppedEventsWarning

__all__ = ["warn_of_dropped"]

# SQLAlchemy also makes functions out of text.
_INNER: Final = ("<", str(Path(__file__).parents[1]), str(Path(sqlalchemy.__file__ or "").parent))


def warn_of_dropped(how_many: int) -> None:
    """Warn, at the place of the application from where the session was closed."""
    were = "one staged or recorded publish was" if how_many == 1 else f"{how_many} staged or recorded publishes were"
    message = (
        f"a session was closed without a commit, and {were} dropped; but the session had joined a transaction of its "
        "connection, where everything that it has written stays: commit the session, or roll it back"
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
    """Find the innermost frame that is neither ours nor SQLAlchemy's; with asyncio it is in a greenlet further out."""
    frame, greenlet = currentframe(), getcurrent()
    while True:
        while frame is not None and frame.f_code.co_filename.startswith(_INNER):
            frame = frame.f_back
        if frame is not None or greenlet.parent is None:
            return frame
        greenlet = greenlet.parent
        frame = greenlet.gr_frame

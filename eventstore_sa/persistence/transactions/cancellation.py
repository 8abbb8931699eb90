"""What must not be interrupted when an asyncio caller is cancelled: see `uninterrupted`. Knows no SQL."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

__all__ = ["uninterrupted"]

T = TypeVar("T")

_PATIENCE_S: Final = 2.0


async def uninterrupted(running: Coroutine[Any, Any, T]) -> T:
    """Await something that is run to its end, even when the caller is cancelled meanwhile.

    The cancellation is passed on when that end has come, or after two seconds, or at a second cancellation: a connection
    that hangs must not keep a caller who has run out of time.
    """
    task = asyncio.ensure_future(running)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.add_done_callback(_look_at)
        await asyncio.wait({task}, timeout=_PATIENCE_S)
        raise
    return task.result()


def _look_at(task: asyncio.Future[Any]) -> None:
    """Look at what has come of a task, or asyncio would complain of an error."""
    if not task.cancelled():
        task.exception()

"""Calling functions after a commit: as soon as it is durable, and never so that they could undo or hide it.

A session that has joined a transaction of its connection's is not durable when it commits; then the call waits for what
becomes of that transaction, see `connections.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from inspect import isawaitable
from typing import Final, TypeAlias

from sqlalchemy import Connection

from eventstore_sa.persistence.sqlalchemy_internals import await_in_greenlet
from eventstore_sa.session.connections import watch
from eventstore_sa.types import AnyStoredEvent

__all__ = ["CommitCallback", "call_when_durable"]

CommitCallback: TypeAlias = Callable[[Sequence[AnyStoredEvent]], object]
"""Takes the stored events; an awaitable that it returns is awaited, in the event loop of the session."""

_log: Final = logging.getLogger("eventstore_sa.session")


def call_when_durable(
    connections: Iterable[Connection], callbacks: Sequence[CommitCallback], events: Sequence[AnyStoredEvent]
) -> None:
    """Call functions now; or, while an outer transaction of a connection is open, after its commit."""
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
        _log.exception("a callback after the commit has failed; what was committed stays committed")

"""Calling functions after a commit: as soon as it is durable, and never so that they could undo or hide it.

A session that has joined a transaction of its connection's is not durable when it commits. There is no event behind the
commit of a connection; the first thing that happens afterwards is that it begins another transaction or goes back to its
pool, and then it is known that the commit came to its end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from inspect import isawaitable
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, event
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from eventstore_sa.publishing import AnyStoredEvent

__all__ = ["CommitCallback", "call_when_durable"]

CommitCallback: TypeAlias = Callable[[Sequence[AnyStoredEvent]], object]
"""Takes the stored events; an awaitable that it returns is awaited, in the event loop of the session."""

_KEY: Final = "eventstore_sa.after_commit"
_log = logging.getLogger("eventstore_sa.session")


def call_when_durable(
    connections: Iterable[Connection], callbacks: Sequence[CommitCallback], events: Sequence[AnyStoredEvent]
) -> None:
    """Call functions now; or, while an outer transaction of a connection is open, after its commit."""
    joined = [connection for connection in connections if not connection.closed and connection.in_transaction()]
    if joined:
        _OuterCommit(joined[0], lambda: call_when_durable(joined[1:], callbacks, events))
        return
    for callback in callbacks:
        _call(callback, events)


def _call(callback: CommitCallback, events: Sequence[AnyStoredEvent]) -> None:
    try:
        result = callback(events)
        if isawaitable(result):
            await_only(result)
    except Exception:  # noqa: BLE001 - whatever it is, the commit has happened
        _log.exception("a callback after the commit has failed; what was committed stays committed")


class _OuterCommit:
    """Waits for the end of the transaction that a connection is in."""

    def __init__(self, connection: Connection, when_durable: Callable[[], object]) -> None:
        self._when_durable: Callable[[], object] | None = when_durable
        self._committed = False
        event.listen(connection, "commit", self._commit)
        event.listen(connection, "begin", self._next)
        for undone in ("rollback", "rollback_savepoint"):
            event.listen(connection, undone, self._forget)
        # The dictionary of the driver's connection: all that is still known when it goes back to its pool.
        connection.info.setdefault(_KEY, []).append(self)
        # Listening a second time changes nothing; `event.contains` could mean a pool that was here before this one.
        event.listen(connection.engine.pool, "checkin", _checked_in)

    def _commit(self, connection: Connection) -> None:
        self._committed = True

    def _forget(self, *_: object) -> None:
        self._when_durable = None

    def _next(self, *_: object) -> None:
        call, self._when_durable = self._when_durable, None
        if call is not None and self._committed:
            call()

    checked_in = _next


def _checked_in(_: Any, record: ConnectionPoolEntry) -> None:
    for waiting in record.info.pop(_KEY, ()):
        waiting.checked_in()

"""Watching the transaction of a connection: functions are called when what was done in it is durable, or rolled back.

A session knows only its own savepoints, and its commit is not durable when it has joined a transaction of its connection.
The connection knows all of them. It gets one set of listeners, however often it is watched. Savepoints that are begun with
SQL text have no events, so they go unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from weakref import ref

from sqlalchemy import Connection, NestedTransaction, event
from sqlalchemy.pool import ConnectionPoolEntry

from eventstore_sa.persistence.sqlalchemy_internals import savepoint_around
from eventstore_sa.persistence.transactions.binds import WHEN_RETURNED

__all__ = ["ConnectionWatch", "watch"]

_KEY: Final = "eventstore_sa.watch"


class _Entry(NamedTuple):
    when_durable: Callable[[], object] | None
    when_undone: Callable[[], object] | None


def watch(connection: Connection) -> ConnectionWatch:
    """Return the watch of a connection, which is made when there is none."""
    # The dictionary of the driver's connection: all that is still known when it returns to its pool.
    found: ConnectionWatch | None = connection.info.get(_KEY)
    if found is None or found.connection() is not connection:
        found = connection.info[_KEY] = ConnectionWatch(connection)
    return found


class _Level:
    """What was done in a savepoint, outside of those that are open in it; `around` is the one in which it was begun."""

    def __init__(self, around: NestedTransaction | None = None) -> None:
        self.around: Final = around
        self.entries: list[_Entry] = []


class ConnectionWatch:
    """What waits for the end of one connection's transaction, in a stack that follows its savepoints.

    The end of a savepoint also ends those that were begun in it.
    """

    def __init__(self, connection: Connection) -> None:
        """Start to watch a connection, in which savepoints may be open already."""
        self.connection: Final = ref(connection)
        # The first level is that of the transaction, and of the savepoints that were open when this was made.
        self._levels = [_Level()]
        self._checks: list[Callable[[bool], object]] = []
        self._committed = False
        for name, listener in (
            ("begin", self._next),
            ("begin_twophase", self._next),
            ("savepoint", self._begin_savepoint),
            ("release_savepoint", self._release_savepoint),
            ("rollback_savepoint", self._undo_savepoint),
            ("prepare_twophase", self._prepare),
            ("commit", self._commit),
            ("commit_twophase", self._commit_prepared),
            ("rollback", self._undo),
            ("rollback_twophase", self._undo),
        ):
            event.listen(connection, name, listener)
        # Listening twice changes nothing; `event.contains` may confuse a pool or dialect with a collected one.
        event.listen(connection.engine.pool, "checkin", _checked_in)
        event.listen(connection.engine, "handle_error", _failed)

    def add(
        self, *, when_durable: Callable[[], object] | None = None, when_undone: Callable[[], object] | None = None
    ) -> None:
        """Have a function called once what was done so far is durable, or when it is rolled back.

        There is no event after the commit of a connection. But the next thing that happens to the connection is that it
        begins another transaction or returns to its pool, and by then the commit has succeeded.
        """
        self._levels[-1].entries.append(_Entry(when_durable, when_undone))

    def check_commits(self, check: Callable[[bool], object]) -> None:
        """Have a function called before this transaction, or a savepoint in it, is committed; it may raise an error.

        Its argument says whether the transaction is being prepared: what is prepared cannot be changed any more.
        """
        self._checks.append(check)

    def checked_in(self) -> None:
        """Call what waits for a commit, if there was one: the connection is returning to its pool.

        It is not back yet, so for a connection of the library's own the call is made once it is.
        """
        connection = self.connection()
        when_returned = None if connection is None else connection.get_execution_options().get(WHEN_RETURNED)
        if when_returned is None:
            self._next()
        else:
            when_returned.append(self._next)

    def failed(self) -> None:
        """Treat a commit that the database has refused as a rollback."""
        if self._committed:
            self._undo()

    def _begin_savepoint(self, connection: Connection, *_: object) -> None:
        self._levels.append(_Level(connection.get_nested_transaction()))

    def _release_savepoint(self, connection: Connection, name: str, *_: object) -> None:
        try:
            self._check()
        except BaseException:
            # For SQLAlchemy the savepoint has ended although it was not released, and its changes would stay.
            connection.dialect.do_rollback_to_savepoint(connection, name)
            self._undo_savepoint(connection, name)
            raise
        released = self._pop_savepoint(connection, name)
        self._levels[-1].entries.extend(released)

    def _undo_savepoint(self, connection: Connection, name: str, *_: object) -> None:
        _tell_undone(self._pop_savepoint(connection, name))

    def _pop_savepoint(self, connection: Connection, name: str) -> list[_Entry]:
        """Remove and return what was done since a savepoint began: all there is, if it began before the watch did."""
        around = savepoint_around(connection, name)
        begun = (number for number, level in enumerate(self._levels) if number and level.around is around)
        start = next(begun, 0)
        popped, self._levels = self._levels[start:], self._levels[:start] or [_Level()]
        return [entry for level in popped for entry in level.entries]

    def _prepare(self, *_: object) -> None:
        self._check(preparing=True)

    def _commit(self, connection: Connection) -> None:
        try:
            self._check()
        except BaseException:
            # For SQLAlchemy the transaction has ended although it was not committed; it would return to the pool still open.
            _roll_back(connection)
            self._undo()
            raise
        self._committed = True

    def _commit_prepared(self, *_: object) -> None:
        self._committed = True

    def _undo(self, *_: object) -> None:
        _tell_undone(self._reset())

    def _next(self, *_: object) -> None:
        if not self._committed:
            self._reset()
            return
        for entry in self._reset():
            if entry.when_durable is not None:
                entry.when_durable()

    def _reset(self) -> list[_Entry]:
        levels, self._levels = self._levels, [_Level()]
        self._checks.clear()
        self._committed = False
        return [entry for level in levels for entry in level.entries]

    def _check(self, *, preparing: bool = False) -> None:
        for check in tuple(self._checks):
            check(preparing)


def _roll_back(connection: Connection) -> None:
    try:
        connection.connection.rollback()
    except BaseException as error:  # noqa: BLE001 - the error that forbids the commit is the one to raise
        connection.invalidate(error)


def _tell_undone(entries: list[_Entry]) -> None:
    for entry in entries:
        if entry.when_undone is not None:
            entry.when_undone()


def _checked_in(_: Any, record: ConnectionPoolEntry) -> None:
    watching: ConnectionWatch | None = record.info.pop(_KEY, None)
    if watching is not None:
        watching.checked_in()


def _failed(context: Any) -> None:
    connection = context.connection
    if connection is not None and not connection.closed and not connection.invalidated:
        watching: ConnectionWatch | None = connection.info.get(_KEY)
        if watching is not None and watching.connection() is connection:
            watching.failed()

"""NOTIFY and LISTEN of PostgreSQL: telling other processes that events were committed, and hearing it from them.

A notification is sent in a transaction of its own, never in one that publishes: NOTIFY takes a lock that all commits of the
server with a NOTIFY queue up for. Listening needs a connection to the server that stays the same, so it does not work
through a pooler that gives each transaction another one. All of it is synchronous; asyncio callers run it in a greenlet.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select

from eventstore_sa.errors import ConfigurationError, StorageError
from eventstore_sa.persistence.sqlalchemy_internals import await_in_greenlet

__all__ = ["PostgreSQLEar", "notify"]

_CHECK_EVERY_S: Final = 30.0
_ANSWER_WITHIN_S: Final = 10.0


def notify(connection: Connection, channel: str, sender: str) -> None:
    """Send a notification with the transaction of this statement.

    Its commit does not wait for the disk: what is lost in a crash is lost to those who listen as well.
    """
    functions = func.pg_catalog
    connection.execute(
        select(functions.set_config("synchronous_commit", "off", True), functions.pg_notify(channel, sender))
    )


class PostgreSQLEar:
    """Listens on a connection of its own, which is taken from the engine and does not count for its pool.

    Args:
        engine: The engine.
        channel: The channel.

    Raises:
        ConfigurationError: If this is not known for the driver.
    """

    def __init__(self, engine: Engine, channel: str) -> None:
        driver = engine.dialect.driver
        if driver not in _LINES:
            raise ConfigurationError(
                f"notifications cannot be received with {driver}: use {', '.join(_LINES)}, or leave notifications out"
            )
        self._engine = engine
        self._channel = channel
        self._line: _Line | None = None
        self._stopped = False

    def listen(self, sender: str, heard: Callable[[], object]) -> None:
        """Listen until `stop` is called.

        Now and then a notification is sent on the same connection: if it does not come back, nothing does.

        Args:
            sender: Who listens; what it has sent itself is not passed on.
            heard: Called for what others have sent; also at the beginning, because what was sent before is not heard.

        Raises:
            StorageError: If nothing can be heard any more.
        """
        with self._listening() as line:
            heard()
            check_at, answered = 0.0, True
            while not self._stopped:
                if time.monotonic() >= check_at:
                    if not answered:
                        raise StorageError(
                            "notifications do not come back on the connection that listens for them: it is broken, or goes "
                            "through a pooler that gives each transaction another connection to the server"
                        )
                    line.send(self._channel, sender)
                    check_at, answered = time.monotonic() + _ANSWER_WITHIN_S, False
                payloads = line.received(max(0.0, check_at - time.monotonic()))
                if sender in payloads:
                    answered = True
                    check_at = time.monotonic() + _CHECK_EVERY_S
                if any(payload != sender for payload in payloads):
                    heard()

    def stop(self) -> None:
        """Have `listen` return; from the thread or event loop that runs it, or from any thread if it runs in one."""
        self._stopped = True
        line = self._line
        if line is not None:
            # Another thread may be closing it, because it is broken.
            with suppress(OSError):
                line.interrupt()

    @contextmanager
    def _listening(self) -> Generator[_Line]:
        # From the engine, so that its listeners see it as any other connection.
        connection = self._engine.connect()
        try:
            connection.detach()
            # Not by an option of SQLAlchemy's, which is taken back when a connection returns to its pool.
            self._engine.dialect.set_isolation_level(_dbapi_connection(connection), "AUTOCOMMIT")
            line = self._line = _LINES[self._engine.dialect.driver](connection)
            try:
                line.open(self._channel)
                yield line
            finally:
                self._line = None
                line.close()
        finally:
            # By now the driver's connection is closed, which SQLAlchemy does not know.
            with suppress(Exception):
                connection.close()


class _Line(ABC):
    """What is heard on a connection; one subclass for each driver."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # A connection that is detached from its pool does not say so itself.
        self._driver: Any = connection.dialect.get_driver_connection(_dbapi_connection(connection))
        self._payloads: list[str] = []

    def open(self, channel: str) -> None:
        quoted = self._connection.dialect.identifier_preparer.quote_identifier(channel)
        self._connection.exec_driver_sql(f"LISTEN {quoted}")

    def send(self, channel: str, sender: str) -> None:
        notify(self._connection, channel, sender)

    def received(self, timeout_s: float) -> list[str]:
        """Return what has come, or comes within a time; sooner and empty if it is interrupted."""
        self._take()
        if not self._payloads:
            self._wait(timeout_s)
            self._take()
        payloads = self._payloads[:]
        self._payloads.clear()
        return payloads

    @abstractmethod
    def _take(self) -> None:
        """Append to the payloads what the driver has received."""

    @abstractmethod
    def _wait(self, timeout_s: float) -> None:
        """Wait until something comes, or `interrupt` is called."""

    @abstractmethod
    def interrupt(self) -> None:
        """End a wait."""

    def close(self) -> None:
        """Close the connection, without a word to the server: it may not answer."""
        with suppress(Exception):
            self._close()

    @abstractmethod
    def _close(self) -> None: ...


class _AsyncpgLine(_Line):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._event = asyncio.Event()

    def open(self, channel: str) -> None:
        self._driver.add_termination_listener(self._end)
        await_in_greenlet(self._driver.add_listener(channel, self._hear))

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        self._payloads.append(payload)
        self._event.set()

    def _end(self, _connection: object) -> None:
        self._event.set()

    def _take(self) -> None:
        if self._driver.is_closed():
            raise StorageError("the connection that listens for notifications was closed")

    def _wait(self, timeout_s: float) -> None:
        await_in_greenlet(_awaited(self._event, timeout_s))

    def interrupt(self) -> None:
        self._event.set()

    def _close(self) -> None:
        self._driver.terminate()


class _SocketLine(_Line):
    """Waits until the connection's socket can be read."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._waker, self._woken = socket.socketpair()

    def _wait(self, timeout_s: float) -> None:
        with selectors.DefaultSelector() as selector:
            for each in (self._driver.fileno(), self._woken):
                selector.register(each, selectors.EVENT_READ)
            selector.select(timeout_s)

    def interrupt(self) -> None:
        self._waker.send(b"\0")

    def close(self) -> None:
        super().close()
        self._waker.close()
        self._woken.close()


class _Psycopg2Line(_SocketLine):
    def _take(self) -> None:
        self._driver.poll()
        self._payloads += [each.payload for each in self._driver.notifies]
        self._driver.notifies.clear()

    def _close(self) -> None:
        self._driver.close()


class _PsycopgLine(_SocketLine):
    def open(self, channel: str) -> None:
        # For those that come with the answer to another statement.
        self._driver.add_notify_handler(self._hear)
        super().open(channel)

    def _hear(self, notification: Any) -> None:
        self._payloads.append(notification.payload)

    def _take(self) -> None:
        connection = self._driver.pgconn
        connection.consume_input()
        while (found := connection.notifies()) is not None:
            self._payloads.append(found.extra.decode())

    def _close(self) -> None:
        self._driver.pgconn.finish()


class _AsyncPsycopgLine(_PsycopgLine):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._event = asyncio.Event()

    def _wait(self, timeout_s: float) -> None:
        loop, number = asyncio.get_running_loop(), self._driver.fileno()
        # The driver watches the same socket while it executes something, so this is done for the moment only.
        loop.add_reader(number, self._event.set)
        try:
            await_in_greenlet(_awaited(self._event, timeout_s))
        finally:
            loop.remove_reader(number)

    def interrupt(self) -> None:
        self._event.set()


def _dbapi_connection(connection: Connection) -> Any:
    """Return what SQLAlchemy's dialect works with."""
    return connection.connection.dbapi_connection


async def _awaited(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    event.clear()


def _psycopg_line(connection: Connection) -> _Line:
    return _AsyncPsycopgLine(connection) if connection.dialect.is_async else _PsycopgLine(connection)


_LINES: Final[dict[str, Callable[[Connection], _Line]]] = {
    "asyncpg": _AsyncpgLine,
    "psycopg": _psycopg_line,
    "psycopg2": _Psycopg2Line,
}

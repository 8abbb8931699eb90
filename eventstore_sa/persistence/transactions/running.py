"""Running transactions on a bind: errors of drivers become the library's, and passing ones are tried again.

What a transaction is for is not known here: events, projections and snapshots run theirs alike.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from eventstore_sa.attempts import Attempts
from eventstore_sa.errors import (
    ConcurrencyError,
    ConnectionLostError,
    EventStoreError,
    StorageError,
    TransactionError,
)
from eventstore_sa.persistence.sqlalchemy_internals import renew_connections
from eventstore_sa.persistence.transactions.binds import Bind, ConnectionScope
from eventstore_sa.persistence.transactions.databases import database_of
from eventstore_sa.persistence.transactions.failures import Aftermath, Failure, FailureKind, Refusal, error_of

__all__ = ["TransactionRunner"]

_TRIES: Final = 4
_NO_CONSTRAINTS: Final[Mapping[str, FailureKind]] = {}
_log = logging.getLogger("eventstore_sa.store")


class TransactionRunner:
    """Gives the connections of a bind, each in its transaction.

    Args:
        bind: Where they come from.
        constraints: What the violation of a unique constraint means, by its name.
    """

    def __init__(self, bind: Bind, constraints: Mapping[str, FailureKind] = _NO_CONSTRAINTS) -> None:
        self.bind: Final = bind
        self._constraints = constraints

    def attempts(self) -> Attempts:
        """Return the attempts at a transaction of our own, which pass over errors that may not come again.

        There is no pause: after a deadlock the database has made us wait already, and a broken connection is replaced. In
        a transaction of the caller's there is a single attempt.
        """
        return _Attempts(1 if self.bind.in_transaction else _TRIES, on=(ConcurrencyError, ConnectionLostError))

    def reading(self) -> AbstractContextManager[ConnectionScope]:
        """Enter a connection for reading; see `Bind.reading`."""
        return self.enter(self.bind.reading())

    def writing(self, *, publishing: bool = False) -> AbstractContextManager[ConnectionScope]:
        """Enter a connection for a single statement that writes; see `Bind.writing`."""
        return self.enter(self.bind.writing(), publishing=publishing)

    def savepoint(
        self, *, in_session: bool = False, publishing: bool = False
    ) -> AbstractContextManager[ConnectionScope]:
        """Enter a connection for several statements; see `Bind.savepoint`."""
        return self.enter(self.bind.savepoint(in_session=in_session), publishing=publishing)

    def transaction(self) -> AbstractContextManager[ConnectionScope]:
        """Enter an ordinary transaction; see `Bind.transaction`."""
        return self.enter(self.bind.transaction())

    @contextmanager
    def enter(
        self, entered: AbstractContextManager[ConnectionScope], *, publishing: bool = False
    ) -> Generator[ConnectionScope]:
        """Enter a connection scope, and raise the library's errors instead of the driver's.

        Args:
            entered: One that the bind gives.
            publishing: Whether events are stored there.
        """
        scope: ConnectionScope | None = None
        failed: Exception | None = None
        try:
            with entered as scope:
                try:
                    database_of(scope.connection).check_connection(scope.connection)
                    yield scope
                except Exception as error:
                    failed = error
                    read = self._unwrapped_error_of(error, scope, publishing=publishing, undone=scope.in_savepoint)
                    if read is None:
                        raise
                    raise read from error
        except EventStoreError:
            raise
        except Refusal as error:
            raise self._error_of(error.failure, error, publishing=publishing, ended=False) from None
        except DBAPIError as error:
            undone = error is failed and scope is not None and scope.in_savepoint
            # From the driver's error: SQLAlchemy's shows the parameters, and so the payloads.
            raise self._driver_error_of(error, scope, publishing=publishing, undone=undone) from error.orig
        except PendingRollbackError as error:
            # Without a cause: its message quotes the failed statement with its parameters.
            failure = Failure(FailureKind.ABORTED_TRANSACTION)
            raise self._error_of(failure, error, publishing=publishing, ended=True) from None
        except PoolTimeoutError as error:
            raise StorageError(
                "no database connection became free in time: give connections back sooner, or raise pool_size"
            ) from error
        except Exception as error:
            # What was raised within has been looked at there.
            known = error is failed
            read = None if known else self._unwrapped_error_of(error, scope, publishing=publishing, undone=False)
            if read is None:
                raise
            raise read from error

    def _driver_error_of(
        self, error: DBAPIError, scope: ConnectionScope | None, *, publishing: bool, undone: bool
    ) -> EventStoreError:
        """Read a driver's error.

        Args:
            error: As SQLAlchemy wraps it.
            scope: Where it was raised; None if there was no connection yet.
            publishing: Whether events were to be stored.
            undone: Whether a savepoint has undone what went wrong.
        """
        if scope is None and error.statement is None:
            return _cannot_connect(error.orig)
        in_transaction = self.bind.in_transaction
        connection = None if scope is None else scope.connection
        database = self.bind.database if connection is None else database_of(connection)
        failure = database.failure_of(error).refined(self._constraints)
        if connection is not None and failure.kind is FailureKind.TRANSACTION_LOST and in_transaction:
            # What the caller writes from here on would be committed alone: let nothing through but a rollback.
            connection.invalidate()
        if connection is not None and failure.kind is FailureKind.STALE_STATEMENT and not in_transaction:
            # In autocommit mode, psycopg keeps what it has prepared for as long as the connection; a rollback clears it.
            renew_connections(connection.engine.pool)
        lost = connection is not None and connection.invalidated
        ended = lost or (in_transaction and not undone and database.ends_transaction(connection, error))
        return self._error_of(failure, error, publishing=publishing, ended=ended)

    def _unwrapped_error_of(
        self, error: Exception, scope: ConnectionScope | None, *, publishing: bool, undone: bool
    ) -> EventStoreError | None:
        """Read an error of the driver that SQLAlchemy passes on as it is; None if it is not the driver's.

        What cannot be relied on any more is invalidated, before anything else is sent on it.
        """
        if isinstance(error, DBAPIError | EventStoreError):
            return None
        if scope is None:
            return _cannot_connect(error) if isinstance(error, OSError) else None
        connection = scope.connection
        failure = database_of(connection).unwrapped_failure_of(connection, error)
        if failure is None:
            return None
        # A statement that was given up may have been executed all the same: its transaction must not be committed.
        lost = failure.kind is FailureKind.DISCONNECTED
        if not connection.closed and (lost or (self.bind.in_transaction and not undone)):
            connection.invalidate(error)
        return self._error_of(failure, error, publishing=publishing, ended=not undone)

    def _error_of(self, failure: Failure, noted: Exception, *, publishing: bool, ended: bool) -> EventStoreError:
        """Make the error of a failure, with what was noted on the one that it replaces, such as the failing projection."""
        if failure.kind is FailureKind.ISOLATION and self.bind.require_read_committed():
            return ConcurrencyError(f"{failure.message}: READ COMMITTED is asked for by name")
        aftermath = Aftermath.OWN
        if self.bind.in_transaction:
            aftermath = Aftermath.BROKEN if ended or failure.ends_transaction else Aftermath.USABLE
        error = error_of(failure, publishing=publishing, aftermath=aftermath)
        for note in getattr(noted, "__notes__", ()):
            error.add_note(note)
        return error


class _Attempts(Attempts):
    """Attempts that do not hide a lost connection: the outcome of what was done there is unknown, whatever follows."""

    _lost: ConnectionLostError | None = None

    def another_follows(self, error: Exception) -> bool:
        if not isinstance(error, StorageError | TransactionError):
            return False
        if isinstance(error, ConnectionLostError):
            self._lost = error
        if super().another_follows(error):
            _log.info("trying again: %s", error)
            return True
        if self._lost is None or self._lost is error:
            return False
        raise self._lost from error


def _cannot_connect(error: BaseException | None) -> StorageError:
    return StorageError(
        f"could not connect to the database ({type(error).__name__}): check that it is running, and the URL"
    )

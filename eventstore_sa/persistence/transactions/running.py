"""Entering the places where statements run: errors of drivers become the library's, and passing ones are tried again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from eventstore_sa.errors import (
    ConcurrencyError,
    ConnectionLostError,
    EventStoreError,
    StorageError,
    TransactionError,
)
from eventstore_sa.persistence.events.constraints import ConstraintConverters
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.binds import Bind, Workplace
from eventstore_sa.persistence.transactions.encoding import refuse_other_encodings
from eventstore_sa.persistence.transactions.failures import Aftermath, Problem, ProblemKind, Refusal, error_of

__all__ = ["Workplaces"]

T = TypeVar("T")

_TRIES: Final = 4
_log = logging.getLogger("eventstore_sa.store")


class Workplaces:
    """The workplaces of one bind, each with the repository for its database.

    Args:
        bind: Where they come from.
        schema: The tables.
        constraint_converters: How the constraints of reads are translated to SQL.
    """

    def __init__(self, bind: Bind, schema: EventStoreSchema, *, constraint_converters: ConstraintConverters) -> None:
        self._bind = bind
        self._schema = schema
        self._constraint_converters = constraint_converters
        self._repositories: dict[str, EventRepository] = {}

    def retried(self, work: Callable[[], T]) -> T:
        """Do something in a transaction of our own, again when it failed for a passing reason.

        There is no pause: after a deadlock the database has made us wait already, and a broken connection is replaced.
        """
        lost: ConnectionLostError | None = None
        for tries_left in range(0 if self._bind.hosted else _TRIES - 1, -1, -1):
            try:
                return work()
            except (StorageError, TransactionError) as error:
                if isinstance(error, ConnectionLostError):
                    lost = error
                if tries_left == 0 or not isinstance(error, ConcurrencyError | ConnectionLostError):
                    if lost is None or lost is error:
                        raise
                    # What became of that attempt is still unknown, whatever kept this one from telling.
                    raise lost from error
                _log.info("trying again: %s", error)
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def enter(
        self, place: AbstractContextManager[Workplace], *, publishing: bool = False, checked: bool = True
    ) -> Generator[tuple[Workplace, EventRepository]]:
        """Enter a workplace, and raise the library's errors in the place of the driver's.

        Args:
            place: One that the bind gives.
            publishing: Whether events are stored there.
            checked: Whether the mode of locking is compared with the one in the database, if it has not been yet.
        """
        workplace: Workplace | None = None
        failure: Exception | None = None
        try:
            with place as workplace:
                try:
                    repository = self._repository(workplace.connection.dialect.name, workplace.connection)
                    refuse_other_encodings(workplace.connection)
                    if checked:
                        self._schema.locking_record.check(workplace.connection)
                    yield workplace, repository
                except Exception as error:
                    failure = error
                    read = self._unwrapped_error_of(error, workplace, publishing=publishing, undone=workplace.savepoint)
                    if read is None:
                        raise
                    raise read from error
        except EventStoreError:
            raise
        except Refusal as error:
            aftermath = self._aftermath(error.problem, ended=False)
            raise _with_notes(error_of(error.problem, publishing=publishing, aftermath=aftermath), error) from None
        except DBAPIError as error:
            undone = error is failure and workplace is not None and workplace.savepoint
            # From the driver's error: SQLAlchemy's shows the parameters, and so the payloads.
            raise self._error_of(error, workplace, publishing=publishing, undone=undone) from error.orig
        except PendingRollbackError:
            # Without a cause: its message quotes the failed statement with its parameters.
            problem = Problem(ProblemKind.ABORTED_TRANSACTION)
            aftermath = self._aftermath(problem, ended=True)
            raise error_of(problem, publishing=publishing, aftermath=aftermath) from None
        except PoolTimeoutError as error:
            raise StorageError(
                "no database connection became free in time: give connections back sooner, or raise pool_size"
            ) from error
        except Exception as error:
            # What was raised within has been looked at there.
            known = error is failure
            read = None if known else self._unwrapped_error_of(error, workplace, publishing=publishing, undone=False)
            if read is None:
                raise
            raise read from error

    def _error_of(
        self, error: DBAPIError, workplace: Workplace | None, *, publishing: bool, undone: bool
    ) -> EventStoreError:
        """Read a driver's error.

        Args:
            error: As SQLAlchemy wraps it.
            workplace: Where it was raised; None when there was none yet.
            publishing: Whether events were to be stored.
            undone: Whether a savepoint has undone what went wrong.
        """
        if workplace is None and error.statement is None:
            return _cannot_connect(error.orig)
        connection = None if workplace is None else workplace.connection
        database = self._bind.database if connection is None else connection.dialect.name
        dialect = self._repository(database, connection).dialect
        problem = dialect.problem_of(error)
        if connection is not None and problem.kind is ProblemKind.TRANSACTION_LOST and self._bind.hosted:
            # What the caller writes from here on would be committed alone: let nothing through but a rollback.
            connection.invalidate()
        if problem.kind is ProblemKind.ISOLATION and self._bind.require_read_committed():
            return ConcurrencyError(f"{problem.message}: READ COMMITTED is asked for by name")
        lost = connection is not None and connection.invalidated
        ended = lost or (self._bind.hosted and not undone and dialect.ends_transaction(connection, error))
        aftermath = self._aftermath(problem, ended=ended)
        return _with_notes(error_of(problem, publishing=publishing, aftermath=aftermath), error)

    def _unwrapped_error_of(
        self, error: Exception, workplace: Workplace | None, *, publishing: bool, undone: bool
    ) -> EventStoreError | None:
        """Read an error of the driver that SQLAlchemy passes on as it is; None when it is none.

        What cannot be relied on any more is invalidated, before anything else is sent on it.
        """
        if isinstance(error, DBAPIError | EventStoreError):
            return None
        if workplace is None:
            return _cannot_connect(error) if isinstance(error, OSError) else None
        connection = workplace.connection
        dialect = self._repository(connection.dialect.name, connection).dialect
        problem = dialect.unwrapped_problem_of(connection, error)
        if problem is None:
            return None
        # A statement that nobody waited for may have been done all the same: its transaction must not be committed.
        if not connection.closed and (problem.kind is ProblemKind.DISCONNECTED or (self._bind.hosted and not undone)):
            connection.invalidate(error)
        aftermath = self._aftermath(problem, ended=not undone)
        return error_of(problem, publishing=publishing, aftermath=aftermath)

    def _aftermath(self, problem: Problem, *, ended: bool) -> Aftermath:
        if not self._bind.hosted:
            return Aftermath.OWN
        return Aftermath.BROKEN if ended or problem.ends_transaction else Aftermath.USABLE

    def _repository(self, database: str, connection: Connection | None) -> EventRepository:
        repository = self._repositories.get(database)
        if repository is None:
            repository = EventRepository(self._schema, database, self._constraint_converters)
            if connection is not None:
                repository.dialect.check_version(connection)
                self._repositories[database] = repository
        return repository


def _with_notes(error: EventStoreError, noted: Exception) -> EventStoreError:
    """Keep what was noted on the error that another takes the place of, such as which projection was at which event."""
    for note in getattr(noted, "__notes__", ()):
        error.add_note(note)
    return error


def _cannot_connect(error: BaseException | None) -> StorageError:
    return StorageError(
        f"no connection to the database could be made ({type(error).__name__}): check that it runs, and the URL"
    )

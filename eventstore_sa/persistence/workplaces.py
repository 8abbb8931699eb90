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
    ConfigurationError,
    ConnectionLostError,
    EventStoreError,
    StorageError,
    TransactionError,
)
from eventstore_sa.persistence.binds import Bind, Workplace
from eventstore_sa.persistence.encoding import encoding_problem
from eventstore_sa.persistence.locking import LockingRecord
from eventstore_sa.persistence.problems import Problem, ProblemKind, error_of
from eventstore_sa.persistence.queries import ConstraintConverters
from eventstore_sa.persistence.repositories.events import EventRepository
from eventstore_sa.persistence.schema import EventStoreSchema

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
        locking: How writers exclude each other.
    """

    def __init__(
        self,
        bind: Bind,
        schema: EventStoreSchema,
        *,
        constraint_converters: ConstraintConverters,
        locking: LockingRecord,
    ) -> None:
        self._bind = bind
        self._schema = schema
        self._constraint_converters = constraint_converters
        self._locking = locking
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
        repository: EventRepository | None = None
        connection: Connection | None = None
        try:
            with place as workplace:
                connection = workplace.connection
                repository = self._repository(connection)
                unfit = encoding_problem(connection)
                if unfit is not None:
                    raise ConfigurationError(unfit)
                if checked:
                    self._locking.check(connection)
                with _unwrapped_errors_read(connection, repository, publishing=publishing):
                    yield workplace, repository
        except DBAPIError as error:
            # From the driver's error: SQLAlchemy's shows the parameters, and so the payloads.
            if repository is None or connection is None:
                raise _cannot_connect(error.orig) from error.orig
            problem = repository.dialect.problem_of(error)
            if problem.kind is ProblemKind.TRANSACTION_LOST and self._bind.hosted:
                # What the caller writes from here on would be committed alone: let nothing through but a rollback.
                connection.invalidate()
            if problem.kind is ProblemKind.ISOLATION and self._bind.require_read_committed():
                raise ConcurrencyError(f"{problem.message}: READ COMMITTED is asked for by name") from error.orig
            raise _with_notes(error_of(problem, publishing=publishing), error) from error.orig
        except PendingRollbackError:
            # Without a cause: its message quotes the failed statement with its parameters.
            raise error_of(Problem(ProblemKind.ABORTED_TRANSACTION), publishing=publishing) from None
        except PoolTimeoutError as error:
            raise StorageError(
                "no database connection became free in time: give connections back sooner, or raise pool_size"
            ) from error
        except OSError as error:
            if repository is None:
                raise _cannot_connect(error) from error
            raise

    def _repository(self, connection: Connection) -> EventRepository:
        database = connection.dialect.name
        repository = self._repositories.get(database)
        if repository is None:
            repository = EventRepository(self._schema, database, self._constraint_converters, self._locking.mode)
            repository.dialect.check_version(connection)
            self._repositories[database] = repository
        return repository


def _with_notes(error: EventStoreError, noted: Exception) -> EventStoreError:
    """Keep what was noted on the error that another takes the place of, such as which projection was at which event."""
    for note in getattr(noted, "__notes__", ()):
        error.add_note(note)
    return error


@contextmanager
def _unwrapped_errors_read(connection: Connection, repository: EventRepository, *, publishing: bool) -> Generator[None]:
    """Raise the library's errors in the place of those of the driver that SQLAlchemy passes on as they are."""
    try:
        yield
    except DBAPIError:
        raise
    except Exception as error:
        problem = repository.dialect.unwrapped_problem_of(connection, error)
        if problem is None:
            raise
        if problem.kind is ProblemKind.DISCONNECTED:
            connection.invalidate(error)
        raise error_of(problem, publishing=publishing) from error


def _cannot_connect(error: BaseException | None) -> StorageError:
    return StorageError(
        f"no connection to the database could be made ({type(error).__name__}): check that it runs, and the URL"
    )

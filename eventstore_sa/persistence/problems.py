"""What a database says when it refuses, turned into the errors of the library.

A dialect reads a driver's error, or the row that the guarded append returns in its place, into a `Problem`; here it
becomes an exception with a remedy. Messages of the database are passed on only where they cannot hold parts of events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final

from msgspec import Struct

from eventstore_sa.errors import (
    ConcurrencyError,
    ConnectionLostError,
    DuplicateEventError,
    EventStoreError,
    LockTimeoutError,
    SchemaError,
    SerialisationError,
    StorageError,
    TransactionError,
)

__all__ = ["Problem", "ProblemKind", "error_of"]


class ProblemKind(Enum):
    """Why a database refused."""

    DUPLICATE_ID = auto()
    POSITION_TAKEN = auto()
    SEQUENCE_BEHIND = auto()
    MISSING_SCHEMA = auto()
    MISSING_TABLES = auto()
    LOCK_TIMEOUT = auto()
    DEADLOCK = auto()
    TRANSACTION_LOST = auto()
    SERIALISATION_FAILURE = auto()
    STALE_SNAPSHOT = auto()
    ISOLATION = auto()
    STANDBY = auto()
    READ_ONLY = auto()
    CANCELLED = auto()
    TIMED_OUT = auto()
    ABORTED_TRANSACTION = auto()
    TOO_LARGE = auto()
    DISCONNECTED = auto()
    OTHER = auto()


class Problem(Struct, frozen=True):
    """A refusal of the database: of which kind, and its own words in one line."""

    kind: ProblemKind
    message: str = ""


def error_of(problem: Problem, *, publishing: bool) -> EventStoreError:
    """Build the exception for a problem; the caller raises it from the driver's error."""
    if problem.kind is ProblemKind.DISCONNECTED and not publishing:
        return ConnectionLostError(
            "the connection to the database was lost before it answered: make the call again, in a new transaction"
        )
    return _ERRORS[problem.kind](problem.message)


_ERRORS: Final[Mapping[ProblemKind, Callable[[str], EventStoreError]]] = {
    ProblemKind.DUPLICATE_ID: lambda _: DuplicateEventError(
        "an event id is stored already, by a transaction that has just committed: publish again to learn which"
    ),
    ProblemKind.POSITION_TAKEN: lambda _: ConcurrencyError(
        "another transaction stored events at the same position of a stream first: roll back, then run all of the "
        "transaction again",
    ),
    ProblemKind.SEQUENCE_BEHIND: lambda _: SchemaError(
        "the sequence of event numbers is behind the table of events, as after a restore without it: set it to the "
        "highest sequence_number stored (ALTER TABLE ... ALTER COLUMN sequence_number RESTART WITH ...)"
    ),
    ProblemKind.MISSING_SCHEMA: lambda said: SchemaError(
        f"tables or functions are missing ({said}): with Alembic, run `alembic upgrade head`; in development and tests, "
        "store.create_schema() or metadata.create_all(). If they are there, check the prefix, the schema and the search path"
    ),
    ProblemKind.MISSING_TABLES: lambda said: SchemaError(
        f"tables are missing ({said}): with Alembic, run `alembic upgrade head`; in development and tests, "
        "store.create_schema() or metadata.create_all(). If they are there, check the prefix, and that this is the right "
        "database"
    ),
    ProblemKind.LOCK_TIMEOUT: lambda said: LockTimeoutError(
        f"a lock was not to be had in time ({said}): run the transaction again, or raise the time limit"
    ),
    ProblemKind.DEADLOCK: lambda _: ConcurrencyError(
        "the database broke a deadlock by giving up this statement: run the transaction again; publishing to many "
        "streams in one call takes their locks in one order",
    ),
    ProblemKind.TRANSACTION_LOST: lambda _: ConcurrencyError(
        "the database broke a deadlock by rolling back the whole transaction, with everything that was done in it before: "
        "roll back, then run all of the transaction again",
    ),
    ProblemKind.SERIALISATION_FAILURE: lambda said: ConcurrencyError(
        f"a concurrent transaction got in between ({said}): roll back, then run all of the transaction again",
    ),
    ProblemKind.STALE_SNAPSHOT: lambda _: ConcurrencyError(
        "this SQLite transaction has read before it wrote, and another one has written since: roll back, then run it "
        "again; with configure_sqlite(engine) transactions take their place before they read",
    ),
    ProblemKind.ISOLATION: lambda said: TransactionError(f"{said}: use isolation level READ COMMITTED for this"),
    ProblemKind.STANDBY: lambda said: TransactionError(f"{said}: read the log and categories from the primary"),
    ProblemKind.READ_ONLY: lambda said: TransactionError(
        f"nothing can be stored in a read-only transaction or database ({said}): write where writing is allowed"
    ),
    ProblemKind.CANCELLED: lambda said: TransactionError(
        f"the database cancelled the statement ({said}): nothing of it was stored; raise statement_timeout, or store "
        "less at once",
        retryable=True,
    ),
    ProblemKind.TIMED_OUT: lambda _: TransactionError(
        "the driver gave up waiting for the database (command_timeout), so it is not known whether anything was stored: "
        "publish the same events again, with the same ids, or raise the time limit",
        retryable=True,
    ),
    ProblemKind.ABORTED_TRANSACTION: lambda _: TransactionError(
        "an earlier statement of this transaction failed: roll it back first"
    ),
    ProblemKind.TOO_LARGE: lambda said: SerialisationError(
        f"the publish is larger than the database can take in one statement ({said}): publish fewer events at once, or "
        "smaller ones"
    ),
    ProblemKind.DISCONNECTED: lambda _: ConnectionLostError(
        "the connection to the database was lost, so it is not known whether the events were stored: publish the same "
        "events again, with the same ids"
    ),
    ProblemKind.OTHER: lambda said: StorageError(
        f"the database refused: {said}; see the driver's error, which is the __cause__"
    ),
}

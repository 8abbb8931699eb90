"""What a database says when it refuses, turned into the errors of the library.

`databases.py` reads a driver's error into a `Failure`, and a dialect of events the row that the guarded append returns
instead of raising; here it becomes an exception with a remedy. Messages of the database are passed on only where they
cannot hold parts of events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from functools import partial
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from eventstore_sa.errors import (
    ConcurrencyError,
    ConfigurationError,
    ConnectionLostError,
    DuplicateEventError,
    EventStoreError,
    LockTimeoutError,
    SchemaError,
    SerialisationError,
    StorageError,
    TransactionError,
)

__all__ = ["AGAIN", "Aftermath", "Failure", "FailureKind", "OutOfTurnError", "Refusal", "error_of"]


AGAIN: Final = "make the call again, or run all of the transaction again"
"""What to do about a passing failure that leaves the caller's transaction usable."""


class FailureKind(Enum):
    """Why a database refused."""

    DUPLICATE_ID = auto()
    POSITION_TAKEN = auto()
    SEQUENCE_BEHIND = auto()
    MISSING_SEQUENCE = auto()
    MISSING_SCHEMA = auto()
    MISSING_TABLES = auto()
    LOCK_TIMEOUT = auto()
    PROJECTIONS_LOCKED = auto()
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
    LOST_STATEMENT = auto()
    STALE_STATEMENT = auto()
    DISCONNECTED = auto()
    REFUSED = auto()
    """Anything else that was returned as a row, so that there is no error of the driver."""
    OTHER = auto()
    """Anything else that the driver has raised."""


class Failure(Struct, frozen=True):
    """A refusal of the database.

    Attributes:
        kind: Why it refused.
        message: Its own words, in one line.
        constraint: The unique constraint that was violated, as the database names it; on SQLite the columns of it.
    """

    kind: FailureKind
    message: str = ""
    constraint: str = ""

    @property
    def ends_transaction(self) -> bool:
        """Whether the transaction accepts nothing but a rollback any more, with or without a savepoint."""
        return self.kind in _ENDING

    def refined(self, constraints: Mapping[str, FailureKind]) -> Failure:
        """Return this failure as one of the kind that its constraint stands for, if it is one of these constraints."""
        kind = constraints.get(self.constraint)
        return self if kind is None else replace(self, kind=kind)


class OutOfTurnError(LockTimeoutError):
    """A publish did not wait for locked projections, because earlier publishes of its transaction have locked some."""


class Refusal(Exception):  # noqa: N818 - it never leaves the package
    """Carries a failure that the driver did not raise to where failures become errors."""

    def __init__(self, failure: Failure) -> None:
        super().__init__()
        self.failure = failure


class Aftermath(Enum):
    """What a refusal leaves of the transaction that it happened in."""

    OWN = auto()
    """It was a transaction of our own, and has been rolled back."""
    USABLE = auto()
    """The caller's transaction continues as if nothing had been tried."""
    BROKEN = auto()
    """The caller's transaction can only be rolled back."""


def error_of(failure: Failure, *, publishing: bool, aftermath: Aftermath) -> EventStoreError:
    """Build the exception for a failure; the caller raises it from the driver's error.

    Args:
        failure: What the database said.
        publishing: Whether events were to be stored.
        aftermath: What is left of the transaction; the message and `must_roll_back` say so.
    """
    unknown = publishing and aftermath is Aftermath.OWN
    explanation = _UNKNOWN.get(failure.kind, _EXPLANATIONS[failure.kind]) if unknown else _EXPLANATIONS[failure.kind]
    steps = [explanation.advice] if explanation.advice else []
    if aftermath is Aftermath.BROKEN:
        steps.insert(0, "roll back, then run all of the transaction again" if explanation.again else "roll back")
    elif explanation.again and aftermath is Aftermath.USABLE:
        steps.insert(0, AGAIN)
    elif explanation.again:
        steps.insert(0, "make the call again")
    what = explanation.what.format(said=failure.message)
    if publishing and aftermath is Aftermath.BROKEN and explanation.again:
        what = f"{what}; nothing was stored"
    error = explanation.make(f"{what}: {'; '.join(steps)}" if steps else what)
    error.must_roll_back = aftermath is Aftermath.BROKEN
    return error


class _Explanation(Struct, frozen=True):
    """What is said of a kind of failure, and by which error.

    Attributes:
        make: Makes the error of a message.
        what: What has happened; `{said}` stands for the words of the database.
        advice: What to do besides running it again.
        again: Whether it may succeed when it is run again.
    """

    make: Callable[[str], EventStoreError]
    what: str
    advice: str = ""
    again: bool = False


_TABLES_ADVICE: Final = (
    "with Alembic, run `alembic upgrade head`; in development and tests, store.create_schema() or metadata.create_all(). If "
    "they are there, check the prefix, "
)
_SAME_IDS: Final = "publish the same events again, with the same ids"

_ENDING: Final = frozenset(
    {
        FailureKind.TRANSACTION_LOST,
        # What was read before is not what a serial order would show.
        FailureKind.SERIALISATION_FAILURE,
        FailureKind.STALE_SNAPSHOT,
        FailureKind.DISCONNECTED,
    }
)

_EXPLANATIONS: Final[Mapping[FailureKind, _Explanation]] = {
    FailureKind.DUPLICATE_ID: _Explanation(
        DuplicateEventError,
        "an event id is already stored, by a transaction that has just committed",
        "publish again to learn which",
    ),
    FailureKind.POSITION_TAKEN: _Explanation(
        ConcurrencyError, "another transaction stored events at the same position of a stream first", again=True
    ),
    FailureKind.SEQUENCE_BEHIND: _Explanation(
        SchemaError,
        "the sequence of event numbers is behind the table of events, as after a restore without it",
        "set it to the highest sequence_number stored (ALTER TABLE ... ALTER COLUMN sequence_number RESTART WITH ...)",
    ),
    FailureKind.MISSING_SEQUENCE: _Explanation(
        SchemaError,
        "{said}",
        "make it GENERATED ALWAYS AS IDENTITY, with a sequence that begins above the highest number stored "
        "(ALTER TABLE ... ALTER COLUMN sequence_number ADD GENERATED ALWAYS AS IDENTITY (START WITH ...))",
    ),
    FailureKind.MISSING_SCHEMA: _Explanation(
        SchemaError,
        "tables or functions are missing ({said})",
        f"{_TABLES_ADVICE}the schema and the search path",
    ),
    FailureKind.MISSING_TABLES: _Explanation(
        SchemaError, "tables are missing ({said})", f"{_TABLES_ADVICE}and that this is the right database"
    ),
    FailureKind.LOCK_TIMEOUT: _Explanation(
        LockTimeoutError, "a lock could not be acquired in time ({said})", "or raise the time limit", again=True
    ),
    FailureKind.PROJECTIONS_LOCKED: _Explanation(
        OutOfTurnError,
        "{said}, and earlier publishes of this transaction have locked others, so that waiting might end in a deadlock",
        "publishes that are staged together, or made in one call, take all locks in one order, and can wait for them",
        again=True,
    ),
    FailureKind.DEADLOCK: _Explanation(
        ConcurrencyError,
        "the database broke a deadlock by giving up this statement",
        "publishing to many streams in one call takes their locks in one order",
        again=True,
    ),
    FailureKind.TRANSACTION_LOST: _Explanation(
        ConcurrencyError,
        "the database broke a deadlock by ending the whole transaction, with everything that was done in it before",
        again=True,
    ),
    FailureKind.SERIALISATION_FAILURE: _Explanation(
        ConcurrencyError, "a concurrent transaction interfered ({said})", again=True
    ),
    FailureKind.STALE_SNAPSHOT: _Explanation(
        ConcurrencyError,
        "this SQLite transaction read before it wrote, and another transaction has written since",
        "with configure_sqlite(engine), transactions take the write lock before they read",
        again=True,
    ),
    FailureKind.ISOLATION: _Explanation(TransactionError, "{said}", "use isolation level READ COMMITTED for this"),
    FailureKind.STANDBY: _Explanation(TransactionError, "{said}", "read the log and categories from the primary"),
    FailureKind.READ_ONLY: _Explanation(
        TransactionError,
        "the transaction or the database is read-only ({said})",
        "use a transaction and a server that accept writes",
    ),
    FailureKind.CANCELLED: _Explanation(
        partial(TransactionError, retryable=True),
        "the database cancelled the statement ({said})",
        "or raise statement_timeout, or do less at once",
        again=True,
    ),
    FailureKind.TIMED_OUT: _Explanation(
        partial(TransactionError, retryable=True),
        "the driver stopped waiting for the database (command_timeout)",
        "or raise the time limit",
        again=True,
    ),
    FailureKind.ABORTED_TRANSACTION: _Explanation(TransactionError, "an earlier statement of this transaction failed"),
    FailureKind.TOO_LARGE: _Explanation(
        SerialisationError,
        "the publish is larger than the database can take in one statement ({said})",
        "publish fewer events at once, or smaller ones",
    ),
    FailureKind.LOST_STATEMENT: _Explanation(
        ConfigurationError,
        "the driver and the server disagree about a prepared statement, as behind a pooler that gives each transaction "
        "another server connection ({said})",
        "turn prepared statements off in the driver, with connect_args: {'statement_cache_size': 0} for asyncpg, "
        "{'prepare_threshold': None} for psycopg",
    ),
    FailureKind.STALE_STATEMENT: _Explanation(
        ConcurrencyError, "a table was altered after the driver had prepared this statement ({said})", again=True
    ),
    FailureKind.DISCONNECTED: _Explanation(
        ConnectionLostError, "the connection to the database was lost before it answered", again=True
    ),
    FailureKind.REFUSED: _Explanation(
        StorageError,
        "the database refused ({said})",
        "look for a constraint, trigger or rule on the event store's tables that is not the library's",
    ),
    FailureKind.OTHER: _Explanation(
        StorageError, "the database refused ({said})", "see the driver's error, which is the __cause__"
    ),
}

# The outcome of a publish in a transaction of our own may be unknown.
_UNKNOWN: Final[Mapping[FailureKind, _Explanation]] = {
    FailureKind.TIMED_OUT: _Explanation(
        partial(TransactionError, retryable=True),
        "the driver stopped waiting for the database (command_timeout), so it is not known whether anything was stored",
        f"{_SAME_IDS}, or raise the time limit",
    ),
    FailureKind.DISCONNECTED: _Explanation(
        ConnectionLostError,
        "the connection to the database was lost, so it is not known whether the events were stored",
        _SAME_IDS,
    ),
}

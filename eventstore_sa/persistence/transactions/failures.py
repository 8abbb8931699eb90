"""What a database says when it refuses, turned into the errors of the library.

A dialect reads a driver's error, or the row that the guarded append returns in its place, into a `Problem`; here it
becomes an exception with a remedy. Messages of the database are passed on only where they cannot hold parts of events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from functools import partial
from typing import Final

from msgspec import Struct

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

__all__ = ["AGAIN", "Aftermath", "OutOfTurnError", "Problem", "ProblemKind", "Refusal", "error_of"]


AGAIN: Final = "make the call again, or run all of the transaction again"
"""What to do about a passing failure that leaves the caller's transaction usable."""


class ProblemKind(Enum):
    """Why a database refused."""

    DUPLICATE_ID = auto()
    POSITION_TAKEN = auto()
    SEQUENCE_BEHIND = auto()
    MISSING_SEQUENCE = auto()
    MISSING_SCHEMA = auto()
    MISSING_TABLES = auto()
    LOCK_TIMEOUT = auto()
    PROJECTIONS_HELD = auto()
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
    DISCONNECTED = auto()
    REFUSED = auto()
    """Anything else that came back as a row, so that there is no error of the driver."""
    OTHER = auto()
    """Anything else that the driver has raised."""


class Problem(Struct, frozen=True):
    """A refusal of the database: of which kind, and its own words in one line."""

    kind: ProblemKind
    message: str = ""

    @property
    def ends_transaction(self) -> bool:
        """Whether nothing can be done in the transaction any more, savepoint or not."""
        return self.kind in _ENDING


class OutOfTurnError(LockTimeoutError):
    """A publish did not wait for projections that others hold, because publishes before it in its transaction hold some."""


class Refusal(Exception):  # noqa: N818 - it never leaves the package
    """Takes a problem that was not raised by the driver to where problems become errors."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem


class Aftermath(Enum):
    """What a refusal leaves of the transaction that it happened in."""

    OWN = auto()
    """It was a transaction of our own, and is gone."""
    USABLE = auto()
    """The caller's transaction goes on as if nothing had been tried."""
    BROKEN = auto()
    """The caller's transaction can only be rolled back."""


def error_of(problem: Problem, *, publishing: bool, aftermath: Aftermath) -> EventStoreError:
    """Build the exception for a problem; the caller raises it from the driver's error.

    Args:
        problem: What the database said.
        publishing: Whether events were to be stored.
        aftermath: What is left of the transaction; the message and `must_roll_back` tell.
    """
    unknown = publishing and aftermath is Aftermath.OWN
    explanation = _UNKNOWN.get(problem.kind, _EXPLANATIONS[problem.kind]) if unknown else _EXPLANATIONS[problem.kind]
    steps = [explanation.advice] if explanation.advice else []
    if aftermath is Aftermath.BROKEN:
        steps.insert(0, "roll back, then run all of the transaction again" if explanation.again else "roll back")
    elif explanation.again and aftermath is Aftermath.USABLE:
        steps.insert(0, AGAIN)
    elif explanation.again:
        steps.insert(0, "make the call again")
    what = explanation.what.format(said=problem.message)
    if publishing and aftermath is Aftermath.BROKEN and explanation.again:
        what = f"{what}; nothing was stored"
    error = explanation.make(f"{what}: {'; '.join(steps)}" if steps else what)
    error.must_roll_back = aftermath is Aftermath.BROKEN
    return error


class _Explanation(Struct, frozen=True):
    """What is said of a kind of problem, and by which error.

    Attributes:
        make: Makes the error of a message.
        what: What has happened; `{said}` stands for the words of the database.
        advice: What else there is to do than to run it again.
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
        ProblemKind.TRANSACTION_LOST,
        # What was read before is not what a serial order would show.
        ProblemKind.SERIALISATION_FAILURE,
        ProblemKind.STALE_SNAPSHOT,
        ProblemKind.DISCONNECTED,
    }
)

_EXPLANATIONS: Final[Mapping[ProblemKind, _Explanation]] = {
    ProblemKind.DUPLICATE_ID: _Explanation(
        DuplicateEventError,
        "an event id is stored already, by a transaction that has just committed",
        "publish again to learn which",
    ),
    ProblemKind.POSITION_TAKEN: _Explanation(
        ConcurrencyError, "another transaction stored events at the same position of a stream first", again=True
    ),
    ProblemKind.SEQUENCE_BEHIND: _Explanation(
        SchemaError,
        "the sequence of event numbers is behind the table of events, as after a restore without it",
        "set it to the highest sequence_number stored (ALTER TABLE ... ALTER COLUMN sequence_number RESTART WITH ...)",
    ),
    ProblemKind.MISSING_SEQUENCE: _Explanation(
        SchemaError,
        "{said}",
        "make it GENERATED ALWAYS AS IDENTITY, with a sequence that begins above the highest number stored "
        "(ALTER TABLE ... ALTER COLUMN sequence_number ADD GENERATED ALWAYS AS IDENTITY (START WITH ...))",
    ),
    ProblemKind.MISSING_SCHEMA: _Explanation(
        SchemaError,
        "tables or functions are missing ({said})",
        f"{_TABLES_ADVICE}the schema and the search path",
    ),
    ProblemKind.MISSING_TABLES: _Explanation(
        SchemaError, "tables are missing ({said})", f"{_TABLES_ADVICE}and that this is the right database"
    ),
    ProblemKind.LOCK_TIMEOUT: _Explanation(
        LockTimeoutError, "a lock could not be acquired in time ({said})", "or raise the time limit", again=True
    ),
    ProblemKind.PROJECTIONS_HELD: _Explanation(
        OutOfTurnError,
        "{said}, and earlier publishes of this transaction hold others already, so that each might wait for the other",
        "publishes that are staged together, or made in one call, take all locks in one order, and wait",
        again=True,
    ),
    ProblemKind.DEADLOCK: _Explanation(
        ConcurrencyError,
        "the database broke a deadlock by giving up this statement",
        "publishing to many streams in one call takes their locks in one order",
        again=True,
    ),
    ProblemKind.TRANSACTION_LOST: _Explanation(
        ConcurrencyError,
        "the database broke a deadlock by ending the whole transaction, with everything that was done in it before",
        again=True,
    ),
    ProblemKind.SERIALISATION_FAILURE: _Explanation(
        ConcurrencyError, "a concurrent transaction got in between ({said})", again=True
    ),
    ProblemKind.STALE_SNAPSHOT: _Explanation(
        ConcurrencyError,
        "this SQLite transaction has read before it wrote, and another one has written since",
        "with configure_sqlite(engine) transactions take their place before they read",
        again=True,
    ),
    ProblemKind.ISOLATION: _Explanation(TransactionError, "{said}", "use isolation level READ COMMITTED for this"),
    ProblemKind.STANDBY: _Explanation(TransactionError, "{said}", "read the log and categories from the primary"),
    ProblemKind.READ_ONLY: _Explanation(
        TransactionError,
        "nothing can be stored in a read-only transaction or database ({said})",
        "write where writing is allowed",
    ),
    ProblemKind.CANCELLED: _Explanation(
        partial(TransactionError, retryable=True),
        "the database cancelled the statement ({said})",
        "or raise statement_timeout, or do less at once",
        again=True,
    ),
    ProblemKind.TIMED_OUT: _Explanation(
        partial(TransactionError, retryable=True),
        "the driver gave up waiting for the database (command_timeout)",
        "or raise the time limit",
        again=True,
    ),
    ProblemKind.ABORTED_TRANSACTION: _Explanation(TransactionError, "an earlier statement of this transaction failed"),
    ProblemKind.TOO_LARGE: _Explanation(
        SerialisationError,
        "the publish is larger than the database can take in one statement ({said})",
        "publish fewer events at once, or smaller ones",
    ),
    ProblemKind.LOST_STATEMENT: _Explanation(
        ConfigurationError,
        "the driver and the server disagree about a prepared statement, as behind a pooler that gives each transaction "
        "another server ({said})",
        "tell the driver not to keep prepared statements, with connect_args: {'statement_cache_size': 0} for asyncpg, "
        "{'prepare_threshold': None} for psycopg",
    ),
    ProblemKind.DISCONNECTED: _Explanation(
        ConnectionLostError, "the connection to the database was lost before it answered", again=True
    ),
    ProblemKind.REFUSED: _Explanation(
        StorageError,
        "the database refused ({said})",
        "look for a constraint, trigger or rule on the event store's tables that is not the library's",
    ),
    ProblemKind.OTHER: _Explanation(
        StorageError, "the database refused ({said})", "see the driver's error, which is the __cause__"
    ),
}

# Of a publish in a transaction of our own it may be unknown what became of it.
_UNKNOWN: Final[Mapping[ProblemKind, _Explanation]] = {
    ProblemKind.TIMED_OUT: _Explanation(
        partial(TransactionError, retryable=True),
        "the driver gave up waiting for the database (command_timeout), so it is not known whether anything was stored",
        f"{_SAME_IDS}, or raise the time limit",
    ),
    ProblemKind.DISCONNECTED: _Explanation(
        ConnectionLostError,
        "the connection to the database was lost, so it is not known whether the events were stored",
        _SAME_IDS,
    ),
}

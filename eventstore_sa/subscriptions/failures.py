"""What a subscription does when a handler fails: how often it tries again, and what becomes of the event then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct
from sqlalchemy.exc import DBAPIError, PendingRollbackError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from eventstore_sa.attempts import Attempts, Backoff, RetryOn
from eventstore_sa.errors import ConcurrencyError, ConfigurationError, ConnectionLostError
from eventstore_sa.persistence.transactions.databases import database_named
from eventstore_sa.persistence.transactions.failures import FailureKind
from eventstore_sa.types import AnyStoredEvent
from eventstore_sa.types.numbers import checked_count

__all__ = ["Consequence", "FailurePolicy", "HandlerFailed", "described", "is_outage", "traceable"]

Consequence: TypeAlias = Literal["stop", "skip", "park"]
"""What becomes of an event whose handler keeps failing.

- `"stop"`: its partition stops, until it is resumed. Nothing is missed, and nothing goes on.
- `"skip"`: it is recorded as skipped, and later events are handled.
- `"park"`: it is parked, to be replayed or discarded; later events of its stream wait behind it, all others are handled.
"""

_CONSEQUENCES: Final = get_args(Consequence)
_LONGEST_MESSAGE: Final = 2000
_PASSING: Final = frozenset(
    {
        FailureKind.DISCONNECTED,
        FailureKind.DEADLOCK,
        FailureKind.SERIALISATION_FAILURE,
        FailureKind.STALE_SNAPSHOT,
        FailureKind.TRANSACTION_LOST,
    }
)


class FailurePolicy(Struct, frozen=True, kw_only=True):
    """What to do when a handler raises.

    Args:
        retries: How often to call it again for the same event.
        retry_on: After which errors: types, or a function that returns True. Other errors have their consequence at once.
        backoff: How long to pause between the calls.
        then: What becomes of the event: "stop", "skip" or "park"; or a function of the error and the event that returns one
            of these.

    Raises:
        ConfigurationError: If `retries` is not a number from 0, or there is no such consequence.
    """

    retries: int = 5
    retry_on: RetryOn = Exception
    backoff: Backoff = Backoff(first_s=0.1, longest_s=30.0)
    then: Consequence | Callable[[Exception, AnyStoredEvent], Consequence] = "stop"

    def __post_init__(self) -> None:
        checked_count("retries", self.retries, least=0)
        if not callable(self.then):
            _checked(self.then)

    def tries_again(self, error: Exception, failures: int) -> bool:
        """Tell whether the handler is called again after so many failures."""
        attempts = Attempts(self.retries + 1, on=self.retry_on)
        attempts.number = failures
        return attempts.another_follows(error)

    def consequence(self, error: Exception, event: AnyStoredEvent) -> Consequence:
        """Return what becomes of an event.

        Raises:
            ConfigurationError: If `then` returns something else.
        """
        return _checked(self.then(error, event) if callable(self.then) else self.then)


class HandlerFailed(Exception):  # noqa: N818 - it never reaches users
    """Carries the error of a handler out of a transaction.

    Attributes:
        error: What it raised.
        index: For which of the events that it was given; None: it was given all of them at once.
    """

    def __init__(self, error: Exception, index: int | None) -> None:
        super().__init__(error, index)
        self.error = error
        self.index = index


def described(error: BaseException) -> str:
    """Return an error as it is stored: its type and what it says, without the parameters of a statement."""
    said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    text = f"{type(error).__name__}: {said}".replace("\0", "\\0")
    return text.encode("utf-8", "backslashreplace").decode()[:_LONGEST_MESSAGE]


def traceable(error: BaseException) -> BaseException | None:
    """Return an error whose traceback may be logged; None if that shows the parameters of a statement, and so payloads."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StatementError):
            return None
        seen = seen.__cause__ or seen.__context__
    return error


def is_outage(error: BaseException) -> bool:
    """Tell whether an error is not the handler's fault: there is no connection, or another transaction got in the way."""
    if isinstance(error, ConnectionLostError | PoolTimeoutError | ConcurrencyError):
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _is_passing(error)
    if isinstance(error, PendingRollbackError):
        cause = error.__cause__ or error.__context__
        return cause is not None and cause is not error and is_outage(cause)
    return False


def _is_passing(error: DBAPIError) -> bool:
    if type(error.orig).__name__ == "InternalClientError":
        # What asyncpg may say of a connection that is lost while it is busy.
        return True
    module = type(error.orig).__module__
    database = "sqlite" if module.startswith("sqlite") else "postgresql"
    return database_named(database).failure_of(error).kind in _PASSING


def _checked(given: object) -> Consequence:
    for consequence in _CONSEQUENCES:
        if given == consequence:
            checked: Consequence = consequence
            return checked
    raise ConfigurationError(f"a failure has the consequence {', '.join(map(repr, _CONSEQUENCES))}; got {given!r}")

"""Running a whole transaction of the application again, in a new session, after an error that may pass.

Publishes outside such a transaction are run again by the decorators in `decorators.py`, and by the store itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from eventstore_sa.attempts import Attempts, Backoff
from eventstore_sa.errors import ConnectionLostError, TransactionError, UnmetWriteConditionError
from eventstore_sa.persistence.transactions.databases import driver_attribute
from eventstore_sa.types.numbers import checked_count

__all__ = ["retry_transaction", "retry_transaction_sync"]

R = TypeVar("R")
ASession = TypeVar("ASession", bound=AsyncSession)
SSession = TypeVar("SSession", bound=Session)

_BACKOFF: Final = Backoff()

# What PostgreSQL reports for the application's own statements: serialisation failure and deadlock.
_PASSING: Final = frozenset({"40001", "40P01"})


async def retry_transaction(
    session_factory: Callable[[], ASession],
    work: Callable[[ASession], Awaitable[R]],
    *,
    retries: int = 3,
    backoff: Backoff = _BACKOFF,
) -> R:
    """Run a function in a transaction, and run it again in a new session when another transaction was faster.

    It runs again after an UnmetWriteConditionError, a TransactionError that is `retryable`, a deadlock or serialisation
    failure of the application's own statements, and a ConnectionLostError of a store within the session, after which it
    is certain that nothing was stored.

    Args:
        session_factory: Makes the session, such as an `async_sessionmaker`.
        work: The whole transaction, reads included; it is committed when this function returns. Its other effects must
            tolerate being repeated.
        retries: How often it runs again at most.
        backoff: How long to pause before each retry.

    Returns:
        What `work` returns.
    """
    attempts = _attempts(retries, backoff)
    return await attempts.call_async(partial(_in_transaction, session_factory, work))


def retry_transaction_sync(
    session_factory: Callable[[], SSession],
    work: Callable[[SSession], R],
    *,
    retries: int = 3,
    backoff: Backoff = _BACKOFF,
) -> R:
    """Run a function in a transaction, and again when another transaction was faster; see `retry_transaction`."""
    attempts = _attempts(retries, backoff)
    return attempts.call(partial(_in_transaction_sync, session_factory, work))


async def _in_transaction(session_factory: Callable[[], ASession], work: Callable[[ASession], Awaitable[R]]) -> R:
    async with session_factory() as session, session.begin():
        return await work(session)


def _in_transaction_sync(session_factory: Callable[[], SSession], work: Callable[[SSession], R]) -> R:
    with session_factory() as session, session.begin():
        return work(session)


def _attempts(retries: int, backoff: Backoff) -> Attempts:
    checked_count("retries", retries, least=0)
    return Attempts(retries + 1, on=_is_passing, backoff=backoff)


def _is_passing(error: Exception) -> bool:
    match error:
        case UnmetWriteConditionError():
            return True
        case TransactionError():
            return error.retryable
        case ConnectionLostError():
            # For a store on an engine it is unknown whether anything was stored.
            return error.must_roll_back
        case DBAPIError():
            return driver_attribute(error, "sqlstate", "pgcode") in _PASSING
        case _:
            return False

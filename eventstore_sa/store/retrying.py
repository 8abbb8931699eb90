"""Running a transaction of the application again when somebody else was faster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from eventstore_sa.errors import ConnectionLostError, TransactionError, UnmetWriteConditionError
from eventstore_sa.persistence.transactions.databases import driver_attribute
from eventstore_sa.store.transactions import Backoff
from eventstore_sa.types.numbers import checked_count

__all__ = ["retry_transaction", "retry_transaction_sync"]

R = TypeVar("R")
ASession = TypeVar("ASession", bound=AsyncSession)
SSession = TypeVar("SSession", bound=Session)

_BACKOFF: Final = Backoff()

# Serialisation failure and deadlock, as PostgreSQL reports them of the application's own statements.
_PASSING: Final = frozenset({"40001", "40P01"})


async def retry_transaction(
    session_factory: Callable[[], ASession],
    work: Callable[[ASession], Awaitable[R]],
    *,
    retries: int = 3,
    backoff: Backoff = _BACKOFF,
) -> R:
    """Do something in a transaction, and all of it again in a new session when somebody else was faster.

    That is when it fails with an UnmetWriteConditionError, a TransactionError that is `retryable`, a deadlock or
    serialisation failure of the application's own statements, or a ConnectionLostError of a store within the session, after
    which it is known that nothing was stored.

    Args:
        session_factory: Makes the session, such as an `async_sessionmaker`.
        work: Does everything, from reading on; the transaction is committed when it returns. What it does besides has to
            bear being done more than once.
        retries: How often it is done again at most.
        backoff: How long to pause before.

    Returns:
        What `work` returns.
    """
    checked_count("retries", retries, least=0)
    failures = 0
    while True:
        try:
            async with session_factory() as session, session.begin():
                return await work(session)
        except (UnmetWriteConditionError, TransactionError, ConnectionLostError, DBAPIError) as error:
            failures += 1
            if failures > retries or not _is_passing(error):
                raise
        await backoff.sleep(backoff.pause_s(failures))


def retry_transaction_sync(
    session_factory: Callable[[], SSession],
    work: Callable[[SSession], R],
    *,
    retries: int = 3,
    backoff: Backoff = _BACKOFF,
) -> R:
    """Do something in a transaction, and again when somebody else was faster; see `retry_transaction`."""
    checked_count("retries", retries, least=0)
    failures = 0
    while True:
        try:
            with session_factory() as session, session.begin():
                return work(session)
        except (UnmetWriteConditionError, TransactionError, ConnectionLostError, DBAPIError) as error:
            failures += 1
            if failures > retries or not _is_passing(error):
                raise
        backoff.sleep_sync(backoff.pause_s(failures))


def _is_passing(error: Exception) -> bool:
    match error:
        case UnmetWriteConditionError():
            return True
        case TransactionError():
            return error.retryable
        case ConnectionLostError():
            # Of a store on an engine it is not known.
            return error.must_roll_back
        case DBAPIError():
            return driver_attribute(error, "sqlstate", "pgcode") in _PASSING
        case _:
            raise TypeError(error)

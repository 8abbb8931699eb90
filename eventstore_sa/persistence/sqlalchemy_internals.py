"""What a session is doing at this moment, where SQLAlchemy has no public way of asking.

The private names of SQLAlchemy's sessions that we rely on are all here. The events around a flush and a commit cannot take
their place: they do not tell when one of these fails, and a commit of the outermost transaction looks like the release of
a savepoint that is open in it.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Column, Connection, NestedTransaction
from sqlalchemy.orm import Session, SessionTransaction

__all__ = [
    "connections_of",
    "is_committing",
    "is_flushing",
    "leaves_joined_transaction",
    "savepoint_around",
    "update_key",
]

_PREPARING: Final = "_prepare_impl"


def is_flushing(session: Session) -> bool:
    """Tell whether a flush or a bulk operation of the session is under way."""
    return session._flushing  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def is_committing(session: Session) -> bool:
    """Tell whether the outermost transaction of a session is being committed or prepared, and still takes statements."""
    transaction = session.get_transaction()
    if transaction is None or not transaction.is_active:
        return False
    method = transaction._current_fn  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return method is not None and method.__name__ == _PREPARING


def connections_of(transaction: SessionTransaction) -> set[Connection]:
    """Return the connections that a transaction has used so far, or had used when it ended; without I/O."""
    # Public from SQLAlchemy 2.1.7 on, as `transaction.connections`.
    return {used[0] for used in transaction._connections.values()}  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def leaves_joined_transaction(transaction: SessionTransaction) -> bool:
    """Tell whether what a session did in a transaction that ends is in one of a connection's that goes on without it."""
    used = transaction._connections.values()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return any(not commits and joined.is_active and not connection.closed for connection, joined, commits, _ in used)


def savepoint_around(connection: Connection, name: str) -> NestedTransaction | None:
    """Return the savepoint in which the one with a name was begun; the event of its beginning does not tell the name."""
    savepoint = connection.get_nested_transaction()
    while savepoint is not None and savepoint._savepoint != name:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        savepoint = savepoint._previous_nested  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return None if savepoint is None else savepoint._previous_nested  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def update_key(column: Column[Any]) -> str:
    """Return the name under which the ORM gives the value of a primary key to an UPDATE."""
    return str(column._label)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

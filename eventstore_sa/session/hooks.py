"""The events of SQLAlchemy's sessions that staged publishes hang on.

The listeners are attached to the class `Session`, because factories and asyncio sessions take none: when the first store is
made in the process, or the first class that records events. Later would be too late, because something may be staged for
the first time by a listener of a commit. For a session in which nothing is staged they do next to nothing.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from eventstore_sa.session.inside import connections_of, is_flushing
from eventstore_sa.session.staging import Staging, innermost

__all__ = ["follow_sessions", "staged_in", "staging_of"]

_KEY: Final = "eventstore_sa.staging"
_FLUSHED: Final = "eventstore_sa.flushed"
_attaching: Final = Lock()


def staging_of(session: Session) -> Staging:
    """Return what is staged in the session's transaction, which is begun if there is none.

    Raises:
        TransactionError: There is no transaction, and the session begins none by itself.
    """
    staging: Staging | None = session.info.get(_KEY)
    if staging is None:
        # What is staged before any SQL would otherwise outlive a rollback: there would be nothing to roll back.
        innermost(session)
        staging = session.info[_KEY] = Staging()
    return staging


def staged_in(session: Session) -> Staging | None:
    """Return what is staged in the session's transaction, if there is anything."""
    return session.info.get(_KEY)


def follow_sessions() -> None:
    """Attach the listeners, if they are not attached yet."""
    with _attaching:
        if not event.contains(Session, "before_commit", _before_commit):
            event.listen(Session, "before_commit", _before_commit)
            event.listen(Session, "after_flush_postexec", _after_flush)
            event.listen(Session, "after_commit", _after_commit)
            event.listen(Session, "after_rollback", _after_rollback)
            event.listen(Session, "after_transaction_end", _after_transaction_end)


def _before_commit(session: Session) -> None:
    staging = staged_in(session)
    if staging is not None:
        staging.before_commit(session)


def _after_flush(session: Session, _: Any) -> None:
    # What is flushed first may be what an event is staged for later.
    session.info[_FLUSHED] = True
    staging = staged_in(session)
    if staging is not None:
        staging.after_flush(session)


def _after_commit(session: Session) -> None:
    staging = staged_in(session)
    if staging is not None:
        staging.after_commit(session)


def _after_rollback(session: Session) -> None:
    staging = staged_in(session)
    if staging is not None:
        staging.after_rollback(session)


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    flushed = transaction.parent is None and session.info.pop(_FLUSHED, False)
    staging = staged_in(session)
    if staging is None:
        return
    if transaction.parent is None:
        del session.info[_KEY]
        staging.after_end(transaction, joined_transaction_stays=flushed and _has_joined(session, transaction))
    elif transaction.nested:
        staging.after_savepoint(session, transaction)
    elif is_flushing(session):
        staging.after_flush_end(session)


def _has_joined(session: Session, transaction: SessionTransaction) -> bool:
    """Tell whether what has been written is in a transaction of a connection's that goes on without the session."""
    mode = session.join_transaction_mode
    return any(
        mode == "rollback_only" or (mode == "conditional_savepoint" and not connection.in_nested_transaction())
        for connection in connections_of(transaction)
        if not connection.closed and connection.in_transaction()
    )

"""The events of SQLAlchemy's sessions that staged publishes hang on.

The listeners are attached to the class `Session`, because factories and asyncio sessions take none: when the first store is
made in the process, or the first class that records events. Later would be too late, because something may be staged for
the first time by a listener of a commit. For a session in which nothing is staged they do next to nothing.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction

from eventstore_sa.persistence.projections.publishes import is_session_of_publish
from eventstore_sa.persistence.sqlalchemy_internals import is_flushing, leaves_joined_transaction
from eventstore_sa.session.staging import Staging, innermost

__all__ = ["follow_sessions", "staged_in", "staging_of"]

_KEY: Final = "eventstore_sa.staging"
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
            event.listen(Session, "after_begin", _after_begin)
            event.listen(Session, "after_flush_postexec", _after_flush)
            event.listen(Session, "after_commit", _after_commit)
            event.listen(Session, "after_rollback", _after_rollback)
            event.listen(Session, "after_transaction_end", _after_transaction_end)


def _before_commit(session: Session) -> None:
    staging = staged_in(session)
    if staging is not None:
        staging.before_commit(session)


def _after_begin(session: Session, _: SessionTransaction, connection: Connection) -> None:
    staging = staged_in(session)
    if staging is not None:
        staging.after_begin(session, connection)


def _after_flush(session: Session, _: Any) -> None:
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
    staging = staged_in(session)
    if staging is None:
        return
    if transaction.parent is None:
        del session.info[_KEY]
        stays = leaves_joined_transaction(transaction) and not is_session_of_publish(session)
        staging.after_end(transaction, joined_transaction_stays=stays)
    elif transaction.nested:
        staging.after_savepoint(session, transaction)
    elif is_flushing(session):
        staging.after_flush_end(session)

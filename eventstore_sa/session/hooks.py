"""The events of SQLAlchemy's sessions that staged publishes hang on.

The listeners are attached to the class `Session`, because factories and asyncio sessions take none, when something is
first staged in the process. They do nothing for a session in which nothing is staged.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from eventstore_sa.session.staging import Staging, innermost

__all__ = ["staging_of"]

_KEY: Final = "eventstore_sa.staging"
_attaching: Final = Lock()


def staging_of(session: Session) -> Staging:
    """Return what is staged in the session's transaction, which is begun if there is none.

    Raises:
        TransactionError: There is no transaction, and the session begins none by itself.
    """
    staging: Staging | None = session.info.get(_KEY)
    if staging is None:
        _attach()
        # What is staged before any SQL would otherwise outlive a rollback: there would be nothing to roll back.
        innermost(session)
        staging = session.info[_KEY] = Staging()
    return staging


def staged_in(session: Session) -> Staging | None:
    """Return what is staged in the session's transaction, if there is anything."""
    return session.info.get(_KEY)


def _attach() -> None:
    with _attaching:
        if not event.contains(Session, "before_commit", _before_commit):
            event.listen(Session, "before_commit", _before_commit)
            event.listen(Session, "after_flush_postexec", _after_flush)
            event.listen(Session, "after_commit", _after_commit)
            event.listen(Session, "after_transaction_end", _after_transaction_end)


def _before_commit(session: Session) -> None:
    staging = staged_in(session)
    if staging is not None:
        staging.before_commit(session)


def _after_flush(session: Session, _: Any) -> None:
    staging = staged_in(session)
    if staging is not None:
        staging.after_flush(session)


def _after_commit(session: Session) -> None:
    staging = staged_in(session)
    if staging is not None:
        staging.after_commit(session)


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    staging = staged_in(session)
    if staging is None:
        return
    if transaction.parent is None:
        del session.info[_KEY]
        staging.after_end(transaction)
    elif transaction.nested:
        staging.after_savepoint(session, transaction)

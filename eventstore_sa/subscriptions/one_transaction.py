"""The session that a handler is given: what the handler does and the move of the checkpoint are one transaction in it.

A handler that ends this transaction would break that without a word: after a commit, effects could happen twice, and after a
rollback, those of the events before would be lost while the checkpoint moves on.
"""

from __future__ import annotations

from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.orm import Session

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.subscriptions.failures import HandlerFailed

__all__ = ["OneTransaction"]


class OneTransaction:
    """Has a session stay in its transaction while a handler is at work: refuses commits, and notices rollbacks.

    Args:
        session: A Session or an AsyncSession with a transaction.
    """

    def __init__(self, session: Any) -> None:
        self._session: Session = getattr(session, "sync_session", session)
        self._transaction = self._session.get_transaction()

    def __enter__(self) -> Self:
        event.listen(self._session, "before_commit", _refuse)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        event.remove(self._session, "before_commit", _refuse)
        if error is None and self._session.get_transaction() is not self._transaction:
            ended = ConfigurationError(
                "the handler has rolled back or closed its session, and with it the effects of all events of the batch: do "
                "it in a savepoint (`session.begin_nested()`), or raise"
            )
            raise HandlerFailed(ended, None)


def _refuse(session: Session) -> None:
    # Of a savepoint, that is no commit.
    if not session.in_nested_transaction():
        raise ConfigurationError(
            "a handler must not commit its session: the checkpoint moves in the same transaction, which the subscription "
            "commits. To keep a part, use a savepoint (`session.begin_nested()`)"
        )

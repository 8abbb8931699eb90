"""Staged publishes: kept beside a session without I/O, and written when its outermost transaction commits.

Each belongs to the savepoint, or transaction, in which it was staged: rolled back with it, handed on when a savepoint is
released. Which of SQLAlchemy's events make this happen is said in `hooks.py`. Nothing of it outlives the transaction; and
no transaction is committed while something is staged in it that is not written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.orm import Session, SessionTransaction

from eventstore_sa.conditions import NoCondition
from eventstore_sa.errors import DuplicateEventError, TransactionError
from eventstore_sa.persistence.sqlalchemy_internals import connections_of, is_committing, is_flushing
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.session.after_commit import CommitCallback, call_when_durable
from eventstore_sa.session.connections import watch
from eventstore_sa.session.dropped import warn_of_dropped
from eventstore_sa.session.staged import HostedStorage, Publish
from eventstore_sa.types import AnyStoredEvent

__all__ = ["Staging", "check_takes_events", "innermost"]

_MOST_ROUNDS: Final = 100  # as many as a commit of SQLAlchemy's flushes before it complains


class Staging:
    """All that waits for the commit of one session's transaction."""

    def __init__(self) -> None:
        self._publishes: list[Publish] = []
        # By the id of what has recorded it, which is kept alive by the publish.
        self._by_subject: dict[int, list[Publish]] = {}
        self._callbacks: list[CommitCallback] = []
        self._connections: dict[Connection, None] = {}
        self._committed: list[SessionTransaction] = []
        self._rolled_back = False
        self._writing = False
        self._failure: Exception | None = None
        self._told = False
        self._insists = False
        self._insisting_on: set[Connection] = set()

    def stage(
        self,
        session: Session,
        storage: HostedStorage,
        parts: Callable[[], Sequence[StreamPublication]],
        *,
        before_write: Callable[[], object] | None = None,
        on_drop: Callable[[], object] | None = None,
        subject: object = None,
    ) -> Publish:
        """Take a publish into the innermost transaction; no I/O.

        While the session commits, it may be too late for that: then it is written at once, or, while a flush is under way,
        behind that.

        Raises:
            TransactionError: The transaction is prepared for a two-phase commit, or can only be rolled back.
        """
        check_takes_events(session)
        owner = innermost(session)
        publish = Publish(storage, parts, owner=owner, before_write=before_write, on_drop=on_drop, subject=subject)
        if subject is not None:
            self._by_subject.setdefault(id(subject), []).append(publish)
        for connection in connections_of(session.get_transaction() or owner):
            if connection.in_nested_transaction() and not connection.invalidated:
                watch(connection).add(when_undone=publish.undo)
        self._publishes.append(publish)
        if is_committing(session) and not self._writing:
            self._insist_on_writing(session)
            # One that is begun now is insisted on as well; there has to be one, or nobody would ask before the commit.
            storage.connection()
            if not is_flushing(session):
                self.write(session)
        return publish

    def withdraw(self, subject: object) -> None:
        """Drop what an object has recorded."""
        for publish in self._by_subject.pop(id(subject), ()):
            if publish.owner is not None:
                publish.drop()

    def call_after_commit(self, callback: CommitCallback) -> None:
        """Have a function called with what this transaction stores, once it is durable."""
        self._callbacks.append(callback)

    def take_note(self, session: Session, storage: HostedStorage, results: Sequence[Sequence[AnyStoredEvent]]) -> None:
        """Remember what was published at once, if anybody wants to know of it after the commit."""
        if self._callbacks:
            publish = Publish(storage, tuple, owner=innermost(session))
            self._note_written([publish], [results], session)
            self._publishes.append(publish)

    def write(self, session: Session) -> None:
        """Flush the session and write all that is staged, until nothing is left: both may stage more.

        Raises:
            EventStoreError: As for a publish; what could not be written is still staged.
            TransactionError: There is no end to it.
        """
        self._writing = True
        try:
            self._write(session)
        except Exception as error:
            # A listener may hide it from the commit.
            self._failure = error
            raise
        finally:
            self._writing = False
        self._failure = None

    def _write(self, session: Session) -> None:
        # Before the flush: in autocommit mode it would be the first statement that cannot be taken back.
        for publishes in self._waiting().values():
            publishes[0].storage.check_transaction()
        for _ in range(_MOST_ROUNDS):
            self._flush(session)
            waiting = self._waiting()
            if not waiting:
                return
            for publishes in waiting.values():
                self._note_written(publishes, _stored(publishes), session)
        raise TransactionError(
            f"storing what is staged has staged more, {_MOST_ROUNDS} times in a row: does a projection or a listener stage "
            "an event for each of its own? roll back"
        )

    def before_commit(self, session: Session) -> None:
        """Write what is staged, if it is the outermost transaction that commits."""
        # A projection works in a savepoint of the session's, which is released while this writes.
        if is_committing(session) and not self._writing:
            self.write(session)

    def after_begin(self, session: Session, connection: Connection) -> None:
        """Take in a connection that the transaction uses from now on."""
        if self._insists:
            self._insist_on(session, connection)

    def after_flush(self, session: Session) -> None:
        """Write what listeners of a flush have staged while the session commits."""
        if not is_committing(session) or self._writing:
            return
        for publish in self._publishes:
            publish.prepare_write()
        # What is new in the session has no key yet, and the row of what is dirty is not what it will be; the commit flushes
        # once more for it.
        if not session.new and not session.dirty:
            self.write(session)

    def after_flush_end(self, session: Session) -> None:
        """Write what was staged behind `after_flush`; an error has to wait, because the flush would hide it."""
        try:
            self.after_flush(session)
        except Exception as error:  # noqa: BLE001 - it is raised before the commit
            self._failure = error

    def after_commit(self, session: Session) -> None:
        """Remember which transaction or savepoint was committed: that it ends does not tell.

        Raises:
            TransactionError: Something was not written; the outer transaction that the session has joined is still open.
        """
        transaction = innermost(session)
        if transaction.parent is None:
            self._check_all_written()
        self._committed.append(transaction)

    def after_rollback(self, session: Session) -> None:
        """Remember that it was not merely closed, if it is the outermost transaction that was rolled back."""
        if session.get_nested_transaction() is None:
            self._rolled_back = True

    def after_savepoint(self, session: Session, savepoint: SessionTransaction) -> None:
        """Hand what belongs to a savepoint on to the transaction around it, or drop it."""
        around = innermost(session) if savepoint in self._committed else None
        for publish in self._publishes:
            if publish.written_in is savepoint:
                publish.written_in = around
            if publish.owner is savepoint:
                publish.owner = around
                if around is None:
                    publish.drop()
        self._publishes = [publish for publish in self._publishes if publish.owner is not None]

    def after_end(self, transaction: SessionTransaction, *, joined_transaction_stays: bool) -> None:
        """Settle all publishes; call those who wait for the commit.

        Args:
            transaction: The transaction.
            joined_transaction_stays: Whether its rows are in a transaction of the connection's, still open.
        """
        self._drop_undone()
        publishes, self._publishes = self._publishes, []
        if transaction not in self._committed:
            for publish in publishes:
                publish.drop()
            lost = sum(publish.written_in is None for publish in publishes)
            if lost and joined_transaction_stays and not self._rolled_back and not self._told:
                warn_of_dropped(lost)
            return
        for publish in publishes:
            publish.committed = True
        events = [event for publish in publishes for result in publish.results for event in result]
        if self._callbacks and events:
            call_when_durable(self._connections, self._callbacks, events)

    def _flush(self, session: Session) -> None:
        """Flush until nothing is new in the session: listeners of a flush may add objects, whose keys are needed."""
        for publish in self._publishes:
            publish.prepare_write()
        if is_flushing(session):
            return
        for _ in range(_MOST_ROUNDS):
            session.flush()
            for publish in self._publishes:
                publish.prepare_write()
            if not session.new and not session.dirty:
                return

    def _insist_on_writing(self, session: Session) -> None:
        """Let nothing be committed as long as something is not written: there may be no more occasion for it.

        Any connection of the transaction may be the first to be committed.
        """
        self._insists = True
        for connection in connections_of(session.get_transaction() or innermost(session)):
            self._insist_on(session, connection)

    def _insist_on(self, session: Session, connection: Connection) -> None:
        if connection in self._insisting_on:
            return
        self._insisting_on.add(connection)
        transaction = session.get_transaction()

        def check(preparing: bool) -> None:
            # Savepoints come and go while it is active; when it is not any more, it is its own commit.
            if transaction is not None and (preparing or not transaction.is_active):
                self._check_all_written()

        watch(connection).check_commits(check)

    def _check_all_written(self) -> None:
        if self._waiting():
            failure, self._failure = self._failure, None
            self._told = True
            raise failure or TransactionError(
                "events were staged or recorded so late in the commit that they could not be stored any more, for example "
                "in a before_flush listener of a flush that had nothing to write: roll back, and stage them earlier"
            )

    def _drop_undone(self) -> None:
        for publish in self._publishes:
            if publish.undone and publish.owner is not None:
                publish.drop()
        self._publishes = [publish for publish in self._publishes if publish.owner is not None]

    def _waiting(self) -> dict[Hashable, list[Publish]]:
        """Return what is not written, in groups that can travel in one statement."""
        self._drop_undone()
        waiting: dict[Hashable, list[Publish]] = {}
        for publish in self._publishes:
            if publish.written_in is None:
                waiting.setdefault(publish.storage.kind, []).append(publish)
        return waiting

    def _note_written(
        self, publishes: Sequence[Publish], results: Iterable[Sequence[Sequence[AnyStoredEvent]]], session: Session
    ) -> None:
        place = innermost(session)
        connection = publishes[0].storage.connection()
        in_savepoint = connection.in_nested_transaction()
        for publish, result in zip(publishes, results, strict=True):
            publish.results = result
            publish.written_in = place
            if in_savepoint:
                watch(connection).add(when_undone=publish.note_unwritten)
        if in_savepoint:
            self._insist_on_writing(session)
        if self._callbacks:
            self._connections[connection] = None


def check_takes_events(session: Session) -> None:
    """Refuse a session whose transaction takes no more events.

    Raises:
        TransactionError: It is prepared or committed, or can only be rolled back; or there is none, and none is begun.
    """
    if not innermost(session).is_active:
        raise TransactionError(
            "this session's transaction takes no more events: it is prepared or committed, or an error has ended it; commit "
            "or roll back first"
        )


def innermost(session: Session) -> SessionTransaction:
    """Return the open savepoint of a session, or its transaction, which is begun if there is none.

    Raises:
        TransactionError: There is none, and the session begins none by itself.
    """
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is not None:
        return transaction
    if not session.autobegin:
        raise TransactionError("this session has no transaction, and autobegin=False: call session.begin() first")
    return session.begin()


def _stored(publishes: Sequence[Publish]) -> list[list[list[AnyStoredEvent]]]:
    """Store publishes of one kind with one statement; return the results of each."""
    # What entities record knows no store, and so no conditions that were registered with it.
    storage = next((each.storage for each in publishes if each.storage.knows_conditions), publishes[0].storage)
    parts = [publish.parts() for publish in publishes]
    projections = [publish.storage.projections for publish, each in zip(publishes, parts, strict=True) for _ in each]
    try:
        results: list[list[AnyStoredEvent]] = storage.publish([part for each in parts for part in each], projections)
    except DuplicateEventError:
        if len(publishes) == 1:
            raise
        # One of them may repeat what is stored already, which each can find out on its own only.
        with storage.connection().begin_nested():
            # All locks first, in one order: one publish after the other would take them in the order of staging.
            streams = [StreamPublication(part.stream, (), NoCondition()) for each in parts for part in each]
            storage.publish(streams, [()] * len(streams))
            return [
                storage.publish(each, [publish.storage.projections] * len(each))
                for publish, each in zip(publishes, parts, strict=True)
            ]
    ends = iter(results)
    return [[next(ends) for _ in each] for each in parts]

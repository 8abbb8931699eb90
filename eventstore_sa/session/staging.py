"""Staged publishes: kept beside a session without I/O, and written when its outermost transaction commits.

Each belongs to the savepoint, or transaction, in which it was staged: rolled back with it, handed on when a savepoint is
released. Which of SQLAlchemy's events make this happen is said in `hooks.py`. Nothing of it outlives the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util.concurrency import in_greenlet

from eventstore_sa.conditions import NoCondition
from eventstore_sa.errors import DuplicateEventError, TransactionError
from eventstore_sa.persistence.projecting import Projections
from eventstore_sa.publishing import AnyStoredEvent, StreamPublication
from eventstore_sa.session.after_commit import CommitCallback, call_when_durable

__all__ = ["HostedStorage", "Publish", "StagedPublish", "Staging"]

Result = TypeVar("Result", covariant=True)

_MOST_FLUSHES: Final = 100  # as many as a commit of SQLAlchemy's does before it complains


class HostedStorage(Protocol):
    """Storage of events in the transaction of a session."""

    @property
    def asynchronous(self) -> bool:
        """Whether it does its I/O in a greenlet of SQLAlchemy's."""
        ...

    @property
    def kind(self) -> Hashable:
        """What two publishes have in common that can travel in one statement."""
        ...

    @property
    def knows_conditions(self) -> bool:
        """Whether it was told how to check conditions of the application's own."""
        ...

    @property
    def projections(self) -> Projections:
        """What its publishes update."""
        ...

    def connection(self) -> Connection:
        """Return the connection of the session's transaction."""
        ...

    def check_transaction(self) -> None:
        """Refuse a session whose transaction is none, such as one in autocommit mode."""
        ...

    def publish(
        self, parts: Sequence[StreamPublication], projections: Sequence[Projections]
    ) -> list[list[AnyStoredEvent]]:
        """Store a publish, all or none, and update the projections of each part."""
        ...


class Publish:
    """One staged publish, and what has become of it.

    Attributes:
        storage: Where it goes.
        owner: The transaction or savepoint that it belongs to; None once that was rolled back.
        written_in: The one in which it was written; None before.
        results: The stored events, once it is written.
        committed: Whether all of this has been committed.
    """

    def __init__(
        self,
        storage: HostedStorage,
        parts: Callable[[], Sequence[StreamPublication]],
        *,
        owner: SessionTransaction,
        on_drop: Callable[[], object] | None = None,
    ) -> None:
        """Take a publish; `parts` is asked for what is in it when it is written."""
        self.storage: Final = storage
        self.parts: Final = parts
        self.owner: SessionTransaction | None = owner
        self.written_in: SessionTransaction | None = None
        self.results: Sequence[Sequence[AnyStoredEvent]] = ()
        self.committed = False
        self._on_drop = on_drop

    def drop(self) -> None:
        """Forget it, because its owner was rolled back."""
        self.owner = None
        if self._on_drop is not None:
            self._on_drop()


class StagedPublish(Generic[Result]):
    """What `stage` returns: the stored events, once the transaction is committed."""

    def __init__(self, publish: Publish, shape: Callable[[Sequence[Sequence[AnyStoredEvent]]], Result]) -> None:
        """Show the results of a publish in a shape."""
        self._publish = publish
        self._shape = shape

    @property
    def events(self) -> Result:
        """The stored events, in the shape that `publish` returns; there are none before the commit.

        Raises:
            TransactionError: The transaction is still open, or it was rolled back.
        """
        if self._publish.committed:
            return self._shape(self._publish.results)
        if self._publish.owner is None:
            raise TransactionError(
                "these events were not stored: the transaction or savepoint in which they were staged was rolled back"
            )
        raise TransactionError(
            "these events are staged and will be stored when the session commits: ask for them after session.commit()"
        )

    def __repr__(self) -> str:
        state = "committed" if self._publish.committed else "staged" if self._publish.owner else "rolled back"
        return f"<{type(self).__name__}: {state}>"


class Staging:
    """All that waits for the commit of one session's transaction."""

    def __init__(self) -> None:
        self._publishes: list[Publish] = []
        self._callbacks: list[CommitCallback] = []
        self._connections: dict[Connection, None] = {}
        self._committed: list[SessionTransaction] = []
        self._committing_savepoint: SessionTransaction | None = None
        self._writing = False
        self._committing = False

    def stage(
        self,
        session: Session,
        storage: HostedStorage,
        parts: Callable[[], Sequence[StreamPublication]],
        *,
        on_drop: Callable[[], object] | None = None,
    ) -> Publish:
        """Take a publish into the innermost transaction; no I/O.

        While the session commits, it would be too late for that: then it is written at once.

        Raises:
            TransactionError: The transaction is prepared for a two-phase commit, or can only be rolled back.
        """
        owner = innermost(session)
        if not owner.is_active:
            raise TransactionError(
                "this session's transaction takes no more events: it is prepared or committed, or an error has ended it; "
                "commit or roll back first"
            )
        publish = Publish(storage, parts, owner=owner, on_drop=on_drop)
        self._publishes.append(publish)
        if storage.asynchronous and not in_greenlet():
            # Nobody can be committing now: an earlier commit has failed.
            self._committing = False
        if self._committing and not self._writing and not is_flushing(session):
            self.write(session)
        return publish

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
        """Flush the session and write all that is staged, until nothing is left: flushing may stage more.

        Raises:
            EventStoreError: As for a publish; what could not be written is still staged.
        """
        self._writing = True
        try:
            # Before the flush: in autocommit mode it would be the first statement that cannot be taken back.
            for publishes in self._waiting().values():
                publishes[0].storage.check_transaction()
            while True:
                _flush(session)
                waiting = self._waiting()
                if not waiting:
                    return
                for publishes in waiting.values():
                    self._note_written(publishes, _stored(publishes), session)
        finally:
            self._writing = False

    def before_commit(self, session: Session) -> None:
        """Write what is staged, if it is the outermost transaction that commits."""
        savepoint = session.get_nested_transaction()
        if savepoint is not None and savepoint is not self._committing_savepoint:
            # It is released; or the outermost transaction commits while it is open, and then this is called once more.
            self._committing_savepoint = savepoint
            return
        self.write(session)
        self._committing = True

    def after_flush(self, session: Session) -> None:
        """Write what listeners of a flush have staged while the session commits."""
        # What they have added to the session has no key yet; the commit flushes once more for it.
        if self._committing and not self._writing and not session.new:
            self.write(session)

    def after_commit(self, session: Session) -> None:
        """Remember which transaction or savepoint was committed: that it ends does not tell."""
        self._committed.append(innermost(session))

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

    def after_end(self, transaction: SessionTransaction) -> None:
        """Settle all publishes; call those who wait for the commit."""
        if transaction not in self._committed:
            for publish in self._publishes:
                publish.drop()
            return
        for publish in self._publishes:
            publish.committed = True
        events = [event for publish in self._publishes for result in publish.results for event in result]
        if self._callbacks and events:
            call_when_durable(self._connections, self._callbacks, events)

    def _waiting(self) -> dict[Hashable, list[Publish]]:
        """Return what is not written, in groups that can travel in one statement."""
        waiting: dict[Hashable, list[Publish]] = {}
        for publish in self._publishes:
            if publish.written_in is None:
                waiting.setdefault(publish.storage.kind, []).append(publish)
        return waiting

    def _note_written(
        self, publishes: Sequence[Publish], results: Iterable[Sequence[Sequence[AnyStoredEvent]]], session: Session
    ) -> None:
        place = innermost(session)
        for publish, result in zip(publishes, results, strict=True):
            publish.results = result
            publish.written_in = place
        if self._callbacks:
            self._connections[publishes[0].storage.connection()] = None


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


def is_flushing(session: Session) -> bool:
    """Tell whether a flush of the session is under way."""
    # There is no public way: the events around a flush do not tell when it fails.
    return session._flushing  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def _flush(session: Session) -> None:
    """Flush a session until nothing is new in it: listeners of a flush may add objects, whose keys are needed."""
    for _ in range(0 if is_flushing(session) else _MOST_FLUSHES):
        session.flush()
        if not session.new:
            return


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

"""One business transaction: what is staged in the transaction of a session, when it is written, and what becomes of it.

A staged publish is kept beside the session, without I/O, and written when the session's outermost transaction commits. It
belongs to the savepoint or transaction in which it was staged: it is rolled back with it, and handed on when the savepoint
is released. Nothing of it outlives the transaction; and no transaction commits while something staged in it is not written.
A store within a session (`SessionStorage`) stages here; so do objects that record events (`recording.py`).

All of it follows events of SQLAlchemy's sessions. Their listeners are attached to the class `Session`, because session
factories and asyncio sessions accept none, when the first store is made in the process or the first class that records
events. Later would be too late, because a listener of a commit may be the first to stage something. In a session in which
nothing is staged they only look it up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from inspect import iscoroutinefunction
from threading import Lock
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction

from eventstore_sa.contracts.inline_projections import Projections
from eventstore_sa.contracts.wakeups import Wakeups
from eventstore_sa.errors import ConfigurationError, DuplicateEventError, TransactionError
from eventstore_sa.persistence.events.conditions import ConditionEvaluators
from eventstore_sa.persistence.events.constraints import ConstraintConverters
from eventstore_sa.persistence.events.storage import EventStorage
from eventstore_sa.persistence.projections.publishes import is_session_of_publish
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.sqlalchemy_internals import (
    connections_of,
    is_committing,
    is_flushing,
    leaves_joined_transaction,
)
from eventstore_sa.persistence.transactions.binds import Bind, SessionBind
from eventstore_sa.persistence.transactions.databases import database_of
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.session.connection_watch import watch
from eventstore_sa.session.outcome import CommitCallback, call_when_durable, warn_of_dropped
from eventstore_sa.types import AnyStoredEvent

__all__ = ["KIND", "BusinessTransaction", "Publish", "SessionStorage", "StagedPublish", "follow_sessions"]

Result = TypeVar("Result", covariant=True)
R = TypeVar("R")

KIND: Final = "eventstore_sa.kind_of_business_transaction"
"""The key in `session.info` of a subclass to use instead of BusinessTransaction, in a session without a database."""

_KEY: Final = "eventstore_sa.business_transaction"
_MOST_ROUNDS: Final = 100  # as many as a commit of SQLAlchemy's flushes before it complains
_following: Final = Lock()


class Publish:
    """What is stored by one call of `stage` or `record`, and what has become of it.

    Attributes:
        storage: Where it goes.
        subject: The object that has recorded it, if one has.
        owner: The transaction or savepoint that it belongs to; None before it is staged, and once it is dropped.
        written_in: The one in which it was written; None before.
        results: The stored events, once it is written.
        committed: Whether all of this has been committed.
        undone: Whether a savepoint of the connection, in which it was staged, was rolled back.
    """

    def __init__(
        self, storage: SessionStorage, parts: Sequence[StreamPublication] = (), *, subject: object = None
    ) -> None:
        self.storage: Final = storage
        self.subject: Final = subject
        self.owner: SessionTransaction | None = None
        self.written_in: SessionTransaction | None = None
        self.results: Sequence[Sequence[AnyStoredEvent]] = ()
        self.committed: bool = False
        self.undone: bool = False
        self._parts = parts

    def parts(self) -> Sequence[StreamPublication]:
        """Return what is to be stored; called when it is written."""
        return self._parts

    def before_flush(self) -> None:
        """Do what the next flush of the session needs, which is that ahead of the write or an earlier one."""

    def drop(self) -> None:
        """Forget it, because its owner was rolled back, or what has recorded it is not stored."""
        self.owner = None

    def note_undone(self) -> None:
        """Note that the savepoint of the connection in which it was staged was rolled back."""
        self.undone = True

    def note_unwritten(self) -> None:
        """Note that the savepoint of the connection in which it was written was rolled back."""
        self.written_in = None


class StagedPublish(Generic[Result]):
    """What `stage` returns: the stored events, once the transaction is committed."""

    def __init__(self, publish: Publish, shape: Callable[[Sequence[Sequence[AnyStoredEvent]]], Result]) -> None:
        """Show the results of a publish in a shape."""
        self._publish = publish
        self._shape = shape

    @property
    def events(self) -> Result:
        """The stored events, in the shape that `publish` returns; available after the commit.

        Raises:
            TransactionError: If the transaction is still open, or was rolled back.
        """
        if self._publish.committed:
            return self._shape(self._publish.results)
        if self._is_rolled_back:
            raise TransactionError(
                "these events were not stored: the transaction or savepoint in which they were staged was rolled back"
            )
        raise TransactionError(
            "these events are staged, and will be stored when the session commits: read them after session.commit()"
        )

    def shaped(self, shape: Callable[[Any], R]) -> StagedPublish[R]:
        """Return the same publish with its events in a shape that is made of this one."""
        inner = self._shape
        return StagedPublish(self._publish, lambda results: shape(inner(results)))

    @property
    def _is_rolled_back(self) -> bool:
        return self._publish.owner is None or self._publish.undone

    def __repr__(self) -> str:
        state = "committed" if self._publish.committed else "rolled back" if self._is_rolled_back else "staged"
        return f"<{type(self).__name__}: {state}>"


class SessionStorage:
    """The events of a store within a session: published there at once, or when the session commits.

    Args:
        bind: The session.
        events: The storage on this bind.

    Attributes:
        events: The same.
        route: How the session is asked for the connection.
    """

    def __init__(self, bind: SessionBind, events: EventStorage) -> None:
        self.events: Final = events
        self.route: Final = bind.route
        self._bind = bind

    @classmethod
    def of(cls, bind: Bind, events: EventStorage) -> SessionStorage | None:
        """Make one for the storage of an adapter; None when it is not bound to a session."""
        follow_sessions()
        return cls(bind, events) if isinstance(bind, SessionBind) else None

    @classmethod
    def of_schema(cls, session: Session, schema: EventStoreSchema, projections: Projections = ()) -> SessionStorage:
        """Make one for events that come without a store."""
        bind = SessionBind(session, schema)
        events = EventStorage(
            bind,
            schema,
            page_size=1,
            evaluators=ConditionEvaluators(),
            constraint_converters=ConstraintConverters(),
            projections=projections,
        )
        return cls(bind, events)

    def publish_at_once(self, parts: Sequence[StreamPublication]) -> list[list[AnyStoredEvent]]:
        """Store a publish now; callbacks that wait for the commit are given its events too."""
        results = self.events.publish(parts)
        session = self._bind.session
        transaction = BusinessTransaction.find(session)
        if transaction is None and self.events.schema.wakeups.is_heard:
            transaction = BusinessTransaction.of(session)
        if transaction is not None:
            transaction.add_published(self, results)
        return results

    def stage(
        self, parts: Sequence[StreamPublication], shape: Callable[[Sequence[Sequence[AnyStoredEvent]]], R]
    ) -> StagedPublish[R]:
        """Have a publish stored when the session commits.

        Raises:
            SerialisationError: If an event cannot be stored exactly; then nothing of the publish is staged.
            TransactionError: If the transaction accepts no more events.
            ConfigurationError: If the session does not know which database the events are in.
        """
        for part in parts:
            # Prepared now, so that what cannot be stored is not staged.
            _ = part.prepared
        publish = Publish(self, parts)
        self._bind.check_routing()
        BusinessTransaction.of(self._bind.session).stage(publish)
        return StagedPublish(publish, shape)

    def check_accepts_events(self) -> None:
        """Check that something can be staged now, without staging it.

        Raises:
            TransactionError: If the transaction accepts no more events.
            ConfigurationError: If the session does not know which database the events are in.
        """
        self._bind.check_routing()
        _accepting(self._bind.session)

    def flush(self) -> None:
        """Flush the session, and store what is staged in it."""
        transaction = BusinessTransaction.find(self._bind.session)
        if transaction is not None:
            transaction.write()

    def after_commit(self, callback: CommitCallback) -> None:
        """Have a function called with the stored events once the session's transaction is committed.

        Raises:
            ConfigurationError: If it is not callable, or is an async function and the session is synchronous.
        """
        if not callable(callback):
            raise ConfigurationError(f"after_commit takes a function of the stored events; got {callback!r}")
        if iscoroutinefunction(callback) and not self._bind.asynchronous:
            raise ConfigurationError(
                "a session without asyncio cannot await an async function: pass an ordinary function to after_commit"
            )
        BusinessTransaction.of(self._bind.session).call_after_commit(callback)


class BusinessTransaction:
    """All that waits for the commit of one session's transaction.

    Attributes:
        storages: Where the events go that objects record, by the class of the objects.
    """

    def __init__(self, session: Session) -> None:
        self.storages: Final[dict[type, SessionStorage]] = {}
        self._session = session
        self._publishes: list[Publish] = []
        # By the id of the object that has recorded them, which the publishes keep alive.
        self._by_subject: dict[int, list[Publish]] = {}
        self._callbacks: list[CommitCallback] = []
        self._connections: dict[Connection, None] = {}
        self._wakeups: dict[Wakeups, None] = {}
        self._committed: list[SessionTransaction] = []
        self._rolled_back = False
        self._writing = False
        self._failure: Exception | None = None
        self._told = False
        self._insists = False
        self._insisting_on: set[Connection] = set()

    @classmethod
    def of(cls, session: Session) -> BusinessTransaction:
        """Return that of a session, whose transaction is begun if there is none.

        Raises:
            TransactionError: If there is no transaction, and the session does not begin one by itself.
        """
        transaction = cls.find(session)
        if transaction is None:
            # What is staged before any SQL would otherwise outlive a rollback: there would be nothing to roll back.
            _innermost(session)
            transaction = session.info[_KEY] = session.info.get(KIND, cls)(session)
        return transaction

    @staticmethod
    def find(session: Session) -> BusinessTransaction | None:
        """Return that of a session, if there is one: something is staged, or waits for the commit."""
        return session.info.get(_KEY)

    def stage(self, publish: Publish) -> None:
        """Add a publish to the innermost transaction; no I/O.

        While the session commits, it may be too late for the ordinary write: then it is written at once, or right after a
        flush that is under way.

        Raises:
            TransactionError: If the transaction is prepared for a two-phase commit, or can only be rolled back.
        """
        session = self._session
        owner = publish.owner = _accepting(session)
        if publish.subject is not None:
            self._by_subject.setdefault(id(publish.subject), []).append(publish)
        for connection in connections_of(session.get_transaction() or owner):
            if connection.in_nested_transaction() and not connection.invalidated:
                watch(connection).add(when_undone=publish.note_undone)
        self._publishes.append(publish)
        if not self._writing and is_committing(session):
            self._insist_on_writing()
            # One that is begun now is insisted on as well; without any, nothing would be checked before the commit.
            self._connection(publish.storage)
            if not is_flushing(session):
                self.write()

    @property
    def staged(self) -> Sequence[Publish]:
        """What is staged and not written, in the order of staging."""
        self._drop_undone()
        return [publish for publish in self._publishes if publish.written_in is None]

    def withdraw(self, subject: object) -> None:
        """Drop what an object has recorded."""
        for publish in self._by_subject.pop(id(subject), ()):
            if publish.owner is not None:
                publish.drop()

    def call_after_commit(self, callback: CommitCallback) -> None:
        """Have a function called with what this transaction stores, once it is durable."""
        self._callbacks.append(callback)

    def add_published(self, storage: SessionStorage, results: Sequence[Sequence[AnyStoredEvent]]) -> None:
        """Keep what was published at once, if a callback waits for it, and who is to be told of it."""
        self._note_wakeups(storage)
        if self._callbacks:
            publish = Publish(storage)
            publish.owner = _innermost(self._session)
            self._note_written([publish], [results])
            self._publishes.append(publish)

    def write(self) -> None:
        """Flush the session and write all that is staged, until nothing is left: both may stage more.

        Raises:
            EventStoreError: As for a publish; what could not be written is still staged.
            TransactionError: If each round stages more.
        """
        self._writing = True
        try:
            self._write()
        except Exception as error:
            # A listener may hide it from the commit.
            self._failure = error
            raise
        finally:
            self._writing = False
        self._failure = None

    def _write(self) -> None:
        flushing = is_flushing(self._session)
        # Before the flush: in autocommit mode, that would be the first statement that cannot be rolled back.
        for publishes in self._waiting():
            storage = publishes[0].storage
            connection = self._connection(storage)
            database_of(connection).check_transaction(connection)
        for _ in range(_MOST_ROUNDS):
            self._flush(flushing=flushing)
            waiting = self._waiting()
            if not waiting:
                return
            for publishes in waiting:
                self._note_written(publishes, self._stored(publishes))
        raise TransactionError(
            f"storing what is staged has staged more events {_MOST_ROUNDS} times in a row: does a projection or a listener "
            "stage an event for each of its own? Roll back"
        )

    def before_commit(self) -> None:
        """Write what is staged, if it is the outermost transaction that commits."""
        # A projection works in a savepoint of the session, which is released while this writes.
        if not self._writing and is_committing(self._session):
            self.write()

    def after_begin(self, _: SessionTransaction, connection: Connection) -> None:
        """Take in a connection that the transaction uses from now on."""
        if self._insists:
            self._insist_on(connection)

    def after_flush(self, *_: object) -> None:
        """Write what listeners of a flush have staged while the session commits."""
        session = self._session
        if self._writing or not is_committing(session):
            return
        for publish in self._publishes:
            publish.before_flush()
        # New objects have no key yet, and the rows of dirty ones are out of date; the commit flushes once more for them.
        if not session.new and not session.dirty:
            self.write()

    def after_commit(self) -> None:
        """Remember that the innermost transaction or savepoint was committed: its end alone does not tell.

        Raises:
            TransactionError: If something was not written; an outer transaction that the session has joined is still open.
        """
        transaction = _innermost(self._session)
        if transaction.parent is None:
            self._check_all_written()
        self._committed.append(transaction)

    def after_rollback(self) -> None:
        """Remember that the outermost transaction was rolled back, and not merely closed."""
        if self._session.get_nested_transaction() is None:
            self._rolled_back = True

    def after_transaction_end(self, ended: SessionTransaction) -> None:
        """Settle what belongs to a savepoint or to the transaction, or write what was staged behind `after_flush`."""
        if ended.parent is None:
            del self._session.info[_KEY]
            self._end(ended)
        elif ended.nested:
            self._end_savepoint(ended)
        elif is_flushing(self._session):
            try:
                self.after_flush()
            except Exception as error:  # noqa: BLE001 - it is raised before the commit: the flush would hide it
                self._failure = error

    def _end_savepoint(self, savepoint: SessionTransaction) -> None:
        """Hand what belongs to a savepoint on to the transaction around it, or drop it."""
        around = _innermost(self._session) if savepoint in self._committed else None
        for publish in self._publishes:
            if publish.written_in is savepoint:
                publish.written_in = around
            if publish.owner is savepoint:
                publish.owner = around
                if around is None:
                    publish.drop()
        self._forget_dropped()

    def _end(self, transaction: SessionTransaction) -> None:
        """Settle all publishes, and call what waits for the commit."""
        self._drop_undone()
        publishes, self._publishes = self._publishes, []
        if transaction in self._committed:
            for publish in publishes:
                publish.committed = True
            callbacks: list[CommitCallback] = [_waking(wakeups) for wakeups in self._wakeups]
            events = [event for publish in publishes for result in publish.results for event in result]
            if events:
                callbacks += self._callbacks
            if callbacks:
                call_when_durable(self._connections, callbacks, events)
            return
        for publish in publishes:
            publish.drop()
        lost = sum(publish.written_in is None for publish in publishes)
        told = self._rolled_back or self._told
        # Otherwise all that the session has written is undone as well.
        if lost and not told and leaves_joined_transaction(transaction) and not is_session_of_publish(self._session):
            warn_of_dropped(lost)

    def _stored(self, publishes: Sequence[Publish]) -> list[list[list[AnyStoredEvent]]]:
        """Store publishes of one schema with one statement; return the results of each."""
        if len(publishes) == 1:
            (publish,) = publishes
            return [publish.storage.events.publish(publish.parts())]
        storages = [publish.storage.events for publish in publishes]
        # What objects record comes without a store, and so without the conditions that were registered with one.
        storage = next((each for each in storages if each.evaluators), storages[0])
        parts = [publish.parts() for publish in publishes]
        projections = [each.projections for each, of_one in zip(storages, parts, strict=True) for _ in of_one]
        try:
            results = storage.publish([part for of_one in parts for part in of_one], projections)
        except DuplicateEventError:
            # One of them may repeat what is stored already, which only a publish of its own can find out.
            with self._connection(publishes[0].storage).begin_nested():
                # All locks first, in one order: one publish after the other would take them in the order of staging.
                streams = [part.locks_only() for of_one in parts for part in of_one]
                storage.publish(streams, [()] * len(streams))
                return [
                    storage.publish(of_one, [each.projections] * len(of_one))
                    for each, of_one in zip(storages, parts, strict=True)
                ]
        ends = iter(results)
        return [[next(ends) for _ in of_one] for of_one in parts]

    def _connection(self, storage: SessionStorage) -> Connection:
        """Return the connection on which the session writes to a storage; it is opened if there is none."""
        return self._session.connection(bind_arguments=storage.route)

    def _flush(self, *, flushing: bool) -> None:
        """Flush until nothing is new in the session: listeners of a flush may add objects, whose keys are needed."""
        session = self._session
        for publish in self._publishes:
            publish.before_flush()
        if flushing:
            return
        for _ in range(_MOST_ROUNDS):
            session.flush()
            for publish in self._publishes:
                publish.before_flush()
            if not session.new and not session.dirty:
                return

    def _insist_on_writing(self) -> None:
        """Let nothing be committed as long as something is not written: there may be no other occasion to write it.

        Any connection of the transaction may be the first to be committed.
        """
        self._insists = True
        for connection in connections_of(self._session.get_transaction() or _innermost(self._session)):
            self._insist_on(connection)

    def _insist_on(self, connection: Connection) -> None:
        if connection in self._insisting_on:
            return
        self._insisting_on.add(connection)
        transaction = self._session.get_transaction()

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
        self._forget_dropped()

    def _forget_dropped(self) -> None:
        self._publishes = [publish for publish in self._publishes if publish.owner is not None]

    def _waiting(self) -> Sequence[Sequence[Publish]]:
        """Return what is not written, in groups that one statement can store: those of one schema."""
        waiting: dict[Hashable, list[Publish]] = {}
        for publish in self.staged:
            waiting.setdefault(publish.storage.events.schema, []).append(publish)
        return list(waiting.values())

    def _note_written(
        self, publishes: Sequence[Publish], results: Iterable[Sequence[Sequence[AnyStoredEvent]]]
    ) -> None:
        written_in = _innermost(self._session)
        connection = self._connection(publishes[0].storage)
        in_savepoint = connection.in_nested_transaction()
        for publish, result in zip(publishes, results, strict=True):
            publish.results = result
            publish.written_in = written_in
            if in_savepoint:
                watch(connection).add(when_undone=publish.note_unwritten)
        if in_savepoint:
            self._insist_on_writing()
        if self._callbacks:
            self._connections[connection] = None
        for publish in publishes:
            self._note_wakeups(publish.storage)

    def _note_wakeups(self, storage: SessionStorage) -> None:
        """Have those who wait for events told of the commit: not before, when they would find nothing."""
        wakeups = storage.events.schema.wakeups
        if wakeups.is_heard:
            self._wakeups[wakeups] = None
            self._connections[self._connection(storage)] = None


def _waking(wakeups: Wakeups) -> CommitCallback:
    return lambda _: wakeups.wake()


def _accepting(session: Session) -> SessionTransaction:
    """Return the innermost transaction of a session, which accepts more events.

    Raises:
        TransactionError: If it is prepared or committed, or can only be rolled back; or if there is none, and none is begun.
    """
    transaction = _innermost(session)
    if not transaction.is_active:
        raise TransactionError(
            "this session's transaction accepts no more events: it is prepared or committed, or an error has ended it; "
            "commit or roll back first"
        )
    return transaction


def _innermost(session: Session) -> SessionTransaction:
    """Return the open savepoint of a session, or its transaction, which is begun if there is none.

    Raises:
        TransactionError: If there is none, and the session does not begin one by itself.
    """
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is not None:
        return transaction
    if not session.autobegin:
        raise TransactionError("this session has no transaction, and autobegin=False: call session.begin() first")
    return session.begin()


def follow_sessions() -> None:
    """Attach the listeners, if they are not attached yet."""
    with _following:
        if not event.contains(Session, "before_commit", _LISTENERS["before_commit"]):
            for name, listener in _LISTENERS.items():
                event.listen(Session, name, listener)


def _passed_on(method: Callable[..., None]) -> Callable[..., None]:
    """Return the listener that calls a method of a session's business transaction, if there is one."""

    def _pass_on(session: Session, *arguments: Any) -> None:
        transaction = BusinessTransaction.find(session)
        if transaction is not None:
            method(transaction, *arguments)

    return _pass_on


_LISTENERS: Final[Mapping[str, Callable[..., None]]] = {
    "before_commit": _passed_on(BusinessTransaction.before_commit),
    "after_begin": _passed_on(BusinessTransaction.after_begin),
    "after_flush_postexec": _passed_on(BusinessTransaction.after_flush),
    "after_commit": _passed_on(BusinessTransaction.after_commit),
    "after_rollback": _passed_on(BusinessTransaction.after_rollback),
    "after_transaction_end": _passed_on(BusinessTransaction.after_transaction_end),
}

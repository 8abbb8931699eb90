"""Events of objects that are in no session: kept until the object, or a copy that `Session.merge` makes of it, is in one.

`recording.py` decides what becomes of them. Bulk operations write the rows of objects without adding the objects to the
session, and so without their events; they are refused here, at the statement that would write the row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from threading import Lock, get_ident
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Insert, Update, event, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session, SessionTransaction, SessionTransactionOrigin, UOWTransaction
from sqlalchemy.orm.attributes import instance_state

from eventstore_sa.errors import TransactionError
from eventstore_sa.persistence.sqlalchemy_internals import connections_of, is_flushing, update_key
from eventstore_sa.types import AnyNewEvent

__all__ = ["Unattached", "follow_bulk_operations", "has_kept", "keep", "kept_in", "take"]

# SQLAlchemy keeps here what loads single attributes of an object, by their names, and `merge` copies it to the copy.
_KEY: Final = "eventstore_sa.unattached"
_FLUSH: Final = "eventstore_sa.flush"
_BULK: Final = "eventstore_sa.bulk"
_lock: Final = Lock()


class Unattached:
    """Events of one object, which a copy that `merge` makes of it shares."""

    def __init__(self) -> None:
        self._events: list[AnyNewEvent] = []
        _kept[self] = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (tuple(self._events),)

    def add(self, *events: AnyNewEvent) -> None:
        """Keep events."""
        self._events.extend(events)

    def take(self) -> Sequence[AnyNewEvent]:
        """Remove and return the events."""
        events, self._events = self._events, []
        return events

    @property
    def is_empty(self) -> bool:
        """Whether no events are kept."""
        return not self._events


# Where each was recorded: a thread, or a task.
_objects: Final[WeakKeyDictionary[InstanceState[Any], tuple[int, int]]] = WeakKeyDictionary()
_kept: Final[WeakKeyDictionary[Unattached, None]] = WeakKeyDictionary()


def keep(instance: object, kept: Unattached | None = None) -> Unattached:
    """Return where events are kept for an object until it, or a copy of it, is in a session.

    Args:
        instance: The object.
        kept: Where to keep them from now on; by default where they are kept already, or else in a new `Unattached`.
    """
    state: InstanceState[Any] = inspect(instance, raiseerr=True)
    keeping = kept or _kept_for(state) or Unattached()
    with _lock:
        callables: dict[str, Any] = {**state.callables, _KEY: keeping}
        state.callables = callables
        _objects[state] = _here()
    return keeping


def take(state: InstanceState[Any]) -> Unattached | None:
    """Remove and return the events that are kept for an object."""
    kept = _kept_for(state)
    if kept is not None:
        with _lock:
            del state.callables[_KEY]
            if not state.callables:
                # Otherwise `merge` would replace those of a copy with none.
                del state.callables
            _objects.pop(state, None)
    return kept


def has_kept(state: InstanceState[Any]) -> bool:
    """Return whether events are kept for an object."""
    kept = _kept_for(state)
    return kept is not None and not kept.is_empty


def kept_in(session: Session) -> Sequence[object]:
    """Return the objects of a session for which events are kept: copies that a merge has made, mostly."""
    if not _kept:
        return ()
    states = [*session.identity_map.all_states(), *map(instance_state, session.new)]
    objects = [state.obj() for state in states if _KEY in state.callables]
    return [instance for instance in objects if instance is not None]


def follow_bulk_operations() -> None:
    """Attach the listeners that refuse to write rows of objects without their events."""
    if not event.contains(Session, "before_flush", _before_flush):
        event.listen(Session, "before_flush", _before_flush)
        event.listen(Session, "after_transaction_create", _after_transaction_create)
        event.listen(Session, "after_begin", _after_begin)
        event.listen(Session, "after_transaction_end", _after_transaction_end)


def _before_flush(session: Session, flush: UOWTransaction, _: Any) -> None:
    if _objects:
        session.info[_FLUSH] = flush


def _after_transaction_create(session: Session, transaction: SessionTransaction) -> None:
    if not _objects or transaction.origin is not SessionTransactionOrigin.SUBTRANSACTION or not is_flushing(session):
        return
    flush: UOWTransaction | None = session.info.pop(_FLUSH, None)
    if flush is None or not flush.has_work:
        session.info[_BULK] = _BulkOperation(session, transaction)


def _after_begin(session: Session, _: SessionTransaction, connection: Connection) -> None:
    operation: _BulkOperation | None = session.info.get(_BULK)
    if operation is not None:
        operation.listen_to(connection)


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    operation: _BulkOperation | None = session.info.get(_BULK)
    if operation is not None and operation.transaction is transaction:
        del session.info[_BULK]
        operation.end()


class _BulkOperation:
    """A bulk operation that is about to begin in a session; no event says which objects it writes."""

    def __init__(self, session: Session, transaction: SessionTransaction) -> None:
        self.transaction: Final = transaction
        with _lock:
            here = _here()
            self._states: Sequence[InstanceState[Any]] = [state for state, where in _objects.items() if where == here]
        self._listening_to: Final[set[Connection]] = set()
        # And those that it begins to use from now on.
        for connection in connections_of(session.get_transaction() or transaction):
            self.listen_to(connection)

    def listen_to(self, connection: Connection) -> None:
        """Check what is executed on a connection."""
        if connection not in self._listening_to:
            self._listening_to.add(connection)
            event.listen(connection, "before_execute", self._before_execute)

    def end(self) -> None:
        """Stop listening."""
        for connection in self._listening_to:
            event.remove(connection, "before_execute", self._before_execute)

    def _before_execute(
        self, conn: Connection, clauseelement: Any, multiparams: Any, params: Any, execution_options: Any
    ) -> None:
        statement, rows = clauseelement, multiparams or [params]
        if not isinstance(statement, Insert | Update):
            return
        for state in self._states:
            kept = _kept_for(state)
            if kept is not None and not kept.is_empty and _writes(statement, state, rows):
                raise TransactionError(
                    f"a bulk operation would store a {state.class_.__name__} without the events that it has recorded: roll "
                    "back, and add the object to the session instead"
                )


def _writes(statement: Insert | Update, state: InstanceState[Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a statement of a bulk operation writes the row of an object."""
    mapper: Mapper[Any] = state.mapper
    table: Any = statement.table
    if table not in mapper.tables:
        return False
    if isinstance(statement, Update):
        key = {
            update_key(column): state.dict.get(mapper.get_property_by_column(column).key)
            for column in table.primary_key
        }
        return any(key.items() <= row.items() for row in rows)
    values = {
        column.key: state.dict[prop.key]
        for prop in mapper.column_attrs
        for column in prop.columns
        if column.table is table and state.dict.get(prop.key) is not None
    }
    added = {getattr(column, "key", None) for column in (mapper.polymorphic_on, mapper.version_id_col)}
    # Compared by identity: a row of another object may have equal values.
    return any(
        row.keys() - added == values.keys() - added and all(row.get(key) is value for key, value in values.items())
        for row in rows
    )


def _unpickled(events: Sequence[AnyNewEvent]) -> Unattached:
    kept = Unattached()
    kept.add(*events)
    return kept


def _kept_for(state: InstanceState[Any]) -> Unattached | None:
    """Return what is kept for an object, or for the one that it is a copy of."""
    return cast("Unattached | None", state.callables.get(_KEY))


def _here() -> tuple[int, int]:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return get_ident(), id(task)

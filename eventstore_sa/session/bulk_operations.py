"""Bulk operations are refused where they would store an object without the events that it has recorded.

They write the rows of objects without adding the objects to the session, and so the session never gets the events that are
kept for them (`unattached.py`). The refusal comes at the statement that would write the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Insert, Update, event
from sqlalchemy.orm import InstanceState, Mapper, Session, SessionTransaction, SessionTransactionOrigin, UOWTransaction

from eventstore_sa.errors import TransactionError
from eventstore_sa.persistence.sqlalchemy_internals import connections_of, is_flushing, update_key
from eventstore_sa.session.unattached import has_kept, kept_here, recorders

__all__ = ["follow_bulk_operations"]

_FLUSH: Final = "eventstore_sa.flush"
_BULK: Final = "eventstore_sa.bulk"


def follow_bulk_operations() -> None:
    """Attach the listeners that refuse to write rows of objects without their events."""
    if not event.contains(Session, "before_flush", _before_flush):
        event.listen(Session, "before_flush", _before_flush)
        event.listen(Session, "after_transaction_create", _after_transaction_create)
        event.listen(Session, "after_begin", _after_begin)
        event.listen(Session, "after_transaction_end", _after_transaction_end)


def _before_flush(session: Session, flush: UOWTransaction, _: Any) -> None:
    if recorders:
        session.info[_FLUSH] = flush


def _after_transaction_create(session: Session, transaction: SessionTransaction) -> None:
    if not recorders or transaction.origin is not SessionTransactionOrigin.SUBTRANSACTION or not is_flushing(session):
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
        self._states: Final = kept_here()
        self._listening_to: Final[set[Connection]] = set()
        # Those that it uses later come from `after_begin`.
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
            if has_kept(state) and _writes(statement, state, rows):
                raise TransactionError(
                    f"a bulk operation would store {state.class_.__name__} without the events that it has recorded: roll "
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

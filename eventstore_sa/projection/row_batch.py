"""The rows that a batch of events affects: locked, loaded, created, deleted and flushed.

`table.py` decides which events these are, and which handlers change the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple, final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from eventstore_sa.contracts.inline_projections import KeyTakenError
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection.row_keys import RowKey, RowKeys, unpacked
from eventstore_sa.types import AnyStoredEvent

__all__ = ["DELETE", "Handling", "RowBatch", "RowDeletion"]


@final
class RowDeletion:
    """What a handler of a table projection returns to delete its row: `return DELETE`."""

    def __repr__(self) -> str:
        return "DELETE"


DELETE: Final = RowDeletion()


class Handling(NamedTuple):
    """An event, its handler, and the keys of its rows."""

    event: AnyStoredEvent
    handler: Callable[[Any, AnyStoredEvent], object]
    keys: Sequence[RowKey]


class RowBatch:
    """The rows with some keys, in the transaction of a session.

    They are locked and loaded after a flush; otherwise unwritten changes of the session would be lost.

    Args:
        session: The session.
        keys: How rows are found.
        wanted: The keys.
        sequence_number: The attribute with the sequence number of the last event applied to a row, if there is one.
    """

    def __init__(
        self, session: Session, keys: RowKeys, wanted: Collection[RowKey], *, sequence_number: str | None
    ) -> None:
        session.flush()
        self._session = session
        self._keys = keys
        self._sequence_number = sequence_number
        self._rows = keys.load(session, wanted)
        self._new: dict[RowKey, Any] = {}
        self._deleted: set[RowKey] = set()

    def apply(
        self,
        handling: Handling,
        key: RowKey,
        *,
        create: Callable[[Any, AnyStoredEvent], object],
        skip_applied: bool,
    ) -> None:
        """Handle an event for one of its rows.

        Args:
            handling: The event, with its handler.
            key: The key of the row.
            create: Makes the row if it does not exist.
            skip_applied: Whether to skip an event that has already been applied to the row, according to its number.
        """
        event = handling.event
        row = self._rows.get(key, self._new.get(key))
        if row is None:
            row = create(unpacked(key), event)
            if row is None:
                return
            self._keys.give(row, key)
            self._new[key] = row
        elif skip_applied and self._is_applied(row, event):
            return
        result = handling.handler(row, event)
        if result is DELETE:
            self._delete(key)
        elif result is None or result is row:
            self._note_applied(row, event)
        else:
            raise ConfigurationError(
                f"a handler returned {type(result).__name__}: change the row that it receives and return nothing, or "
                "return DELETE to delete the row"
            )

    def flush(self) -> None:
        """Write the rows.

        Raises:
            ConcurrencyError: If another transaction has just created one of them.
            ConfigurationError: If a row of another class already has the primary key of a new row.
        """
        if self._deleted and self._new:
            # In a single flush a new row would be inserted before the deletion that makes room for it; with the same key,
            # both would become an UPDATE that keeps the old values of what the new row does not set.
            self._session.flush()
        self._keys.check_free(self._session, self._new)
        # Always in the same order: of two transactions that create the same rows, one waits for the other.
        self._session.add_all(self._new[key] for key in sorted(self._new, key=repr))
        try:
            self._session.flush()
        except IntegrityError as error:
            if self._new and self._keys.is_taken(error):
                raise KeyTakenError(self._keys.row_class.__name__, self._new) from error.orig
            raise

    def _is_applied(self, row: object, event: AnyStoredEvent) -> bool:
        if self._sequence_number is None:
            return False
        last: int | None = getattr(row, self._sequence_number)
        return last is not None and event.sequence_number <= last

    def _note_applied(self, row: object, event: AnyStoredEvent) -> None:
        if self._sequence_number is not None:
            last: int | None = getattr(row, self._sequence_number)
            number = event.sequence_number if last is None else max(last, event.sequence_number)
            setattr(row, self._sequence_number, number)

    def _delete(self, key: RowKey) -> None:
        row = self._rows.pop(key, None)
        if row is None:
            del self._new[key]
        else:
            self._session.delete(row)
            self._deleted.add(key)

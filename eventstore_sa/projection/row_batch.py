"""The rows that a batch of events concerns: locked, loaded, created, deleted and flushed.

Which events these are, and what is done with the rows, is decided in `table.py`.
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
    """What a handler of a table projection returns to have its row deleted: `return DELETE`."""

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

    They are locked and loaded here, after a flush: what the session has not written yet would be lost otherwise.

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
        """Have an event handled for one of its rows.

        Args:
            handling: The event, with its handler.
            key: The key of the row.
            create: Makes the row where there is none.
            skip_applied: Whether to leave out what the row says was applied to it before.
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
                f"a handler has returned a {type(result).__name__}: change the row that it is given, and return nothing, or "
                "DELETE to have the row deleted"
            )

    def flush(self) -> None:
        """Write the rows.

        Raises:
            ConcurrencyError: Another transaction has created one of them meanwhile.
            ConfigurationError: One cannot be created, because a row of another class has its primary key.
        """
        if self._deleted and self._new:
            # In one flush a new row would come before the one that makes room for it; or, with the same key, both would
            # become an UPDATE that leaves what the new row does not mention as it was.
            self._session.flush()
        self._keys.check_free(self._session, self._new)
        # In one order whoever comes: of two transactions that create the same rows, one waits for the other.
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

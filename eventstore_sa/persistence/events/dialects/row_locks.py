"""Row locks: publishing by `SELECT ... FOR UPDATE`, for databases without a fence, in SQLAlchemy Core.

The table `es_locks` has a row for the log, for each category or for each stream, as the guarantee asks, and one for each
stream with its last position. A publish locks its rows, checks, moves the positions and inserts. The locks are held until
the transaction ends; numbers are drawn below them, so within the level of the guarantee their order is that of commits.

Rows are locked in the order of their keys: the log, then categories, then streams. Those that are missing are created
before the first is locked, in the same order, or below the lock on the log, where no other transaction can create them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    String,
    bindparam,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.types import TypeEngine

from eventstore_sa.conditions import EMPTY_STREAM_POSITION
from eventstore_sa.persistence.events.dialects.base import Appended, AppendOutcome, EventDialect, Unmet
from eventstore_sa.persistence.events.document import DocumentStream, PublishDocument
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.databases import Database
from eventstore_sa.publishing import PreparedEvent
from eventstore_sa.types import encode_json
from eventstore_sa.types.watermark import Watermark

__all__ = ["RowLocking"]

T = TypeVar("T")

_BATCH: Final = 1000
_LOG_KEY: Final = ""


class RowLocking(EventDialect):
    """A dialect that publishes by row locks; to be put in front of another one, or to be completed.

    What goes wrong is raised, and undone by a rollback to the caller's savepoint.
    """

    def __init__(self, schema: EventStoreSchema, database: Database) -> None:
        super().__init__(schema, database)
        self._level = schema.locking_mode.level
        self._create_rows = self._insert_or_ignore()
        rows = schema.locks
        row = select(rows.c.lock_key, rows.c.last_position)
        self._find = row.where(rows.c.lock_key.in_(bindparam("lock_keys", expanding=True))).order_by(rows.c.lock_key)
        # Small tables are scanned as a whole otherwise, and all that is scanned is locked.
        self._lock_rows = (
            self._find.with_for_update()
            .with_hint(rows, "FORCE INDEX (PRIMARY)", "mysql")
            .with_hint(rows, "FORCE INDEX (PRIMARY)", "mariadb")
        )
        self._move = (
            update(rows)
            .where(rows.c.lock_key == bindparam("moved_key", type_=rows.c.lock_key.type))
            .values(last_position=bindparam("moved_to", type_=rows.c.last_position.type))
        )
        c = schema.events.c
        converted = {
            name: self._stored(bindparam(f"{name}_text", type_=String()), c[name].type)
            for name in ("payload", "metadata", "observed_at", "occurred_at", "tags")
        }
        self._index_tags = insert(schema.event_tags)
        self._insert = (
            insert(schema.events).values(converted).returning(c.sequence_number, sort_by_parameter_order=True)
        )

    @abstractmethod
    def _insert_or_ignore(self) -> Insert:
        """Return what inserts lock rows, and leaves those alone that are there."""

    @abstractmethod
    def _stored(self, text: ColumnElement[str], column_type: TypeEngine[Any]) -> ColumnElement[Any]:
        """Return what is stored in a column, made of a text with JSON or with a time."""

    def append(self, connection: Connection, document: PublishDocument, *, guarded: bool) -> AppendOutcome:
        """Lock, check and insert: three statements, one more if there are tags, and three more for streams that are new."""
        ends = self._locked_ends(connection, document)
        moved: dict[str, int] = {}
        first_positions: list[int] = []
        rows: list[dict[str, Any]] = []
        for item, stream in enumerate(document.streams):
            key = _stream_key(stream.category, stream.stream)
            last = moved.get(key, ends[key])
            if not _is_met(stream, last):
                return Unmet(item, last)
            first_positions.append(last + 1)
            if stream.events:
                rows += (_row(stream, event, position) for position, event in enumerate(stream.events, start=last + 1))
                moved[key] = last + len(stream.events)
        if not rows:
            return Appended(first_positions, ())
        connection.execute(self._move, [{"moved_key": key, "moved_to": last} for key, last in moved.items()])
        events = [event for stream in document.streams for event in stream.events]
        if not any(event.tags for event in events):
            return Appended(first_positions, connection.scalars(self._insert, rows).all())
        with self._inserting_tags(connection):
            numbers = connection.scalars(self._insert, rows).all()
            entries = [
                {"tag": tag, "sequence_number": number, "name": event.name}
                for number, event in zip(numbers, events, strict=True)
                for tag in event.tags
            ]
            connection.execute(self._index_tags, entries)
        return Appended(first_positions, numbers)

    def _inserting_tags(self, connection: Connection) -> AbstractContextManager[None]:
        """Let events with tags be inserted within; by default nothing prevents that."""
        return nullcontext()

    def lock(self, connection: Connection, document: PublishDocument) -> None:
        """Lock the rows, before conditions are evaluated that are not the library's."""
        self.database.check_read_committed(connection)
        self._locked_ends(connection, document)

    def complete_up_to(self, connection: Connection) -> tuple[int, int]:
        """Return the last number twice: with the guarantee LOG, all numbers before it are committed."""
        return EventDialect.complete_up_to(self, connection)

    def watermark(self, connection: Connection) -> Watermark:
        """Return the last number; no transaction can hold the log back."""
        return EventDialect.watermark(self, connection)

    def _locked_ends(self, connection: Connection, document: PublishDocument) -> dict[str, int]:
        """Lock the rows of a publish; return them with their last positions."""
        streams = {_stream_key(stream.category, stream.stream): stream for stream in document.streams}
        keys = sorted({*self._wider_keys(document), *streams})
        # The row of the log comes first of all and stands for all, so the others may be missing while it is taken.
        found = self._rows(connection, keys, lock=self._level == "log")
        missing = [key for key in keys if key not in found]
        if missing:
            self._create(connection, missing, streams)
        if missing or self._level != "log":
            found = self._rows(connection, keys, lock=True)
        return found

    def _wider_keys(self, document: PublishDocument) -> Iterator[str]:
        if self._level == "log":
            yield _LOG_KEY
        elif self._level == "category":
            yield from (f"c{stream.category}" for stream in document.streams)

    def _rows(self, connection: Connection, keys: Sequence[str], *, lock: bool) -> dict[str, int]:
        statement = self._lock_rows if lock else self._find
        found: dict[str, int] = {}
        for batch in _batches(keys):
            found |= {row.lock_key: row.last_position for row in connection.execute(statement, {"lock_keys": batch})}
        return found

    def _create(self, connection: Connection, keys: Sequence[str], streams: dict[str, DocumentStream]) -> None:
        """Create rows that start where their streams are, which may have been written in another mode of locking."""
        c = self._schema.events.c
        ends: dict[str, int] = {}
        for batch in _batches([streams[key] for key in keys if key in streams]):
            names = [(stream.category, stream.stream) for stream in batch]
            end = select(c.category, c.stream, func.max(c.position).label("last"))
            in_batch = end.where(tuple_(c.category, c.stream).in_(names)).group_by(c.category, c.stream)
            ends |= {_stream_key(row.category, row.stream): row.last for row in connection.execute(in_batch)}
        connection.execute(
            self._create_rows,
            [{"lock_key": key, "last_position": ends.get(key, EMPTY_STREAM_POSITION)} for key in keys],
        )


def _stream_key(category: str, stream: str) -> str:
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    return f"s{len(category)}:{category}{stream}"


def _is_met(stream: DocumentStream, last_position: int) -> bool:
    return stream.allowed is None or any(
        low <= last_position and (high is None or last_position <= high) for low, high in stream.allowed
    )


def _row(stream: DocumentStream, event: PreparedEvent, position: int) -> dict[str, Any]:
    return {
        "id": event.id,
        "category": stream.category,
        "stream": stream.stream,
        "position": position,
        "name": event.name,
        "payload_text": encode_json(event.payload).decode(),
        "metadata_text": None if event.metadata is None else encode_json(event.metadata).decode(),
        "observed_at_text": _without_zone(event.observed_at),
        "occurred_at_text": _without_zone(event.occurred_at),
        "tags_text": encode_json(event.tags).decode() if event.tags else None,
        "version": event.version,
    }


def _without_zone(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def _batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _BATCH):
        yield values[start : start + _BATCH]

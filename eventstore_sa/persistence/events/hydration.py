"""Turning rows into events, and naming the event of a row that cannot be read.

Publishing stores nothing that cannot be read; other SQL may: an infinite time, an integer of 5,000 digits, text that is not
JSON. Each row is selected in a form that no driver interprets, so that what is wrong is found here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from msgspec import MsgspecError, Struct
from msgspec.json import Decoder

from eventstore_sa.errors import SerialisationError, UnreadableEventError
from eventstore_sa.types import NO_TAGS, AnyStoredEvent, StoredEvent, StreamIdentifier
from eventstore_sa.types.uuid7 import uuid_of

__all__ = ["Page", "hydrated", "unreadable_event"]

ReadTime = Callable[[Any], datetime]

_decode = Decoder().decode
_decode_tags = Decoder(frozenset[str] | None).decode
_FAILURES: Final = (ValueError, TypeError, AttributeError, OverflowError, RecursionError, MsgspecError)


class Page(Struct, frozen=True):
    """Some events of a read, in its order.

    Attributes:
        events: The events.
        more: Whether more events may follow.
        unreadable: What is to be raised after the events, because the next one cannot be read.
    """

    events: list[AnyStoredEvent]
    more: bool
    unreadable: UnreadableEventError | None = None

    def checked_events(self) -> list[AnyStoredEvent]:
        """Return the events, all of which are needed.

        Raises:
            UnreadableEventError: If one of them cannot be read.
        """
        if self.unreadable is not None:
            raise self.unreadable
        return self.events


def hydrated(
    rows: Sequence[Sequence[Any]], read_time: ReadTime, *, as_text: bool = False
) -> tuple[list[AnyStoredEvent], UnreadableEventError | None]:
    """Turn rows into events.

    Args:
        rows: The columns of `EventDialect.event_columns`, and one more that is ignored.
        read_time: How a time is read.
        as_text: Whether payloads remain JSON text.

    Returns:
        The events up to the first that cannot be read, and the error for that one.
    """
    read_payload = _text_of if as_text else _decode
    try:
        return _events(rows, read_time, read_payload), None
    except _FAILURES:
        events: list[AnyStoredEvent] = []
        for row in rows:
            try:
                events += _events([row], read_time, read_payload)
            except _FAILURES:
                return events, _unreadable_row(row, read_time)
        # What failed was the stack of the first try, not a row.
        return events, None


def _events(
    rows: Sequence[Sequence[Any]], read_time: ReadTime, read_payload: Callable[[Any], Any]
) -> list[AnyStoredEvent]:
    return [
        StoredEvent(
            # asyncpg has a UUID class of its own: pickles of it can only be read where asyncpg is installed.
            id if type(id) is UUID else _uuid(id),
            # SQLite stores values of any type in any column.
            name if type(name) is str else _text(name),
            stream if type(stream) is str else _text(stream),
            category if type(category) is str else _text(category),
            position if type(position) is int else _integer(position),
            sequence_number,
            read_payload(payload),
            None if metadata is None else _decode(metadata),
            (observed := read_time(observed_at)),
            # The same by default, and a time takes as long to read as a small payload.
            observed if occurred_at == observed_at else read_time(occurred_at),
            NO_TAGS if tags is None else _decode_tags(tags) or NO_TAGS,
            version if type(version) is int else _integer(version),
        )
        for (
            id,  # noqa: A001
            name,
            stream,
            category,
            position,
            sequence_number,
            payload,
            metadata,
            observed_at,
            occurred_at,
            tags,
            version,
            _,
        ) in rows
    ]


def _text_of(value: Any) -> str | bytes:
    return value if type(value) is str or type(value) is bytes else bytes(value)


def _uuid(value: Any) -> UUID:
    if isinstance(value, str):
        return UUID(hex=value)
    number = getattr(value, "int", None)
    if not isinstance(number, int):
        raise _wrong_type(value)
    return uuid_of(number)


def _text(value: object) -> str:
    if isinstance(value, str):
        return str(value)
    raise _wrong_type(value)


def _integer(value: object) -> int:
    if isinstance(value, int):
        return int(value)
    raise _wrong_type(value)


def _wrong_type(value: object) -> TypeError:
    return TypeError(f"it came as {type(value).__name__}")


def _json(value: Any) -> Any:
    return None if value is None else _decode(value)


def _tags(value: Any) -> frozenset[str]:
    return NO_TAGS if value is None else _decode_tags(value) or NO_TAGS


def _unreadable_row(row: Sequence[Any], read_time: ReadTime) -> UnreadableEventError:
    _, _, stream, category, position, sequence_number, *_ = row
    readers: tuple[tuple[str, str, Callable[[Any], object]], ...] = (
        ("id", "UUID", _uuid),
        ("name", "text", _text),
        ("stream", "text", _text),
        ("category", "text", _text),
        ("position", "an integer", _integer),
        ("sequence_number", "an integer", _integer),
        ("payload", "JSON", _json),
        ("metadata", "JSON", _json),
        ("observed_at", "a time", read_time),
        ("occurred_at", "a time", read_time),
        ("tags", "an array of strings in JSON,", _tags),
        ("version", "an integer", _integer),
    )
    reason = "it changed while it was being read"
    for (field, kind, read), value in zip(readers, row, strict=False):
        try:
            read(value)
        except _FAILURES as error:
            reason = f"its {field} is not {kind} that Python can read ({error})"
            break
    return unreadable_event(
        reason, sequence_number=sequence_number, position=position, category=category, stream=stream
    )


def unreadable_event(
    reason: str, *, sequence_number: int, position: object = None, category: object = None, stream: object = None
) -> UnreadableEventError:
    """Build the error for an event, whose other columns may not be readable either."""
    known: StreamIdentifier | None = None
    if isinstance(category, str) and isinstance(stream, str):
        try:
            known = StreamIdentifier(category, stream)
        except SerialisationError:  # a name that no stream can have
            known = None
    label = f"event {sequence_number}"
    if known is not None:
        label += f", at position {position} of stream {f'{category}/{stream}'!r},"
    return UnreadableEventError(
        f"{label} cannot be read: {reason}. It was not inserted by a publish, but by other SQL; to read the events after "
        f"it, give the read the constraint sequence_number_after({sequence_number}), or sequence_number_before("
        f"{sequence_number}) to read backwards",
        sequence_number=sequence_number,
        position=position if isinstance(position, int) else None,
        stream=known,
    )

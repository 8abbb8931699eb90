"""The format of an export: a header, a line for each event, and a trailer with their number and hash, all of it JSON.

A file without a trailer is one that was interrupted. The hash is over the lines of the events, with their ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import MsgspecError, Struct

from eventstore_sa.errors import BrokenExportError
from eventstore_sa.types import AnyStoredEvent, StoredEvent, decode_json, encode_json

__all__ = [
    "ExportHeader",
    "ExportTrailer",
    "event_line",
    "header_line",
    "read_event",
    "read_export",
    "read_header",
    "read_trailer",
    "trailer_line",
    "verify_export",
]

FORMAT: Final = 1


class ExportHeader(Struct, frozen=True, kw_only=True):
    """The first line of an export.

    Attributes:
        export: The version of the format.
        category: The category that was exported; None: the whole store.
        up_to: The number up to which events were exported.
    """

    export: int = FORMAT
    category: str | None
    up_to: int


class ExportTrailer(Struct, frozen=True, kw_only=True):
    """The last line of an export.

    Attributes:
        events: How many events there are.
        sha256: The hash of their lines.
    """

    events: int
    sha256: str


class _Line(Struct, frozen=True, kw_only=True):
    """An event, in the order in which its fields are written."""

    sequence_number: int
    id: UUID
    category: str
    stream: str
    position: int
    name: str
    observed_at: datetime
    occurred_at: datetime
    tags: list[str] = []
    version: int = 1
    metadata: msgspec.Raw = msgspec.Raw(b"null")
    payload: msgspec.Raw


_decode_line: Final = msgspec.json.Decoder(_Line).decode
_decode_header: Final = msgspec.json.Decoder(ExportHeader).decode
_TRAILER: Final = b'{"events":'
_decode_trailer: Final = msgspec.json.Decoder(ExportTrailer).decode


def header_line(header: ExportHeader) -> bytes:
    """Return the first line."""
    return msgspec.json.encode(header) + b"\n"


def event_line(event: AnyStoredEvent) -> bytes:
    """Return the line of an event."""
    line = _Line(
        sequence_number=event.sequence_number,
        id=event.id,
        category=event.category,
        stream=event.stream,
        position=event.position,
        name=event.name,
        observed_at=event.observed_at,
        occurred_at=event.occurred_at,
        tags=sorted(event.tags),
        version=event.version,
        metadata=msgspec.Raw(encode_json(event.metadata)),
        payload=msgspec.Raw(encode_json(event.payload)),
    )
    return msgspec.json.encode(line) + b"\n"


def trailer_line(trailer: ExportTrailer) -> bytes:
    """Return the last line."""
    return msgspec.json.encode(trailer) + b"\n"


def read_header(line: bytes) -> ExportHeader:
    """Read the first line.

    Raises:
        BrokenExportError: If it is none, or of a format that this version of the library does not know.
    """
    try:
        header = _decode_header(line)
    except MsgspecError as error:
        raise BrokenExportError("this is not an export: its first line is not the header of one") from error
    if header.export != FORMAT:
        raise BrokenExportError(
            f"this export has format {header.export}, and this version of the library reads {FORMAT}"
        )
    return header


def read_event(line: bytes, number: int) -> AnyStoredEvent:
    """Read the line of an event.

    Args:
        line: The line.
        number: Which line it is, for the message.

    Raises:
        BrokenExportError: If it is none.
    """
    try:
        found = _decode_line(line)
        payload: Any = decode_json(bytes(found.payload))
        metadata: Any = decode_json(bytes(found.metadata))
    except (MsgspecError, ValueError, RecursionError) as error:
        raise BrokenExportError(f"line {number} of the export is not an event: {error}") from error
    return StoredEvent(
        found.id,
        found.name,
        found.stream,
        found.category,
        found.position,
        found.sequence_number,
        payload,
        metadata,
        found.observed_at,
        found.occurred_at,
        frozenset(found.tags),
        found.version,
    )


def read_trailer(line: bytes) -> ExportTrailer | None:
    """Read the last line; None if it is none."""
    if not line.startswith(_TRAILER):
        return None
    try:
        return _decode_trailer(line)
    except MsgspecError:
        return None


def verify_export(lines: Iterable[bytes], *, progress: Callable[[int], object] | None = None) -> ExportTrailer:
    """Go through an export, and compare its events with the count and the hash in its trailer.

    Args:
        lines: Its lines, with their ends.
        progress: Called with how many bytes were read.

    Raises:
        BrokenExportError: If it is not complete, or was changed.
    """
    checked = _CheckedLines(lines, progress)
    for _ in checked.of_events():
        pass
    return checked.trailer


def read_export(lines: Iterable[bytes], *, progress: Callable[[int], object] | None = None) -> Iterator[AnyStoredEvent]:
    """Yield the events of an export; what is wrong with its count or hash is raised after the last one.

    Args:
        lines: Its lines, with their ends.
        progress: Called with how many bytes were read.

    Raises:
        BrokenExportError: If it is not complete, or was changed.
    """
    checked = _CheckedLines(lines, progress)
    for number, line in enumerate(checked.of_events(), start=2):
        yield read_event(line, number)


class _CheckedLines:
    """The lines of an export, counted and hashed on the way.

    Attributes:
        trailer: The last line, once it was reached.
    """

    trailer: ExportTrailer

    def __init__(self, lines: Iterable[bytes], progress: Callable[[int], object] | None) -> None:
        self._lines = iter(lines)
        self._progress = progress

    def of_events(self) -> Iterator[bytes]:
        """Yield the lines of events; then compare what they are with what the trailer says."""
        first = next(self._lines, b"")
        read_header(first)
        read_bytes, events, digest = len(first), 0, hashlib.sha256()
        for line in self._lines:
            read_bytes += len(line)
            if self._progress is not None:
                self._progress(read_bytes)
            trailer = read_trailer(line)
            if trailer is not None:
                self._compare(trailer, events, digest.hexdigest())
                return
            if not line.endswith(b"\n"):
                break
            events += 1
            digest.update(line)
            yield line
        raise BrokenExportError(
            f"the export ends after {events} events, without a trailer: export to the same file again, which resumes it"
        )

    def _compare(self, trailer: ExportTrailer, events: int, sha256: str) -> None:
        if next(self._lines, None) is not None:
            raise BrokenExportError("the export has lines after its trailer: it is not what was exported")
        if (trailer.events, trailer.sha256) != (events, sha256):
            raise BrokenExportError(
                f"the export has {events} events with the hash {sha256}, but its trailer says {trailer.events} events with "
                f"{trailer.sha256}: it is not what was exported"
            )
        self.trailer = trailer

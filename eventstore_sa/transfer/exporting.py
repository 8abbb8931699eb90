"""Writing the events of a store to a file, or to a stream of bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from msgspec import Struct

from eventstore_sa.errors import BrokenExportError
from eventstore_sa.sources.constraints import sequence_number_after, sequence_number_before
from eventstore_sa.store import SyncEventStore
from eventstore_sa.transfer.lines import (
    ExportHeader,
    ExportTrailer,
    event_line,
    header_line,
    read_event,
    read_header,
    read_trailer,
    trailer_line,
    verify_export,
)
from eventstore_sa.types import AnyStoredEvent

__all__ = ["ExportProgress", "export_events"]


class ExportProgress(Struct, frozen=True):
    """How far an export has got.

    Attributes:
        sequence_number: The number of the last event that was written.
        up_to: The number up to which events are written.
    """

    sequence_number: int
    up_to: int


_BEGINNING: Final = header_line(ExportHeader(category=None, up_to=0)).partition(b"null")[0]

Progress = Callable[[ExportProgress], object]


def export_events(
    store: SyncEventStore[Any],
    to: Path | BinaryIO,
    *,
    category: str | None = None,
    progress: Progress | None = None,
) -> ExportTrailer:
    """Write all events of a store or of a category that are complete now, in order.

    An export to a file that was interrupted is resumed when it is made again; one that is complete is left as it is.

    Args:
        store: The store.
        to: A file, or a stream of bytes.
        category: Only events of this category.
        progress: Called after each event.

    Returns:
        How many events there are in the export, and the hash of their lines.

    Raises:
        BrokenExportError: If the file is something else, or an export of something else.
    """
    # As events are stored, whatever types the application has: nothing is skipped, and what is encrypted stays so.
    store = SyncEventStore(store.adapter)
    if isinstance(to, Path):
        with to.open("r+b" if to.exists() else "w+b") as file:
            trailer = _resumed(store, file, category, progress)
            os.fsync(file.fileno())
            return trailer
    header = ExportHeader(category=category, up_to=store.watermark().sequence_number)
    to.write(header_line(header))
    return _write(store, to, header, progress, _Written())


class _Written:
    """What of an export is there already."""

    def __init__(self) -> None:
        self.events = 0
        self.sequence_number = 0
        self.digest = hashlib.sha256()

    def add(self, line: bytes, event: AnyStoredEvent) -> None:
        """Note an event."""
        self.events += 1
        self.sequence_number = event.sequence_number
        self.digest.update(line)

    @property
    def trailer(self) -> ExportTrailer:
        """The last line for what is there."""
        return ExportTrailer(events=self.events, sha256=self.digest.hexdigest())


def _resumed(
    store: SyncEventStore[Any], file: BinaryIO, category: str | None, progress: Progress | None
) -> ExportTrailer:
    first = file.readline()
    if not first.endswith(b"\n"):
        # Nothing was written, or not even all of the first line.
        if first[: len(_BEGINNING)] != _BEGINNING[: len(first)]:
            raise BrokenExportError("there is a file of this name that is not an export: choose another name")
        file.seek(0)
        header = ExportHeader(category=category, up_to=store.watermark().sequence_number)
        file.write(header_line(header))
        file.truncate()
        return _write(store, file, header, progress, _Written())
    header = read_header(first)
    if header.category != category:
        raise BrokenExportError(
            f"the file holds an export of {_named(header.category)}, not of {_named(category)}: choose another name"
        )
    written, end = _Written(), len(first)
    event: AnyStoredEvent | None = None
    for number, line in enumerate(file, start=2):
        if read_trailer(line) is not None:
            file.seek(0)
            return verify_export(file)
        if not line.endswith(b"\n"):
            break
        event = read_event(line, number)
        written.add(line, event)
        end += len(line)
    _check_source(store, event)
    file.seek(end)
    file.truncate()
    return _write(store, file, header, progress, written)


def _check_source(store: SyncEventStore[Any], last: AnyStoredEvent | None) -> None:
    """Demand that an export can be resumed from a store: that its last event is of this store, and not of another."""
    if last is None:
        return
    found = store.adapter.inspection_storage().find_all([last.id]).get(last.id)
    if found is None or found.sequence_number != last.sequence_number:
        raise BrokenExportError(
            f"the file holds a part of an export of another store, which has event {last.id} with number "
            f"{last.sequence_number}: choose another name"
        )


def _write(
    store: SyncEventStore[Any], to: BinaryIO, header: ExportHeader, progress: Progress | None, written: _Written
) -> ExportTrailer:
    for event in _events(store, header, written.sequence_number):
        line = event_line(event)
        to.write(line)
        written.add(line, event)
        if progress is not None:
            progress(ExportProgress(event.sequence_number, header.up_to))
    to.write(trailer_line(written.trailer))
    to.flush()
    return written.trailer


def _events(store: SyncEventStore[Any], header: ExportHeader, after: int) -> Iterator[AnyStoredEvent]:
    source = store.log() if header.category is None else store.category(category=header.category)
    return source.iterate(constraints={sequence_number_after(after), sequence_number_before(header.up_to + 1)})


def _named(category: str | None) -> str:
    return "a whole store" if category is None else f"category {category!r}"

"""What a writer knows, line by line in a file: it survives the SIGKILL of the process that wrote it.

Before a commit the events are noted as tried, after it as stored or refused; what stays tried only is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from eventstore_sa import StoredEvent

__all__ = [
    "Counted",
    "Decided",
    "Entry",
    "Journal",
    "Noted",
    "Prepared",
    "Refused",
    "Stored",
    "Tail",
    "Tried",
    "Wrong",
    "note",
]


class Noted(msgspec.Struct, frozen=True, array_like=True):
    """An event as a process knows it; position and number are None before it is stored."""

    id: str
    category: str
    stream: str
    position: int | None = None
    sequence_number: int | None = None


class Tried(msgspec.Struct, tag=True):
    """A commit of these events begins: from now on nobody knows."""

    events: list[Noted]


class Stored(msgspec.Struct, tag=True):
    """These events were committed, for certain."""

    events: list[Noted]


class Refused(msgspec.Struct, tag=True):
    """These events were not stored, for certain."""

    events: list[Noted]


class Prepared(msgspec.Struct, tag=True):
    """These events are about to be prepared under this name; whoever decides about the name decides about them."""

    gid: str
    events: list[Noted]


class Decided(msgspec.Struct, tag=True):
    """A prepared transaction was committed or rolled back."""

    gid: str
    committed: bool


class Counted(msgspec.Struct, tag=True):
    """Something worth a number in the summary happened."""

    what: str


class Wrong(msgspec.Struct, tag=True):
    """Something happened that must not."""

    what: str


Entry: TypeAlias = Tried | Stored | Refused | Prepared | Decided | Counted | Wrong

_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


def note(events: Iterable[StoredEvent[Any, Any, Any]]) -> list[Noted]:
    """Note stored events."""
    return [
        Noted(str(event.id), event.category, event.stream, event.position, event.sequence_number) for event in events
    ]


class Journal:
    """A file of entries that is only appended to; threads may share it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, entry: Entry) -> None:
        """Append an entry; once this returns, it outlives the process."""
        os.write(self._file, msgspec.json.encode(entry) + b"\n")

    def count(self, what: str) -> None:
        """Append a `Counted`."""
        self.write(Counted(what))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Tail:
    """Reads the entries that were appended to a folder's journals since the last time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}

    def new_entries(self) -> Iterator[Entry]:
        """Yield what is new; a line that is not complete yet, or never will be, is left."""
        for path in sorted(self._folder.glob("*.journal")):
            offset = self._offsets.get(path, 0)
            with path.open("rb") as file:
                file.seek(offset)
                complete = file.read().rpartition(b"\n")
            self._offsets[path] = offset + len(complete[0]) + len(complete[1])
            for line in complete[0].splitlines():
                yield _decoder.decode(line)

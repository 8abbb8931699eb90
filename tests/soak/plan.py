"""What every process of a soak is told: where the database is, what there is to write, how wild to be.

Written to a file that the processes read; nothing here does anything.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Final

import msgspec

from eventstore_sa import StreamIdentifier

__all__ = ["HOST_CATEGORY", "PREFIX_OF_READERS", "PREFIX_OF_WRITERS", "TAGS", "Plan", "tags_of"]

PREFIX_OF_WRITERS: Final = "soak-writer"
PREFIX_OF_READERS: Final = "soak-reader"
HOST_CATEGORY: Final = "of-the-host"
"""Events that the host inserts with SQL of its own, past the library's functions."""

TAGS: Final = {"0": "first", "1": "second"}
"""The tags of the events of some streams, by their names: those of all categories share them, so that writers wait."""


def tags_of(category: str, stream: str) -> frozenset[str]:
    """Return the tags of the events of a stream; what the host inserts itself can have none."""
    tag = None if category == HOST_CATEGORY else TAGS.get(stream)
    return frozenset() if tag is None else frozenset([tag])


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One soak.

    Attributes:
        folder: Where journals and results go.
        urls: The database's address for each driver.
        seed: Of all random choices; what the operating system chooses is not repeatable.
        categories: What is published to, besides the host's own category; the last one is published to widely as well.
        streams: How many streams each category has.
        longest_pause_s: How long a writer waits with its transaction open, at most.
        two_phase: Whether the server can prepare transactions.
        late_watermark: Whether readers make the mistake of reading the page before the watermark.
        leisure_of_fences: How long `fences` rests after each statement, in multiples of the time that this took.
    """

    folder: str
    urls: dict[str, str]
    seed: int
    categories: tuple[str, ...] = ("orders", "invoices", "parcels")
    streams: int = 8
    longest_pause_s: float = 0.03
    two_phase: bool = True
    late_watermark: bool = False
    leisure_of_fences: float = 3.0

    def save(self) -> None:
        """Write the plan where `load` finds it."""
        Path(self.folder, "plan.json").write_bytes(msgspec.json.encode(self))

    @classmethod
    def load(cls, folder: str) -> Plan:
        """Read the plan of a folder."""
        return msgspec.json.decode(Path(folder, "plan.json").read_bytes(), type=cls)

    def random(self, *parts: object) -> Random:
        """Return the source of random choices of one worker."""
        return Random("/".join(map(str, (self.seed, *parts))))

    def streams_of(self, category: str) -> list[StreamIdentifier]:
        """Name the streams of a category."""
        return [StreamIdentifier(category, str(number)) for number in range(self.streams)]

    @property
    def all_categories(self) -> tuple[str, ...]:
        """Return every category, the host's included."""
        return (*self.categories, HOST_CATEGORY)

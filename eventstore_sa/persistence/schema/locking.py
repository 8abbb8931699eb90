"""How the writers of an event store exclude each other, and which order of events that guarantees to readers.

It belongs to an `EventStoreSchema`, and is recorded in the table `es_schema`: see `schema/recorded_locking.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final, Literal, TypeAlias, cast, get_args

from msgspec import Struct

from eventstore_sa.conditions import ConditionScope, WriteCondition
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    EventSequenceIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    StreamNamePrefixPartitionIdentifier,
)

__all__ = [
    "FENCE",
    "EventSerialisationGuarantee",
    "Level",
    "Locking",
    "LockingMode",
    "RecordedLocking",
    "checked_recorded_locking",
    "locking_mode",
]

Locking: TypeAlias = Literal["fence", "advisory", "row"]
"""How the writers of an event store exclude each other: the same for all stores on the same tables, and recorded there.

"fence", the default: only publishes to the same stream exclude each other. Readers of the log and of categories stop at a
watermark, so that open transactions hide nothing from them. PostgreSQL.

"advisory": as "fence", and publishes exclude each other until they commit, within the log or a category, as the
`EventSerialisationGuarantee` says; there, readers that ignore the watermark miss nothing either. PostgreSQL.

"row": publishes exclude each other within the log, a category or a stream, as the guarantee says, by locks on rows of a
table. Wider reads are refused, because they could not be complete in order. PostgreSQL and MariaDB.

SQLite has a single writer, so they do not differ there.
"""

Level: TypeAlias = Literal["log", "category", "stream"]

RecordedLocking: TypeAlias = Literal[
    "fence", "advisory/log", "advisory/category", "advisory/stream", "row/log", "row/category", "row/stream"
]
"""A `Locking` and its level, as the database and Alembic revisions record them."""


class EventSerialisationGuarantee(Enum):
    """The level at which events become visible in the order of their sequence numbers."""

    LOG = "log"
    CATEGORY = "category"
    STREAM = "stream"


_WIDTHS: Final[dict[Level, int]] = {"stream": 0, "category": 1, "log": 2}
_SCOPES: Final[dict[ConditionScope, Level]] = {
    ConditionScope.STREAM: "stream",
    ConditionScope.CATEGORY: "category",
    ConditionScope.LOG: "log",
}


class LockingMode(Struct, frozen=True):
    """How writers exclude each other.

    Attributes:
        locking: By a fence that readers look at, by advisory locks as well, or by rows of a table.
        level: The level at which they do, until they commit; it has no meaning with the fence.
    """

    locking: Locking
    level: Level

    @property
    def recorded(self) -> RecordedLocking:
        """How it is recorded in the database."""
        text = self.locking if self.locking == "fence" else f"{self.locking}/{self.level}"
        return cast("RecordedLocking", text)

    @property
    def serialise(self) -> Level | None:
        """The level above streams at which PostgreSQL's functions make publishes exclude each other, if there is one."""
        return self.level if self.locking == "advisory" and self.level != "stream" else None

    def check_read(self, target: EventSequenceIdentifier | EventPartitionIdentifier) -> None:
        """Refuse a read that could miss events.

        Raises:
            ConfigurationError: If the target is wider than the level, with row locks.
        """
        needed = _level_of(target)
        if self._is_narrower_than(needed):
            raise ConfigurationError(
                f"reads of {_NAMES[needed]} would miss events: with locking='row' writers exclude each other within "
                f"{_NAMES[self.level]} only. Use serialisation_guarantee={needed.upper()}, or locking='fence'"
            )

    @property
    def has_watermark(self) -> bool:
        """Whether it is known how far the log is complete."""
        return not self._is_narrower_than("log")

    def check_watermark(self) -> None:
        """Refuse to return a watermark where there is none.

        Raises:
            ConfigurationError: If the level is not the log, with row locks.
        """
        if not self.has_watermark:
            raise ConfigurationError(
                f"there is no watermark: with locking='row' writers exclude each other within {_NAMES[self.level]} only. "
                "Use serialisation_guarantee=LOG, or locking='fence'"
            )

    def check_conditions(self, conditions: Iterable[WriteCondition]) -> None:
        """Refuse custom conditions that look at more than the locks protect.

        Raises:
            ConfigurationError: If the scope of one is wider than the level, with row locks.
        """
        for condition in conditions:
            scope = _SCOPES[condition.scope]
            if self._is_narrower_than(scope):
                raise ConfigurationError(
                    f"{type(condition).__name__} looks at {_NAMES[scope]}, but with locking='row' writers exclude each "
                    f"other within {_NAMES[self.level]} only: use serialisation_guarantee={scope.upper()}, or "
                    "locking='fence'"
                )

    def _is_narrower_than(self, level: Level) -> bool:
        return self.locking == "row" and _WIDTHS[self.level] < _WIDTHS[level]


FENCE: Final = LockingMode("fence", "log")
"""The default."""

_NAMES: Final[dict[Level, str]] = {"stream": "a stream", "category": "a category", "log": "the log"}


def locking_mode(locking: str, guarantee: object) -> LockingMode:
    """Combine the options of a schema.

    Raises:
        ConfigurationError: If there is no such mode of locking, or the guarantee is not an EventSerialisationGuarantee.
    """
    if locking not in get_args(Locking):
        raise ConfigurationError(f"unknown locking mode {locking!r}: use 'fence', 'advisory' or 'row'")
    if not isinstance(guarantee, EventSerialisationGuarantee):
        raise ConfigurationError(
            "serialisation_guarantee must be an EventSerialisationGuarantee, such as EventSerialisationGuarantee.LOG; got "
            f"{guarantee!r}"
        )
    return LockingMode(cast("Locking", locking), guarantee.value)


def checked_recorded_locking(recorded: str) -> RecordedLocking:
    """Refuse a text that no mode of locking is recorded as.

    Raises:
        ConfigurationError: If it is not one of `RecordedLocking`.
    """
    known = get_args(RecordedLocking)
    if recorded not in known:
        raise ConfigurationError(f"unknown locking {recorded!r}: use one of {', '.join(map(repr, known))}")
    return cast("RecordedLocking", recorded)


def _level_of(target: EventSequenceIdentifier | EventPartitionIdentifier) -> Level:
    match target:
        case LogIdentifier() | LogPartitionIdentifier():
            return "log"
        case CategoryIdentifier() | CategoryPartitionIdentifier() | StreamNamePrefixPartitionIdentifier():
            return "category"
        case _:
            return "stream"

"""How the writers of an event store exclude each other, and which order of events that guarantees to readers.

It belongs to an `EventStoreSchema`, and stands in the table `es_schema`: see `schema/recorded_locking.py`.
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
    EventQuery,
    EventSequenceIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    QueryIdentifier,
    QueryPartitionIdentifier,
    StreamIdentifier,
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
"""How the writers of an event store exclude each other: the same for all stores on the same tables, and kept there.

"fence", the default: those of one stream only. Readers of the log and of categories stop at a watermark, so that open
transactions hide nothing from them. PostgreSQL.

"advisory": the same, and until they commit publishes exclude each other within the log or a category, as the
`EventSerialisationGuarantee` says; readers that know nothing of watermarks miss nothing there either. PostgreSQL.

"row": publishes exclude each other within the log, a category or a stream, as the guarantee says, by locks on rows of a
table. What is wider than that cannot be read in order, and is refused. PostgreSQL and MariaDB.

SQLite has a single writer, so all of them are the same to writers there.
"""

Level: TypeAlias = Literal["log", "category", "stream"]

RecordedLocking: TypeAlias = Literal[
    "fence", "advisory/log", "advisory/category", "advisory/stream", "row/log", "row/category", "row/stream"
]
"""A `Locking` and its level as the database has them, and revisions of Alembic's."""


class EventSerialisationGuarantee(Enum):
    """Within what events become visible in the order of their sequence numbers."""

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
        locking: By a fence that readers look at, by advisory locks in addition, or by rows of a table.
        level: Within what they do, until they commit; of no meaning with the fence.
    """

    locking: Locking
    level: Level

    @property
    def recorded(self) -> RecordedLocking:
        """What stands for it in the database."""
        text = self.locking if self.locking == "fence" else f"{self.locking}/{self.level}"
        return cast("RecordedLocking", text)

    @property
    def serialise(self) -> Level | None:
        """Where PostgreSQL's functions make publishes exclude each other beyond their streams."""
        return self.level if self.locking == "advisory" and self.level != "stream" else None

    def check_read(self, target: EventSequenceIdentifier | EventPartitionIdentifier | QueryIdentifier) -> None:
        """Refuse to read what is not complete.

        Raises:
            ConfigurationError: With row locks, the target is wider than the level.
        """
        needed = _level_of(target)
        if self._is_narrower_than(needed):
            raise ConfigurationError(
                f"reads of {_NAMES[needed]} would miss events: with locking='row' writers exclude each other within "
                f"{_NAMES[self.level]} only. Use serialisation_guarantee={needed.upper()}, or locking='fence'"
            )

    @property
    def has_watermark(self) -> bool:
        """Whether it can be told how far the log is complete."""
        return not self._is_narrower_than("log")

    def check_watermark(self) -> None:
        """Refuse to tell how far the log is complete where that cannot be known.

        Raises:
            ConfigurationError: With row locks, the level is not the log.
        """
        if not self.has_watermark:
            raise ConfigurationError(
                f"there is no watermark: with locking='row' writers exclude each other within {_NAMES[self.level]} only. "
                "Use serialisation_guarantee=LOG, or locking='fence'"
            )

    def check_conditions(self, conditions: Iterable[WriteCondition]) -> None:
        """Refuse conditions of the application's own that look at more than the locks protect.

        Raises:
            ConfigurationError: With row locks, the scope of one is wider than the level.
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
    """Put the options of a schema together.

    Raises:
        ConfigurationError: There is no such mode of locking, or it is not a guarantee.
    """
    if locking not in get_args(Locking):
        raise ConfigurationError(f"there is no locking mode {locking!r}: use 'fence', 'advisory' or 'row'")
    if not isinstance(guarantee, EventSerialisationGuarantee):
        raise ConfigurationError(
            f"serialisation_guarantee is an EventSerialisationGuarantee, such as EventSerialisationGuarantee.LOG; got "
            f"{guarantee!r}"
        )
    return LockingMode(cast("Locking", locking), guarantee.value)


def checked_recorded_locking(recorded: str) -> RecordedLocking:
    """Refuse what stands for no mode of locking in the database.

    Raises:
        ConfigurationError: It stands for none.
    """
    known = get_args(RecordedLocking)
    if recorded not in known:
        raise ConfigurationError(f"there is no locking {recorded!r}: use one of {', '.join(map(repr, known))}")
    return cast("RecordedLocking", recorded)


def _level_of(target: EventSequenceIdentifier | EventPartitionIdentifier | QueryIdentifier) -> Level:
    match target:
        case LogIdentifier() | LogPartitionIdentifier() | EventQuery() | QueryPartitionIdentifier():
            return "log"
        case CategoryIdentifier() | CategoryPartitionIdentifier() | StreamNamePrefixPartitionIdentifier():
            return "category"
        case StreamIdentifier():
            return "stream"

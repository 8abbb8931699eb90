"""How the writers of an event store exclude each other, and which order of events that guarantees to readers.

It belongs to an `EventStoreSchema`, and stands in the table `es_schema`: see `schema/recorded_locking.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from msgspec import Struct

from eventstore_sa.conditions import ConditionScope, WriteCondition
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    EventQuery,
    EventSequenceIdentifier,
    EventSourceIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    QueryIdentifier,
    QueryPartitionIdentifier,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
    is_complete_as_it_stands,
)

__all__ = [
    "FENCE",
    "EventSerialisationGuarantee",
    "Level",
    "Locking",
    "LockingMode",
    "RecordedLocking",
    "locking_mode",
    "recorded_locking_mode",
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

RecordedLocking: TypeAlias = str
"""A `LockingMode` as the database has it, and revisions of Alembic's: "fence", "row/log", "fence labels=tenant:,region:"."""

_RECORDED: Final = (
    "fence",
    "advisory/log",
    "advisory/category",
    "advisory/stream",
    "row/log",
    "row/category",
    "row/stream",
)
_LABELS: Final = " labels="
_LABEL: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")
_MAX_RECORDED: Final = 1000


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
        labels: How tags begin whose writers do not exclude each other, sorted.
    """

    locking: Locking
    level: Level
    labels: tuple[str, ...] = ()

    @property
    def recorded(self) -> RecordedLocking:
        """What stands for it in the database."""
        text = self.locking if self.locking == "fence" else f"{self.locking}/{self.level}"
        return f"{text}{_LABELS}{','.join(self.labels)}" if self.labels else text

    def boundary_of(self, tags: AbstractSet[str]) -> AbstractSet[str]:
        """Return those of some tags whose writers exclude each other: all that are no labels."""
        return {tag for tag in tags if not tag.startswith(self.labels)} if self.labels else tags

    @property
    def serialise(self) -> Level | None:
        """Where PostgreSQL's functions make publishes exclude each other beyond their streams."""
        return self.level if self.locking == "advisory" and self.level != "stream" else None

    def is_complete_as_it_stands(self, target: EventSourceIdentifier) -> bool:
        """Whether writers of what is read exclude each other until they commit, so that no read of it misses an event.

        That is so for a stream, and for events that all have the same tag. Everything else is complete up to the watermark.
        """
        match target:
            case EventQuery((item,)):
                return self.locking != "row" and bool(self.boundary_of(item.tags))
            case _:
                return is_complete_as_it_stands(target)

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

    def check_queries(self, *, depends_on_events: bool) -> None:
        """Refuse conditions on events of queries where no lock of a publish protects them.

        Raises:
            ConfigurationError: With row locks.
        """
        if depends_on_events and self.locking == "row":
            raise ConfigurationError(
                "conditions on events of a query need writers of a tag to exclude each other, which row locks do not do: "
                "use locking='fence' or 'advisory' on PostgreSQL, or decide on streams"
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


def locking_mode(locking: str, guarantee: object, labels: Iterable[str] = ()) -> LockingMode:
    """Put the options of a schema together.

    Raises:
        ConfigurationError: There is no such mode of locking, it is not a guarantee, or a label cannot be used.
    """
    if locking not in get_args(Locking):
        raise ConfigurationError(f"there is no locking mode {locking!r}: use 'fence', 'advisory' or 'row'")
    if not isinstance(guarantee, EventSerialisationGuarantee):
        raise ConfigurationError(
            f"serialisation_guarantee is an EventSerialisationGuarantee, such as EventSerialisationGuarantee.LOG; got "
            f"{guarantee!r}"
        )
    return LockingMode(cast("Locking", locking), guarantee.value, _checked_labels(labels))


def recorded_locking_mode(recorded: RecordedLocking) -> LockingMode:
    """Return the mode of locking that stands in the database.

    Raises:
        ConfigurationError: There is no such mode.
    """
    mode, _, labels = recorded.partition(_LABELS)
    locking, _, level = mode.partition("/")
    found = LockingMode(
        cast("Locking", locking), cast("Level", level or "log"), _checked_labels(labels.split(",") if labels else ())
    )
    if mode not in _RECORDED or found.recorded != recorded:
        raise ConfigurationError(
            f"there is no locking {recorded!r}: use one of {', '.join(map(repr, _RECORDED))}, followed by the labels if "
            "there are any, as in 'fence labels=region:,tenant:'"
        )
    return found


def _checked_labels(labels: object) -> tuple[str, ...]:
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ConfigurationError(f"labels are a list of beginnings of tags, such as ['tenant:']; got {labels!r}")
    checked: list[Any] = list(dict.fromkeys(cast("Iterable[object]", labels)))
    for label in checked:
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise ConfigurationError(
                f"the label {label!r} cannot be used: labels are the beginnings of tags, made of ASCII letters, digits and "
                "any of _.:/-, at most 100 of them"
            )
    if sum(map(len, checked)) + len(checked) > _MAX_RECORDED // 2:
        raise ConfigurationError(f"the labels are more than {_MAX_RECORDED // 2} characters long: use shorter ones")
    return tuple(sorted(checked))


def _level_of(target: EventSequenceIdentifier | EventPartitionIdentifier | QueryIdentifier) -> Level:
    match target:
        case LogIdentifier() | LogPartitionIdentifier() | EventQuery() | QueryPartitionIdentifier():
            return "log"
        case CategoryIdentifier() | CategoryPartitionIdentifier() | StreamNamePrefixPartitionIdentifier():
            return "category"
        case StreamIdentifier():
            return "stream"

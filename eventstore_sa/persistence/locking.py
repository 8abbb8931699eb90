"""How the writers of an event store exclude each other, what readers may expect of that, and where it is written down.

All stores on the same tables must agree: a writer who takes other locks is excluded by none. So the mode stands in the
table `es_schema`, and every store compares its own with it before it does anything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias
from weakref import WeakKeyDictionary

from msgspec import Struct
from sqlalchemy import Connection, Pool, exists, select, update

from eventstore_sa.conditions import ConditionScope, WriteCondition
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.ddl import effective_schema
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    EventSequenceIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    StreamNamePrefixPartitionIdentifier,
)

__all__ = ["FENCE", "Level", "LockingMode", "LockingRecord"]

Level: TypeAlias = Literal["log", "category", "stream"]

_LATEST: Final = "eventstore_sa.locking"
_WIDTHS: Final[dict[Level, int]] = {"stream": 0, "category": 1, "log": 2}
_SCOPES: Final[dict[ConditionScope, Level]] = {
    ConditionScope.STREAM: "stream",
    ConditionScope.CATEGORY: "category",
    ConditionScope.LOG: "log",
}


class LockingMode(Struct, frozen=True):
    """How writers exclude each other.

    Attributes:
        locking: By a fence that readers look at, by advisory locks beside it, or by rows of a table.
        level: Within what they do, until they commit; of no meaning with the fence.
    """

    locking: Literal["fence", "advisory", "row"]
    level: Level

    @property
    def recorded(self) -> str:
        """What stands for it in the database."""
        return self.locking if self.locking == "fence" else f"{self.locking}/{self.level}"

    @property
    def serialise(self) -> Level | None:
        """Where PostgreSQL's functions make publishes exclude each other beyond their streams."""
        return self.level if self.locking == "advisory" and self.level != "stream" else None

    def check_read(self, target: EventSequenceIdentifier | EventPartitionIdentifier) -> None:
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
        """Refuse to tell how far the log is complete where nobody knows.

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
                    f"{type(condition).__name__} looks at {_NAMES[scope]}, and with locking='row' writers exclude each "
                    f"other within {_NAMES[self.level]} only: use serialisation_guarantee={scope.upper()}, or "
                    "locking='fence'"
                )

    def _is_narrower_than(self, level: Level) -> bool:
        return self.locking == "row" and _WIDTHS[self.level] < _WIDTHS[level]


FENCE: Final = LockingMode("fence", "log")
"""The default, and what tables are for in which no mode is recorded."""

_NAMES: Final[dict[Level, str]] = {"stream": "a stream", "category": "a category", "log": "the log"}


class LockingRecord:
    """The mode of a store, compared with the one in the database once for each engine and schema.

    Args:
        schema: The tables.
        mode: What the store was given.
    """

    def __init__(self, schema: EventStoreSchema, mode: LockingMode) -> None:
        self.mode: Final = mode
        self._schema = schema
        self._checked: WeakKeyDictionary[Pool, set[str | None]] = WeakKeyDictionary()
        schema.version.info[_LATEST] = self

    @classmethod
    def latest_of(cls, schema: EventStoreSchema) -> LockingRecord:
        """Return the record of the last store that was made for these tables; one with the default if there was none."""
        latest: LockingRecord | None = schema.version.info.get(_LATEST)
        return cls(schema, FENCE) if latest is None else latest

    def check(self, connection: Connection) -> None:
        """Compare, with one statement at the first use; none on SQLite, where a single writer makes all modes one.

        Raises:
            ConfigurationError: The tables belong to stores of another mode.
        """
        if connection.dialect.name == "sqlite":
            return
        schema = effective_schema(connection, self._schema.schema)
        checked = self._checked.setdefault(connection.engine.pool, set())
        if schema in checked:
            return
        self.check_database(connection)
        recorded = connection.scalar(select(self._schema.version.c.locking)) or FENCE.recorded
        if recorded != self.mode.recorded:
            raise ConfigurationError(
                f"the tables of this event store are used with locking {recorded!r}, and this store has "
                f"{self.mode.recorded!r}; all stores must have the same, or their writers do not exclude each other. "
                "Give this one that locking and serialisation_guarantee; or, to change it for all, end every writer, "
                f"then execute: {'; '.join(self._change())}"
            )
        checked.add(schema)

    def check_database(self, connection: Connection) -> None:
        """Refuse a database that has not what the mode needs.

        Raises:
            ConfigurationError: It is MySQL, or MariaDB and the mode another one than row locks.
        """
        if connection.dialect.name not in ("mariadb", "mysql"):
            return
        if not getattr(connection.dialect, "is_mariadb", False):
            raise ConfigurationError("events cannot be kept in MySQL, which has no INSERT ... RETURNING: use MariaDB")
        if self.mode.locking != "row":
            raise ConfigurationError(f"there is no locking {self.mode.locking!r} on MariaDB: use locking='row'")

    def _change(self) -> tuple[str, str]:
        """Say how the mode in the database is changed; positions in lock rows are of no worth after another mode."""
        version, locks = self._schema.version.fullname, self._schema.locks.fullname
        return (f"UPDATE {version} SET locking = '{self.mode.recorded}'", f"DELETE FROM {locks}")  # noqa: S608 - for people

    def record(self, connection: Connection, *, created: bool) -> None:
        """Write the mode down where none is, and nothing is stored yet.

        Args:
            connection: In a transaction.
            created: Whether the tables have just been created. If not, the default is left unsaid: whoever may not
                write to the table can still call `create_schema`.

        Raises:
            ConfigurationError: The tables belong to stores of another mode.
        """
        if created or self.mode != FENCE:
            version, events = self._schema.version, self._schema.events
            connection.execute(
                update(version)
                .where(version.c.locking.is_(None), ~exists(select(events.c.sequence_number)))
                .values(locking=self.mode.recorded)
            )
        self.check(connection)


def _level_of(target: EventSequenceIdentifier | EventPartitionIdentifier) -> Level:
    match target:
        case LogIdentifier() | LogPartitionIdentifier():
            return "log"
        case CategoryIdentifier() | CategoryPartitionIdentifier() | StreamNamePrefixPartitionIdentifier():
            return "category"
        case _:
            return "stream"

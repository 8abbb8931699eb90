"""What a repository asks of a database: to append a document of events, and how far the log is complete.

Everything that can be said in SQLAlchemy Core is not here but in the repositories. A dialect knows one event store's
names, keeps nothing of a connection, and is shared by all stores on its schema. How a database treats transactions and
errors is in `transactions/databases.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Final, TypeAlias

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, FromClause, String, and_, func, select, type_coerce

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.document import PublishDocument
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.databases import Database
from eventstore_sa.persistence.transactions.failures import Failure, FailureKind
from eventstore_sa.persistence.transactions.prepared import PreparedStatement
from eventstore_sa.types.watermark import Watermark

__all__ = [
    "AppendOutcome",
    "Appended",
    "AppendedEach",
    "EachOutcome",
    "EventDialect",
    "NotTried",
    "Unmet",
    "constraints_of_events",
]


class Appended(Struct, frozen=True):
    """The document was stored.

    Attributes:
        first_positions: The position of the first event of each item; of no meaning for an item without events.
        sequence_numbers: One for each event, in the order of the document.
    """

    first_positions: Sequence[int]
    sequence_numbers: Sequence[int]


class Unmet(Struct, frozen=True):
    """Nothing was stored: the condition of an item is not met.

    Attributes:
        item: The index of the item.
        last_position: The last position of its stream (-1: empty).
        may_be_repeated: Whether one of the ids may be stored, so that they have to be looked up.
    """

    item: int
    last_position: int
    may_be_repeated: bool = True


AppendOutcome: TypeAlias = Appended | Unmet | Failure


class NotTried(Enum):
    """Why a publish was left out of a batch: it has to be looked at by itself."""

    BUSY = "busy"
    """A lock was not free at once, or it follows such a publish to the same stream."""

    TAKEN = "taken"
    """One of its ids is stored already."""


EachOutcome: TypeAlias = Appended | Unmet | NotTried


class AppendedEach(Struct, frozen=True):
    """What became of the publishes of a batch.

    Attributes:
        outcomes: One for each publish.
        most_locks: How many locks the publishes of a batch should need at most.
    """

    outcomes: Sequence[EachOutcome]
    most_locks: int


@lru_cache(maxsize=64)
def constraints_of_events(prefix: str) -> Mapping[str, FailureKind]:
    """Return what the unique constraints of the table of events mean, by the names that databases give them in errors."""
    events = f"{prefix}events"
    return {
        f"{events}_id_key": FailureKind.DUPLICATE_ID,
        f"{events}_position_key": FailureKind.POSITION_TAKEN,
        f"{events}_pkey": FailureKind.SEQUENCE_BEHIND,
        # SQLite names columns.
        f"{events}.id": FailureKind.DUPLICATE_ID,
        f"{events}.category, {events}.stream, {events}.position": FailureKind.POSITION_TAKEN,
    }


class EventDialect(ABC):
    """How one database does what SQL has no common words for; the defaults are in SQL that most databases know.

    Args:
        schema: The tables.
        database: How the database treats transactions and errors.

    Attributes:
        copies_values: Whether a row that passes through a subquery is copied with all that is in it, however long.
        appends_each: Whether there is `append_each`.
    """

    copies_values: bool = True
    appends_each: bool = False

    def __init__(self, schema: EventStoreSchema, database: Database) -> None:
        self.database: Final = database
        self._schema = schema
        self._last_number = PreparedStatement(select(func.coalesce(func.max(schema.events.c.sequence_number), 0)))

    @abstractmethod
    def append(self, connection: Connection, document: PublishDocument, *, guarded: bool) -> AppendOutcome:
        """Store a publish document, all or none.

        Args:
            connection: Where; its transaction is neither begun nor ended.
            document: What; see `publish_document`.
            guarded: Whether the transaction must survive if anything goes wrong.

        Raises:
            DBAPIError: If the database refused; `Database.failure_of` reads it. Without `guarded`, the transaction may be
                unusable.
        """

    def append_loading(
        self, connection: Connection, document: PublishDocument, wanted: Mapping[str, str]
    ) -> tuple[AppendOutcome, Sequence[ProjectionRecord] | None]:
        """Store a document like a guarded `append`; load and lock projections with the same statement, where that works.

        Args:
            connection: Where.
            document: What.
            wanted: The id of a projection for each name, in the order in which they are locked. Its stream is one of the
                document's.

        Returns:
            The outcome, and those of the projections that exist; None if they were not loaded.

        Raises:
            DBAPIError: If the database refused; `Database.failure_of` reads it.
        """
        return self.append(connection, document, guarded=True), None

    def append_each(self, connection: Connection, documents: Sequence[PublishDocument]) -> AppendedEach | Failure:
        """Store several documents with one statement, each of which stands for itself; nothing is waited for.

        Returns:
            What became of each; or a failure of them all, of which nothing was stored.

        Raises:
            DBAPIError: If the database refused; `Database.failure_of` reads it.
        """
        raise NotImplementedError

    def add_tags(self, connection: Connection, added: Mapping[int, AbstractSet[str]], epoch: str) -> int:
        """Add tags to stored events, by their numbers; return how many events did not have all of them.

        If there are any, a new epoch is recorded, under which decisions of earlier epochs are refused.

        Raises:
            ConfigurationError: If that is not possible on this database.
            DBAPIError: If the database refused; `Database.failure_of` reads it.
        """
        raise ConfigurationError(
            f"tags cannot be added to stored events on {connection.dialect.name}: its triggers forbid every update, and "
            "cannot be changed within a transaction"
        )

    @abstractmethod
    def lock(self, connection: Connection, document: PublishDocument) -> None:
        """Take the locks of a publish, and hold them to the end of the transaction or savepoint.

        Raises:
            DBAPIError: If the database refused; `Database.failure_of` reads it.
        """

    @abstractmethod
    def locked_alone(self, connection: Connection, *, timeout_s: float) -> AbstractContextManager[None]:
        """Lock the table of events for the rest of the transaction, and wait at most that long for this and later locks.

        What fails within is undone by a savepoint, unless `Database.ddl_commits`; then the caller has to do it.

        Raises:
            LockTimeoutError: If others held a lock for longer; on PostgreSQL the message names them.
            TransactionError: If the connection is in autocommit mode, on PostgreSQL.
        """

    def complete_up_to(self, connection: Connection) -> tuple[int, int]:
        """Return the last number drawn, and the watermark: what a later statement reads up to it is complete for ever.

        By default that is twice the highest number that is committed: where the writers of the log exclude each other, all
        earlier ones are committed.
        """
        last = EventDialect.last_number(self, connection)
        return last, last

    def last_number(self, connection: Connection) -> int:
        """Return the last number drawn, as cheaply as possible: whoever polls looks for the watermark when it has moved."""
        number: int = self._last_number.scalar(connection, {})
        return number

    def watermark(self, connection: Connection) -> Watermark:
        """Return the watermark together with the transaction that holds it back; by default there can be none."""
        return Watermark(self.complete_up_to(connection)[1])

    def event_columns(self, events: FromClause) -> Sequence[ColumnElement[Any]]:
        """Return what a read selects, in the order of the fields of StoredEvent.

        Nothing of it is interpreted by the driver, whose ways depend on the session: JSON comes as text, times as
        `read_time` takes them.

        Args:
            events: The table of events, or a subquery with its columns.
        """
        c = events.c
        return (
            self.id_column(c.id),
            c.name,
            c.stream,
            c.category,
            c.position,
            c.sequence_number,
            self.json_column(c.payload),
            self.json_column(c.metadata),
            self.time_column(c.observed_at),
            self.time_column(c.occurred_at),
            self.json_column(c.tags),
            c.version,
        )

    def category_order(self) -> Sequence[ColumnElement[Any]]:
        """Return what the events of a category are ordered by, so that the index of categories serves it."""
        return [self._schema.events.c.sequence_number]

    def in_category(
        self, category: ColumnElement[str], low: ColumnElement[int] | None, high: ColumnElement[int] | None
    ) -> Sequence[ColumnElement[bool]]:
        """Return which events are of a category, above a sequence number and up to another, as that index serves it."""
        c = self._schema.events.c
        conditions = [c.category == category]
        if low is not None:
            conditions.append(c.sequence_number > low)
        if high is not None:
            conditions.append(c.sequence_number <= high)
        return conditions

    def id_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select an id as a UUID, or as its hexadecimal digits."""
        return column

    def json_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select JSON as text, past SQLAlchemy's own conversion."""
        return type_coerce(column, String)

    def time_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select a time for `read_time`, so that no driver interprets it."""
        return column

    @abstractmethod
    def read_time(self, value: Any) -> datetime:
        """Turn a time as the driver returns it into an aware one in UTC.

        Raises:
            ValueError: If Python cannot represent it; or OverflowError, TypeError.
        """

    @abstractmethod
    def event_size(self, events: FromClause) -> ColumnElement[int]:
        """Return about how many bytes an event takes in a page, found without reading what is in it where possible."""

    @abstractmethod
    def in_partition(self, partition: ColumnElement[int], partitions: ColumnElement[int]) -> ColumnElement[bool]:
        """Demand that `types.partition_of` puts an event's stream into a partition; pages are read in order of numbers."""

    def prepare_partitions(self, connection: Connection) -> None:
        """Make `in_partition` work on a connection; nothing is needed where the database has SHA-256."""

    def stream_starts_with(self, prefix: str) -> ColumnElement[bool]:
        """Demand that the name of an event's stream starts with a prefix, case-sensitively.

        By default by a range, because the planner knows how many events are in it, and takes the index that fits.
        """
        stream = self._schema.events.c.stream
        end = _after_all_with(prefix)
        return stream >= prefix if end is None else and_(stream >= prefix, stream < end)


def _after_all_with(prefix: str) -> str | None:
    """Return the lowest text above all that start with the prefix, by code point; None when there is none."""
    for end in range(len(prefix), 0, -1):
        code_point = ord(prefix[end - 1]) + 1
        # Surrogates are no characters.
        if code_point == 0xD800:
            code_point = 0xE000
        if code_point <= 0x10FFFF:
            return prefix[: end - 1] + chr(code_point)
    return None

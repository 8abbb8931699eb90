"""What a repository asks of a database: to append a document of events, and to tell how far the log is complete.

Everything that can be said in SQLAlchemy Core is not here but in the repositories. A dialect has no state: it knows one
event store's names, and runs its statements on whatever connection it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, FromClause
from sqlalchemy.exc import DBAPIError

from eventstore_sa.errors import TransactionError
from eventstore_sa.persistence.events.document import PublishDocument
from eventstore_sa.persistence.transactions.failures import Problem
from eventstore_sa.types.watermark import Watermark

__all__ = [
    "AppendOutcome",
    "Appended",
    "EventDialect",
    "NotReadCommitted",
    "Unmet",
    "driver_attribute",
    "refuse_autocommit",
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
    """Nothing was stored: the condition of an item (its index) is not met by the last position (-1: empty)."""

    item: int
    last_position: int


class NotReadCommitted(Struct, frozen=True):
    """Nothing was stored: the database's default isolation is not READ COMMITTED; ask for it, and try again."""


AppendOutcome: TypeAlias = Appended | Unmet | NotReadCommitted | Problem


class EventDialect(Protocol):
    """How one database does what SQL has no common words for."""

    def check_version(self, connection: Connection) -> None:
        """Refuse a database that is too old to run our statements; without I/O.

        Raises:
            ConfigurationError: It is.
        """
        ...

    def append(self, connection: Connection, document: PublishDocument, *, guarded: bool) -> AppendOutcome:
        """Store a publish document, all or none.

        Args:
            connection: Where; its transaction is neither begun nor ended.
            document: What; see `publish_document`.
            guarded: Whether the transaction must outlive whatever goes wrong.

        Raises:
            DBAPIError: The database refused; `problem_of` explains. Without `guarded`, the transaction may be unusable.
        """
        ...

    def lock(self, connection: Connection, document: PublishDocument) -> None:
        """Take the locks of a publish, and hold them to the end of the transaction or savepoint.

        Raises:
            DBAPIError: The database refused; `problem_of` explains.
        """
        ...

    def check_hosted(self, connection: Connection) -> None:
        """Refuse a connection of the caller's that has no real transaction.

        Raises:
            TransactionError: It is in autocommit mode, or its driver begins no transactions.
        """
        ...

    def complete_up_to(self, connection: Connection) -> tuple[int, int]:
        """Return the last number drawn, and the watermark: what a later statement reads up to it is complete for ever."""
        ...

    def watermark(self, connection: Connection) -> Watermark:
        """Return the watermark together with the transaction that holds it back."""
        ...

    def problem_of(self, error: DBAPIError) -> Problem:
        """Read a driver's error."""
        ...

    def ends_transaction(self, connection: Connection | None, error: DBAPIError) -> bool:
        """Tell whether a transaction of the caller's in which this error was raised can only be rolled back.

        Args:
            connection: That of the transaction; None when it was raised by what begins a transaction or savepoint.
            error: What the driver has raised.
        """
        ...

    def unwrapped_problem_of(self, connection: Connection, error: Exception) -> Problem | None:
        """Read an error that SQLAlchemy does not know as the driver's; None when it is none of the driver's either."""
        ...

    @property
    def copies_values(self) -> bool:
        """Whether a row that passes through a subquery is copied with all that is in it, however long."""
        ...

    def is_undecodable(self, error: DBAPIError | UnicodeDecodeError) -> bool:
        """Tell whether the driver has failed to decode a text that is stored."""
        ...

    def event_columns(self, events: FromClause) -> Sequence[ColumnElement[Any]]:
        """Return what a read selects, in the order of the fields of StoredEvent.

        Nothing of it is interpreted by the driver, whose ways depend on the session: JSON comes as text, times as
        `read_time` takes them.

        Args:
            events: The table of events, or a subquery with its columns.
        """
        ...

    def event_size(self, events: FromClause) -> ColumnElement[int]:
        """Return about how many bytes an event takes in a page, found without reading what is in it where possible."""
        ...

    def in_partition(self, partition: ColumnElement[int], partitions: ColumnElement[int]) -> ColumnElement[bool]:
        """Demand that `types.partition_of` puts an event's stream into a partition; pages are read in order of numbers."""
        ...

    def prepare_partitions(self, connection: Connection) -> None:
        """Make `in_partition` work on a connection."""
        ...

    def stream_starts_with(self, prefix: str) -> ColumnElement[bool]:
        """Demand that the name of an event's stream starts with a prefix, case-sensitively."""
        ...

    def time_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select a time for `read_time`, so that no driver interprets it."""
        ...

    def read_time(self, value: Any) -> datetime:
        """Turn a time as the driver returns it into an aware one in UTC.

        Raises:
            ValueError: It is none that Python knows; or OverflowError, TypeError.
        """
        ...


def refuse_autocommit(connection: Connection) -> None:
    """Refuse a connection that commits each statement on its own; for drivers of servers.

    Raises:
        TransactionError: It is in autocommit mode.
    """
    # SQLAlchemy's dialects can tell only since 2.0.43.
    driver: Any = connection.connection.driver_connection
    adapted: Any = connection.connection.dbapi_connection
    if driver.get_autocommit() if hasattr(driver, "get_autocommit") else adapted.autocommit:
        raise TransactionError(
            "this session or connection is in autocommit mode, so the publish would commit alone: leave out "
            "isolation_level='AUTOCOMMIT', or publish through a store on the engine"
        )


def driver_attribute(error: DBAPIError, *names: str) -> str:
    """Find the first of these attributes that is set on the driver's error, or on what it was made from."""
    places: list[BaseException | None] = [error.orig, error.orig and error.orig.__cause__]
    for place in places:
        for name in names:
            value: object = place
            for step in name.split("."):
                value = getattr(value, step, None)
            if isinstance(value, str) and value:
                return value
    return ""

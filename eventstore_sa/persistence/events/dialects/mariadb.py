"""MariaDB: publishing by row locks; what differs from PostgreSQL in types, functions and errors.

Names are kept as bytes, because text of a length that names may have fits no key. A deadlock ends the whole transaction
there, not the statement: see `ProblemKind.TRANSACTION_LOST`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    String,
    and_,
    cast,
    func,
    literal_column,
    type_coerce,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from eventstore_sa.persistence.events.dialects.base import AppendOutcome, refuse_autocommit
from eventstore_sa.persistence.events.dialects.postgresql import after_all_with
from eventstore_sa.persistence.events.dialects.row_locks import RowLocks, require_read_committed
from eventstore_sa.persistence.events.document import PublishDocument
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.locking import Level
from eventstore_sa.persistence.transactions.failures import Problem, ProblemKind
from eventstore_sa.types.watermark import Watermark

__all__ = ["MariaDBDialect"]

_DUPLICATE_KEY: Final = 1062
_DOES_NOT_EXIST: Final = 1305

# By number: most messages of the server quote values.
_KINDS: Final = {
    1020: ProblemKind.TRANSACTION_LOST,
    1049: ProblemKind.MISSING_TABLES,
    1146: ProblemKind.MISSING_TABLES,
    1153: ProblemKind.TOO_LARGE,
    1205: ProblemKind.LOCK_TIMEOUT,
    1213: ProblemKind.TRANSACTION_LOST,
    1290: ProblemKind.READ_ONLY,
    1317: ProblemKind.CANCELLED,
    1792: ProblemKind.READ_ONLY,
    1969: ProblemKind.CANCELLED,
}


class MariaDBDialect:
    """One event store on MariaDB; see `EventDialect`."""

    copies_values: bool = True

    def __init__(self, schema: EventStoreSchema, level: Level) -> None:
        self._schema = schema
        # Not INSERT IGNORE: that would take a shared lock on a row that is there, and two of them a deadlock later.
        create = mysql.insert(schema.locks)
        create = create.on_duplicate_key_update(last_position=schema.locks.c.last_position)
        self._rows = RowLocks(schema, level, create=create, stored=_as_it_is)

    def check_version(self, connection: Connection) -> None:
        """Do nothing: every MariaDB that is still maintained is new enough."""

    def append(self, connection: Connection, document: PublishDocument, *, guarded: bool) -> AppendOutcome:
        """Lock, check and insert; what goes wrong is raised, and undone by a rollback to the caller's savepoint."""
        return self._rows.append(connection, document)

    def lock(self, connection: Connection, document: PublishDocument) -> None:
        """Lock the rows, before conditions are evaluated that are not the library's."""
        require_read_committed(connection)
        self._rows.lock(connection, document)

    def check_hosted(self, connection: Connection) -> None:
        """Refuse autocommit: each statement would commit on its own."""
        refuse_autocommit(connection)

    def complete_up_to(self, connection: Connection) -> tuple[int, int]:
        """Return the last number twice: with the guarantee LOG all earlier ones are committed."""
        last = self._rows.last_number(connection)
        return last, last

    def watermark(self, connection: Connection) -> Watermark:
        """Return the last number; nobody can hold it back."""
        return Watermark(self._rows.last_number(connection))

    def problem_of(self, error: DBAPIError) -> Problem:
        """Read the number of the error, and of a duplicate the name of the key, which ends the message."""
        if error.connection_invalidated:
            return Problem(ProblemKind.DISCONNECTED)
        number, said = _number_and_message(error)
        if number == _DUPLICATE_KEY:
            prefix = self._schema.prefix
            if said.endswith(f"{prefix}events_id_key'"):
                return Problem(ProblemKind.DUPLICATE_ID)
            if said.endswith(f"{prefix}events_position_key'"):
                return Problem(ProblemKind.POSITION_TAKEN)
        if number == _DOES_NOT_EXIST and said.startswith("SAVEPOINT"):
            # That of the publish, because its transaction is gone.
            return Problem(ProblemKind.TRANSACTION_LOST)
        return Problem(_KINDS.get(number, ProblemKind.OTHER), f"MariaDB error {number}")

    def ends_transaction(self, connection: Connection | None, error: DBAPIError) -> bool:
        """Deny it: what ends a transaction there is a kind of problem, and anything else costs a statement."""
        return False

    def unwrapped_problem_of(self, connection: Connection, error: Exception) -> Problem | None:
        """Know none: the drivers raise errors of their own, whatever happens to their connection."""
        return None

    def is_undecodable(self, error: DBAPIError | UnicodeDecodeError) -> bool:
        """Tell whether a text is not in the encoding that it should be in."""
        return isinstance(error, UnicodeDecodeError) or isinstance(error.orig, UnicodeDecodeError)

    def event_columns(self, events: FromClause) -> Sequence[ColumnElement[Any]]:
        """Select JSON as text, past SQLAlchemy's own conversion."""
        c = events.c
        return (
            c.id,
            c.name,
            c.stream,
            c.category,
            c.position,
            c.sequence_number,
            type_coerce(c.payload, String),
            type_coerce(c.metadata, String),
            c.observed_at,
            c.occurred_at,
        )

    def event_size(self, events: FromClause) -> ColumnElement[int]:
        """Count the bytes of the text."""
        c = events.c
        metadata = func.coalesce(func.octet_length(c.metadata), literal_column("0"), type_=Integer())
        return func.octet_length(c.payload, type_=Integer()) + metadata

    def in_partition(self, partition: ColumnElement[int], partitions: ColumnElement[int]) -> ColumnElement[bool]:
        """Compute the hash in SQL, from the digest's first eight hexadecimal digits."""
        c = self._schema.events.c
        names = func.concat(c.category, literal_column("x'00'"), c.stream)
        digits = func.left(func.sha2(names, 256), 8)
        stream_hash = cast(func.conv(digits, 16, 10), mysql.BIGINT(unsigned=True))
        return type_coerce(stream_hash, BigInteger) % partitions == partition

    def prepare_partitions(self, connection: Connection) -> None:
        """Do nothing: MariaDB has SHA-256."""

    def stream_starts_with(self, prefix: str) -> ColumnElement[bool]:
        """Give a range of names, which an index serves."""
        stream = self._schema.events.c.stream
        end = after_all_with(prefix)
        return stream >= prefix if end is None else and_(stream >= prefix, stream < end)

    def time_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select it as it is: the type has no time zone, and no style."""
        return column

    def read_time(self, value: datetime) -> datetime:
        """Add the time zone that the column does not keep."""
        if not isinstance(value, datetime):
            # What drivers make of 0000-00-00, which a lax server stores.
            raise TypeError(f"it came as {type(value).__name__}")
        return value.replace(tzinfo=UTC)


def _as_it_is(text: ColumnElement[str], _column_type: TypeEngine[Any]) -> ColumnElement[Any]:
    return text


def _number_and_message(error: DBAPIError) -> tuple[int, str]:
    arguments: tuple[Any, ...] = getattr(error.orig, "args", ())
    number = arguments[0] if arguments and isinstance(arguments[0], int) else 0
    return number, str(arguments[-1]) if arguments else ""

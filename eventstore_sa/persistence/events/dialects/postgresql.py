"""PostgreSQL: publishing and the watermark are calls of the functions in `schema/sql/postgresql/`.

A transaction of the caller's calls the guarded append, which returns what goes wrong as a row instead of raising: a
raised error would make the transaction unusable.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from traceback import walk_tb
from typing import Any, Final

from msgspec.json import Decoder
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Text,
    TextualSelect,
    and_,
    bindparam,
    case,
    cast,
    column,
    false,
    func,
    literal_column,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import BIT, BYTEA
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from eventstore_sa.persistence.events.dialects.base import (
    Appended,
    AppendOutcome,
    NotReadCommitted,
    Unmet,
    driver_attribute,
    refuse_autocommit,
)
from eventstore_sa.persistence.events.document import PublishDocument
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.ddl import effective_schema, in_text, quoted
from eventstore_sa.persistence.schema.jsonb_size import check_jsonb
from eventstore_sa.persistence.transactions.driver_connections import is_closed
from eventstore_sa.persistence.transactions.failures import Problem, ProblemKind
from eventstore_sa.types import decode_json
from eventstore_sa.types.watermark import Watermark, WatermarkHolder

__all__ = ["PostgreSQLDialect", "after_all_with", "stored_size"]

_KINDS: Final = {
    "40001": ProblemKind.SERIALISATION_FAILURE,
    "40P01": ProblemKind.DEADLOCK,
    "55P03": ProblemKind.LOCK_TIMEOUT,
    "57014": ProblemKind.CANCELLED,
    "25006": ProblemKind.READ_ONLY,
    "25P02": ProblemKind.ABORTED_TRANSACTION,
    "42P01": ProblemKind.MISSING_SCHEMA,
    "42883": ProblemKind.MISSING_SCHEMA,
    "3F000": ProblemKind.MISSING_SCHEMA,
    "54000": ProblemKind.TOO_LARGE,
    "26000": ProblemKind.LOST_STATEMENT,
    "42P05": ProblemKind.LOST_STATEMENT,
    "ES002": ProblemKind.STANDBY,
    "ES003": ProblemKind.ISOLATION,
    "ES004": ProblemKind.MISSING_SEQUENCE,
}

_decode_numbers: Final = Decoder(list[int]).decode
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
# What a page counts a compressed byte for. JSON is compressed to a third to a tenth of its size, and what is all alike
# with pglz to an 87th.
_COMPRESSION: Final = 32
# Sums of 32 times as much fit into an integer.
_MOST_COUNTED: Final = 16_000_000
_SHUTDOWNS: Final = frozenset({"57P01", "57P02", "57P03"})
# Arrays and JSON come as text. asyncpg looks types up that it has not met, arrays among them, between preparing a
# statement and executing it, and behind a pooler these two then meet different servers; and how JSON is decoded is the
# application's to choose.
_APPEND_COLUMNS: Final = {
    "outcome": "outcome",
    "item": "item",
    "last_position": "last_position",
    "last_positions": "CAST(last_positions AS text)",
    "sequence_numbers": "CAST(sequence_numbers AS text)",
    "problem": "CAST(problem AS text)",
}
_APPEND: Final = ", ".join(f"{expression} AS {name}" for name, expression in _APPEND_COLUMNS.items())
_WATERMARK: Final = "last_number, watermark"

_HOLDER: Final = """
SELECT fence.pid, a.application_name, p.gid, pg_catalog.timestamptz_send(coalesce(a.xact_start, p.prepared))
FROM pg_catalog.pg_locks fence
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = fence.pid
LEFT JOIN pg_catalog.pg_locks tx ON fence.pid IS NULL AND tx.locktype = 'transactionid'
  AND tx.virtualtransaction = fence.virtualtransaction
LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = tx.transactionid
WHERE fence.locktype = 'advisory'
  AND fence.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
  AND fence.classid = CAST(:events AS regclass)::oid
  AND fence.objid = (:watermark & 4294967295)::oid
  AND fence.objsubid = 2
  AND fence.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
ORDER BY coalesce(a.xact_start, p.prepared)
LIMIT 1
"""


class PostgreSQLDialect:
    """One event store on PostgreSQL; see `EventDialect`."""

    copies_values: bool = False  # long ones are passed on as pointers

    def __init__(self, schema: EventStoreSchema) -> None:
        self._schema = schema

    def check_version(self, connection: Connection) -> None:
        """Do nothing: every PostgreSQL that is still maintained is new enough."""

    def append(self, connection: Connection, document: PublishDocument, *, guarded: bool) -> AppendOutcome:
        """Call the append function: guarded within a transaction of the caller's, bare in our own."""
        check_jsonb(document.text, "the events to publish")
        call = self._call(
            connection, "append_guarded_v1(:document)" if guarded else "append_v1(:document, false)", _APPEND
        )
        outcome, item, last_position, last_positions, sequence_numbers, problem = connection.execute(
            call, {"document": document.text}
        ).one()
        match outcome:
            case "stored":
                return Appended([last + 1 for last in _numbers(last_positions)], _numbers(sequence_numbers))
            case "unmet":
                return Unmet(item, last_position)
            case "isolation":
                return NotReadCommitted()
            case _:
                said: Any = decode_json(problem)
                return self._problem(
                    said["sqlstate"], said["constraint"], said["message"], otherwise=ProblemKind.REFUSED
                )

    def lock(self, connection: Connection, document: PublishDocument) -> None:
        """Call the function that takes the locks without appending."""
        call = self._call(connection, "lock_for_conditions_v1(:document)", "*")
        connection.execute(call, {"document": document.text})

    def check_hosted(self, connection: Connection) -> None:
        """Refuse autocommit: each statement would commit on its own."""
        refuse_autocommit(connection)

    def complete_up_to(self, connection: Connection) -> tuple[int, int]:
        """Ask for the last number, and the lower of it and the lowest fence."""
        last_number, watermark = connection.execute(self._call(connection, "watermark_v1()", _WATERMARK)).one()
        return last_number, watermark

    def watermark(self, connection: Connection) -> Watermark:
        """Ask for the watermark, and when it lags for the transaction whose fence it is."""
        last_number, watermark = self.complete_up_to(connection)
        if watermark == last_number:
            return Watermark(watermark)
        schema = effective_schema(connection, self._schema.schema)
        row = connection.execute(
            text(_HOLDER), {"events": quoted(f"{self._schema.prefix}events", schema), "watermark": watermark}
        ).one_or_none()
        if row is None:
            return Watermark(watermark)
        pid, application_name, gid, since = row
        since = None if since is None else self.read_time(since)
        return Watermark(watermark, WatermarkHolder(pid, application_name or gid or "", since))

    def problem_of(self, error: DBAPIError) -> Problem:
        """Read SQLSTATE and constraint from any of the drivers."""
        sqlstate = driver_attribute(error, "sqlstate", "pgcode")
        said = driver_attribute(error, "diag.message_primary", "message") or str(error.orig)
        if error.connection_invalidated or _says_disconnected(error, sqlstate, said):
            return Problem(ProblemKind.DISCONNECTED)
        return self._problem(sqlstate, driver_attribute(error, "constraint_name", "diag.constraint_name"), said)

    def ends_transaction(self, connection: Connection | None, error: DBAPIError) -> bool:
        """Tell whether the server has said it, and not the driver on its own."""
        return bool(driver_attribute(error, "sqlstate", "pgcode"))

    def unwrapped_problem_of(self, connection: Connection, error: Exception) -> Problem | None:
        """Ask asyncpg, which passes on what its socket raises, and is confused by news that came before the statement."""
        if connection.dialect.driver != "asyncpg":
            return None
        # A function of the application's, such as a condition, may raise the same.
        if isinstance(error, TimeoutError) and _raised_in(error).startswith("asyncpg."):
            return Problem(ProblemKind.TIMED_OUT)
        if connection.invalidated:
            return None
        if type(error).__name__ == "InternalClientError":
            return Problem(ProblemKind.DISCONNECTED)
        if isinstance(error, OSError) and (connection.closed or is_closed(connection)):
            return Problem(ProblemKind.DISCONNECTED)
        return None

    def is_undecodable(self, error: DBAPIError | UnicodeDecodeError) -> bool:
        """Tell whether a text is not in the encoding that it should be in."""
        return isinstance(error, UnicodeDecodeError) or isinstance(error.orig, UnicodeDecodeError)

    def event_columns(self, events: FromClause) -> Sequence[ColumnElement[Any]]:
        """Select JSON as text and times in binary, which every driver leaves alone."""
        c = events.c
        return (
            c.id,
            c.name,
            c.stream,
            c.category,
            c.position,
            c.sequence_number,
            cast(c.payload, Text),
            cast(c.metadata, Text),
            self.time_column(c.observed_at),
            self.time_column(c.occurred_at),
        )

    def event_size(self, events: FromClause) -> ColumnElement[int]:
        """Take the stored size, and more of what is compressed: how much more, only decompressing would tell."""
        c = events.c
        return stored_size(c.payload) + stored_size(c.metadata)

    def in_partition(self, partition: ColumnElement[int], partitions: ColumnElement[int]) -> ColumnElement[bool]:
        """Compute the hash in SQL, from the digest's first eight hexadecimal digits.

        For a plain `=` on an expression the planner expects one row in 200, and rather reads and sorts all that follow
        than to go through the index until a page is full; for CASE it expects every other one.
        """
        c = self._schema.events.c
        utf8: ColumnElement[Any] = literal_column("'UTF8'")
        nul: ColumnElement[Any] = literal_column("pg_catalog.decode('00', 'hex')", BYTEA)
        names = func.pg_catalog.convert_to(c.category, utf8, type_=BYTEA).op("||")(nul)
        names = names.op("||")(func.pg_catalog.convert_to(c.stream, utf8, type_=BYTEA))
        digits = func.pg_catalog.left(
            func.pg_catalog.encode(func.pg_catalog.sha256(names), literal_column("'hex'")), literal_column("8")
        )
        stream_hash = cast(cast(literal_column("'x'", Text).op("||")(digits), BIT(32)), BigInteger)
        return case((stream_hash % partitions == partition, true()), else_=false())

    def prepare_partitions(self, connection: Connection) -> None:
        """Do nothing: PostgreSQL has SHA-256."""

    def stream_starts_with(self, prefix: str) -> ColumnElement[bool]:
        """Give a range: the planner knows how many events are in it, and takes the index that fits."""
        stream = self._schema.events.c.stream
        end = after_all_with(prefix)
        return stream >= prefix if end is None else and_(stream >= prefix, stream < end)

    def time_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select its binary form as bytes: what drivers make of a time depends on TimeZone and DateStyle of the session."""
        return func.pg_catalog.timestamptz_send(column)

    def read_time(self, value: bytes | memoryview) -> datetime:
        """Read microseconds since 2000; the ends of their 64 bits are the infinities."""
        return _EPOCH + timedelta(0, 0, int.from_bytes(value, "big", signed=True))

    def _call(self, connection: Connection, call: str, columns: str) -> TextualSelect:
        return _call(call, columns, self._schema.prefix, effective_schema(connection, self._schema.schema))

    def _problem(
        self, sqlstate: str, constraint: str, message: str, *, otherwise: ProblemKind = ProblemKind.OTHER
    ) -> Problem:
        prefix = self._schema.prefix
        if sqlstate == "23505":
            kind = {
                f"{prefix}events_id_key": ProblemKind.DUPLICATE_ID,
                f"{prefix}events_position_key": ProblemKind.POSITION_TAKEN,
                f"{prefix}events_pkey": ProblemKind.SEQUENCE_BEHIND,
            }.get(constraint, otherwise)
        else:
            kind = _KINDS.get(sqlstate, otherwise)
        if kind is not otherwise:
            return Problem(kind, message)
        return Problem(kind, f"{message} [{', constraint '.join(filter(None, (sqlstate, constraint)))}]")


@lru_cache(maxsize=256)
def _call(call: str, columns: str, prefix: str, schema: str | None) -> TextualSelect:
    function, arguments = call.split("(", 1)
    name = in_text(quoted(f"{prefix}{function}", schema))
    arguments = arguments.replace(":document", "CAST(:document AS jsonb)")
    statement = text(f"SELECT {columns} FROM {name}({arguments}")  # noqa: S608 - a quoted name of ours
    if ":document" in arguments:
        # Without a type of its own it would be jsonb to asyncpg, and encoded by a codec of the application's.
        statement = statement.bindparams(bindparam("document", type_=Text()))
    # With columns, SQLAlchemy prepares the reading of results once, not for each of them.
    names = (each.rsplit(" ", 1)[-1] for each in columns.split(", "))
    return statement.columns(*map(column, names))


def _numbers(array: str | None) -> Sequence[int]:
    """Read an array of numbers as PostgreSQL writes it: {1,2,3}."""
    return () if array is None else _decode_numbers(f"[{array[1:-1]}]")


def stored_size(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the size of a value as it is stored, weighted when that is compressed."""
    zero, most = literal_column("0", Integer()), literal_column(str(_MOST_COUNTED), Integer())
    # LEAST passes over NULL.
    size: ColumnElement[int] = func.least(
        func.coalesce(func.pg_catalog.pg_column_size(column), zero), most, type_=Integer()
    )
    is_plain = func.pg_catalog.pg_column_compression(column).is_(None)
    return case((is_plain, size), else_=size * literal_column(str(_COMPRESSION), Integer()))


def _raised_in(error: Exception) -> str:
    """Return the name of the module that raised an error."""
    module = ""
    for frame, _ in walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
    return module


def _says_disconnected(error: DBAPIError, sqlstate: str, said: str) -> bool:
    """Tell whether a driver's error means that the connection is gone.

    SQLAlchemy asks the driver's connection, which does not always know yet. What the driver says on its own has no
    SQLSTATE: OperationalError is libpq's about its connection, InterfaceError is about any wrong use of the driver.
    """
    if sqlstate:
        return sqlstate.startswith("08") or sqlstate in _SHUTDOWNS
    return isinstance(error, OperationalError) or (
        isinstance(error, InterfaceError) and "connection" in said and "closed" in said
    )


def after_all_with(prefix: str) -> str | None:
    """Return the lowest text above all that start with the prefix, by code point; None when there is none."""
    for end in range(len(prefix), 0, -1):
        code_point = ord(prefix[end - 1]) + 1
        # Surrogates are no characters.
        if code_point == 0xD800:
            code_point = 0xE000
        if code_point <= 0x10FFFF:
            return prefix[: end - 1] + chr(code_point)
    return None

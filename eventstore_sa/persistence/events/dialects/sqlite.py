"""SQLite: a publish is one INSERT statement, atomic in itself; a single writer makes number order commit order.

`configure_sqlite` gives an engine real transactions, which the driver's own defaults do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate
from sqlite3 import SQLITE_BUSY, OperationalError
from time import monotonic, sleep
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Integer,
    LargeBinary,
    Row,
    String,
    TextClause,
    cast,
    event,
    func,
    literal_column,
    select,
    text,
    type_coerce,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from eventstore_sa.errors import ConfigurationError, TransactionError
from eventstore_sa.persistence.events.dialects.base import Appended, AppendOutcome, Unmet, driver_attribute
from eventstore_sa.persistence.events.document import PublishDocument
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.ddl import effective_schema, in_text, quoted
from eventstore_sa.persistence.transactions.failures import Problem, ProblemKind
from eventstore_sa.types import stream_hash
from eventstore_sa.types.watermark import Watermark

__all__ = ["READING", "SQLiteDialect", "configure_sqlite", "stored_size"]

READING: Final = "eventstore_sa_reading"
"""The execution option of our own reads: they need no transaction, and so no place among the writers."""

_CONFIGURED: Final = "eventstore_sa.configured"
_HASHES: Final = "eventstore_sa.stream_hash"
_LEGACY: Final = -1
_BUSY_TIMEOUT_MS: Final = 10_000
_PATIENCE_S: Final = 10
_PAUSE_S: Final = 0.01
_OLDEST: Final = (3, 38, 0)

# JSON null is not SQL NULL after `->`, hence json_type.
_ITEMS: Final = """
  SELECT
    item, category, stream, events, last,
    allowed IS NULL OR EXISTS (
      SELECT 1 FROM json_each(allowed) r
      WHERE last >= r.value ->> 0 AND (json_type(r.value, '$[1]') = 'null' OR last <= r.value ->> 1)
    ) AS met
  FROM (
    SELECT
      s.key AS item, s.value ->> 'category' AS category, s.value ->> 'stream' AS stream,
      s.value -> 'events' AS events, s.value -> 'allowed' AS allowed,
      coalesce((
        SELECT max(e.position) FROM {events} e
        WHERE e.category = s.value ->> 'category' AND e.stream = s.value ->> 'stream'
      ), -1) + coalesce(sum(json_array_length(s.value, '$.events')) OVER (
        PARTITION BY s.value ->> 'category', s.value ->> 'stream' ORDER BY s.key
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
      ), 0) AS last
    FROM json_each(:document) s
  )
"""


def _stored_time(json_text: str) -> str:
    """Write a time of the document (2026-01-02T03:04:05Z, or with microseconds) as SQLAlchemy stores it."""
    return f"replace(substr({json_text}, 1, 19), 'T', ' ') || substr(rtrim(substr({json_text}, 20), 'Z') || '.000000', 1, 7)"


# It begins with INSERT, because the driver opens no transaction for WITH. Rows get their numbers in the order of the
# SELECT, and RETURNING promises none.
_INSERT: Final = f"""
INSERT INTO {{events}} (id, category, stream, position, name, payload, metadata, observed_at, occurred_at)
WITH item AS MATERIALIZED ({_ITEMS})
SELECT
  replace(e.value ->> 'id', '-', ''), i.category, i.stream, i.last + 1 + e.key, e.value ->> 'name',
  e.value -> 'payload', e.value -> 'metadata',
  {_stored_time("e.value ->> 'observed_at'")}, {_stored_time("e.value ->> 'occurred_at'")}
FROM item i, json_each(i.events) e
WHERE NOT EXISTS (SELECT 1 FROM item unmet WHERE NOT unmet.met)
ORDER BY i.item, e.key
RETURNING sequence_number, position
"""  # noqa: S608 - names of ours

_CHECK: Final = f"WITH item AS ({_ITEMS}) SELECT item, last, met FROM item ORDER BY item"  # noqa: S608 - names of ours

_UNCONFIGURED = (
    "this SQLite engine has no real transactions: its driver opens one only at the first write, and a released savepoint "
    "outlives the rollback; call eventstore_sa.configure_sqlite(engine) right after creating the engine"
)

_KINDS: Final = {
    "SQLITE_BUSY": ProblemKind.LOCK_TIMEOUT,
    "SQLITE_BUSY_SNAPSHOT": ProblemKind.STALE_SNAPSHOT,
    "SQLITE_LOCKED": ProblemKind.LOCK_TIMEOUT,
    "SQLITE_LOCKED_SHAREDCACHE": ProblemKind.LOCK_TIMEOUT,
    "SQLITE_READONLY": ProblemKind.READ_ONLY,
    "SQLITE_TOOBIG": ProblemKind.TOO_LARGE,
}


class SQLiteDialect:
    """One event store on SQLite; see `EventDialect`."""

    copies_values: bool = True

    def __init__(self, schema: EventStoreSchema) -> None:
        self._schema = schema

    def check_version(self, connection: Connection) -> None:
        """Refuse a SQLite without `->` and `->>`, which otherwise would answer with a syntax error."""
        found = connection.dialect.server_version_info
        if found is not None and found < _OLDEST:
            raise ConfigurationError(
                f"SQLite {_dotted(_OLDEST)} or newer is needed, and Python's sqlite3 module has {_dotted(found)}: use a "
                "Python that was built with a newer one, or replace the system's libsqlite3"
            )

    def append(self, connection: Connection, document: PublishDocument, *, guarded: bool) -> AppendOutcome:
        """Run one INSERT; only when it stored nothing, a second statement tells why."""
        parameters = {"document": document.text}
        events = quoted(f"{self._schema.prefix}events", effective_schema(connection, self._schema.schema))
        rows: Sequence[Row[Any]] = ()
        if any(document.counts):
            rows = connection.execute(_statement(_INSERT, events), parameters).all()
        if rows:
            rows = sorted(rows)
            firsts = accumulate(document.counts, initial=0)
            return Appended(
                [rows[first].position if count else 0 for count, first in zip(document.counts, firsts, strict=False)],
                [row.sequence_number for row in rows],
            )
        for item, last_position, met in connection.execute(_statement(_CHECK, events), parameters):
            if not met:
                return Unmet(item, last_position)
        if any(document.counts):
            return Problem(ProblemKind.REFUSED, "the stream changed while its condition was being checked")
        return Appended([0] * len(document.counts), ())

    def lock(self, connection: Connection, document: PublishDocument) -> None:
        """Become the single writer."""
        driver: Any = connection.connection.driver_connection
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def check_hosted(self, connection: Connection) -> None:
        """Refuse autocommit, and the driver's own way of opening transactions."""
        driver: Any = connection.connection.driver_connection
        if getattr(driver, "autocommit", _LEGACY) is False:
            return
        if not driver.in_transaction or (driver.isolation_level is not None and _CONFIGURED not in connection.info):
            raise TransactionError(_UNCONFIGURED)

    def complete_up_to(self, connection: Connection) -> tuple[int, int]:
        """Return the last number twice: there is a single writer, so all earlier ones are committed."""
        last = connection.scalar(select(func.coalesce(func.max(self._schema.events.c.sequence_number), 0))) or 0
        return last, last

    def watermark(self, connection: Connection) -> Watermark:
        """Return the last number; nobody can hold it back."""
        return Watermark(self.complete_up_to(connection)[1])

    def problem_of(self, error: DBAPIError) -> Problem:
        """Read the error's name and, for constraints, its text, which names columns and no values."""
        name, said = driver_attribute(error, "sqlite_errorname"), str(error.orig)
        prefix = f"{self._schema.prefix}events."
        if said == f"UNIQUE constraint failed: {prefix}id":
            return Problem(ProblemKind.DUPLICATE_ID)
        if said.startswith(f"UNIQUE constraint failed: {prefix}category"):
            return Problem(ProblemKind.POSITION_TAKEN)
        if said.startswith("no such table"):
            return Problem(ProblemKind.MISSING_TABLES, said)
        return Problem(_KINDS.get(name, ProblemKind.OTHER), said)

    def ends_transaction(self, connection: Connection | None, error: DBAPIError) -> bool:
        """Look whether SQLite has rolled back by itself, as it does when the disk is full or a trigger says ROLLBACK."""
        if connection is None:
            return False
        driver: Any = connection.connection.driver_connection
        real = driver.isolation_level is None or getattr(driver, "autocommit", _LEGACY) is False
        return real and not driver.in_transaction

    def unwrapped_problem_of(self, connection: Connection, error: Exception) -> Problem | None:
        """Know none: there is no connection to lose."""
        return None

    def is_undecodable(self, error: DBAPIError | UnicodeDecodeError) -> bool:
        """Tell whether a text is not in the encoding that it should be in."""
        # Its message quotes the text.
        return isinstance(error, DBAPIError) and str(error.orig).startswith("Could not decode to UTF-8")

    def event_columns(self, events: FromClause) -> Sequence[ColumnElement[Any]]:
        """Select what is stored, past SQLAlchemy's own conversions."""
        c = events.c
        return (
            type_coerce(c.id, String),
            c.name,
            c.stream,
            c.category,
            c.position,
            c.sequence_number,
            type_coerce(c.payload, String),
            type_coerce(c.metadata, String),
            self.time_column(c.observed_at),
            self.time_column(c.occurred_at),
        )

    def event_size(self, events: FromClause) -> ColumnElement[int]:
        """Count the bytes of the text."""
        c = events.c
        return stored_size(c.payload) + stored_size(c.metadata)

    def in_partition(self, partition: ColumnElement[int], partitions: ColumnElement[int]) -> ColumnElement[bool]:
        """Call a function of ours: SQLite has no hash that others have too."""
        c = self._schema.events.c
        return (
            func.eventstore_sa_stream_hash(c.category, c.stream, type_=c.sequence_number.type) % partitions == partition
        )

    def prepare_partitions(self, connection: Connection) -> None:
        """Give the driver's connection the function, once."""
        if _HASHES not in connection.info:
            driver: Any = connection.connection.dbapi_connection
            driver.create_function("eventstore_sa_stream_hash", 2, stream_hash, deterministic=True)
            connection.info[_HASHES] = True

    def stream_starts_with(self, prefix: str) -> ColumnElement[bool]:
        """Compare the beginning, and not a range of names: for a range all of it would be sorted again for each page."""
        return func.substr(self._schema.events.c.stream, 1, len(prefix), type_=String()) == prefix

    def time_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select its text."""
        return type_coerce(column, String)

    def read_time(self, value: str) -> datetime:
        """Read what `_stored_time` wrote."""
        if type(value) is not str:
            raise TypeError(f"it came as {type(value).__name__}")
        return datetime.fromisoformat(value).replace(tzinfo=UTC)


def configure_sqlite(engine: Engine | AsyncEngine) -> None:
    """Give a SQLite engine real transactions, write-ahead logging, a busy timeout and foreign keys.

    Call it right after creating the engine; a second call changes nothing. Every transaction then begins with BEGIN
    IMMEDIATE and is the only writer until it ends; savepoints work as on PostgreSQL. An engine with another database is
    left alone.

    Args:
        engine: An engine for pysqlite or aiosqlite.
    """
    sync_engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if sync_engine.dialect.name != "sqlite":
        return
    # Listening a second time changes nothing; `event.contains` could mean an engine that was here before this one.
    event.listen(sync_engine, "connect", _prepare_connection)
    event.listen(sync_engine, "begin", _begin_immediate)


def stored_size(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the number of bytes of a text; 0 for NULL."""
    return func.coalesce(func.length(cast(column, LargeBinary)), literal_column("0"), type_=Integer())


def _prepare_connection(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    _use_write_ahead_log(cursor)
    cursor.execute("PRAGMA foreign_keys = ON")
    # With it, INSERT OR REPLACE fires the trigger that forbids deleting events.
    cursor.execute("PRAGMA recursive_triggers = ON")
    cursor.close()
    record.info[_CONFIGURED] = True


def _use_write_ahead_log(cursor: Any) -> None:
    """Switch a file to write-ahead logging; of several that do so together, SQLite refuses some without waiting."""
    deadline = monotonic() + _PATIENCE_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except OperationalError as error:
            if error.sqlite_errorcode & 0xFF != SQLITE_BUSY or monotonic() >= deadline:
                raise
            sleep(_PAUSE_S)
        else:
            return


def _begin_immediate(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("isolation_level") != "AUTOCOMMIT" and not options.get(READING):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _dotted(version: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in version)


@lru_cache(maxsize=64)
def _statement(sql: str, events: str) -> TextClause:
    return text(sql.replace("{events}", in_text(events)))

"""PostgreSQL: publishing and the watermark are calls of the functions in `schema/sql/postgresql/`.

A transaction of the caller's calls the guarded append, which returns what goes wrong as a row instead of raising: a
raised error would make the transaction unusable.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from msgspec import Raw, Struct
from msgspec.json import Decoder
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    FromClause,
    Insert,
    Text,
    bindparam,
    case,
    cast,
    column,
    false,
    func,
    literal_column,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import BIT, BYTEA
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.errors import LockTimeoutError, TransactionError
from eventstore_sa.persistence.events.dialects.base import (
    Appended,
    AppendedEach,
    AppendOutcome,
    EachOutcome,
    EventDialect,
    NotTried,
    Unmet,
    constraints_of_events,
)
from eventstore_sa.persistence.events.dialects.row_locks import RowLocking
from eventstore_sa.persistence.events.document import PublishDocument
from eventstore_sa.persistence.page_bytes import size_on_postgresql
from eventstore_sa.persistence.schema.ddl import effective_schema, in_text, quoted
from eventstore_sa.persistence.schema.jsonb_size import check_jsonb
from eventstore_sa.persistence.transactions.databases import limit_waits, postgresql_failure
from eventstore_sa.persistence.transactions.failures import Failure, FailureKind
from eventstore_sa.persistence.transactions.prepared import PreparedStatement
from eventstore_sa.types import decode_json, encode_json
from eventstore_sa.types.watermark import Watermark, WatermarkHolder

__all__ = ["PostgreSQLDialect", "RowLockingPostgreSQLDialect"]


class _Loaded(Struct, frozen=True):
    """A projection as the append function returns it: its JSON is left as text."""

    name: str
    id: str
    source: Raw
    state: Raw
    metadata: Raw
    version: int
    sequence_number: int | None
    source_hash: int

    def record(self) -> ProjectionRecord:
        source, state, metadata = (bytes(json).decode() for json in (self.source, self.state, self.metadata))
        return ProjectionRecord(
            self.name, self.id, source, state, metadata, self.version, self.sequence_number, self.source_hash
        )


_decode_projections: Final = Decoder(list[_Loaded]).decode
_decode_numbers: Final = Decoder(list[int]).decode
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
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
_APPEND_EACH: Final = (
    "CAST(results AS text) AS results, CAST(last_positions AS text) AS last_positions, "
    "CAST(sequence_numbers AS text) AS sequence_numbers, most_locks"
)
_NOT_TRIED: Final = {-1: NotTried.BUSY, -2: NotTried.TAKEN}
_WATERMARK: Final = "last_number, watermark"
_PARAMETERS: Final = {"document": "jsonb", "wanted": "jsonb", "epoch": "text", "sizes": "int[]"}

_NOT_READ_COMMITTED: Final = Failure(
    FailureKind.ISOLATION, "the default isolation level of the database is not READ COMMITTED"
)

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
# Rows of the other tables are deleted, which transactions that only read them do not prevent.
_USERS: Final = text(
    "SELECT DISTINCT l.pid, a.application_name, a.state, coalesce(a.xact_start, p.prepared) AS since, p.gid "
    "FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid "
    "LEFT JOIN pg_catalog.pg_prepared_xacts p ON l.pid IS NULL AND l.virtualtransaction = '-1/' || p.transaction::text "
    "WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() "
    "AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) "
    "AND (l.relation = pg_catalog.to_regclass(:events) "
    "OR l.relation IN (SELECT pg_catalog.to_regclass(name) FROM pg_catalog.unnest(CAST(:tables AS text[])) AS name) "
    "AND l.mode <> 'AccessShareLock') "
    "ORDER BY since"
)


class PostgreSQLDialect(EventDialect):
    """One event store on PostgreSQL."""

    copies_values: bool = False  # long ones are passed on as pointers
    appends_each: bool = True

    def append(self, connection: Connection, document: PublishDocument, *, guarded: bool) -> AppendOutcome:
        """Call the append function: guarded within a transaction of the caller's, bare in our own."""
        check_jsonb(document.text, "the events to publish")
        call = self._call(
            connection, "append_guarded_v1(:document)" if guarded else "append_v1(:document, false)", _APPEND
        )
        [outcome] = call.rows(connection, {"document": document.text})
        return self._outcome(outcome)

    def append_loading(
        self, connection: Connection, document: PublishDocument, wanted: Mapping[str, str]
    ) -> tuple[AppendOutcome, Sequence[ProjectionRecord] | None]:
        """Call the function that does both."""
        check_jsonb(document.text, "the events to publish")
        call = self._call(connection, "append_and_load_v1(:document, :wanted)", f"{_APPEND}, loaded")
        parts = [{"name": name, "id": key} for name, key in wanted.items()]
        parameters = {"document": document.text, "wanted": encode_json(parts).decode()}
        [(*outcome, loaded)] = call.rows(connection, parameters)
        records = None if loaded is None else [each.record() for each in _decode_projections(loaded)]
        return self._outcome(outcome), records

    def append_each(self, connection: Connection, documents: Sequence[PublishDocument]) -> AppendedEach | Failure:
        """Call the function for publishes that stand for themselves."""
        call = self._call(connection, "append_each_v1(:document, :sizes)", _APPEND_EACH)
        # Each is an array; together they are one.
        items = ",".join([document.text[1:-1] for document in documents])
        sizes = ",".join([str(len(document.counts)) for document in documents])
        [(results, last_positions, sequence_numbers, most_locks)] = call.rows(
            connection, {"document": f"[{items}]", "sizes": f"{{{sizes}}}"}
        )
        if results is None:
            return _NOT_READ_COMMITTED
        lasts, numbers, first = _numbers(last_positions), iter(_numbers(sequence_numbers)), 0
        outcomes: list[EachOutcome] = []
        for document, result in zip(documents, _numbers(results), strict=True):
            if result < 0:
                outcomes.append(_NOT_TRIED[result])
            elif result > 0:
                outcomes.append(Unmet(result - 1 - first, lasts[result - 1], may_be_repeated=False))
            else:
                firsts = [last + 1 for last in lasts[first : first + len(document.counts)]]
                outcomes.append(Appended(firsts, [*islice(numbers, sum(document.counts))]))
            first += len(document.counts)
        return AppendedEach(outcomes, most_locks)

    def _outcome(self, returned: Sequence[Any]) -> AppendOutcome:
        """Read what the append function returns."""
        outcome, item, last_position, last_positions, sequence_numbers, problem = returned
        match outcome:
            case "stored":
                return Appended([last + 1 for last in _numbers(last_positions)], _numbers(sequence_numbers))
            case "unmet":
                return Unmet(item, last_position, decode_json(problem)["taken"])
            case "isolation":
                return _NOT_READ_COMMITTED
            case _:
                said: Any = decode_json(problem)
                failure = postgresql_failure(
                    said["sqlstate"], said["constraint"], said["message"], otherwise=FailureKind.REFUSED
                )
                return failure.refined(constraints_of_events(self._schema.prefix))

    def add_tags(self, connection: Connection, added: Mapping[int, AbstractSet[str]], epoch: str) -> int:
        """Call the function that does it under a lock on all tags."""
        document = encode_json([{"number": number, "tags": sorted(tags)} for number, tags in added.items()]).decode()
        check_jsonb(document, "the tags to add")
        call = self._call(connection, "add_tags_v1(:document, :epoch)", "amount")
        [(amount,)] = call.rows(connection, {"document": document, "epoch": epoch})
        return int(amount)

    def lock(self, connection: Connection, document: PublishDocument) -> None:
        """Call the function that takes the locks without appending."""
        call = self._call(connection, "lock_for_conditions_v1(:document)", "*")
        call.rows(connection, {"document": document.text})

    @contextmanager
    def locked_alone(self, connection: Connection, *, timeout_s: float) -> Generator[None]:
        """Lock the table exclusively.

        An open transaction that has only read it prevents that, so the error names the transactions that use it.
        """
        try:
            self.database.check_transaction(connection)
        except TransactionError:
            raise TransactionError(
                "the event store's tables can be locked only in a transaction, and this session or connection is in "
                "autocommit mode: give the engine instead, or leave out isolation_level='AUTOCOMMIT'"
            ) from None
        schema = effective_schema(connection, self._schema.schema)
        events = quoted(self._schema.events.name, schema)
        try:
            with connection.begin_nested():
                before = connection.scalar(select(func.pg_catalog.current_setting("lock_timeout")))
                limit_waits(connection, timeout_s)
                # In the strongest mode at once: who strengthens a lock step by step waits for another who does the same.
                connection.execute(text(f"LOCK TABLE {in_text(events)} IN ACCESS EXCLUSIVE MODE"))
                yield
                connection.execute(select(func.pg_catalog.set_config("lock_timeout", before, True)))
        except DBAPIError as error:
            if self.database.failure_of(error).kind is not FailureKind.LOCK_TIMEOUT:
                raise
            tables = [quoted(table.name, schema) for table in self._schema.tables]
            rows = connection.execute(_USERS, {"events": events, "tables": tables}).all()
            users = "; ".join(_described(*row) for row in rows) or "a transaction that has ended meanwhile"
            raise LockTimeoutError(
                f"could not lock the event store's tables within {timeout_s:g} s. They were in use by {users}. End that "
                "transaction (did a test leave a session open?), then try again"
            ) from error.orig

    def complete_up_to(self, connection: Connection) -> tuple[int, int]:
        """Ask for the last number, and the lower of it and the lowest fence."""
        [(last_number, watermark)] = self._call(connection, "watermark_v1()", _WATERMARK).rows(connection, {})
        return last_number, watermark

    def last_number(self, connection: Connection) -> int:
        """Ask the sequence, and not the table of locks."""
        schema = effective_schema(connection, self._schema.schema)
        call = _last_number(self._schema.prefix, schema)
        number: int = call.scalar(connection, {"events": quoted(self._schema.events.name, schema)})
        return number

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

    def category_order(self) -> Sequence[ColumnElement[Any]]:
        """Order by the category too, which is the same for all."""
        c = self._schema.events.c
        return [c.category, c.sequence_number]

    def in_category(
        self, category: ColumnElement[str], low: ColumnElement[int] | None, high: ColumnElement[int] | None
    ) -> Sequence[ColumnElement[bool]]:
        """Compare pairs of category and number, so that no other index is of use.

        A statement that was prepared is planned for a category of average size after some executions. For `=` the primary
        key then seems cheaper, and a page of a rare category is looked for in all of the log.
        """
        c = self._schema.events.c
        pair = tuple_(c.category, c.sequence_number)
        conditions = [c.category >= category, c.category <= category]
        if low is not None:
            conditions.append(pair > tuple_(category, low))
        if high is not None:
            conditions.append(pair <= tuple_(category, high))
        return conditions

    def json_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Cast it to text, which every driver leaves alone."""
        return cast(column, Text)

    def time_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select its binary form as bytes: what drivers make of a time depends on TimeZone and DateStyle of the session."""
        return func.pg_catalog.timestamptz_send(column)

    def read_time(self, value: bytes | memoryview) -> datetime:
        """Read microseconds since 2000; the ends of their 64 bits are the infinities."""
        return _EPOCH + timedelta(0, 0, int.from_bytes(value, "big", signed=True))

    def event_size(self, events: FromClause) -> ColumnElement[int]:
        """Take the stored size, and a multiple of it if the value is compressed, because its length is not known then."""
        c = events.c
        return size_on_postgresql(c.payload) + size_on_postgresql(c.metadata)

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

    def _call(self, connection: Connection, call: str, columns: str) -> PreparedStatement:
        return _call(call, columns, self._schema.prefix, effective_schema(connection, self._schema.schema))


class RowLockingPostgreSQLDialect(RowLocking, PostgreSQLDialect):
    """One event store on PostgreSQL, published to by row locks.

    The trigger of the fence belongs to the table and is fired all the same, to no purpose: no reader looks.
    """

    appends_each: bool = False

    def append_loading(
        self, connection: Connection, document: PublishDocument, wanted: Mapping[str, str]
    ) -> tuple[AppendOutcome, Sequence[ProjectionRecord] | None]:
        """Append alone: it takes several statements."""
        return self.append(connection, document, guarded=True), None

    def append(self, connection: Connection, document: PublishDocument, *, guarded: bool) -> AppendOutcome:
        """Refuse what is too large before anything is sent."""
        check_jsonb(document.text, "the events to publish")
        return super().append(connection, document, guarded=guarded)

    @contextmanager
    def _inserting_tags(self, connection: Connection) -> Generator[None]:
        """Tell the trigger that guards tags that a publish inserts them; what fails within is rolled back with that."""
        setting = "eventstore_sa.publishing_tags"
        connection.execute(select(func.pg_catalog.set_config(setting, "on", True)))
        yield
        connection.execute(select(func.pg_catalog.set_config(setting, "", True)))

    def _insert_or_ignore(self) -> Insert:
        return postgresql.insert(self._schema.locks).on_conflict_do_nothing()

    def _stored(self, text: ColumnElement[str], column_type: TypeEngine[Any]) -> ColumnElement[Any]:
        return cast(text.concat("+00") if isinstance(column_type, DateTime) else text, column_type)


def _described(pid: int | None, application: str | None, state: str | None, since: object, gid: str | None) -> str:
    if pid is None:
        return f"the prepared transaction {gid!r} since {since}"
    return f"process {pid} (application_name {application or ''!r}, {state or 'state unknown'}) since {since}"


@lru_cache(maxsize=256)
def _call(call: str, columns: str, prefix: str, schema: str | None) -> PreparedStatement:
    function, arguments = call.split("(", 1)
    name = in_text(quoted(f"{prefix}{function}", schema))
    parameters = [each for each in _PARAMETERS if f":{each}" in arguments]
    for parameter in parameters:
        arguments = arguments.replace(f":{parameter}", f"CAST(:{parameter} AS {_PARAMETERS[parameter]})")
    statement = text(f"SELECT {columns} FROM {name}({arguments}")  # noqa: S608 - a quoted name of ours
    # Without types of their own they would be jsonb to asyncpg, and encoded by a codec of the application's.
    statement = statement.bindparams(*(bindparam(parameter, type_=Text()) for parameter in parameters))
    # With columns, SQLAlchemy prepares the reading of results once, not for each of them.
    names = (each.rsplit(" ", 1)[-1] for each in columns.split(", "))
    return PreparedStatement(statement.columns(*map(column, names)))


@lru_cache(maxsize=256)
def _last_number(prefix: str, schema: str | None) -> PreparedStatement:
    name = in_text(quoted(f"{prefix}last_number_v1", schema))
    statement = text(f"SELECT {name}(CAST(:events AS regclass))")
    return PreparedStatement(statement.columns(column("last_number")))


def _numbers(array: str | None) -> Sequence[int]:
    """Read an array of numbers as PostgreSQL writes it: {1,2,3}."""
    return () if array is None else _decode_numbers(f"[{array[1:-1]}]")

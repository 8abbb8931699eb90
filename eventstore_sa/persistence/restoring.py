"""Storing events with the numbers that they had elsewhere, in an empty event store to which nobody publishes meanwhile.

The sequence is moved at the end: until then the watermark is below all of them, so that readers see nothing by halves. What
is stored by then is where a later run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import Connection, func, select, text

from eventstore_sa.errors import ConfigurationError, DuplicateEventError, SerialisationError
from eventstore_sa.persistence.events.dialects import event_dialect
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.ddl import effective_schema, in_text, quoted
from eventstore_sa.persistence.schema.jsonb_size import check_jsonb
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.persistence.transactions.running import TransactionRunner
from eventstore_sa.publishing import new_event_of, prepare
from eventstore_sa.types import AnyStoredEvent, StreamIdentifier, encode_json

__all__ = ["Restoring"]

_COLUMNS: Final = (
    "sequence_number, id, category, stream, position, name, payload, metadata, observed_at, occurred_at, tags, version"
)

_OTHERS: Final = "the store has other events than these, so numbers cannot be kept: use an empty one"

_ON_POSTGRESQL: Final = (
    f"INSERT INTO {{events}} ({_COLUMNS}) OVERRIDING SYSTEM VALUE "  # noqa: S608 - names of ours
    "SELECT e.sequence_number, e.id, e.category, e.stream, e.position, e.name, coalesce(e.payload, 'null'), e.metadata, "
    "e.observed_at, e.occurred_at, e.tags, e.version "
    "FROM pg_catalog.jsonb_to_recordset(CAST(:document AS jsonb)) AS e(sequence_number bigint, id uuid, category text, "
    "stream text, position bigint, name text, payload jsonb, metadata jsonb, observed_at timestamptz, "
    "occurred_at timestamptz, tags jsonb, version int) ORDER BY e.sequence_number"
)
_TAGS_ON_POSTGRESQL: Final = (
    "INSERT INTO {event_tags} (tag, sequence_number, name) SELECT t.tag, e.sequence_number, e.name "
    "FROM pg_catalog.jsonb_to_recordset(CAST(:document AS jsonb)) AS e(sequence_number bigint, name text, tags jsonb), "
    "pg_catalog.jsonb_array_elements_text(e.tags) AS t(tag)"
)
# The trigger indexes the tags.
_ON_SQLITE: Final = (
    f"INSERT INTO {{events}} ({_COLUMNS}) "  # noqa: S608 - names of ours
    "SELECT e.value ->> 'sequence_number', replace(e.value ->> 'id', '-', ''), e.value ->> 'category', "
    "e.value ->> 'stream', e.value ->> 'position', e.value ->> 'name', e.value -> 'payload', "
    "CASE json_type(e.value, '$.metadata') WHEN 'null' THEN NULL ELSE e.value -> 'metadata' END, "
    "e.value ->> 'observed_at', e.value ->> 'occurred_at', "
    "CASE json_type(e.value, '$.tags') WHEN 'null' THEN NULL ELSE e.value -> 'tags' END, e.value ->> 'version' "
    "FROM json_each(:document) e ORDER BY e.key"
)


class Restoring:
    """Stores events with their numbers, in batches.

    Args:
        bind: Where connections come from.
        schema: The tables.

    Raises:
        ConfigurationError: If it cannot be done on this bind, database or mode of locking.
    """

    def __init__(self, bind: Bind, schema: EventStoreSchema) -> None:
        engine = bind.engine
        if engine is None or bind.in_transaction:
            raise ConfigurationError("numbers can be kept only by a store on an engine, not within a transaction")
        self._database = engine.dialect.name
        if self._database not in ("postgresql", "sqlite") or (
            self._database == "postgresql" and schema.locking_mode.locking == "row"
        ):
            raise ConfigurationError(
                "numbers can be kept only on PostgreSQL and SQLite, and not with locking='row': let the events get new ones"
            )
        self._schema = schema
        self._runner = TransactionRunner(bind)
        self._dialect = event_dialect(self._database, schema)
        self._last = self._drawn = 0

    def begin(self) -> int:
        """Return the highest number that an earlier run has stored; 0: none.

        Raises:
            ConfigurationError: If events have been published to this store.
        """
        with self._runner.reading() as scope:
            self._schema.locking_record.check(scope.connection)
            self._drawn = self._dialect.last_number(scope.connection)
            self._last = scope.connection.scalar(select(func.max(self._schema.events.c.sequence_number))) or 0
        if self._database == "postgresql" and self._drawn > 0 and self._drawn != self._last:
            raise ConfigurationError(
                "events have been published to this store, so numbers cannot be kept: use an empty one"
            )
        return self._last

    def check_stored(self, events: Sequence[AnyStoredEvent]) -> None:
        """Demand that events are stored under their numbers already.

        Raises:
            ConfigurationError: If the store has other events.
        """
        c = self._schema.events.c
        ids = {event.sequence_number: event.id for event in events}
        with self._runner.reading() as scope:
            rows = scope.connection.execute(
                select(c.sequence_number, c.id).where(c.sequence_number.in_(ids), c.id.in_(ids.values()))
            )
            stored = {number: event_id for number, event_id in rows}  # noqa: C416 - rows are no pairs to a type checker
        if stored != ids:
            raise ConfigurationError(_OTHERS)

    def check_nothing_else(self, up_to: int, count: int) -> None:
        """Demand that there are so many events up to a number.

        Raises:
            ConfigurationError: If the store has others.
        """
        events = self._schema.events
        statement = select(func.count()).select_from(events).where(events.c.sequence_number <= up_to)
        with self._runner.reading() as scope:
            if scope.connection.scalar(statement) != count:
                raise ConfigurationError(_OTHERS)

    def store(self, events: Sequence[AnyStoredEvent]) -> None:
        """Store events above all others, in a transaction.

        Raises:
            DuplicateEventError: If the numbers do not grow.
        """
        numbers = [self._last, *(event.sequence_number for event in events)]
        if any(before >= after for before, after in pairwise(numbers)):
            raise DuplicateEventError("the numbers of these events do not grow: they are not in the order of a log")
        document = encode_json([self._row(event) for event in events]).decode()
        with self._runner.transaction() as scope:
            connection = scope.connection
            if self._database == "postgresql":
                check_jsonb(document, "the events to restore")
                connection.execute(text("SET LOCAL eventstore_sa.restoring = 'on'"))
                connection.execute(self._statement(connection, _ON_POSTGRESQL), {"document": document})
                connection.execute(self._statement(connection, _TAGS_ON_POSTGRESQL), {"document": document})
            else:
                self._dialect.database.begin_writing(connection)
                connection.execute(self._statement(connection, _ON_SQLITE), {"document": document})
        self._last = numbers[-1]

    def finish(self) -> None:
        """Move the sequence above the events, so that readers see them and the next one gets the next number."""
        if self._database != "postgresql" or self._last <= self._drawn:
            # Nothing has been added, and others may be publishing by now.
            return
        with self._runner.transaction() as scope:
            schema = effective_schema(scope.connection, self._schema.schema)
            events = quoted(self._schema.events.name, schema)
            sequence = func.pg_catalog.pg_get_serial_sequence(events, "sequence_number")
            scope.connection.execute(select(func.pg_catalog.setval(sequence.op("::")(text("regclass")), self._last)))

    def _row(self, event: AnyStoredEvent) -> dict[str, Any]:
        # As a publish would store it, and refuse it.
        prepared = prepare(new_event_of(event))
        stream = StreamIdentifier(event.category, event.stream)
        if event.position < 0:
            raise SerialisationError(f"positions begin at 0; event {event.id} has {event.position}")
        return {
            "sequence_number": event.sequence_number,
            "id": str(prepared.id),
            "category": stream.category,
            "stream": stream.stream,
            "position": event.position,
            "name": prepared.name,
            "payload": prepared.payload,
            "metadata": prepared.metadata,
            "observed_at": self._time(prepared.observed_at),
            "occurred_at": self._time(prepared.occurred_at),
            "tags": prepared.tags or None,
            "version": prepared.version,
        }

    def _time(self, moment: datetime) -> str:
        moment = moment.astimezone(UTC)
        # As SQLAlchemy stores it.
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f").zfill(26) if self._database == "sqlite" else moment.isoformat()

    def _statement(self, connection: Connection, sql: str) -> Any:
        schema = effective_schema(connection, self._schema.schema)
        names = {
            "{events}": in_text(quoted(self._schema.events.name, schema)),
            "{event_tags}": in_text(quoted(self._schema.event_tags.name, schema)),
        }
        for placeholder, name in names.items():
            sql = sql.replace(placeholder, name)
        return text(sql)

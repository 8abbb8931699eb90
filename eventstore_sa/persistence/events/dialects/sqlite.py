"""SQLite: a publish is one INSERT statement, atomic in itself; a single writer makes number order commit order."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    String,
    bindparam,
    column,
    func,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects import sqlite

from eventstore_sa.persistence.events.dialects.base import Appended, AppendOutcome, EventDialect, Unmet
from eventstore_sa.persistence.events.document import PublishDocument
from eventstore_sa.persistence.page_bytes import size_on_sqlite
from eventstore_sa.persistence.schema.ddl import effective_schema, in_text, quoted
from eventstore_sa.persistence.schema.listeners import updates_allowed
from eventstore_sa.persistence.transactions.failures import Failure, FailureKind
from eventstore_sa.persistence.transactions.prepared import PreparedStatement
from eventstore_sa.types import decode_json, encode_json, stream_hash

__all__ = ["SQLiteDialect"]

_HASHES: Final = "eventstore_sa.stream_hash"
_MOST_NUMBERS: Final = 1000
"""How many numbers a statement looks for: SQLite allows 32,766 parameters if it was not compiled otherwise."""


def _within(ranges: str) -> str:
    """Demand that the last position is in some ranges, if there are any."""
    # JSON null is not SQL NULL after `->`, hence json_type.
    return f"""
    ({ranges} IS NULL OR EXISTS (
      SELECT 1 FROM json_each({ranges}) r
      WHERE last >= r.value ->> 0 AND (json_type(r.value, '$[1]') = 'null' OR last <= r.value ->> 1)
    ))"""  # noqa: S608 - an expression of ours


def _named(name: str) -> str:
    """Demand that a name is one of those of an item, if it has any."""
    return (
        f"(a.value -> 'names' IS NULL OR EXISTS (SELECT 1 FROM json_each(a.value, '$.names') n WHERE n.value = {name}))"  # noqa: S608
    )


# What an alternative does not allow: the last known event is gone, tags have been added to stored events, or there is
# another event, stored or in an earlier item.
_PRESENT: Final = f"""
  (a.value ->> 'last_id' IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM {{events}} e
    WHERE e.sequence_number = a.value ->> 'after' AND e.id = replace(a.value ->> 'last_id', '-', '')
  )) OR (
    a.value ->> 'epoch' <> coalesce((SELECT r.tags_epoch FROM {{schema}} r), '')
  ) OR EXISTS (
    SELECT 1 FROM {{event_tags}} t
    WHERE t.tag = a.value ->> '$.tags[0]' AND t.sequence_number > a.value ->> 'after' AND {_named("t.name")}
      AND NOT EXISTS (
        SELECT 1 FROM json_each(a.value, '$.tags') n
        WHERE NOT EXISTS (SELECT 1 FROM {{event_tags}} o WHERE o.tag = n.value AND o.sequence_number = t.sequence_number)
      )
  ) OR (
    a.value -> 'tags' IS NULL AND EXISTS (
      SELECT 1 FROM {{events}} e WHERE e.sequence_number > a.value ->> 'after' AND {_named("e.name")}
    )
  ) OR EXISTS (
    SELECT 1 FROM json_each(:document) d, json_each(d.value, '$.events') e
    WHERE d.key < item AND {_named("e.value ->> 'name'")} AND NOT EXISTS (
      SELECT 1 FROM json_each(a.value, '$.tags') n
      WHERE NOT EXISTS (SELECT 1 FROM json_each(e.value, '$.tags') t WHERE t.value = n.value)
    )
  )"""  # noqa: S608 - names of ours

_ITEMS: Final = f"""
  SELECT
    item, category, stream, events, last,
    {_within("allowed")} AND (
      alternatives IS NULL OR EXISTS (
        SELECT 1 FROM json_each(alternatives) w
        WHERE {_within("w.value -> 'allowed'")} AND NOT EXISTS (
          SELECT 1 FROM json_each(w.value, '$.absent') a WHERE {_PRESENT}
        )
      )
    ) AS met
  FROM (
    SELECT
      s.key AS item, s.value ->> 'category' AS category, s.value ->> 'stream' AS stream,
      s.value -> 'events' AS events, s.value -> 'allowed' AS allowed,
      s.value -> 'alternatives' AS alternatives,
      coalesce((
        SELECT max(e.position) FROM {{events}} e
        WHERE e.category = s.value ->> 'category' AND e.stream = s.value ->> 'stream'
      ), -1) + coalesce(sum(json_array_length(s.value, '$.events')) OVER (
        PARTITION BY s.value ->> 'category', s.value ->> 'stream' ORDER BY s.key
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
      ), 0) AS last
    FROM json_each(:document) s
  )
"""  # noqa: S608 - names of ours


def _stored_time(json_text: str) -> str:
    """Write a time of the document (2026-01-02T03:04:05Z, or with microseconds) as SQLAlchemy stores it."""
    return f"replace(substr({json_text}, 1, 19), 'T', ' ') || substr(rtrim(substr({json_text}, 20), 'Z') || '.000000', 1, 7)"


# It begins with INSERT, because the driver opens no transaction for WITH. Rows get their numbers in the order of the
# SELECT, and RETURNING promises none.
_INSERT: Final = f"""
INSERT INTO {{events}} (id, category, stream, position, name, payload, metadata, observed_at, occurred_at, tags, version)
WITH item AS MATERIALIZED ({_ITEMS})
SELECT
  replace(e.value ->> 'id', '-', ''), i.category, i.stream, i.last + 1 + e.key, e.value ->> 'name',
  e.value -> 'payload', e.value -> 'metadata',
  {_stored_time("e.value ->> 'observed_at'")}, {_stored_time("e.value ->> 'occurred_at'")},
  e.value -> 'tags', coalesce(e.value ->> 'version', 1)
FROM item i, json_each(i.events) e
WHERE NOT EXISTS (SELECT 1 FROM item unmet WHERE NOT unmet.met)
ORDER BY i.item, e.key
RETURNING sequence_number, position
"""  # noqa: S608 - names of ours

_CHECK: Final = f"WITH item AS ({_ITEMS}) SELECT item, last, met FROM item ORDER BY item"  # noqa: S608 - names of ours


class SQLiteDialect(EventDialect):
    """One event store on SQLite."""

    def append(self, connection: Connection, document: PublishDocument, *, guarded: bool) -> AppendOutcome:
        """Run one INSERT; only if it stored nothing, a second statement finds out why."""
        parameters = {"document": document.text}
        schema = effective_schema(connection, self._schema.schema)
        rows: Sequence[Sequence[Any]] = ()
        if any(document.counts):
            rows = _insertion(self._schema.prefix, schema).rows(connection, parameters)
        if rows:
            rows = sorted(rows, key=itemgetter(0))
            firsts = accumulate(document.counts, initial=0)
            return Appended(
                [rows[first][1] if count else 0 for count, first in zip(document.counts, firsts, strict=False)],
                [number for number, _ in rows],
            )
        for item, last_position, met in _check(self._schema.prefix, schema).rows(connection, parameters):
            if not met:
                return Unmet(item, last_position)
        if any(document.counts):
            # Each statement is a transaction, and somebody else has published in between.
            return Failure(
                FailureKind.SERIALISATION_FAILURE, "a stream changed while its condition was being looked at"
            )
        return Appended([0] * len(document.counts), ())

    def lock(self, connection: Connection, document: PublishDocument) -> None:
        """Become the single writer."""
        self.database.begin_writing(connection)

    @contextmanager
    def locked_alone(self, connection: Connection, *, timeout_s: float) -> Generator[None]:
        """Lock the whole database; the busy timeout of the connection decides how long that waits."""
        self.database.begin_writing(connection)
        with connection.begin_nested():
            yield

    def add_tags(self, connection: Connection, added: Mapping[int, AbstractSet[str]], epoch: str) -> int:
        """Add them as the single writer; the trigger that forbids updates is missing until the transaction ends."""
        self.database.begin_writing(connection)
        events, entries, version = self._schema.events, self._schema.event_tags, self._schema.version
        c = events.c
        numbers = list(added)
        changed: list[tuple[int, str, AbstractSet[str]]] = []
        for start in range(0, len(numbers), _MOST_NUMBERS):
            some = c.sequence_number.in_(numbers[start : start + _MOST_NUMBERS])
            found = connection.execute(select(c.sequence_number, c.name, self.json_column(c.tags)).where(some))
            for sequence_number, name, text_of_tags in found:
                there = frozenset(decode_json(text_of_tags) if text_of_tags else ())
                if not added[sequence_number] <= there:
                    changed.append((sequence_number, name, there | added[sequence_number]))
        if not changed:
            return 0
        with updates_allowed(connection, self._schema.prefix, self._schema.schema):
            connection.execute(
                update(events)
                .where(c.sequence_number == bindparam("number"))
                .values(tags=bindparam("new_tags", type_=String())),
                [{"number": each, "new_tags": encode_json(sorted(tags)).decode()} for each, _, tags in changed],
            )
        connection.execute(
            sqlite.insert(entries).on_conflict_do_nothing(),
            [{"tag": tag, "sequence_number": each, "name": name} for each, name, tags in changed for tag in tags],
        )
        connection.execute(update(version).values(tags_epoch=epoch))
        return len(changed)

    def id_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select its digits, past SQLAlchemy's own conversion."""
        return type_coerce(column, String)

    def time_column(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select its text."""
        return type_coerce(column, String)

    def read_time(self, value: str) -> datetime:
        """Read what `_stored_time` wrote."""
        if type(value) is not str:
            raise TypeError(f"it came as {type(value).__name__}")
        return datetime.fromisoformat(value).replace(tzinfo=UTC)

    def event_size(self, events: FromClause) -> ColumnElement[int]:
        """Count the bytes of the text."""
        c = events.c
        return size_on_sqlite(c.payload) + size_on_sqlite(c.metadata)

    def in_partition(self, partition: ColumnElement[int], partitions: ColumnElement[int]) -> ColumnElement[bool]:
        """Call a Python function: SQLite has no hash function that other databases have, too."""
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


@lru_cache(maxsize=64)
def _insertion(prefix: str, schema: str | None) -> PreparedStatement:
    return _statement(_INSERT, ("sequence_number", "position"), prefix, schema)


@lru_cache(maxsize=64)
def _check(prefix: str, schema: str | None) -> PreparedStatement:
    return _statement(_CHECK, ("item", "last", "met"), prefix, schema)


def _statement(sql: str, columns: Sequence[str], prefix: str, schema: str | None) -> PreparedStatement:
    for table in ("events", "event_tags", "schema"):
        sql = sql.replace(f"{{{table}}}", in_text(quoted(f"{prefix}{table}", schema)))
    # With columns, SQLAlchemy prepares the reading of results once, not for each of them.
    return PreparedStatement(text(sql).columns(*map(column, columns)))

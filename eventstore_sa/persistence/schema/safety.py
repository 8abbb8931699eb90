"""What makes an event store on PostgreSQL unsafe although all of its tables, functions and triggers exist.

It checks the keys that decide races, the identity that numbers events, tables that do not survive a crash or hide rows, and
a sequence that is behind or whose events are gone. It only reads. `verification` calls it; each finding names its remedy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy import Connection, PrimaryKeyConstraint, Table, UniqueConstraint, bindparam, func, select, text

from eventstore_sa.persistence.schema.ddl import in_text, quoted
from eventstore_sa.persistence.schema.drift import schema_of_events
from eventstore_sa.persistence.schema.schema import EventStoreSchema
from eventstore_sa.persistence.schema.versions import Site

__all__ = ["unsafe_parts"]

_log: Final = logging.getLogger(__name__)

_TABLES: Final = text(
    "SELECT c.relname, c.relpersistence = 'p', c.relrowsecurity, "
    "EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid) "
    "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = :place AND c.relname IN :tables ORDER BY c.relname"
).bindparams(bindparam("tables", expanding=True))

_KEYS: Final = text(
    "SELECT k.conname, k.contype = 'p', pg_catalog.array_agg(a.attname::text ORDER BY key.place) "
    "FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "CROSS JOIN pg_catalog.unnest(k.conkey) WITH ORDINALITY key(attribute, place) "
    "JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = key.attribute "
    "WHERE n.nspname = :place AND c.relname IN :tables AND k.contype IN ('p', 'u') AND NOT k.condeferrable "
    "GROUP BY k.oid, k.conname, k.contype"
).bindparams(bindparam("tables", expanding=True))

_IDENTITIES: Final = text(
    "SELECT c.relname, a.attname FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = :place AND c.relname IN :tables AND a.attidentity = 'a'"
).bindparams(bindparam("tables", expanding=True))

_SEQUENCE: Final = text(
    "SELECT s.seqrelid::regclass::text, s.seqcache, s.seqincrement, s.seqcycle FROM pg_catalog.pg_sequence s "
    "WHERE s.seqrelid = pg_catalog.pg_get_serial_sequence(:events, 'sequence_number')::regclass"
)


# The first and the last events: what was restored without its index, or with a part of it, lacks entries of one of them.
_NOT_INDEXED: Final = """
SELECT e.sequence_number FROM (
  (SELECT sequence_number, tags FROM {events} ORDER BY sequence_number LIMIT 1000)
  UNION ALL (SELECT sequence_number, tags FROM {events} ORDER BY sequence_number DESC LIMIT 1000)
) e, pg_catalog.jsonb_array_elements_text(CASE pg_catalog.jsonb_typeof(e.tags) WHEN 'array' THEN e.tags END) AS t(tag)
WHERE NOT EXISTS (SELECT FROM {event_tags} i WHERE i.tag = t.tag AND i.sequence_number = e.sequence_number)
ORDER BY 1 LIMIT 1
"""


def unsafe_parts(connection: Connection, expected: EventStoreSchema, site: Site) -> Iterator[str]:
    """Yield, in words for a message, what is unsafe in an event store whose functions are as they should be."""
    place = schema_of_events(connection, site)
    where = {"place": place, "tables": [table.name for table in expected.tables]}
    there = Site(site.database, site.prefix, place)
    yield from _tables(connection, there, where)
    yield from _keys(connection, expected, there, where)
    identities = {tuple(row) for row in connection.execute(_IDENTITIES, where)}
    for table in expected.tables:
        for column in table.columns:
            if column.identity is not None and (table.name, column.name) not in identities:
                yield (
                    f"the column {column.name} of table {table.name} is not GENERATED ALWAYS AS IDENTITY: change this, with "
                    "a sequence that starts above the highest stored number"
                )
    yield from _sequence(connection, expected, there)
    yield from _index_of_tags(connection, there)


def _tables(connection: Connection, site: Site, where: Mapping[str, object]) -> Iterator[str]:
    for table, permanent, row_security, rules in connection.execute(_TABLES, where):
        name = quoted(table, site.schema)
        if not permanent:
            yield f"table {table} is UNLOGGED, so a crash empties it: ALTER TABLE {name} SET LOGGED"
        if row_security:
            yield (
                f"table {table} has row security, which hides rows from writers and readers: "
                f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY, and grant less instead"
            )
        if rules:
            yield f"table {table} has rules, which change what is written: drop them"


def _keys(connection: Connection, expected: EventStoreSchema, site: Site, where: Mapping[str, object]) -> Iterator[str]:
    found = {name: (primary, columns) for name, primary, columns in connection.execute(_KEYS, where)}
    for table in expected.tables:
        for name, primary, columns in _keys_of(table):
            if found.get(name) != (primary, columns):
                kind = "PRIMARY KEY" if primary else "UNIQUE"
                yield (
                    f"the key {name} of table {table.name} is missing or changed: ALTER TABLE "
                    f"{quoted(table.name, site.schema)} ADD CONSTRAINT {quoted(name)} {kind} ({', '.join(columns)})"
                )


def _keys_of(table: Table) -> Iterator[tuple[str, bool, list[str]]]:
    for key in sorted(table.constraints, key=lambda key: str(key.name)):
        if isinstance(key, PrimaryKeyConstraint | UniqueConstraint):
            yield str(key.name), isinstance(key, PrimaryKeyConstraint), [column.name for column in key.columns]


def _sequence(connection: Connection, expected: EventStoreSchema, site: Site) -> Iterator[str]:
    events = expected.events
    row = connection.execute(_SEQUENCE, {"events": site.name("events")}).one_or_none()
    if row is None:
        yield f"no sequence belongs to the column sequence_number of table {events.name}"
        return
    sequence, *properties = row
    if properties != [1, 1, False]:
        yield f"sequence {sequence} must have CACHE 1, INCREMENT 1 and NO CYCLE, or readers miss events"
    # In this order: what is stored by then had been drawn by then.
    stored = connection.scalar(select(func.coalesce(func.max(events.c.sequence_number), 0))) or 0
    last_number = connection.scalar(
        text(f"SELECT {in_text(site.name('last_number_v1'))}(CAST(:events AS regclass))"),
        {"events": site.name("events")},
    )
    if last_number is not None and last_number < stored:
        yield (
            f"sequence {sequence} is at {last_number}, behind the highest stored number, {stored}: advance it with "
            f"ALTER TABLE {site.name('events')} ALTER COLUMN sequence_number RESTART WITH {stored + 1}"
        )
    elif last_number and not stored:
        yield from _missing_events(connection, expected, last_number)


def _index_of_tags(connection: Connection, site: Site) -> Iterator[str]:
    events, index = site.name("events"), site.name("event_tags")
    entries = f"SELECT t.tag, e.sequence_number, e.name FROM {events} e, jsonb_array_elements_text(e.tags) AS t(tag)"  # noqa: S608
    number = connection.scalar(text(_NOT_INDEXED.format(events=in_text(events), event_tags=in_text(index))))
    if number is not None:
        yield (
            f"table {site.prefix}event_tags lacks tags of event {number}, so queries miss events: restore it; or in one "
            "transaction of the owner of the tables, execute SET LOCAL eventstore_sa.restoring = 'on'; INSERT INTO "
            f"{index} (tag, sequence_number, name) {entries} ON CONFLICT DO NOTHING"
        )


def _missing_events(connection: Connection, expected: EventStoreSchema, last_number: int) -> Iterator[str]:
    """Yield a finding if events were stored that are missing now, because a backup was restored without them."""
    projections, rebuilds = expected.projections, expected.rebuilds
    snapshots, locks = expected.snapshots, expected.locks
    referring = {
        projections.name: select(projections.c.number).where(projections.c.sequence_number > 0),
        # A rebuild that has not reached an event yet is at 0.
        rebuilds.name: select(rebuilds.c.number).where(rebuilds.c.sequence_number > 0),
        snapshots.name: select(snapshots.c.place),
        locks.name: select(locks.c.last_position).where(locks.c.last_position >= 0),
    }
    names = [name for name, rows in referring.items() if connection.execute(rows.limit(1)).first() is not None]
    # The rows that refer to events were read after the events, and the first events may have been stored in between.
    if connection.execute(select(expected.events.c.sequence_number).limit(1)).first() is not None:
        return
    if names:
        yield (
            f"table {expected.events.name} is empty, but {last_number} numbers were assigned to events, and "
            f"{' and '.join(names)} refer to some of them: restore the events, or empty these tables too"
        )
        return
    _log.warning(
        "%s is empty, although its sequence is at %d: either every publish was rolled back, or a backup was restored "
        "without the events",
        expected.events.name,
        last_number,
    )

"""What a database holds, as values that can be compared: for "the same, whatever way it was made"."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, Engine, MetaData, Table, inspect, select, text

__all__ = ["structure_of"]

_POSTGRES = {
    "columns": "SELECT c.relname, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, "
    "(SELECT l.collname FROM pg_collation l WHERE l.oid = a.attcollation), pg_get_expr(d.adbin, d.adrelid) "
    "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d "
    "ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
    "WHERE c.relnamespace = to_regnamespace(:quoted) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped",
    "constraints": "SELECT conrelid::regclass::text, conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = to_regnamespace(:quoted)",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = :schema",
    "invalid indexes": "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid",
    "sequences": "SELECT sequencename, data_type::text, start_value, min_value, increment_by, cycle, cache_size "
    "FROM pg_sequences WHERE schemaname = :schema",
    "functions": "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = to_regnamespace(:quoted)",
    "triggers": "SELECT pg_get_triggerdef(t.oid), t.tgenabled FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
    "WHERE NOT tgisinternal AND c.relnamespace = to_regnamespace(:quoted)",
}


def structure_of(bind: Engine | Connection, schema: str = "public") -> dict[str, Any]:
    """Return what is in a schema of a PostgreSQL database, or in a SQLite database; rows of version tables included."""
    if isinstance(bind, Engine):
        with bind.connect() as connection:
            return structure_of(connection, schema)
    tables = inspect(bind).get_table_names(schema=None if bind.dialect.name == "sqlite" else schema)
    parts = _of_sqlite(bind, tables) if bind.dialect.name == "sqlite" else _of_postgres(bind, schema)
    for table in tables:
        if table.endswith("_schema"):
            there = Table(
                table, MetaData(), Column("version"), schema=None if bind.dialect.name == "sqlite" else schema
            )
            parts[f"rows of {table}"] = bind.execute(select(there)).all()
    return parts


def _of_postgres(bind: Connection, schema: str) -> dict[str, Any]:
    quoted = bind.dialect.identifier_preparer.quote(schema)
    return {
        kind: sorted(tuple(map(str, row)) for row in bind.execute(text(query), {"quoted": quoted, "schema": schema}))
        for kind, query in _POSTGRES.items()
    }


def _of_sqlite(bind: Connection, tables: list[str]) -> dict[str, Any]:
    # Not the text of a table: a column that was added later stands elsewhere in it.
    catalogue = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type <> 'table'"
    columns = 'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(:name)'
    objects = sorted(tuple(" ".join(str(value).split()) for value in row) for row in bind.execute(text(catalogue)))
    return {"objects": objects, **{name: bind.execute(text(columns), {"name": name}).all() for name in tables}}

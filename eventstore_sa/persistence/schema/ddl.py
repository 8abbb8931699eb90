"""Names and texts of functions and triggers, for which SQLAlchemy has no objects.

Their SQL is in `sql/`, one function per file, with placeholders for the names of one event store, which are filled in here.
`versions/` says which of them a version of the schema has; `listeners.py` creates them with the tables.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Final

from sqlalchemy import DDL, Connection

__all__ = [
    "MARIADB",
    "create_function",
    "create_trigger",
    "dollar_tag",
    "effective_schema",
    "fill_in",
    "function_parts",
    "in_text",
    "quoted",
    "read_sql",
    "statement",
]

MARIADB: Final = ("mariadb", "mysql")
"""SQLAlchemy's dialect names for MariaDB."""

_BODY: Final = "eventstore_sa"
_FUNCTION: Final = r"\{(?P<function>\w+_v\d+)\}"
_PARTS: Final = re.compile(r"\A(?P<head>.*?)(?P<tag>\$eventstore_sa_*\$)(?P<body>.*)(?P=tag)\s*\Z", re.DOTALL)
# Longer than a prefix may be, so no prefix can look like it.
_UNKNOWN: Final = "eventstore_sa: the schema of the table of events"


def quoted(name: str, schema: str | None = None, *, database: str = "postgresql") -> str:
    """Quote a name, qualified with its schema if it has one; as in the SQL standard, except on MariaDB."""
    parts = (name,) if schema is None else (schema, name)
    quote = "`" if database in MARIADB else '"'
    return ".".join(quote + part.replace(quote, quote * 2) + quote for part in parts)


def in_text(name: str) -> str:
    """Escape everything in a quoted name that `text()` would take for a parameter."""
    return name.replace(":", "\\:")


def dollar_tag(name: str) -> str:
    """Return a dollar quote for a body, such that a name that occurs in the body cannot end it."""
    tag = _BODY
    while f"${tag}" in name:
        tag += "_"
    return f"${tag}$"


def fill_in(sql: str, prefix: str, schema: str | None, *, database: str = "postgresql", **other: str) -> str:
    """Replace the placeholders in a file of `sql/` by the quoted names of one event store; `{lock_v1}` is a function.

    Args:
        sql: The text of the file.
        prefix: The prefix of the event store.
        schema: Its schema.
        database: SQLAlchemy's name of the database.
        other: Placeholders of this file alone.
    """

    def named(name: str, place: str | None = schema) -> str:
        return quoted(f"{prefix}{name}", place, database=database)

    events = named("events")
    names = {
        "{events}": events,
        "{events_literal}": events.replace("'", "''"),
        "{event_tags}": named("event_tags"),
        "{event_tags_bare}": named("event_tags", None),
        "{schema_row}": named("schema"),
        "{projections}": named("projections"),
        "{projections_literal}": named("projections").replace("'", "''"),
        f"${_BODY}$": dollar_tag(events),
        **{f"{{{placeholder}}}": text for placeholder, text in other.items()},
    }
    # All at once, because a name may look like a placeholder.
    placeholders = "|".join([*map(re.escape, names), _FUNCTION])
    return re.sub(placeholders, lambda found: names.get(found[0]) or named(found["function"]), sql)


def create_function(sql: str, prefix: str, schema: str | None) -> str:
    """Return the statement that creates the function of a file of `sql/postgresql/`, or replaces its body.

    The body names the schema that it is in. If that is not known, because the search path decides, the statement finds it
    when it is executed.
    """
    if schema is not None:
        return fill_in(sql, prefix, schema)
    return _in_schema_of_events(prefix, *function_parts(fill_in(sql, prefix, _UNKNOWN)))


def create_trigger(
    *, name: str, table: str, moment: str, level: str, function: str, prefix: str, schema: str | None
) -> str:
    """Return the statement that creates a trigger, with the function in the schema of the table of events."""
    place = _UNKNOWN if schema is None else schema
    sql = (
        f"CREATE TRIGGER {quoted(f'{prefix}{table}_{name}')} {moment} ON {quoted(f'{prefix}{table}', place)} "
        f"FOR EACH {level} EXECUTE FUNCTION {quoted(f'{prefix}{function}', place)}()"
    )
    return sql if schema is not None else _in_schema_of_events(prefix, sql)


def _in_schema_of_events(prefix: str, head: str, body: str | None = None) -> str:
    head = dollar_tag(head) + head + dollar_tag(head)
    body = "NULL" if body is None else dollar_tag(body) + body + dollar_tag(body)
    names = {
        "{head}": head,
        "{body}": body,
        "{events_literal}": quoted(f"{prefix}events").replace("'", "''"),
        "{unknown}": quoted(_UNKNOWN),
        "{tag}": dollar_tag(head + body),
    }
    placeholders = "|".join(map(re.escape, names))
    return re.sub(placeholders, lambda found: names[found[0]], read_sql("postgresql/in_schema_of_events.sql"))


def function_parts(sql: str) -> tuple[str, str]:
    """Split the statement that creates a function into the part before its body, and the body."""
    parts = _PARTS.match(sql)
    assert parts, "every file of a function quotes its body with $eventstore_sa$"  # noqa: S101 - a file of ours
    return parts["head"], parts["body"]


def effective_schema(connection: Connection, schema: str | None) -> str | None:
    """Return the schema to which `schema_translate_map` translates the given one on this connection."""
    translate_map: dict[str | None, str | None] = connection.get_execution_options().get("schema_translate_map") or {}
    return translate_map.get(schema, schema)


def statement(sql: str) -> DDL:
    """Make a statement of a text that has no placeholders left."""
    return DDL(sql.replace("%", "%%"))  # type: ignore[no-untyped-call]


@cache
def read_sql(path: str) -> str:
    """Read a file of `sql/`."""
    return files("eventstore_sa.persistence.schema").joinpath("sql", path).read_text(encoding="utf-8")

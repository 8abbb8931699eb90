"""How the functions and triggers in the database differ from those that an event store should have.

SQLAlchemy and Alembic see tables; this module sees the rest: whether functions and triggers exist, are enabled, and have
the body that belongs to their name. It only reads, and needs only the privilege to read the catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Boolean, Connection, bindparam, text

from eventstore_sa.persistence.schema.ddl import MARIADB, function_parts, in_text, quoted
from eventstore_sa.persistence.schema.versions import Function, RowTrigger, Site, Trigger, routines_of

__all__ = ["differences", "schema_of_events"]

_SETTING: Final = re.compile(r"\bSET (\w+) = '([^']*)'")
# How pg_trigger.tgtype is put together; 1 is FOR EACH ROW.
_MOMENTS: Final = {"BEFORE": 2, "INSERT": 4, "DELETE": 8, "UPDATE": 16, "TRUNCATE": 32}


def differences(connection: Connection, site: Site, version: int) -> Iterator[str]:
    """Yield, in words for a message, what differs from a version of the schema."""
    routines = routines_of(version)
    if site.database == "sqlite":
        yield from _of_sqlite_triggers(connection, site, routines.row_triggers)
    elif site.database in MARIADB:
        on_mariadb = tuple(trigger for trigger in routines.row_triggers if site.database in trigger.databases)
        yield from _of_mariadb_triggers(connection, site, on_mariadb)
    elif site.database == "postgresql":
        place = schema_of_events(connection, site)
        yield from _of_functions(connection, site, routines.functions, place)
        yield from _of_triggers(connection, site, routines.triggers, place)


def schema_of_events(connection: Connection, site: Site) -> str:
    """Return the schema that the table of events is in: the functions name it in their bodies."""
    query = text(
        "SELECT coalesce((SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
        "ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass(:events)), pg_catalog.current_schema(), '')"
    )
    return str(connection.scalar(query, {"events": site.name("events")}))


def _of_functions(connection: Connection, site: Site, functions: tuple[Function, ...], place: str) -> Iterator[str]:
    query = text(
        "SELECT p.proname, n.nspname, p.prosrc, p.proconfig, "
        "p.provolatile = 'v' AND NOT p.prosecdef AND NOT p.proisstrict AND p.proparallel = 'u' AND l.lanname = 'plpgsql' "
        "FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace "
        "JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE p.proname IN :names "
        "AND CASE WHEN :anywhere THEN pg_catalog.pg_function_is_visible(p.oid) ELSE n.nspname = :schema END"
    ).bindparams(bindparam("names", expanding=True), bindparam("anywhere", type_=Boolean()))
    names = [f"{site.prefix}{function.name}" for function in functions]
    found: dict[str, dict[str, set[tuple[object, ...]]]] = {}
    parameters = {"names": names, "anywhere": site.schema is None, "schema": place}
    for name, schema, body, settings, ordinary in connection.execute(query, parameters):
        found.setdefault(name, {}).setdefault(schema, set()).add((_lines(body), tuple(settings or ()), ordinary))
    for function in functions:
        name = f"{site.prefix}{function.name}"
        if name not in found:
            yield f"function {name} is missing"
        elif place not in found[name]:
            yield (
                f"function {name} on the search path is in the schema {', '.join(sorted(found[name]))}, but the table "
                f"{site.prefix}events is in {place}"
            )
        elif _expected(function, Site(site.database, site.prefix, place)) not in found[name][place]:
            yield f"function {name} was changed"


def _expected(function: Function, site: Site) -> tuple[object, ...]:
    head, body = function_parts(function.text(site))
    return _lines(body), tuple(f"{name}={value}" for name, value in _SETTING.findall(head)), True


def _lines(body: str) -> str:
    # Alembic's --sql turns tabs into spaces, and editors and consoles may change the ends of lines.
    return "\n".join(line.rstrip() for line in body.strip().splitlines())


def _of_triggers(connection: Connection, site: Site, triggers: tuple[Trigger, ...], place: str) -> Iterator[str]:
    query = text(
        "SELECT t.tgname, t.tgtype, p.proname, n.nspname, "
        "pg_catalog.substring(pg_catalog.pg_get_triggerdef(t.oid, true), ' WHEN \\((.*)\\) EXECUTE FUNCTION '), "
        "t.tgenabled IN ('O', 'A') AS enabled "
        "FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid "
        "JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace "
        "WHERE t.tgrelid IN (pg_catalog.to_regclass(:events), pg_catalog.to_regclass(:event_tags)) "
        "AND NOT t.tgisinternal AND t.tgattr = ''"
    )
    tables = {table: site.name(table) for table in ("events", "event_tags")}
    found = {name: rest for name, *rest in connection.execute(query, tables)}
    for trigger in triggers:
        name = f"{site.prefix}{trigger.table}_{trigger.name}"
        kind = sum(value for word, value in _MOMENTS.items() if word in trigger.moment.split())
        kind += trigger.rows is not None
        if name not in found or not found[name][-1]:
            yield f"trigger {name} is missing or disabled"
        elif found[name][:-1] != [kind, f"{site.prefix}{trigger.function.name}", place, trigger.rows]:
            yield f"trigger {name} was changed"


def _of_sqlite_triggers(connection: Connection, site: Site, triggers: tuple[RowTrigger, ...]) -> Iterator[str]:
    catalogue = "sqlite_master" if site.schema is None else f"{in_text(quoted(site.schema))}.sqlite_master"
    query = text(f"SELECT name, sql FROM {catalogue} WHERE type = 'trigger'")  # noqa: S608 - a quoted name
    found = {name: _of_create(sql) for name, sql in connection.execute(query)}
    for trigger in triggers:
        name, expected = f"{site.prefix}{trigger.table}_{trigger.name}", _of_create(trigger.text(site))
        if found.get(name) != expected:
            yield f"trigger {name} {'was changed' if name in found else 'is missing'}"


def _of_mariadb_triggers(connection: Connection, site: Site, triggers: tuple[RowTrigger, ...]) -> Iterator[str]:
    query = text(
        "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = coalesce(:schema, database())"
    )
    found = set(connection.scalars(query, {"schema": site.schema}))
    for trigger in triggers:
        name = f"{site.prefix}{trigger.table}_{trigger.name}"
        if name not in found:
            yield f"trigger {name} is missing"


def _of_create(sql: str) -> str:
    """Return a CREATE TRIGGER without the comment before it, which SQLite does not keep."""
    return " ".join(sql[sql.index("CREATE TRIGGER") :].rstrip("; \n").split())

"""Functions and triggers for `create_all`: listeners that create and drop them together with the tables.

They are created on PostgreSQL, SQLite and MariaDB; other databases get the tables alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from sqlalchemy import Connection, Table
from sqlalchemy.schema import ExecutableDDLElement

from eventstore_sa.persistence.schema.ddl import MARIADB, effective_schema, statement
from eventstore_sa.persistence.schema.versions import Routines, Site, Version, latest

__all__ = ["Statements", "changes_allowed", "executing", "room_on_pages", "site_on", "updates_allowed"]


Statements: TypeAlias = Callable[[Version, Site], Iterable[ExecutableDDLElement]]
"""Makes statements for a place, as the newest version of the schema has them."""


def site_on(connection: Connection, prefix: str, schema: str | None) -> Site:
    """Return where an event store is on a connection, following its `schema_translate_map`."""
    return Site(connection.dialect.name, prefix, effective_schema(connection, schema))


def executing(prefix: str, schema: str | None, statements: Statements) -> Callable[..., None]:
    """Make a listener that executes statements where its table is created or dropped."""

    def execute(_table: Table, connection: Connection, **_: Any) -> None:
        for made in statements(latest(), site_on(connection, prefix, schema)):
            connection.execute(made)

    return execute


def room_on_pages(site: Site, name: str) -> Iterator[ExecutableDDLElement]:
    """Yield the statement that leaves room on the pages of a table whose rows are updated often."""
    if site.database == "postgresql":
        # `postgresql_with` of a table is newer than SQLAlchemy 2.0.
        yield statement(f"ALTER TABLE {site.name(name)} SET (fillfactor = 70)")


@contextmanager
def changes_allowed(connection: Connection, prefix: str, schema: str | None) -> Generator[None]:
    """Allow events to be deleted inside the block, in the connection's transaction; then numbers start at 1 again.

    If the block fails, the caller's savepoint undoes everything, including the change of the triggers. On MariaDB, where
    each of these statements commits, the block is rolled back here, and the triggers are created again.
    """
    site = site_on(connection, prefix, schema)
    if site.database == "postgresql":
        for table in ("events", "event_tags"):
            connection.execute(statement(f"ALTER TABLE {site.name(table)} DISABLE TRIGGER USER"))
        yield
        connection.execute(statement(f"ALTER TABLE {site.name('events')} ALTER COLUMN sequence_number RESTART WITH 1"))
        for table in ("events", "event_tags"):
            connection.execute(statement(f"ALTER TABLE {site.name(table)} ENABLE TRIGGER USER"))
    else:
        routines = latest().routines
        for dropped in routines.drop_triggers(site, after=Routines()):
            connection.execute(dropped)
        try:
            yield
            if site.database in MARIADB:
                connection.execute(statement(f"ALTER TABLE {site.name('events')} AUTO_INCREMENT = 1"))
        except BaseException:
            if site.database in MARIADB and not connection.invalidated:
                connection.exec_driver_sql("ROLLBACK")
                for created in routines.create(site):
                    connection.execute(created)
            raise
        for created in routines.create(site):
            connection.execute(created)


@contextmanager
def updates_allowed(connection: Connection, prefix: str, schema: str | None) -> Generator[None]:
    """Allow events to be updated inside the block, on SQLite, where the change of the trigger is part of the transaction."""
    site = site_on(connection, prefix, schema)
    forbids = [
        each for each in latest().routines.row_triggers if (each.table, each.name) == ("events", "forbid_update")
    ]
    for trigger in forbids:
        connection.execute(statement(trigger.drop_text(site)))
    yield
    for trigger in forbids:
        connection.execute(statement(trigger.text(site)))

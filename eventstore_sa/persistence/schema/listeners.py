"""Functions and triggers for `create_all`: listeners that create and drop them together with the tables.

They are created on PostgreSQL, SQLite and MariaDB; other databases get the tables alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Table

from eventstore_sa.persistence.schema.ddl import MARIADB, effective_schema, statement
from eventstore_sa.persistence.schema.locking import LockingMode
from eventstore_sa.persistence.schema.versions import Routines, Site, latest, version_row

__all__ = ["changes_allowed", "creator", "dropper", "room_maker", "site_on", "version_writer"]


def site_on(connection: Connection, prefix: str, schema: str | None) -> Site:
    """Return where an event store is on a connection, following its `schema_translate_map`."""
    return Site(connection.dialect.name, prefix, effective_schema(connection, schema))


def creator(prefix: str, schema: str | None) -> Callable[..., None]:
    """Make the listener that creates functions and triggers after the table of events."""

    def create(_table: Table, connection: Connection, **_: Any) -> None:
        for created in latest().routines.create(site_on(connection, prefix, schema)):
            connection.execute(created)

    return create


def dropper(prefix: str, schema: str | None) -> Callable[..., None]:
    """Make the listener that drops the functions after the table of events; triggers go with the table."""

    def drop(_table: Table, connection: Connection, **_: Any) -> None:
        for dropped in latest().routines.drop_functions(site_on(connection, prefix, schema)):
            connection.execute(dropped)

    return drop


def room_maker(prefix: str, schema: str | None, name: str) -> Callable[..., None]:
    """Make the listener that leaves room on the pages of a table whose rows are updated often."""

    def make_room(_table: Table, connection: Connection, **_: Any) -> None:
        site = site_on(connection, prefix, schema)
        if site.database == "postgresql":
            # `postgresql_with` of a table is newer than SQLAlchemy 2.0.
            connection.execute(statement(f"ALTER TABLE {site.name(name)} SET (fillfactor = 70)"))

    return make_room


def version_writer(prefix: str, schema: str | None, mode: LockingMode) -> Callable[..., None]:
    """Make the listener that writes the version row, with the locking mode, after its table was created."""

    def write(_table: Table, connection: Connection, **_: Any) -> None:
        connection.execute(version_row(latest().number, site_on(connection, prefix, schema), mode.recorded))

    return write


@contextmanager
def changes_allowed(connection: Connection, prefix: str, schema: str | None) -> Generator[None]:
    """Allow events to be deleted inside the block, in the connection's transaction; then numbers start at 1 again.

    If the block fails, the caller's savepoint undoes everything, including the change of the triggers. On MariaDB, where
    each of these statements commits, the block is rolled back here, and the triggers are created again.
    """
    site = site_on(connection, prefix, schema)
    if site.database == "postgresql":
        connection.execute(statement(f"ALTER TABLE {site.name('events')} DISABLE TRIGGER USER"))
        yield
        connection.execute(statement(f"ALTER TABLE {site.name('events')} ALTER COLUMN sequence_number RESTART WITH 1"))
        connection.execute(statement(f"ALTER TABLE {site.name('events')} ENABLE TRIGGER USER"))
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

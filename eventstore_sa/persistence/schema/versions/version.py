"""What a version of the schema is: the tables that it changes, and the functions and triggers that it has in full.

Functions and triggers of two versions are compared to get from one to the other, so a version states what is there, not
what to do. Everything here yields statements one at a time (asyncpg takes no more) and executes none of them: Alembic,
the command line and `create_all` do that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from msgspec import Struct
from sqlalchemy.schema import ExecutableDDLElement

from eventstore_sa.persistence.schema.ddl import (
    MARIADB,
    create_function,
    create_trigger,
    fill_in,
    quoted,
    read_sql,
    statement,
)

__all__ = ["Function", "Routines", "Site", "TableChange", "Trigger", "Version", "row_trigger_text"]


_FOLDERS: Final = {"sqlite": "sqlite", **dict.fromkeys(MARIADB, "mariadb")}


class Site(Struct, frozen=True):
    """Where an event store is, or is to be.

    Attributes:
        database: SQLAlchemy's name of the database's dialect.
        prefix: What the names of tables, functions and triggers begin with.
        schema: The database schema, as the database knows it; None: wherever the search path leads.
    """

    database: str
    prefix: str = "es_"
    schema: str | None = None

    def name(self, name: str) -> str:
        """Quote the name of something in the schema, with the schema in front."""
        return quoted(f"{self.prefix}{name}", self.schema, database=self.database)


class Function(Struct, frozen=True):
    """A function on PostgreSQL; its name says in which file of `sql/postgresql/` it is, and never gets another body."""

    name: str
    arguments: str = ""

    def text(self, site: Site) -> str:
        """Return the statement that creates it, or replaces its body; its owner and grants stay as they are."""
        return create_function(read_sql(f"postgresql/{self.name}.sql"), site.prefix, site.schema)

    def signature(self, site: Site) -> str:
        """Return its quoted name with the types of its arguments."""
        return f"{site.name(self.name)}({self.arguments})"


class Trigger(Struct, frozen=True):
    """A trigger on PostgreSQL's table of events, once for each statement."""

    name: str
    moment: str
    function: Function

    def text(self, site: Site) -> str:
        """Return the statement that creates it."""
        return create_trigger(self.name, self.moment, self.function.name, site.prefix, site.schema)

    def drop_text(self, site: Site) -> str:
        """Return the statement that drops it if it is there."""
        return f"DROP TRIGGER IF EXISTS {quoted(f'{site.prefix}events_{self.name}')} ON {site.name('events')}"


class Routines(Struct, frozen=True):
    """The functions and triggers of a version, all of them.

    Attributes:
        functions: Each after those that it calls.
        triggers: On PostgreSQL.
        row_triggers: On databases whose triggers hold what they do, and call no function: names of files in `sql/`.
    """

    functions: tuple[Function, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    row_triggers: tuple[str, ...] = ()

    def create(self, site: Site, *, before: Routines | None = None) -> Iterator[ExecutableDDLElement]:
        """Yield what creates all that was not there `before`."""
        there = before or Routines()
        if site.database == "postgresql":
            for function in self.functions:
                if function not in there.functions:
                    yield statement(function.text(site))
            for trigger in self.triggers:
                if trigger not in there.triggers:
                    yield statement(trigger.text(site))
        else:
            for name in self.row_triggers if site.database in _FOLDERS else ():
                if name not in there.row_triggers:
                    yield statement(row_trigger_text(name, site))

    def drop_triggers(self, site: Site, *, after: Routines) -> Iterator[ExecutableDDLElement]:
        """Yield what drops the triggers that are not to be there `after`."""
        if site.database == "postgresql":
            yield from (
                statement(trigger.drop_text(site)) for trigger in self.triggers if trigger not in after.triggers
            )
        else:
            for name in self.row_triggers if site.database in _FOLDERS else ():
                if name not in after.row_triggers:
                    yield statement(f"DROP TRIGGER IF EXISTS {site.name(f'events_{name}')}")

    def drop_functions(self, site: Site, *, after: Routines | None = None) -> Iterator[ExecutableDDLElement]:
        """Yield what drops the functions that are not to be there `after`."""
        kept = after or Routines()
        if site.database == "postgresql":
            for function in reversed(self.functions):
                if function not in kept.functions:
                    yield statement(f"DROP FUNCTION IF EXISTS {function.signature(site)}")

    def repair(self, site: Site) -> Iterator[ExecutableDDLElement]:
        """Yield what puts all of them back into the state that they should be in."""
        yield from self.drop_triggers(site, after=Routines())
        yield from self.create(site)


TableChange: TypeAlias = Callable[[Site], Iterator[ExecutableDDLElement]]
"""Yields the statements that change the tables."""


class Version(Struct, frozen=True):
    """A version of the schema. Once released it stays as it is: databases have been migrated by it.

    An index that is built CONCURRENTLY is a version of its own, for what comes before it in a migration is committed. A
    constraint on a table that may be big is added NOT VALID, and validated by the next version.

    Attributes:
        number: Counted from 1.
        locks: What the way here from the version before locks, and for how long, for those who migrate while it is used.
        routines: The functions and triggers that it has.
        upgrade_tables: The way here from the version before.
        downgrade_tables: The way back.
    """

    number: int
    locks: str
    routines: Routines
    upgrade_tables: TableChange
    downgrade_tables: TableChange


def row_trigger_text(name: str, site: Site) -> str:
    """Return the statement that creates a trigger on SQLite or MariaDB."""
    sql = read_sql(f"{_FOLDERS[site.database]}/{name}.sql")
    return fill_in(sql, site.prefix, site.schema, database=site.database)

"""What a version of the schema is: the tables that it changes, and all of its functions and triggers.

A migration compares the functions and triggers of two versions, so a version states what exists, not what to do.
Everything here yields statements one at a time (asyncpg accepts no more) and executes none of them: Alembic, the command
line and `create_all` do that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

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

__all__ = ["Function", "Routines", "RowTrigger", "Site", "TableChange", "Trigger", "Version"]


class Site(Struct, frozen=True):
    """Where an event store is, or is to be.

    Attributes:
        database: SQLAlchemy's name of the database's dialect.
        prefix: The prefix of the names of tables, functions and triggers.
        schema: The database schema, as named in the database; None: wherever the search path leads.
    """

    database: str
    prefix: str = "es_"
    schema: str | None = None

    def name(self, name: str) -> str:
        """Quote the name of something in the schema, qualified with the schema."""
        return quoted(f"{self.prefix}{name}", self.schema, database=self.database)


class Function(Struct, frozen=True):
    """A function on PostgreSQL; its name is that of its file in `sql/postgresql/`, and its body never changes."""

    name: str
    arguments: str = ""

    def text(self, site: Site) -> str:
        """Return the statement that creates it, or replaces its body; its owner and grants stay as they are."""
        return create_function(read_sql(f"postgresql/{self.name}.sql"), site.prefix, site.schema)

    def signature(self, site: Site) -> str:
        """Return its quoted name with the types of its arguments."""
        return f"{site.name(self.name)}({self.arguments})"


class Trigger(Struct, frozen=True):
    """A trigger on PostgreSQL, once for each statement.

    Attributes:
        name: Its name, after that of the table.
        moment: When it is fired.
        function: What it executes.
        table: The table, by default that of the events.
        rows: If it is fired for rows instead: a condition on them, as PostgreSQL writes it.
    """

    name: str
    moment: str
    function: Function
    table: str = "events"
    rows: str | None = None

    def text(self, site: Site) -> str:
        """Return the statement that creates it."""
        return create_trigger(
            name=self.name,
            table=self.table,
            moment=self.moment,
            level="STATEMENT" if self.rows is None else f"ROW WHEN ({self.rows})",
            function=self.function.name,
            prefix=site.prefix,
            schema=site.schema,
        )

    def drop_text(self, site: Site) -> str:
        """Return the statement that drops it if it exists."""
        return f"DROP TRIGGER IF EXISTS {quoted(f'{site.prefix}{self.table}_{self.name}')} ON {site.name(self.table)}"


class RowTrigger(Struct, frozen=True):
    """A trigger on a database whose triggers contain their code, and are fired for each row.

    Attributes:
        name: The name of its file in `sql/`, and its own after that of the table.
        table: The table, by default that of the events.
        databases: Where it is needed.
    """

    name: str
    table: str = "events"
    databases: tuple[str, ...] = ("sqlite", *MARIADB)

    def text(self, site: Site) -> str:
        """Return the statement that creates it."""
        sql = read_sql(f"{'mariadb' if site.database in MARIADB else site.database}/{self.name}.sql")
        return fill_in(
            sql,
            site.prefix,
            site.schema,
            database=site.database,
            trigger=site.name(f"{self.table}_{self.name}"),
            table=site.name(self.table),
            table_bare=Site(site.database, site.prefix).name(self.table),
        )

    def drop_text(self, site: Site) -> str:
        """Return the statement that drops it if it exists."""
        return f"DROP TRIGGER IF EXISTS {site.name(f'{self.table}_{self.name}')}"


class Routines(Struct, frozen=True):
    """The functions and triggers of a version, all of them.

    Attributes:
        functions: Each after those that it calls.
        triggers: On PostgreSQL.
        row_triggers: On databases whose triggers contain their code and call no function.
    """

    functions: tuple[Function, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    row_triggers: tuple[RowTrigger, ...] = ()

    def triggers_on(self, database: str) -> tuple[Trigger | RowTrigger, ...]:
        """Return the triggers that it has on a database."""
        if database == "postgresql":
            return self.triggers
        return tuple(trigger for trigger in self.row_triggers if database in trigger.databases)

    def create(self, site: Site, *, before: Routines | None = None) -> Iterator[ExecutableDDLElement]:
        """Yield the statements that create everything that did not exist `before`."""
        yield from self.create_functions(site, before=before)
        yield from self.create_triggers(site, before=before)

    def create_functions(self, site: Site, *, before: Routines | None = None) -> Iterator[ExecutableDDLElement]:
        """Yield the statements that create the functions that did not exist `before`."""
        there = (before or Routines()).functions
        if site.database == "postgresql":
            yield from (statement(function.text(site)) for function in self.functions if function not in there)

    def create_triggers(
        self, site: Site, *, before: Routines | None = None, table: str | None = None
    ) -> Iterator[ExecutableDDLElement]:
        """Yield the statements that create the triggers that did not exist `before`, of one table or of all."""
        there = (before or Routines()).triggers_on(site.database)
        for trigger in self.triggers_on(site.database):
            if trigger not in there and table in (None, trigger.table):
                yield statement(trigger.text(site))

    def drop_triggers(self, site: Site, *, after: Routines) -> Iterator[ExecutableDDLElement]:
        """Yield the statements that drop the triggers that should not exist `after`."""
        kept = after.triggers_on(site.database)
        for trigger in self.triggers_on(site.database):
            if trigger not in kept:
                yield statement(trigger.drop_text(site))

    def drop_functions(self, site: Site, *, after: Routines | None = None) -> Iterator[ExecutableDDLElement]:
        """Yield the statements that drop the functions that should not exist `after`."""
        kept = after or Routines()
        if site.database == "postgresql":
            for function in reversed(self.functions):
                if function not in kept.functions:
                    yield statement(f"DROP FUNCTION IF EXISTS {function.signature(site)}")

    def repair(self, site: Site) -> Iterator[ExecutableDDLElement]:
        """Yield the statements that restore all of them."""
        yield from self.drop_triggers(site, after=Routines())
        yield from self.create(site)


TableChange: TypeAlias = Callable[[Site], Iterator[ExecutableDDLElement]]
"""Yields the statements that change the tables."""


class Version(Struct, frozen=True):
    """A version of the schema. Once released it never changes, because databases have been migrated with it.

    An index that is built CONCURRENTLY is a separate version, because everything before it in a migration is committed. A
    constraint on a table that may be large is added NOT VALID, and validated by the next version.

    Attributes:
        number: Counted from 1.
        locks: What the migration from the previous version locks, and for how long, for those who migrate a store in use.
        routines: The functions and triggers that it has.
        upgrade_tables: The migration of the tables from the previous version.
        downgrade_tables: The migration of the tables back to it.
    """

    number: int
    locks: str
    routines: Routines
    upgrade_tables: TableChange
    downgrade_tables: TableChange

"""The operations on an event store: migrating its schema between versions, changing its locking mode, and repairing it.

Each is registered with Alembic here: how it is executed, reversed, and written into a revision as a call of a function of
`directives.py`. The versions are in `persistence/schema/versions/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from alembic.util import CommandError
from sqlalchemy import select
from sqlalchemy.schema import ExecutableDDLElement

from eventstore_sa.errors import SchemaError
from eventstore_sa.persistence.schema import EventStoreSchema, ddl
from eventstore_sa.persistence.schema.listeners import site_on
from eventstore_sa.persistence.schema.locking import FENCE, RecordedLocking, recorded_locking_mode
from eventstore_sa.persistence.schema.verification import installed_version
from eventstore_sa.persistence.schema.versions import (
    Site,
    is_outside_transactions,
    locking_change,
    migration,
    repair,
)

__all__ = ["ChangeLockingOp", "MigrateOp", "MigrationError", "RepairOp"]


class MigrationError(SchemaError, CommandError):
    """The event store cannot be migrated as requested; Alembic's command line shows only the message."""


class EventStoreOp(MigrateOperation):
    """The base of the operations on an event store, with its prefix and its schema."""

    name: str

    def __init__(self, *, prefix: str, schema: str | None) -> None:
        self.prefix = prefix
        self.schema = schema

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that differ from their defaults."""
        given = {"prefix": None if self.prefix == "es_" else self.prefix, "schema": self.schema}
        return {name: value for name, value in given.items() if value is not None}

    def line(self) -> str:
        """Return the line of Python that represents it in a revision."""
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments().items())})"

    def comments(self) -> Sequence[str]:
        """Return comments for readers of the revision, line by line."""
        return ()

    def to_diff_tuple(self) -> tuple[str, ...]:
        """Return what `alembic check` shows: the name, and the line that a revision would have."""
        return (self.name, self.line())

    def execute(self, operations: Operations, version: int, statements: Iterable[ExecutableDDLElement]) -> None:
        """Execute statements in an event store that is at `version`; in offline mode, write them to the script."""
        context = operations.get_context()
        if not context.as_sql:
            found = installed_version(operations.get_bind(), EventStoreSchema(prefix=self.prefix, schema=self.schema))
            if found != version:
                raise MigrationError(
                    f"{self.line()} found the event store's schema at version {found}: the database did not reach its "
                    "state through the revisions before this one. If create_all() or create_schema() created the tables, "
                    "bring Alembic up to date with `alembic stamp`"
                )
        for statement in statements:
            if is_outside_transactions(statement) and context.dialect.name == "postgresql":
                with context.autocommit_block():
                    operations.execute(statement)
            else:
                operations.execute(statement)

    def site(self, operations: Operations) -> Site:
        """Return where the event store is; in offline mode, there is no `schema_translate_map` to follow."""
        context = operations.get_context()
        if context.as_sql:
            return Site(context.dialect.name, self.prefix, self.schema)
        return site_on(operations.get_bind(), self.prefix, self.schema)


class MigrateOp(EventStoreOp):
    """Migrate the schema of an event store from one version to another."""

    name = "eventstore_migrate"

    def __init__(
        self,
        *,
        from_version: int,
        to_version: int,
        prefix: str = "es_",
        schema: str | None = None,
        locking: RecordedLocking = FENCE.recorded,
    ) -> None:
        super().__init__(prefix=prefix, schema=schema)
        self.from_version = from_version
        self.to_version = to_version
        self.locking: RecordedLocking = recorded_locking_mode(locking).recorded

    def arguments(self) -> dict[str, Any]:
        # Recorded with the tables, and changed by a separate operation.
        locking = {"locking": self.locking} if self.from_version == 0 and self.locking != FENCE.recorded else {}
        return {"from_version": self.from_version, "to_version": self.to_version, **super().arguments(), **locking}

    def reverse(self) -> MigrateOp:
        """Return the way back."""
        return MigrateOp(
            from_version=self.to_version,
            to_version=self.from_version,
            prefix=self.prefix,
            schema=self.schema,
            locking=self.locking,
        )


class RepairOp(EventStoreOp):
    """Restore the functions and triggers of an event store.

    Attributes:
        differences: The differences that were found, in words.
    """

    name = "eventstore_repair"

    def __init__(
        self, *, version: int, prefix: str = "es_", schema: str | None = None, differences: Sequence[str] = ()
    ) -> None:
        super().__init__(prefix=prefix, schema=schema)
        self.version = version
        self.differences: tuple[str, ...] = tuple(differences)

    def arguments(self) -> dict[str, Any]:
        return {"version": self.version, **super().arguments()}

    def reverse(self) -> RepairOp:
        """Return the same again."""
        # The downgrade leads to the same version, and so to the same functions and triggers.
        return RepairOp(version=self.version, prefix=self.prefix, schema=self.schema)

    def to_diff_tuple(self) -> tuple[str, ...]:
        """Return what `alembic check` shows: the name, the line that a revision would have, and what was found."""
        return (*super().to_diff_tuple(), *self.differences)

    def comments(self) -> Sequence[str]:
        return self.differences


class ChangeLockingOp(EventStoreOp):
    """Record that the writers of an event store use another locking mode from now on."""

    name = "eventstore_change_locking"

    def __init__(
        self,
        *,
        from_locking: RecordedLocking,
        to_locking: RecordedLocking,
        prefix: str = "es_",
        schema: str | None = None,
    ) -> None:
        super().__init__(prefix=prefix, schema=schema)
        self.from_locking: RecordedLocking = recorded_locking_mode(from_locking).recorded
        self.to_locking: RecordedLocking = recorded_locking_mode(to_locking).recorded

    def arguments(self) -> dict[str, Any]:
        return {"from_locking": self.from_locking, "to_locking": self.to_locking, **super().arguments()}

    def reverse(self) -> ChangeLockingOp:
        """Return the way back."""
        return ChangeLockingOp(
            from_locking=self.to_locking, to_locking=self.from_locking, prefix=self.prefix, schema=self.schema
        )

    def comments(self) -> Sequence[str]:
        return (
            "End every process that publishes before this migration, and start none with the old locking after it: writers",
            "that lock in different ways do not exclude each other.",
        )


@Operations.implementation_for(MigrateOp)
def _migrate(operations: Operations, operation: MigrateOp) -> None:
    site = operation.site(operations)
    statements = migration(operation.from_version, operation.to_version, site, operation.locking)
    operation.execute(operations, operation.from_version, statements)


@Operations.implementation_for(RepairOp)
def _repair(operations: Operations, operation: RepairOp) -> None:
    operation.execute(operations, operation.version, repair(operation.version, operation.site(operations)))


@Operations.implementation_for(ChangeLockingOp)
def _change_locking(operations: Operations, operation: ChangeLockingOp) -> None:
    if not operations.get_context().as_sql:
        store = EventStoreSchema(prefix=operation.prefix, schema=operation.schema)
        found = operations.get_bind().scalar(select(store.version.c.locking))
        if found != operation.from_locking:
            raise MigrationError(
                f"{operation.line()} found locking {found!r}: the database did not reach its state through the revisions "
                "before this one. If it was changed by hand, bring Alembic up to date with `alembic stamp`"
            )
    for sql in locking_change(operation.to_locking, operation.site(operations)):
        operations.execute(ddl.statement(sql))


@renderers.dispatch_for(MigrateOp)
@renderers.dispatch_for(RepairOp)
@renderers.dispatch_for(ChangeLockingOp)
def _render(context: AutogenContext, operation: EventStoreOp) -> list[str]:
    # The revision imports what it needs, so it continues to work if the import in env.py is lost; and because Alembic loads
    # all revisions before it compares anything, so does the comparison.
    context.imports.add(f"from eventstore_sa.migrations import {operation.name}")
    return [*(f"# {comment}" for comment in operation.comments()), operation.line()]

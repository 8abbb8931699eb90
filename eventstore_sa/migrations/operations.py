"""The operations that revisions of a host hold: from one version of the event store's schema to another, and repair.

Each is registered with Alembic here: how it is called (`op.eventstore_migrate(...)`), executed, reversed, and written
into a revision. What the versions are is in `persistence/schema/versions/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from alembic.util import CommandError
from sqlalchemy.schema import ExecutableDDLElement

from eventstore_sa.errors import SchemaError
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.listeners import site_on
from eventstore_sa.persistence.schema.verification import installed_version
from eventstore_sa.persistence.schema.versions import Site, is_outside_transactions, migration, repair

__all__ = ["MigrateOp", "MigrationError", "RepairOp"]

_IMPORT: Final = "import eventstore_sa.migrations  # noqa: F401"


class MigrationError(SchemaError, CommandError):
    """The event store cannot be migrated as asked; Alembic's command line shows the message alone."""


class EventStoreOp(MigrateOperation):
    """What the operations on an event store have in common: its prefix and its schema."""

    name: str

    def __init__(self, *, prefix: str, schema: str | None) -> None:
        self.prefix = prefix
        self.schema = schema

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that differ from their defaults."""
        given = {"prefix": None if self.prefix == "es_" else self.prefix, "schema": self.schema}
        return {name: value for name, value in given.items() if value is not None}

    def line(self, op: str = "op.") -> str:
        """Return the line of Python that stands for it in a revision."""
        return f"{op}{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments().items())})"

    def execute(self, operations: Operations, version: int, statements: Iterable[ExecutableDDLElement]) -> None:
        """Execute statements in an event store that is at `version`; in offline mode, write them out."""
        context = operations.get_context()
        if not context.as_sql:
            found = installed_version(operations.get_bind(), EventStoreSchema(prefix=self.prefix, schema=self.schema))
            if found != version:
                raise MigrationError(
                    f"{self.line()} found the event store's schema at version {found}: the database has not come here by "
                    "the revisions before this one. If it was made by create_all() or create_schema(), bring Alembic up "
                    "to date with `alembic stamp`"
                )
        for statement in statements:
            if is_outside_transactions(statement) and context.dialect.name == "postgresql":
                with context.autocommit_block():
                    operations.execute(statement)
            else:
                operations.execute(statement)

    def site(self, operations: Operations) -> Site:
        """Return where the event store is; in offline mode there is no `schema_translate_map` to follow."""
        context = operations.get_context()
        if context.as_sql:
            return Site(context.dialect.name, self.prefix, self.schema)
        return site_on(operations.get_bind(), self.prefix, self.schema)


@Operations.register_operation("eventstore_migrate")
class MigrateOp(EventStoreOp):
    """Take the schema of an event store from one version to another."""

    name = "eventstore_migrate"

    def __init__(self, *, from_version: int, to_version: int, prefix: str = "es_", schema: str | None = None) -> None:
        super().__init__(prefix=prefix, schema=schema)
        self.from_version = from_version
        self.to_version = to_version

    @classmethod
    def eventstore_migrate(
        cls,
        operations: Operations,
        *,
        from_version: int,
        to_version: int,
        prefix: str = "es_",
        schema: str | None = None,
    ) -> None:
        """Take the schema of an event store from one version to another, in the transaction of the migration.

        On the way down to version 0 all events are lost.

        Args:
            operations: What `op` stands for.
            from_version: The version that is there; 0 is a database without the event store.
            to_version: The version that is to be there.
            prefix: What the names of its tables, functions and triggers begin with.
            schema: The database schema that it is in; on PostgreSQL it is created if there is none.

        Raises:
            MigrationError: The database is at another version than `from_version` (not seen in offline mode).
            SchemaError: This version of the library does not know one of the versions.
        """
        operations.invoke(cls(from_version=from_version, to_version=to_version, prefix=prefix, schema=schema))

    def arguments(self) -> dict[str, Any]:
        return {"from_version": self.from_version, "to_version": self.to_version, **super().arguments()}

    def reverse(self) -> MigrateOp:
        """Return the way back."""
        return MigrateOp(
            from_version=self.to_version, to_version=self.from_version, prefix=self.prefix, schema=self.schema
        )

    def to_diff_tuple(self) -> tuple[str, ...]:
        """Return what `alembic check` shows: the name, and the line that a revision would have."""
        return (self.name, self.line())


@Operations.register_operation("eventstore_repair")
class RepairOp(EventStoreOp):
    """Put the functions and triggers of an event store back as they should be.

    Attributes:
        differences: What was found, in words.
    """

    name = "eventstore_repair"

    def __init__(
        self, *, version: int, prefix: str = "es_", schema: str | None = None, differences: Sequence[str] = ()
    ) -> None:
        super().__init__(prefix=prefix, schema=schema)
        self.version = version
        self.differences: tuple[str, ...] = tuple(differences)

    @classmethod
    def eventstore_repair(
        cls, operations: Operations, *, version: int, prefix: str = "es_", schema: str | None = None
    ) -> None:
        """Put the functions and triggers of an event store back as a version of its schema has them.

        Owners and grants of functions stay as they are. Additional functions and triggers are left alone.

        Args:
            operations: What `op` stands for.
            version: The version that is there.
            prefix: What the names of its tables, functions and triggers begin with.
            schema: The database schema that it is in.

        Raises:
            MigrationError: The database is at another version (not seen in offline mode).
        """
        operations.invoke(cls(version=version, prefix=prefix, schema=schema))

    def arguments(self) -> dict[str, Any]:
        return {"version": self.version, **super().arguments()}

    def reverse(self) -> RepairOp:
        """Return the same again."""
        # The way back leads to the same version, so to the same functions and triggers.
        return RepairOp(version=self.version, prefix=self.prefix, schema=self.schema)

    def to_diff_tuple(self) -> tuple[str, ...]:
        """Return what `alembic check` shows: the name, the line that a revision would have, and what was found."""
        return (self.name, self.line(), *self.differences)


@Operations.implementation_for(MigrateOp)
def _migrate(operations: Operations, operation: MigrateOp) -> None:
    site = operation.site(operations)
    statements = migration(operation.from_version, operation.to_version, site)
    operation.execute(operations, operation.from_version, statements)


@Operations.implementation_for(RepairOp)
def _repair(operations: Operations, operation: RepairOp) -> None:
    operation.execute(operations, operation.version, repair(operation.version, operation.site(operations)))


@renderers.dispatch_for(MigrateOp)
@renderers.dispatch_for(RepairOp)
def _render(context: AutogenContext, operation: MigrateOp | RepairOp) -> list[str]:
    # The revision imports what it needs, so it goes on working if the import in env.py is lost; and as Alembic loads
    # all revisions before it compares anything, the comparison goes on working too.
    context.imports.add(_IMPORT)
    comments = [f"# {difference}" for difference in getattr(operation, "differences", ())]
    return [*comments, operation.line(context.opts["alembic_module_prefix"])]

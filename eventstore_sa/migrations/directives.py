"""What revisions call: functions with types, which `alembic.op` cannot have for the operations of others.

Each works like those of `op`: it belongs into `upgrade()` or `downgrade()` of a revision that Alembic runs.
"""

from __future__ import annotations

from alembic import op
from eventstore_sa.migrations.operations import ChangeLockingOp, MigrateOp, RepairOp
from eventstore_sa.persistence.schema.locking import FENCE, RecordedLocking

__all__ = ["eventstore_change_locking", "eventstore_migrate", "eventstore_repair"]


def eventstore_migrate(
    *,
    from_version: int,
    to_version: int,
    prefix: str = "es_",
    schema: str | None = None,
    locking: RecordedLocking = FENCE.recorded,
) -> None:
    """Take the schema of an event store from one version to another, in the transaction of the migration.

    On the way down to version 0 all events are lost.

    Args:
        from_version: The version that is there; 0 is a database without the event store.
        to_version: The version that is to be there.
        prefix: What the names of its tables, functions and triggers begin with.
        schema: The database schema that it is in; on PostgreSQL it is created if there is none.
        locking: How its writers exclude each other, and at which level, such as "row/category"; recorded on the way up
            from version 0, and ignored on others.

    Raises:
        MigrationError: The database is at another version than `from_version` (not seen in offline mode).
        SchemaError: This version of the library does not know one of the versions.
        ConfigurationError: There is no such locking.
    """
    op.invoke(
        MigrateOp(from_version=from_version, to_version=to_version, prefix=prefix, schema=schema, locking=locking)
    )


def eventstore_repair(*, version: int, prefix: str = "es_", schema: str | None = None) -> None:
    """Put the functions and triggers of an event store back as a version of its schema has them.

    Owners and grants of functions stay as they are. Additional functions and triggers are left alone.

    Args:
        version: The version that is there.
        prefix: What the names of its tables, functions and triggers begin with.
        schema: The database schema that it is in.

    Raises:
        MigrationError: The database is at another version (not seen in offline mode).
    """
    op.invoke(RepairOp(version=version, prefix=prefix, schema=schema))


def eventstore_change_locking(
    *, from_locking: RecordedLocking, to_locking: RecordedLocking, prefix: str = "es_", schema: str | None = None
) -> None:
    """Record that the writers of an event store exclude each other in another way from now on.

    Writers that lock in different ways do not exclude each other, so end every process that publishes first. Lock rows
    are deleted.

    Args:
        from_locking: How they have done so far.
        to_locking: How they do from now on, such as "row/category".
        prefix: What the names of its tables, functions and triggers begin with.
        schema: The database schema that it is in.

    Raises:
        MigrationError: The database has another locking than `from_locking` (not seen in offline mode).
        ConfigurationError: There is no such locking.
    """
    op.invoke(ChangeLockingOp(from_locking=from_locking, to_locking=to_locking, prefix=prefix, schema=schema))

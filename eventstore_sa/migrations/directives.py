"""The functions that revisions call: they are typed, which operations of third parties on `alembic.op` cannot be.

Each works like those of `op`: call it in `upgrade()` or `downgrade()` of a revision that Alembic runs.
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
    """Migrate the schema of an event store from one version to another, in the transaction of the migration.

    A migration down to version 0 deletes all events.

    Args:
        from_version: The installed version; 0 is a database without the event store.
        to_version: The version to migrate to.
        prefix: The prefix of the names of its tables, functions and triggers.
        schema: Its database schema; on PostgreSQL it is created if it does not exist.
        locking: How its writers exclude each other, and at which level, such as "row/category". Recorded by a migration
            up from version 0, and ignored by others.

    Raises:
        MigrationError: If the database is at another version than `from_version` (not detected in offline mode).
        SchemaError: If this version of the library does not support one of the versions.
        ConfigurationError: If there is no such locking mode.
    """
    op.invoke(
        MigrateOp(from_version=from_version, to_version=to_version, prefix=prefix, schema=schema, locking=locking)
    )


def eventstore_repair(*, version: int, prefix: str = "es_", schema: str | None = None) -> None:
    """Restore the functions and triggers of an event store to those of a version of its schema.

    Owners and grants of functions are kept. Additional functions and triggers are left alone.

    Args:
        version: The installed version.
        prefix: The prefix of the names of its tables, functions and triggers.
        schema: Its database schema.

    Raises:
        MigrationError: If the database is at another version (not detected in offline mode).
    """
    op.invoke(RepairOp(version=version, prefix=prefix, schema=schema))


def eventstore_change_locking(
    *, from_locking: RecordedLocking, to_locking: RecordedLocking, prefix: str = "es_", schema: str | None = None
) -> None:
    """Record that the writers of an event store use another locking mode from now on.

    Writers that lock in different ways do not exclude each other, so first end every process that publishes. Lock rows
    are deleted.

    Args:
        from_locking: The mode so far.
        to_locking: The mode from now on, such as "row/category".
        prefix: The prefix of the names of its tables, functions and triggers.
        schema: Its database schema.

    Raises:
        MigrationError: If the database records another mode than `from_locking` (not detected in offline mode).
        ConfigurationError: If there is no such locking mode.
    """
    op.invoke(ChangeLockingOp(from_locking=from_locking, to_locking=to_locking, prefix=prefix, schema=schema))

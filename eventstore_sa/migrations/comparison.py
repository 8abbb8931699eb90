"""What `alembic revision --autogenerate` and `alembic check` detect about event stores.

The versions are compared first. If they differ, a single operation replaces everything that Alembic detected about the
library's tables. If not, Alembic's findings stand, and functions and triggers, which Alembic does not see, are compared too.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Final

from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import (
    AlterColumnOp,
    CreateIndexOp,
    DropTableOp,
    MigrateOperation,
    ModifyTableOps,
    UpgradeOps,
)
from alembic.util import DispatchPriority
from sqlalchemy import Connection, Identity, MetaData, inspect, select

from eventstore_sa.errors import SchemaError
from eventstore_sa.migrations.operations import ChangeLockingOp, EventStoreOp, MigrateOp, MigrationError, RepairOp
from eventstore_sa.persistence.projections.indexes import projection_indexes_of
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.drift import differences
from eventstore_sa.persistence.schema.listeners import site_on
from eventstore_sa.persistence.schema.verification import installed_version
from eventstore_sa.persistence.schema.versions import latest

__all__ = ["compare_event_stores", "set_projection_indexes_aside"]

_ASIDE: Final = "eventstore_sa.indexes_aside"
_log: Final = logging.getLogger(__name__)


@comparators.dispatch_for("schema", priority=DispatchPriority.FIRST)
def set_projection_indexes_aside(context: AutogenContext, _upgrade: UpgradeOps, _schemas: set[str | None]) -> None:
    """Keep Alembic from comparing the indexes of `projection_index`.

    It would compare their expressions as text, and no database gives them back as they were written; of SQLite it would
    say in a warning that it cannot.
    """
    for store in _attached(context.metadata):
        indexes = [*projection_indexes_of(store.projections)]
        store.projections.info[_ASIDE] = indexes
        store.projections.indexes.difference_update(indexes)


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)
def compare_event_stores(context: AutogenContext, upgrade: UpgradeOps, schemas: set[str | None]) -> None:
    """Compare every event store on the host's MetaData with the database, and do not drop stores that are on none."""
    connection = context.connection
    assert connection is not None  # noqa: S101 - Alembic compares in no other way
    found: list[MigrateOperation] = []
    for store in _attached(context.metadata):
        store.projections.indexes.update(store.projections.info.pop(_ASIDE, ()))
        if not context.run_object_filters(store.version, store.version.name, "table", False, None):
            continue
        operations = [*_differences(connection, store)]
        found += operations
        migrates = any(isinstance(operation, MigrateOp) for operation in operations)
        if migrates or not _is_compared(connection, store, schemas):
            _take_out(connection, upgrade, store)
        _compare_projection_indexes(connection, store, upgrade)
    if not connection.dialect.supports_identity_columns:
        _take_out_identities(upgrade)
    # Before everything of the host's: its tables may refer to ours.
    upgrade.ops[:0] = found
    _spare_unattached(connection, upgrade)


def _attached(metadata: MetaData | Collection[MetaData] | None) -> Iterator[EventStoreSchema]:
    for one in [metadata] if isinstance(metadata, MetaData) else metadata or ():
        yield from EventStoreSchema.all_on(one)


def _differences(connection: Connection, store: EventStoreSchema) -> Iterator[EventStoreOp]:
    needed = latest().number
    try:
        version = installed_version(connection, store)
    except SchemaError as error:
        raise MigrationError(error.message) from error
    if version > needed:
        raise MigrationError(
            f"the event store's schema in the database has version {version}, but this version of the library supports "
            f"only versions up to {needed}: install the version of eventstore-sa that created it"
        )
    if version < needed:
        locking = store.locking_mode.recorded
        yield MigrateOp(
            from_version=version, to_version=needed, prefix=store.prefix, schema=store.schema, locking=locking
        )
    else:
        wrong = [*differences(connection, site_on(connection, store.prefix, store.schema), version)]
        if wrong:
            yield RepairOp(version=version, prefix=store.prefix, schema=store.schema, differences=wrong)
    if version > 0:
        yield from _other_locking(connection, store)


def _other_locking(connection: Connection, store: EventStoreSchema) -> Iterator[ChangeLockingOp]:
    recorded = connection.scalar(select(store.version.c.locking))
    wanted = store.locking_mode.recorded
    if recorded is not None and recorded != wanted:
        yield ChangeLockingOp(from_locking=recorded, to_locking=wanted, prefix=store.prefix, schema=store.schema)


def _is_compared(connection: Connection, store: EventStoreSchema, schemas: set[str | None]) -> bool:
    """Return whether Alembic looked where the tables are.

    Without `include_schemas`, it considers tables in other schemas missing; tables in the default schema always, if that
    schema is named explicitly.
    """
    schema = site_on(connection, store.prefix, store.schema).schema
    return schema in schemas and schema != connection.dialect.default_schema_name


def _place(connection: Connection, schema: str | None) -> str | None:
    """Return a schema as Alembic names it: None for the default schema."""
    return None if schema == connection.dialect.default_schema_name else schema


def _take_out(connection: Connection, upgrade: UpgradeOps, store: EventStoreSchema) -> None:
    names, place = {table.name for table in store.tables}, _place(connection, store.schema)

    def is_ours(operation: MigrateOperation) -> bool:
        return (
            getattr(operation, "table_name", None) in names
            and _place(connection, getattr(operation, "schema", None)) == place
        )

    upgrade.ops[:] = [operation for operation in upgrade.ops if not is_ours(operation)]


def _compare_projection_indexes(connection: Connection, store: EventStoreSchema, upgrade: UpgradeOps) -> None:
    """Compare the indexes of `projection_index` by their names, which tell what they are."""
    indexes = [*projection_indexes_of(store.projections)]
    names = {index.name for index in indexes}
    for modified in _modified(upgrade, store.projections.name):
        modified.ops[:] = [each for each in modified.ops if getattr(each, "index_name", None) not in names]
        if modified.is_empty():
            upgrade.ops.remove(modified)
    if connection.dialect.name != "postgresql":
        return
    site = site_on(connection, store.prefix, store.schema)
    catalogue = inspect(connection)
    there: set[str | None] = set()
    if catalogue.has_table(store.projections.name, site.schema):
        there = {index["name"] for index in catalogue.get_indexes(store.projections.name, site.schema)}
    upgrade.ops += [CreateIndexOp.from_index(index) for index in indexes if index.name not in there]


def _modified(upgrade: UpgradeOps, table: str) -> list[ModifyTableOps]:
    return [each for each in upgrade.ops if isinstance(each, ModifyTableOps) and each.table_name == table]


def _take_out_identities(upgrade: UpgradeOps) -> None:
    """Take out what `compare_server_default` makes of our identity column where the database has no such thing."""
    for modified in [operation for operation in upgrade.ops if isinstance(operation, ModifyTableOps)]:
        modified.ops[:] = [
            operation
            for operation in modified.ops
            if not (isinstance(operation, AlterColumnOp) and isinstance(operation.modify_server_default, Identity))
        ]
        if modified.is_empty():
            upgrade.ops.remove(modified)


def _spare_unattached(connection: Connection, upgrade: UpgradeOps) -> None:
    """Keep Alembic from dropping an event store just because the module that attaches it was not imported."""
    dropped = {(op.table_name, op.schema): op.to_table() for op in upgrade.ops if isinstance(op, DropTableOp)}
    for (name, place), table in dropped.items():
        prefix = name.removesuffix("schema")
        events = dropped.get((f"{prefix}events", place))
        if prefix == name or "version" not in table.c or events is None or "sequence_number" not in events.c:
            continue
        store = EventStoreSchema(prefix=prefix, schema=place)
        version = installed_version(connection, store)
        _log.warning(
            "the event store with the tables %s is in the database, but on no MetaData in target_metadata: import the "
            "module that makes its EventStoreSchema in env.py. The tables are not dropped; to drop them, write %s into "
            "a revision",
            ", ".join(table.name for table in store.tables),
            MigrateOp(from_version=version, to_version=0, prefix=prefix, schema=place).line(),
        )
        _take_out(connection, upgrade, store)

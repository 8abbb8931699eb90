"""What `alembic revision --autogenerate` and `alembic check` detect in event stores.

The versions are compared first. If they differ, one operation of the library replaces everything that Alembic has detected
in the library's tables. If not, Alembic's findings stand, and functions and triggers are compared too, which Alembic
ignores.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib.metadata import version
from typing import Final

from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import (
    AlterColumnOp,
    CreateIndexOp,
    CreateUniqueConstraintOp,
    DropConstraintOp,
    DropIndexOp,
    DropTableOp,
    MigrateOperation,
    ModifyTableOps,
    UpgradeOps,
)
from sqlalchemy import Connection, Identity, Index, MetaData, Table, inspect, select

from eventstore_sa.errors import SchemaError
from eventstore_sa.migrations.operations import ChangeLockingOp, EventStoreOp, MigrateOp, MigrationError, RepairOp
from eventstore_sa.persistence.inspection.indexes import (
    INSPECTION_INDEXES,
    index_name,
    inspection_indexes_of,
)
from eventstore_sa.persistence.projections.indexes import projection_indexes_of
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.drift import differences
from eventstore_sa.persistence.schema.listeners import site_on
from eventstore_sa.persistence.schema.verification import installed_version
from eventstore_sa.persistence.schema.versions import latest

__all__ = ["compare_event_stores", "compare_without_projection_indexes"]

_log: Final = logging.getLogger(__name__)


def compare_without_projection_indexes(  # noqa: PLR0917 - as Alembic calls it
    context: AutogenContext,
    modified: ModifyTableOps,
    schema: str | None,
    name: str,
    found: Table | None,
    table: Table | None,
) -> object:
    """Let Alembic compare the indexes of a table without those of `projection_index` and `inspection_index`.

    Alembic would compare their expressions as text, and no database returns them as they were written; for SQLite it would
    warn that it cannot compare them, as it does before Alembic 1.18.3, which cannot be asked to do this. What it finds is
    taken out by name in any case. What it compares instead is a copy of the table: the host's own is left as it is.
    """
    from alembic.util import PriorityDispatchResult  # noqa: PLC0415 - not in all versions

    ours: set[str | None] = set() if table is None else {index.name for index in _compared_by_name(table)}
    if table is None or not ours:
        return PriorityDispatchResult.CONTINUE
    infos = {each.name: each.info for each in table.indexes}
    copied = table.to_metadata(MetaData())
    copied.indexes.difference_update([index for index in copied.indexes if index.name in ours])
    for index in copied.indexes:
        # Not copied by SQLAlchemy; a filter of the host's may ask for it.
        index.info = infos[index.name]
    compared = ModifyTableOps(name, [], schema=schema)
    compare = context.comparators.dispatch("table", qualifier=context.dialect.name)
    compare(context, compared, schema, name, found, copied)
    # It has compared all else, too, which is compared once more with the table itself.
    modified.ops += [operation for operation in compared.ops if _is_about_indexes(operation)]
    return PriorityDispatchResult.STOP


def _compared_by_name(table: Table) -> Iterator[Index]:
    yield from projection_indexes_of(table)
    yield from inspection_indexes_of(table)


def _is_about_indexes(operation: MigrateOperation) -> bool:
    if isinstance(operation, DropConstraintOp):
        return operation.constraint_type == "unique"
    return isinstance(operation, CreateIndexOp | DropIndexOp | CreateUniqueConstraintOp)


def compare_event_stores(context: AutogenContext, upgrade: UpgradeOps, schemas: set[str | None]) -> None:
    """Compare every event store on the host's MetaData with the database, and leave alone those that are on none."""
    connection = context.connection
    assert connection is not None  # noqa: S101 - Alembic compares in no other way
    found: list[MigrateOperation] = []
    for store in _attached(context.metadata):
        if not context.run_object_filters(store.version, store.version.name, "table", False, None):
            continue
        operations = [*_differences(connection, store)]
        found += operations
        migrates = any(isinstance(operation, MigrateOp) for operation in operations)
        if migrates or not _is_compared(connection, store, schemas):
            _take_out(connection, upgrade, store)
        _compare_projection_indexes(connection, store, upgrade)
        _compare_inspection_indexes(connection, store, upgrade)
    if not connection.dialect.supports_identity_columns:
        # `compare_server_default` detects changes in identity columns, which this database does not have.
        _take_out_changes(
            upgrade,
            lambda operation: (
                isinstance(operation, AlterColumnOp) and isinstance(operation.modify_server_default, Identity)
            ),
        )
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
            f"the event store's schema in the database has version {version}, and this version of the library supports only "
            f"{needed}: install the version of eventstore-sa that created it"
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
    """Return whether Alembic has looked in the schema of the tables.

    Without `include_schemas` it considers tables in other schemas missing, and always those in the default schema if that is
    given by name.
    """
    schema = site_on(connection, store.prefix, store.schema).schema
    return schema in schemas and schema != connection.dialect.default_schema_name


def _schema_name(connection: Connection, schema: str | None) -> str | None:
    """Return the name of a schema in Alembic: the default one is None."""
    return None if schema == connection.dialect.default_schema_name else schema


def _take_out(connection: Connection, upgrade: UpgradeOps, store: EventStoreSchema) -> None:
    names, schema = {table.name for table in store.tables}, _schema_name(connection, store.schema)

    def is_ours(operation: MigrateOperation) -> bool:
        return (
            getattr(operation, "table_name", None) in names
            and _schema_name(connection, getattr(operation, "schema", None)) == schema
        )

    upgrade.ops[:] = [operation for operation in upgrade.ops if not is_ours(operation)]


def _compare_projection_indexes(connection: Connection, store: EventStoreSchema, upgrade: UpgradeOps) -> None:
    """Compare the indexes of `projection_index` by name: the name depends on the definition."""
    indexes = [*projection_indexes_of(store.projections)]
    names = {index.name for index in indexes}
    _take_out_changes(
        upgrade, lambda operation: getattr(operation, "index_name", None) in names, store.projections.name
    )
    _create_missing(connection, store, store.projections, indexes, upgrade)


def _compare_inspection_indexes(connection: Connection, store: EventStoreSchema, upgrade: UpgradeOps) -> None:
    """Compare the indexes of `inspection_index` by name; one that exists although it is not declared is left alone."""
    optional = {index_name(field, store.prefix) for field in INSPECTION_INDEXES}
    _take_out_changes(upgrade, lambda operation: getattr(operation, "index_name", None) in optional, store.events.name)
    declared = [*inspection_indexes_of(store.events)]
    _create_missing(connection, store, store.events, declared, upgrade)


def _create_missing(
    connection: Connection, store: EventStoreSchema, table: Table, indexes: Sequence[Index], upgrade: UpgradeOps
) -> None:
    """Create those indexes that the database does not have; there are none on databases other than PostgreSQL."""
    if connection.dialect.name != "postgresql":
        return
    site = site_on(connection, store.prefix, store.schema)
    catalogue = inspect(connection)
    existing: set[str | None] = set()
    if catalogue.has_table(table.name, site.schema):
        existing = {index["name"] for index in catalogue.get_indexes(table.name, site.schema)}
    upgrade.ops += [CreateIndexOp.from_index(index) for index in indexes if index.name not in existing]


def _take_out_changes(
    upgrade: UpgradeOps, is_meant: Callable[[MigrateOperation], bool], table: str | None = None
) -> None:
    """Remove some changes of a table, or of all tables."""
    for modified in [each for each in upgrade.ops if isinstance(each, ModifyTableOps)]:
        if table in (None, modified.table_name):
            modified.ops[:] = [operation for operation in modified.ops if not is_meant(operation)]
            if modified.is_empty():
                upgrade.ops.remove(modified)


def _spare_unattached(connection: Connection, upgrade: UpgradeOps) -> None:
    """Keep Alembic from dropping an event store just because the module that attaches it was not imported."""
    dropped = {(op.table_name, op.schema): op.to_table() for op in upgrade.ops if isinstance(op, DropTableOp)}
    for (name, schema), table in dropped.items():
        prefix = name.removesuffix("schema")
        events = dropped.get((f"{prefix}events", schema))
        if prefix == name or "version" not in table.c or events is None or "sequence_number" not in events.c:
            continue
        store = EventStoreSchema(prefix=prefix, schema=schema)
        version = installed_version(connection, store)
        _log.warning(
            "the event store with the tables %s is in the database, but not on any MetaData in target_metadata: import the "
            "module that creates its EventStoreSchema in env.py. The tables are left as they are; to drop them, write "
            "%s into a revision",
            ", ".join(table.name for table in store.tables),
            MigrateOp(from_version=version, to_version=0, prefix=prefix, schema=schema).line(),
        )
        _take_out(connection, upgrade, store)


def _register() -> None:
    installed = tuple(map(int, re.findall(r"\d+", version("alembic"))[:3]))
    if installed < (1, 18):
        # Comparisons run in the order of their registration: after Alembic's own.
        comparators.dispatch_for("schema")(compare_event_stores)
        return
    from alembic.util import DispatchPriority  # noqa: PLC0415 - not in all versions

    comparators.dispatch_for("schema", priority=DispatchPriority.LAST)(compare_event_stores)
    if installed >= (1, 18, 3):
        compare = comparators.dispatch_for("table", priority=DispatchPriority.FIRST, subgroup="indexes")
        compare(compare_without_projection_indexes)


_register()

"""The versions of the schema, and the migrations between them.

0 is a database without an event store. A released version is never edited: a change of the tables, a function or a trigger
is a new version with its own module here. Functions carry a version in their names, so that processes of the previous
release keep working while the database is migrated.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.schema import CreateIndex, ExecutableDDLElement

from eventstore_sa.errors import SchemaError
from eventstore_sa.persistence.schema.ddl import statement
from eventstore_sa.persistence.schema.locking import FENCE, RecordedLocking
from eventstore_sa.persistence.schema.versions import v1
from eventstore_sa.persistence.schema.versions.version import (
    Function,
    Routines,
    RowTrigger,
    Site,
    TableChange,
    Trigger,
    Version,
)

__all__ = [
    "VERSIONS",
    "Function",
    "Routines",
    "RowTrigger",
    "Site",
    "Trigger",
    "Version",
    "is_outside_transactions",
    "latest",
    "locking_change",
    "migration",
    "repair",
    "routines_of",
    "version_row",
]

VERSIONS: tuple[Version, ...] = (v1.VERSION,)
"""All versions, by number."""


def latest() -> Version:
    """Return the version that this version of the library creates and needs."""
    return VERSIONS[-1]


def migration(
    from_version: int, to_version: int, site: Site, locking: RecordedLocking = FENCE.recorded
) -> Iterator[ExecutableDDLElement]:
    """Yield the statements, one at a time, that migrate an event store from one version to another, up or down.

    A migration down to 0 deletes all events. A migration up from 0 records the locking mode.

    Raises:
        SchemaError: If this version of the library does not support one of the versions.
    """
    for number in (from_version, to_version):
        if not 0 <= number <= latest().number:
            raise SchemaError(
                f"this version of the library does not support version {number} of the event store's schema; the newest it "
                f"supports is {latest().number}: install the version of eventstore-sa that has it"
            )
    for number in range(from_version, to_version):
        yield from _step(VERSIONS[number].upgrade_tables, number, number + 1, site)
        if number == 0:
            yield version_row(1, site, locking)
    for number in range(from_version, to_version, -1):
        yield from _step(VERSIONS[number - 1].downgrade_tables, number, number - 1, site)


def repair(version: int, site: Site) -> Iterator[ExecutableDDLElement]:
    """Yield the statements that restore the functions and triggers of a version."""
    yield from routines_of(version).repair(site)


def routines_of(version: int) -> Routines:
    """Return the functions and triggers of a version; there are none at 0."""
    return VERSIONS[version - 1].routines if version else Routines()


def version_row(version: int, site: Site, locking: RecordedLocking) -> ExecutableDDLElement:
    """Return the statement that records the version of a new event store and its locking mode."""
    table = site.name("schema")
    return statement(f"INSERT INTO {table} (version, locking) VALUES ({version}, '{locking}')")  # noqa: S608 - all of it ours


def locking_change(locking: RecordedLocking, site: Site) -> tuple[str, str]:
    """Return the statements that record another locking mode; nothing may be published while they are executed.

    The positions in lock rows are no longer valid once another mode has been used.
    """
    return (
        f"UPDATE {site.name('schema')} SET locking = '{locking}'",  # noqa: S608 - all of it ours
        f"DELETE FROM {site.name('locks')}",  # noqa: S608 - a name of ours
    )


def is_outside_transactions(element: ExecutableDDLElement) -> bool:
    """Return whether a statement cannot be part of a transaction on PostgreSQL: an index that is built CONCURRENTLY."""
    return isinstance(element, CreateIndex) and bool(element.element.dialect_options["postgresql"]["concurrently"])


def _step(tables: TableChange, before: int, after: int, site: Site) -> Iterator[ExecutableDDLElement]:
    old, new = routines_of(before), routines_of(after)
    if after:
        yield from old.drop_triggers(site, after=new)
    yield from tables(site)
    yield from new.create(site, before=old)
    yield from old.drop_functions(site, after=new)
    if before and after:
        yield statement(f"UPDATE {site.name('schema')} SET version = {after}")  # noqa: S608 - a name and a number of ours

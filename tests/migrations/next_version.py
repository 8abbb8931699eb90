"""Versions of the schema after the newest one, as a later release might have them; there are none in this one yet.

The first has a table more, a column more in the table of events, and the next version of the function that raises the
fence next to the one before. The second has an index that is built while writers run. `install()` makes this process
a newer release: the versions, and the tables of every `EventStoreSchema` that is made from then on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Column, Index, Integer, PrimaryKeyConstraint, Table, Text
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable, ExecutableDDLElement, MetaData

from eventstore_sa import EventStoreSchema
from eventstore_sa.persistence.schema import ddl, default_schema, versions
from eventstore_sa.persistence.schema.versions import Function, Routines, Site, Trigger, Version, version

__all__ = ["NEXT", "install"]

FENCE: Final = "fence_v2"
INDEX: Final = "events_note_idx"


def notes_table(metadata: MetaData, prefix: str, schema: str | None) -> Table:
    key = PrimaryKeyConstraint("id", name=f"{prefix}notes_pkey")
    return Table(f"{prefix}notes", metadata, Column("id", Integer), key, schema=schema)


def index_on(table: Table, prefix: str, *, concurrently: bool = False) -> Index:
    return Index(f"{prefix}{INDEX}", table.c.note, postgresql_concurrently=concurrently)


def upgrade_tables(site: Site) -> Iterator[ExecutableDDLElement]:
    yield CreateTable(notes_table(MetaData(), site.prefix, site.schema))
    yield ddl.statement(f"ALTER TABLE {site.name('events')} ADD COLUMN note TEXT")


def create_index(site: Site) -> Iterator[ExecutableDDLElement]:
    events = Table(f"{site.prefix}events", MetaData(), Column("note", Text), schema=site.schema)
    yield CreateIndex(index_on(events, site.prefix, concurrently=True))


def downgrade_tables(site: Site) -> Iterator[ExecutableDDLElement]:
    yield ddl.statement(f"ALTER TABLE {site.name('events')} DROP COLUMN note")
    yield DropTable(notes_table(MetaData(), site.prefix, site.schema))


def drop_index(site: Site) -> Iterator[ExecutableDDLElement]:
    yield ddl.statement(f"DROP INDEX {site.name(INDEX)}")


class FenceOfNextVersion(Function, frozen=True):
    """The text of a function that is in no file."""

    def text(self, site: Site) -> str:
        first = version.Function("fence_v1").text(site)
        return first.replace("_fence_v1", "_fence_v2").replace("RETURN NULL", "/* the next */ RETURN NULL")


_now: Final = versions.latest()
_fence: Final = FenceOfNextVersion(FENCE)

ROUTINES: Final = Routines(
    functions=(*_now.routines.functions, _fence),
    triggers=(
        Trigger("fence", "BEFORE INSERT", _fence),
        *(trigger for trigger in _now.routines.triggers if trigger.name != "fence"),
    ),
    row_triggers=(version.RowTrigger("forbid_delete"),),
)

NEXT: Final = (
    Version(
        number=_now.number + 1,
        locks="The table of events, for a moment.",
        routines=ROUTINES,
        upgrade_tables=upgrade_tables,
        downgrade_tables=downgrade_tables,
    ),
    Version(
        number=_now.number + 2,
        locks="Nothing: the index is built while writers run.",
        routines=ROUTINES,
        upgrade_tables=create_index,
        downgrade_tables=drop_index,
    ),
)


def install(monkeypatch: Any = None) -> None:
    """Make this process a newer release, for good or for as long as `monkeypatch` says."""
    # What this process has made already belongs to the release that it was, and is not to be made as a newer one's.
    default_schema()
    set_attribute = setattr if monkeypatch is None else monkeypatch.setattr
    set_attribute(versions, "VERSIONS", (*versions.VERSIONS, *NEXT))
    make, tables = EventStoreSchema.__init__, EventStoreSchema.tables

    def made(self: EventStoreSchema, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        self.events.append_column(Column("note", Text))
        index_on(self.events, self.prefix)
        self.notes = notes_table(self.metadata, self.prefix, self.schema)  # type: ignore[attr-defined]

    set_attribute(EventStoreSchema, "__init__", made)
    set_attribute(EventStoreSchema, "tables", property(lambda self: (*tables.fget(self), self.notes)))  # type: ignore[misc]

"""`EventStoreSchema`: the library's tables on a MetaData, their mapped classes, and the names of everything else.

One instance describes one event store in the database: a prefix, and optionally a schema. It may be on the host's own
MetaData, together with the host's tables. It holds no connection and does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

from sqlalchemy import MetaData, Table, event
from sqlalchemy.orm import registry
from sqlalchemy.schema import ExecutableDDLElement

from eventstore_sa.contracts.wakeups import Wakeups
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import listeners
from eventstore_sa.persistence.schema.locking import (
    FENCE,
    EventSerialisationGuarantee,
    Locking,
    LockingMode,
    locking_mode,
)
from eventstore_sa.persistence.schema.recorded_locking import LockingRecord
from eventstore_sa.persistence.schema.tables import (
    EventRecord,
    event_tags_table,
    events_table,
    locks_table,
    map_event_record,
    nodes_table,
    parked_events_table,
    parked_streams_table,
    projections_table,
    snapshots_table,
    subscriptions_table,
    version_table,
)
from eventstore_sa.persistence.schema.versions import Site, Version, latest, version_row
from eventstore_sa.types.codec import text_problem

__all__ = ["SCHEMA_VERSION", "EventStoreSchema", "default_schema", "made_once", "schema_or_default"]

T = TypeVar("T")

SCHEMA_VERSION: Final = latest().number
"""The version of the schema that this version of the library creates and needs."""

# PostgreSQL truncates names after 63 bytes; the longest one without its prefix is "events_sequence_number_seq".
_MAX_PREFIX_BYTES: Final = 32
_MAX_NAME_BYTES: Final = 63
_INFO_KEY: Final = "eventstore_sa.schemas"


class EventStoreSchema:
    """The tables of an event store, attached to a MetaData.

    `metadata.create_all()` creates them with their functions and triggers, together with the host's own tables.

    Args:
        metadata: The host's MetaData; a new one by default.
        prefix: The prefix of the names of all tables, functions and triggers; at most 32 bytes.
        schema: The database schema to put them in. By default that of the MetaData or, if it has none, wherever the
            connection's search path leads.
        locking: How writers exclude each other: "fence" (only within a stream), or "advisory" or "row" (at the level of
            the guarantee, until they commit); see `Locking`. It is recorded in the database when the tables are created.
        serialisation_guarantee: The level for "advisory" and "row"; the fence always gives the strongest guarantee.
        labels: How tags begin that many events have and no rule is about, such as "tenant:". Their writers do not exclude
            each other, and a decision on labels alone waits for all writers. Recorded like the locking.

    Attributes:
        metadata: The MetaData that the tables are attached to.
        prefix: As given.
        schema: As given, or that of the MetaData.
        locking: As given.
        serialisation_guarantee: As given.
        locking_mode: The locking, the guarantee and the labels together.
        locking_record: Compares the mode with the one recorded in the database.
        events: The table of events.
        event_tags: The index of their tags.
        version: The table whose single row holds the version of the schema and the locking mode.
        locks: The table of lock rows; see `locking="row"`.
        projections: The table of stored projections.
        snapshots: The table of snapshots of projections.
        rebuilds: The table of projections that are being rebuilt.
        subscriptions: The table of subscriptions, one row for each partition.
        subscription_nodes: The table of the processes that run subscriptions.
        parked_streams: The table of streams whose events subscriptions have parked.
        parked_events: The table of these events.
        wakeups: Says in this process that events may have been stored.
        EventRecord: The mapped class over `events`, for queries and joins of the host.

    Raises:
        ConfigurationError: If the prefix or schema cannot be used as a name, there is no such locking mode, or this
            MetaData already has an event store with this prefix and schema.

    Examples:
        >>> from sqlalchemy import MetaData
        >>> schema = EventStoreSchema(MetaData(), prefix="audit_")
        >>> schema.events.name
        'audit_events'
    """

    def __init__(
        self,
        metadata: MetaData | None = None,
        *,
        prefix: str = "es_",
        schema: str | None = None,
        locking: Locking = "fence",
        serialisation_guarantee: EventSerialisationGuarantee = EventSerialisationGuarantee.LOG,
        labels: Iterable[str] = (),
    ) -> None:
        _check_name("prefix", prefix, _MAX_PREFIX_BYTES)
        checked: object = metadata
        if not isinstance(checked, MetaData | None):
            owner = checked if isinstance(checked, type) else type(checked)
            hint = f": pass {owner.__name__}.metadata" if hasattr(checked, "metadata") else ""
            raise ConfigurationError(f"the tables are attached to a MetaData; got {owner.__name__}{hint}")
        self.metadata: MetaData = MetaData() if metadata is None else metadata
        if schema is None and self.metadata.schema is not None:
            # SQLAlchemy puts the tables there in any case; functions and triggers have to follow.
            schema = str(self.metadata.schema)
        if schema is not None:
            _check_name("database schema", schema, _MAX_NAME_BYTES)
            if not schema:
                raise ConfigurationError(
                    "the database schema '' cannot be used: for no schema, leave it out or give None"
                )
        self.prefix = prefix
        self.schema = schema
        self.locking: Locking = locking
        self.serialisation_guarantee: EventSerialisationGuarantee = serialisation_guarantee
        self.locking_mode: LockingMode = locking_mode(locking, serialisation_guarantee, labels)
        attached: dict[tuple[str | None, str], EventStoreSchema] = self.metadata.info.setdefault(_INFO_KEY, {})
        if (schema, prefix) in attached:
            raise ConfigurationError(
                f"this MetaData already has an event store with prefix {prefix!r} in schema {schema!r}: use that "
                "EventStoreSchema, or another prefix"
            )
        self.events: Table = events_table(self.metadata, prefix=prefix, schema=schema)
        self.event_tags: Table = event_tags_table(self.events, prefix=prefix)
        self.version: Table = version_table(self.metadata, prefix=prefix, schema=schema)
        self.locks: Table = locks_table(self.metadata, prefix=prefix, schema=schema)
        self.projections: Table = projections_table(self.metadata, prefix=prefix, schema=schema)
        self.snapshots: Table = snapshots_table(self.metadata, prefix=prefix, schema=schema)
        self.rebuilds: Table = projections_table(self.metadata, prefix=prefix, schema=schema, name="rebuilds")
        self.subscriptions: Table = subscriptions_table(self.metadata, prefix=prefix, schema=schema)
        self.subscription_nodes: Table = nodes_table(self.metadata, prefix=prefix, schema=schema)
        self.parked_streams: Table = parked_streams_table(self.metadata, prefix=prefix, schema=schema)
        self.parked_events: Table = parked_events_table(self.metadata, prefix=prefix, schema=schema)
        self.locking_record: LockingRecord = LockingRecord(self.locking_mode, self.version, prefix)
        self.EventRecord: type[EventRecord] = map_event_record(registry(metadata=self.metadata), self.events)
        self.wakeups: Wakeups = Wakeups()
        self._made: dict[tuple[object, str], Any] = {}
        attached[schema, prefix] = self
        self._attach_ddl()

    @staticmethod
    def all_on(metadata: MetaData) -> Sequence[EventStoreSchema]:
        """Return the event stores that are attached to a MetaData."""
        attached: dict[tuple[str | None, str], EventStoreSchema] = metadata.info.get(_INFO_KEY, {})
        return tuple(attached.values())

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables of the library, for code that handles the tables of a MetaData one by one: see docs/testing.md."""
        return (
            self.version,
            self.events,
            self.event_tags,
            self.locks,
            self.projections,
            self.snapshots,
            self.rebuilds,
            self.subscriptions,
            self.subscription_nodes,
            self.parked_streams,
            self.parked_events,
        )

    def __repr__(self) -> str:
        return f"EventStoreSchema(prefix={self.prefix!r}, schema={self.schema!r})"

    def _attach_ddl(self) -> None:
        def on(table: Table, moment: str, statements: listeners.Statements) -> None:
            event.listen(table, moment, listeners.executing(self.prefix, self.schema, statements))

        mode = self.locking_mode.recorded
        on(self.events, "after_create", lambda newest, site: newest.routines.create_functions(site))
        for table, name in ((self.events, "events"), (self.event_tags, "event_tags")):
            on(table, "after_create", partial(_create_triggers, table=name))
        # Triggers go with their table.
        on(self.events, "after_drop", lambda newest, site: newest.routines.drop_functions(site))
        on(self.version, "after_create", lambda newest, site: [version_row(newest.number, site, mode)])
        on(self.projections, "after_create", lambda _, site: listeners.room_on_pages(site, "projections"))
        on(self.rebuilds, "after_create", lambda _, site: listeners.room_on_pages(site, "rebuilds"))


def _create_triggers(newest: Version, site: Site, *, table: str) -> Iterator[ExecutableDDLElement]:
    return newest.routines.create_triggers(site, table=table)


def _check_name(what: str, name: object, most_bytes: int) -> None:
    if not isinstance(name, str):
        raise ConfigurationError(f"the {what} {name!r} cannot be used: give it as a str")
    problem = text_problem(name)
    if problem is not None:
        raise ConfigurationError(f"the {what} {name!a} cannot be used: it {problem}")
    if len(name.encode()) > most_bytes:
        raise ConfigurationError(
            f"the {what} {name!r} cannot be used: it may have at most {most_bytes} bytes, because PostgreSQL truncates "
            "longer names"
        )


def default_schema(
    locking: Locking | None = None, serialisation_guarantee: EventSerialisationGuarantee | None = None
) -> EventStoreSchema:
    """Return the `EventStoreSchema()` that is shared by all stores without a schema of their own, one for each mode.

    Making one maps a class, which takes milliseconds. Nothing else is attached to its MetaData; a host that wants the
    tables among its own makes its own `EventStoreSchema`.

    Raises:
        ConfigurationError: If there is no such locking mode.
    """
    mode = locking_mode(locking or FENCE.locking, serialisation_guarantee or EventSerialisationGuarantee(FENCE.level))
    if mode not in _defaults:
        _defaults[mode] = EventStoreSchema(
            locking=mode.locking, serialisation_guarantee=EventSerialisationGuarantee(mode.level)
        )
    return _defaults[mode]


def schema_or_default(schema: EventStoreSchema | None) -> EventStoreSchema:
    """Return the tables that the caller of a public function has given, or else those of `EventStoreSchema()`.

    Raises:
        ConfigurationError: If something else was given, such as a MetaData.
    """
    if schema is None:
        return default_schema()
    given: object = schema
    if not isinstance(given, EventStoreSchema):
        kind = given.__name__ if isinstance(given, type) else type(given).__name__
        raise ConfigurationError(
            f"the schema of a store is an EventStoreSchema; got {kind}: make one, once for the process, with "
            "EventStoreSchema(Base.metadata)"
        )
    return schema


def made_once(make: Callable[[EventStoreSchema, str], T], schema: EventStoreSchema, database: str) -> T:
    """Return what `make` makes for a schema on a kind of database, such as its statements, and keep it with the schema.

    All stores on the schema share it, so it must not keep anything of a store, and be safe to use in several threads.
    """
    made: Any = schema._made.get((make, database))  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    if made is None:
        # Of two threads that get here together, both use what the first one has made.
        made = schema._made.setdefault((make, database), make(schema, database))  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    return cast("T", made)


_defaults: Final[dict[LockingMode, EventStoreSchema]] = {}

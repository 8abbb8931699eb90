"""The statements that apply events to stored projections: many are loaded by one, and saved by one.

What a save replaces has to be what was loaded, as its version tells. Transactions are neither begun nor ended here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from time import monotonic
from typing import Any, Final

from msgspec import Raw, Struct
from msgspec.json import encode
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB

from eventstore_sa.contracts.projection_records import ProjectionRecord, source_text_hash
from eventstore_sa.persistence.projections.dialects import projection_dialect
from eventstore_sa.persistence.projections.locks import (
    LockOn,
    busy_ids,
    is_wide,
    lock_condition,
    lock_parameters,
    wide_lock,
)
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.failures import Failure, FailureKind, Refusal
from eventstore_sa.types.codec import encode_json

__all__ = ["ProjectionBatches", "projection_batches"]

_MADE: Final = "eventstore_sa.projection_batches"
_PAUSE_S: Final = 0.005
_FIELDS = ("name", "id", "source", "source_hash", "state", "metadata", "version", "sequence_number")
_JSON = ("source", "state", "metadata")
_NUMBERS = ("source_hash", "version", "sequence_number")


class _Row(Struct, frozen=True):
    """A record in the document of a save."""

    name: str
    id: str
    source: Raw
    source_hash: int
    state: Raw
    metadata: Raw
    version: int
    sequence_number: int | None


def projection_batches(schema: EventStoreSchema, database: str, *, rebuilding: bool = False) -> ProjectionBatches:
    """Return the statements for a schema on a kind of database, which are made once, and kept as long as the schema."""
    table = schema.rebuilds if rebuilding else schema.projections
    made: dict[str, ProjectionBatches] = table.info.setdefault(_MADE, {})
    batches = made.get(database)
    if batches is None:
        batches = made[database] = ProjectionBatches(schema, database, table)
    return batches


class ProjectionBatches:
    """Loads and saves projections of one name, many at a time.

    Args:
        schema: The tables.
        database: SQLAlchemy's name of the database.
        table: Those that are stored, or those that are being rebuilt.

    Raises:
        ConfigurationError: Projections cannot be kept there.
    """

    def __init__(self, schema: EventStoreSchema, database: str, table: Table) -> None:
        self._dialect = projection_dialect(database, table)
        self._schema = schema
        self._table = table
        self._on_postgresql = database == "postgresql"

    def load(
        self, connection: Connection, name: str, ids: Collection[str], *, lock: LockOn | None = None
    ) -> dict[str, ProjectionRecord]:
        """Return the projections that are there, by id.

        Args:
            connection: Where.
            name: Their name.
            ids: Their ids.
            lock: How to keep others from changing them until the transaction ends; None: not at all.
        """
        statement = self._loads[lock]
        parameters: Mapping[str, Any] = {"name": name, "ids": encode_json(list(ids)).decode()}
        if lock is not None and self._on_postgresql:
            parameters = {"name": name, **lock_parameters(connection, self._schema, name, ids)}
            if lock is LockOn.IDS and is_wide(ids):
                statement = self._load_locked.where(wide_lock(connection, self._schema, name))
        records = [ProjectionRecord(*row) for row in connection.execute(statement, parameters)]
        return {record.id: record for record in records}

    def lock(self, connection: Connection, name: str, ids: Collection[str]) -> None:
        """Keep other publishes from projections with these ids, there or not, until the transaction ends."""
        if not self._on_postgresql:
            return
        wide = is_wide(ids)
        condition = wide_lock(connection, self._schema, name) if wide else self._id_locks
        connection.execute(select(condition), lock_parameters(connection, self._schema, name, ids))

    def lock_in_turn(
        self, connection: Connection, name: str, ids: Collection[str], *, patience_s: float
    ) -> bool | None:
        """Lock ids if the transaction holds others from before: then they are tried for a while, and not waited for.

        Returns:
            Whether it does; None where that was not asked.

        Raises:
            Refusal: Others hold one for longer than that.
        """
        if not self._on_postgresql or is_wide(ids):
            return None
        parameters = lock_parameters(connection, self._schema, name, ids)
        deadline = monotonic() + patience_s
        while True:
            found = connection.execute(self._busy_ids, parameters).one()
            if not found.busy:
                return bool(found.holds_others)
            if monotonic() >= deadline:
                said = f"another transaction holds projections {name!r} that this publish updates"
                raise Refusal(Failure(FailureKind.PROJECTIONS_LOCKED, said))
            connection.execute(select(func.pg_catalog.pg_sleep(_PAUSE_S)))

    def save(self, connection: Connection, records: Sequence[ProjectionRecord]) -> int:
        """Save projections over the versions that they were loaded with, 0 for new ones.

        Each is saved on its own: nothing is done about those that somebody else has saved meanwhile.

        Returns:
            How many were saved.

        Raises:
            SerialisationError: They are too large.
        """
        document = _document(records)
        self._dialect.check_size(document)
        return connection.execute(self._upsert, {"document": document}).rowcount

    @cached_property
    def _busy_ids(self) -> Executable:
        return busy_ids()

    @cached_property
    def _id_locks(self) -> ColumnElement[bool]:
        return lock_condition(LockOn.IDS)

    @cached_property
    def _loads(self) -> Mapping[LockOn | None, Select[Any]]:
        locked = self._load_locked
        if not self._on_postgresql:
            return {None: self._load, LockOn.NAME: locked, LockOn.IDS: locked}
        return {None: self._load, **{lock: locked.where(lock_condition(lock)) for lock in LockOn}}

    @cached_property
    def _load_locked(self) -> Select[Any]:
        return self._load.with_for_update(key_share=True)

    @cached_property
    def _load(self) -> Select[Any]:
        table, wanted = self._table, bindparam("ids", type_=Text())
        of_ids: ColumnElement[bool]
        if self._on_postgresql:
            given = func.pg_catalog.jsonb_array_elements_text(cast(wanted, JSONB())).column_valued("given")
            of_ids = table.c.id == any_(func.array(select(given).scalar_subquery()))
        else:
            of_ids = table.c.id.in_(select(func.json_each(wanted).table_valued(column("value", Text())).c.value))
        as_text = [
            cast(table.c[key], Text) if self._on_postgresql else type_coerce(table.c[key], Text) for key in _JSON
        ]
        return (
            select(table.c.name, table.c.id, *as_text, table.c.version, table.c.sequence_number, table.c.source_hash)
            .where(table.c.name == bindparam("name"), of_ids)
            .order_by(table.c.id)
        )

    @cached_property
    def _upsert(self) -> Executable:
        table = self._table
        kind = postgresql.insert if self._on_postgresql else sqlite.insert
        statement = kind(table).from_select(list(_FIELDS), self._items)
        replaced = {key: statement.excluded[key] for key in ("state", "metadata", "version", "sequence_number")}
        upsert: Any = statement.on_conflict_do_update(
            index_elements=[table.c.name, table.c.id],
            set_=replaced,
            where=table.c.version == statement.excluded.version - 1,
        )
        counting: Executable = upsert.execution_options(preserve_rowcount=True)
        return counting

    @cached_property
    def _items(self) -> Select[Any]:
        """Select the records from one parameter, so that a batch of any size is the same statement."""
        given = bindparam("document", type_=Text())
        if self._on_postgresql:
            types = {key: JSONB() if key in _JSON else BigInteger() if key in _NUMBERS else Text() for key in _FIELDS}
            items = (
                func.pg_catalog.jsonb_to_recordset(cast(given, JSONB()))
                .table_valued(*(column(key, kind) for key, kind in types.items()), name="item")
                .render_derived(with_types=True)
            )
            # There a JSON null becomes SQL's.
            null = cast(literal("null", Text()), JSONB())
            columns = [func.coalesce(items.c[key], null) if key in _JSON else items.c[key] for key in _FIELDS]
            return select(*columns).order_by(items.c.id.collate("C"))
        items = func.json_each(given).table_valued(column("value", Text()), column("key", BigInteger()), name="item")
        fields = [
            items.c.value.op("->" if key in _JSON else "->>", return_type=table_type)(literal(key, Text()))
            for key, table_type in ((key, self._table.c[key].type if key in _NUMBERS else Text()) for key in _FIELDS)
        ]
        return select(*fields).order_by(items.c.key)


def _document(records: Sequence[ProjectionRecord]) -> str:
    rows = [
        _Row(
            record.name,
            record.id,
            Raw(record.source.encode()),
            source_text_hash(record.source) if record.source_hash is None else record.source_hash,
            Raw(record.state.encode()),
            Raw(record.metadata.encode()),
            record.version + 1,
            record.sequence_number,
        )
        for record in records
    ]
    return encode(rows).decode()

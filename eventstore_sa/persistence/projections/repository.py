"""The statements that load, save and delete projections. Transactions are neither begun nor ended here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, Final

from msgspec import Raw, Struct
from msgspec.json import encode
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    bindparam,
    cast,
    delete,
    literal_column,
    select,
    update,
)

from eventstore_sa.contracts.projection_records import ProjectionRecord, source_text_hash
from eventstore_sa.persistence.projections.dialects import projection_dialect
from eventstore_sa.persistence.projections.dialects.base import FIELDS, JSON_FIELDS, LockOn, ProjectionDialect
from eventstore_sa.persistence.projections.searches import ProjectionSearches
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.prepared import PreparedStatement
from eventstore_sa.types.numbers import LARGEST_NUMBER

__all__ = ["ProjectionRepository"]

_DOCUMENT: Final = bindparam("document", type_=Text())


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


class ProjectionRepository:
    """Loads, saves and deletes projections on one kind of database; all stores share one: see `made_once`.

    Args:
        schema: The tables.
        database: SQLAlchemy's name for the database.
        rebuilding: Whether these are the projections that are being rebuilt.

    Attributes:
        dialect: How the database does it.
        searches: The statements that search.

    Raises:
        ConfigurationError: If projections cannot be kept there.
    """

    def __init__(self, schema: EventStoreSchema, database: str, *, rebuilding: bool = False) -> None:
        self._table = schema.rebuilds if rebuilding else schema.projections
        self.dialect: ProjectionDialect = projection_dialect(database, schema, self._table)
        self.searches: ProjectionSearches = ProjectionSearches(self.dialect)
        self._key = (self._table.c.name == bindparam("key_name"), self._table.c.id == bindparam("key_id"))

    def load(
        self, connection: Connection, name: str, ids: Collection[str], *, lock: LockOn | None = None
    ) -> dict[str, ProjectionRecord]:
        """Return the projections that exist, by id.

        Args:
            connection: The connection.
            name: Their name.
            ids: Their ids.
            lock: How to keep others from changing them until the transaction ends. None: not at all.
        """
        records = [ProjectionRecord(*row) for row in self.dialect.load(connection, name, ids, lock)]
        return {record.id: record for record in records}

    def save(self, connection: Connection, records: Sequence[ProjectionRecord]) -> list[int]:
        """Insert or replace projections in one statement; return their new versions. Keys must differ."""
        rows = self._upsert.rows(connection, self._document(records))
        versions: dict[tuple[str, str], int] = {(name, key): version for name, key, version in rows}
        return [versions[record.name, record.id] for record in records]

    def save_loaded(self, connection: Connection, records: Sequence[ProjectionRecord]) -> int:
        """Save projections over the versions that were loaded, 0 for new ones; return how many were saved.

        Those that another transaction has saved in the meantime are left as they are.

        Raises:
            SerialisationError: If they are too large.
        """
        return self._upsert_loaded.count(connection, self._document(records))

    def save_expecting(self, connection: Connection, record: ProjectionRecord, expected: int) -> int | None:
        """Insert a projection (0) or replace it at a version; return None if it is at another version."""
        version: int | None
        if expected == 0:
            version = self._insert_new.scalar(connection, self._document([record]))
        else:
            self.dialect.check_size(record.state)
            values = {
                "state_text": record.state,
                "metadata_text": record.metadata,
                "expected": min(expected, LARGEST_NUMBER),
            }
            version = self._replace.scalar(connection, values | _key_of(record.name, record.id))
        return version

    def version(self, connection: Connection, record: ProjectionRecord) -> int:
        """Return the version of the projection with that key; 0 if there is none."""
        return self._version.scalar(connection, _key_of(record.name, record.id)) or 0

    def delete(self, connection: Connection, *, name: str, id: str) -> bool:
        """Delete a projection; return whether there was one."""
        return self._delete.scalar(connection, _key_of(name, id)) is not None

    def _document(self, records: Sequence[ProjectionRecord]) -> dict[str, str]:
        """Return the one parameter of an insert, so that a batch of any size is the same statement."""
        document = encode([_row(record) for record in records]).decode()
        self.dialect.check_size(document)
        return {"document": document}

    @cached_property
    def _insert(self) -> Any:
        value, position = self.dialect.items(_DOCUMENT)

        def field(name: str) -> ColumnElement[Any]:
            key = literal_column(f"'{name}'", Text())
            found: ColumnElement[Any] = value.op("->" if name in JSON_FIELDS else "->>", return_type=Text())(key)
            return cast(found, BigInteger()) if name == "source_hash" else found

        fields = FIELDS[: FIELDS.index("version")]
        selected = select(*map(field, fields), literal_column("1", BigInteger())).order_by(position)
        return self.dialect.insert(self._table).from_select([*fields, "version"], selected)

    @cached_property
    def _upsert(self) -> PreparedStatement:
        insert, c = self._insert, self._table.c
        replaced = {"state": insert.excluded.state, "metadata": insert.excluded.metadata, "version": c.version + 1}
        upsert = insert.on_conflict_do_update(index_elements=[c.name, c.id], set_=replaced)
        return PreparedStatement(upsert.returning(c.name, c.id, c.version))

    @cached_property
    def _upsert_loaded(self) -> PreparedStatement:
        c = self._table.c
        insert = self.dialect.insert(self._table).from_select(list(FIELDS), self.dialect.records(_DOCUMENT))
        replaced = {key: insert.excluded[key] for key in ("state", "metadata", "version", "sequence_number")}
        upsert = insert.on_conflict_do_update(
            index_elements=[c.name, c.id], set_=replaced, where=c.version == insert.excluded.version - 1
        )
        return PreparedStatement(upsert)

    @cached_property
    def _insert_new(self) -> PreparedStatement:
        return PreparedStatement(self._insert.on_conflict_do_nothing().returning(self._table.c.version))

    @cached_property
    def _replace(self) -> PreparedStatement:
        c = self._table.c
        # Text that the database casts, because the serialiser of SQLAlchemy's JSON is the host's to choose.
        values = {
            field: self.dialect.from_text(bindparam(f"{field}_text", type_=Text())) for field in ("state", "metadata")
        }
        replaced = update(self._table).where(*self._key, c.version == bindparam("expected"))
        return PreparedStatement(replaced.values(**values, version=c.version + 1).returning(c.version))

    @cached_property
    def _version(self) -> PreparedStatement:
        return PreparedStatement(select(self._table.c.version).where(*self._key))

    @cached_property
    def _delete(self) -> PreparedStatement:
        return PreparedStatement(delete(self._table).where(*self._key).returning(self._table.c.number))


def _key_of(name: str, id: str) -> dict[str, Any]:
    return {"key_name": name, "key_id": id}


def _row(record: ProjectionRecord) -> _Row:
    return _Row(
        record.name,
        record.id,
        Raw(record.source),
        source_text_hash(record.source) if record.source_hash is None else record.source_hash,
        Raw(record.state),
        Raw(record.metadata),
        record.version + 1,
        record.sequence_number,
    )

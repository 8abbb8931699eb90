"""The statements that write the table of projections. Transactions are neither begun nor ended here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
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
from eventstore_sa.persistence.projections.queries import ProjectionConverters
from eventstore_sa.persistence.projections.searches import ProjectionSearches
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.types.numbers import LARGEST_NUMBER

__all__ = ["ProjectionRepository"]

_ENCODER: Final = msgspec.json.Encoder()


class ProjectionRepository:
    """Reads and writes projections on one kind of database. Its statements are made once.

    Args:
        schema: The tables.
        database: SQLAlchemy's name of the database.
        converters: What of queries is the application's own.

    Attributes:
        searches: The statements that search.

    Raises:
        ConfigurationError: Projections cannot be kept there.
    """

    def __init__(self, schema: EventStoreSchema, database: str, converters: ProjectionConverters) -> None:
        self._dialect = projection_dialect(database, schema.projections)
        self.searches: ProjectionSearches = ProjectionSearches(self._dialect, converters)
        table, c = schema.projections, schema.projections.c
        insert = self._insert()
        replaced = {"state": insert.excluded.state, "metadata": insert.excluded.metadata, "version": c.version + 1}
        self._upsert = insert.on_conflict_do_update(index_elements=[c.name, c.id], set_=replaced)
        self._upsert = self._upsert.returning(c.name, c.id, c.version)
        self._insert_new = insert.on_conflict_do_nothing().returning(c.version)
        is_meant = (c.name == bindparam("key_name"), c.id == bindparam("key_id"))
        # Text that the database casts, because the serialiser of SQLAlchemy's JSON is the host's to choose.
        values = {
            field: self._dialect.stored(bindparam(f"{field}_text", type_=Text())) for field in ("state", "metadata")
        }
        self._replace = (
            update(table)
            .where(*is_meant, c.version == bindparam("expected"))
            .values(**values, version=c.version + 1)
            .returning(c.version)
        )
        self._version = select(c.version).where(*is_meant)
        self._delete = delete(table).where(*is_meant).returning(c.number)

    def save(self, connection: Connection, records: Sequence[ProjectionRecord]) -> list[int]:
        """Insert or replace projections in one statement; return their new versions. Keys must differ."""
        rows = connection.execute(self._upsert, {"document": self._document(records)}).all()
        versions: dict[tuple[str, str], int] = {(row.name, row.id): row.version for row in rows}
        return [versions[record.name, record.id] for record in records]

    def save_expecting(self, connection: Connection, record: ProjectionRecord, expected: int) -> int | None:
        """Insert a projection (0) or replace it at a version; None when there is another one."""
        version: int | None
        if expected == 0:
            version = connection.scalar(self._insert_new, {"document": self._document([record])})
        else:
            self._dialect.check_size(record.state)
            values = {
                "state_text": record.state,
                "metadata_text": record.metadata,
                "expected": min(expected, LARGEST_NUMBER),
            }
            version = connection.scalar(self._replace, values | _key(record.name, record.id))
        return version

    def version(self, connection: Connection, record: ProjectionRecord) -> int:
        """Return the version of the projection with that key; 0 when there is none."""
        return connection.scalar(self._version, _key(record.name, record.id)) or 0

    def delete(self, connection: Connection, *, name: str, id: str) -> bool:
        """Delete a projection; return whether there was one."""
        return connection.scalar(self._delete, _key(name, id)) is not None

    def _document(self, records: Sequence[ProjectionRecord]) -> str:
        document = _document(records)
        self._dialect.check_size(document)
        return document

    def _insert(self) -> Any:
        """Insert from one document, so that a batch of any size is the same statement with one parameter."""
        value, place = self._dialect.items(bindparam("document", type_=Text()))

        def field(name: str) -> ColumnElement[Any]:
            is_json = name in ("source", "state", "metadata")
            key = literal_column(f"'{name}'", Text())
            found: ColumnElement[Any] = value.op("->" if is_json else "->>", return_type=Text())(key)
            return cast(found, BigInteger()) if name == "source_hash" else found

        fields = ["name", "id", "source", "source_hash", "state", "metadata"]
        selected = select(*map(field, fields), literal_column("1", BigInteger())).order_by(place)
        return self._dialect.insert().from_select([*fields, "version"], selected)


def _key(name: str, id: str) -> dict[str, Any]:
    return {"key_name": name, "key_id": id}


def _document(records: Sequence[ProjectionRecord]) -> str:
    # Put together by hand, because most of it is JSON already.
    text = _ENCODER.encode
    items = (
        f'{{"name":{text(record.name).decode()},"id":{text(record.id).decode()},"source":{record.source},'
        f'"source_hash":{source_text_hash(record.source)},"state":{record.state},"metadata":{record.metadata}}}'
        for record in records
    )
    return f"[{','.join(items)}]"

"""What only the server knows: sizes, estimates, who holds readers back, which optional indexes there are.

It comes from the catalogues of PostgreSQL and MariaDB, and from pragmas of SQLite, so it is SQL of each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.exc import DBAPIError

from eventstore_sa.contracts.inspection import HeldBack, TableSize, WatermarkReport
from eventstore_sa.persistence.events.dialects import event_dialect
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.ddl import MARIADB, effective_schema, quoted

__all__ = ["MariaDBServer", "PostgreSQLServer", "SQLiteServer", "Server", "server_of"]

# Like `es_watermark_v1`, it compares numbers by their low 32 bits, and takes what is a little above for above.
_FENCES: Final = text(
    "SELECT CAST(pg_catalog.mod(pg_catalog.mod(:last_number - fence.objid::bigint, 4294967296) + 4294967296, 4294967296) "
    "AS bigint) AS distance, fence.pid, a.application_name, p.gid, a.usename, a.state, "
    "pg_catalog.timestamptz_send(coalesce(a.xact_start, p.prepared)) "
    "FROM pg_catalog.pg_locks fence "
    "LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = fence.pid "
    "LEFT JOIN pg_catalog.pg_locks tx ON fence.pid IS NULL AND tx.locktype = 'transactionid' "
    "AND tx.virtualtransaction = fence.virtualtransaction "
    "LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = tx.transactionid "
    "WHERE fence.locktype = 'advisory' AND fence.objsubid = 2 AND fence.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() "
    "AND fence.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) "
    "AND fence.classid = CAST(:events AS regclass)::oid ORDER BY distance DESC"
)
_AHEAD: Final = 2**32 - 2**24

_SIZES: Final = text(
    "SELECT c.relname, pg_catalog.pg_table_size(c.oid), pg_catalog.pg_indexes_size(c.oid), s.n_live_tup, s.n_dead_tup "
    "FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid "
    "WHERE c.oid IN (SELECT pg_catalog.to_regclass(name) FROM pg_catalog.unnest(CAST(:tables AS text[])) AS name) "
    "ORDER BY c.relname"
)
_ESTIMATE: Final = text(
    "SELECT CAST(c.reltuples AS bigint) FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(:events)"
)
_HAS_INDEX: Final = text(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid "
    "WHERE i.indrelid = pg_catalog.to_regclass(:events) AND i.indisvalid AND c.relname = :index)"
)

_SQLITE_SIZES: Final = text(
    "SELECT m.tbl_name, m.type, sum(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name GROUP BY 1, 2"
)

_MARIADB_SIZES: Final = text(
    "SELECT table_name, data_length, index_length, table_rows FROM information_schema.tables "
    "WHERE table_schema = coalesce(:schema, database()) AND table_name IN :tables ORDER BY table_name"
).bindparams(bindparam("tables", expanding=True))


class Server:
    """One kind of database, with defaults for one that knows little."""

    def __init__(self, schema: EventStoreSchema, database: str) -> None:
        self._schema = schema
        self._dialect = event_dialect(database, schema)

    def watermark(self, connection: Connection) -> WatermarkReport:
        """Return how far the log can be read; by default nobody holds readers back."""
        last_number, watermark = self._dialect.complete_up_to(connection)
        return WatermarkReport(watermark, last_number, ())

    def estimated_events(self, connection: Connection) -> int | None:
        """Return about how many events there are; None if the server does not say."""
        return None

    def sizes(self, connection: Connection, *, exact: bool) -> tuple[Sequence[TableSize], int | None]:
        """Return the sizes of the tables, and of all together; without `exact`, only what costs little to find out."""
        return (), None

    def has_index(self, connection: Connection, name: str) -> bool:
        """Tell whether the table of events has an index that can be used."""
        return False

    def read_time(self, value: Any) -> datetime:
        """Turn a time as it is selected into an aware one."""
        return self._dialect.read_time(value)


class PostgreSQLServer(Server):
    """PostgreSQL."""

    def watermark(self, connection: Connection) -> WatermarkReport:
        """Ask for the watermark first: whoever holds readers back below it is found afterwards, or has ended."""
        last_number, watermark = self._dialect.complete_up_to(connection)
        if not self._schema.locking_mode.has_watermark or watermark == last_number:
            return WatermarkReport(watermark, last_number, ())
        rows = connection.execute(_FENCES, {"last_number": last_number, "events": self._name(connection, "events")})
        holders = [
            HeldBack(
                last_number - distance,
                pid,
                application_name or gid or "",
                user,
                state,
                None if since is None else self.read_time(since),
            )
            for distance, pid, application_name, gid, user, state, since in rows
            if 0 < distance < _AHEAD
        ]
        return WatermarkReport(watermark, last_number, holders)

    def estimated_events(self, connection: Connection) -> int | None:
        """Ask the catalogue, which knows it since the last VACUUM or ANALYZE."""
        rows: int | None = connection.scalar(_ESTIMATE, {"events": self._name(connection, "events")})
        # -1: never looked at; 0: or when there were none.
        return rows if rows is not None and rows > 0 else None

    def sizes(self, connection: Connection, *, exact: bool) -> tuple[Sequence[TableSize], int | None]:
        """Ask the server."""
        schema = effective_schema(connection, self._schema.schema)
        tables = [quoted(table.name, schema) for table in self._schema.tables]
        sizes = [TableSize(*row) for row in connection.execute(_SIZES, {"tables": tables})]
        return sizes, sum(size.table_bytes + size.index_bytes for size in sizes)

    def has_index(self, connection: Connection, name: str) -> bool:
        """Look it up; one that CONCURRENTLY could not finish does not count."""
        parameters = {"events": self._name(connection, "events"), "index": name}
        return bool(connection.scalar(_HAS_INDEX, parameters))

    def _name(self, connection: Connection, table: str) -> str:
        return quoted(f"{self._schema.prefix}{table}", effective_schema(connection, self._schema.schema))


class SQLiteServer(Server):
    """SQLite."""

    def sizes(self, connection: Connection, *, exact: bool) -> tuple[Sequence[TableSize], int | None]:
        """Ask for the pages of the whole database; and of each table, by going through all of them."""
        pages, page_bytes = (
            connection.exec_driver_sql(f"PRAGMA {what}").scalar() for what in ("page_count", "page_size")
        )
        total = None if pages is None or page_bytes is None else int(pages) * int(page_bytes)
        if not exact:
            return (), total
        try:
            rows = connection.execute(_SQLITE_SIZES).all()
        except DBAPIError:
            # It is not compiled in.
            return (), total
        found = {(table, kind): int(size) for table, kind, size in rows}
        ours = sorted(table.name for table in self._schema.tables)
        return [
            TableSize(name, found.get((name, "table"), 0), found.get((name, "index"), 0))
            for name in ours
            if (name, "table") in found
        ], total


class MariaDBServer(Server):
    """MariaDB."""

    def estimated_events(self, connection: Connection) -> int | None:
        """Ask the storage engine, which samples."""
        return next(
            (size.live_rows for size in self._sizes(connection) if size.table == self._schema.events.name), None
        )

    def sizes(self, connection: Connection, *, exact: bool) -> tuple[Sequence[TableSize], int | None]:
        """Ask the server."""
        sizes = self._sizes(connection)
        return sizes, sum(size.table_bytes + size.index_bytes for size in sizes)

    def _sizes(self, connection: Connection) -> list[TableSize]:
        parameters = {
            "schema": effective_schema(connection, self._schema.schema),
            "tables": [table.name for table in self._schema.tables],
        }
        rows = connection.execute(_MARIADB_SIZES, parameters)
        return [TableSize(name, int(data), int(index), int(count)) for name, data, index, count in rows]


def server_of(schema: EventStoreSchema, database: str) -> Server:
    """Return the server of an event store by SQLAlchemy's name of the database."""
    if database == "postgresql":
        return PostgreSQLServer(schema, database)
    if database == "sqlite":
        return SQLiteServer(schema, database)
    return MariaDBServer(schema, database) if database in MARIADB else Server(schema, database)

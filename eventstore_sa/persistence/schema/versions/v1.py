"""Version 1: events, the version row, lock rows, projections with their snapshots and rebuilds, and subscriptions.

The tables are defined here separately from `tables.py`, which always describes the newest version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Float,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    literal_column,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable, ExecutableDDLElement

from eventstore_sa.persistence.schema.ddl import MARIADB, dollar_tag, quoted, statement
from eventstore_sa.persistence.schema.versions.version import Function, Routines, RowTrigger, Site, Trigger, Version

__all__ = ["VERSION"]


def _tables(site: Site) -> tuple[Table, ...]:
    """Return the tables in the order in which they are created."""
    metadata = MetaData(schema=site.schema)
    prefix = site.prefix
    number = BigInteger().with_variant(Integer(), "sqlite")
    on_postgresql = Text().with_variant(Text(collation="C"), "postgresql")
    long_text = mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_nopad_bin")
    text = on_postgresql.with_variant(long_text, *MARIADB)
    plain_text = Text().with_variant(long_text, *MARIADB)
    name = on_postgresql.with_variant(mysql.VARBINARY(1000), *MARIADB)
    key = on_postgresql.with_variant(mysql.VARBINARY(2010), *MARIADB)
    json = JSON().with_variant(JSONB(), "postgresql").with_variant(Text(), "sqlite").with_variant(long_text, *MARIADB)
    time = DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), *MARIADB)
    innodb: dict[str, Any] = {f"{database}_engine": "InnoDB" for database in MARIADB}

    def projections(table: str) -> Table:
        return Table(
            f"{prefix}{table}",
            metadata,
            Column("number", number, Identity(always=True, start=1, increment=1, cache=1)),
            Column("name", name, nullable=False),
            Column("id", name, nullable=False),
            Column("source", json, nullable=False),
            Column("source_hash", BigInteger(), nullable=False),
            Column("state", json, nullable=False),
            Column("metadata", json, nullable=False),
            Column("version", BigInteger(), nullable=False),
            Column("sequence_number", BigInteger(), nullable=True),
            PrimaryKeyConstraint("number", name=f"{prefix}{table}_pkey"),
            UniqueConstraint("name", "id", name=f"{prefix}{table}_id_key"),
            Index(f"{prefix}{table}_source_idx", "name", "source_hash"),
            **innodb,
        )

    return (
        Table(
            f"{prefix}schema",
            metadata,
            Column("version", Integer(), autoincrement=False),
            Column("locking", String(1000), nullable=False),
            Column("tags_epoch", String(32), nullable=False, server_default=literal_column("''")),
            PrimaryKeyConstraint("version", name=f"{prefix}schema_pkey"),
            **innodb,
        ),
        Table(
            f"{prefix}events",
            metadata,
            Column("sequence_number", number, Identity(always=True, start=1, increment=1, cache=1)),
            Column("id", Uuid(), nullable=False),
            Column("category", name, nullable=False),
            Column("stream", name, nullable=False),
            Column("position", BigInteger(), nullable=False),
            Column("name", text, nullable=False),
            Column("payload", json, nullable=False),
            Column("metadata", json, nullable=True),
            Column("observed_at", time, nullable=False),
            Column("occurred_at", time, nullable=False),
            Column("tags", json, nullable=True),
            Column("version", Integer(), nullable=False, server_default=literal_column("1")),
            PrimaryKeyConstraint("sequence_number", name=f"{prefix}events_pkey"),
            UniqueConstraint("id", name=f"{prefix}events_id_key"),
            UniqueConstraint("category", "stream", "position", name=f"{prefix}events_position_key"),
            Index(f"{prefix}events_category_idx", "category", "sequence_number"),
            **innodb,
        ),
        Table(
            f"{prefix}event_tags",
            metadata,
            Column("tag", name, nullable=False),
            Column("sequence_number", BigInteger(), nullable=False),
            Column("name", name, nullable=False),
            PrimaryKeyConstraint("tag", "sequence_number", "name", name=f"{prefix}event_tags_pkey"),
            sqlite_with_rowid=False,
            **innodb,
        ),
        Table(
            f"{prefix}locks",
            metadata,
            Column("lock_key", key),
            Column("last_position", BigInteger(), nullable=False),
            PrimaryKeyConstraint("lock_key", name=f"{prefix}locks_pkey"),
            **innodb,
        ),
        projections("projections"),
        Table(
            f"{prefix}snapshots",
            metadata,
            Column("projector", name, nullable=False),
            Column("projector_version", name, nullable=False),
            Column("source_hash", Uuid(), nullable=False),
            Column("source", plain_text, nullable=False),
            Column("place", BigInteger(), nullable=False),
            Column("event_id", Uuid(), nullable=False),
            Column("state", plain_text, nullable=False),
            Column("metadata", plain_text, nullable=False),
            Column("taken_at", time, nullable=False),
            Column("format", Integer(), nullable=False),
            Column("checksum", BigInteger(), nullable=False),
            PrimaryKeyConstraint("projector", "projector_version", "source_hash", name=f"{prefix}snapshots_pkey"),
            **innodb,
        ),
        projections("rebuilds"),
        Table(
            f"{prefix}subscriptions",
            metadata,
            Column("name", name, nullable=False),
            Column("partition", Integer(), nullable=False, autoincrement=False),
            Column("partitions", Integer(), nullable=False),
            Column("generation", BigInteger(), nullable=False),
            Column("source", plain_text, nullable=False),
            Column("projection", name, nullable=True),
            Column("sequence_number", BigInteger(), nullable=False),
            Column("event_number", BigInteger(), nullable=True),
            Column("event_id", Uuid(), nullable=True),
            Column("epoch", BigInteger(), nullable=False),
            Column("owner", Uuid(), nullable=True),
            Column("status", String(10), nullable=False),
            Column("drain_to", BigInteger(), nullable=True),
            Column("next_partitions", Integer(), nullable=True),
            Column("handled", BigInteger(), nullable=False),
            Column("events_per_s", Float(), nullable=False),
            Column("moved_at", time, nullable=False),
            Column("last_error", plain_text, nullable=True),
            PrimaryKeyConstraint("name", "partition", name=f"{prefix}subscriptions_pkey"),
            **innodb,
        ),
        Table(
            f"{prefix}subscription_nodes",
            metadata,
            Column("id", Uuid(), nullable=False),
            Column("name", plain_text, nullable=False),
            Column("subscriptions", plain_text, nullable=False),
            Column("expires_at", time, nullable=False),
            PrimaryKeyConstraint("id", name=f"{prefix}subscription_nodes_pkey"),
            **innodb,
        ),
        Table(
            f"{prefix}parked_streams",
            metadata,
            Column("subscription", name, nullable=False),
            Column("category", name, nullable=False),
            Column("stream", name, nullable=False),
            PrimaryKeyConstraint("subscription", "category", "stream", name=f"{prefix}parked_streams_pkey"),
            **innodb,
        ),
        Table(
            f"{prefix}parked_events",
            metadata,
            Column("subscription", name, nullable=False),
            Column("sequence_number", BigInteger(), nullable=False, autoincrement=False),
            Column("event_id", Uuid(), nullable=False),
            Column("category", name, nullable=False),
            Column("stream", name, nullable=False),
            Column("state", String(10), nullable=False),
            Column("attempts", Integer(), nullable=False),
            Column("error", plain_text, nullable=True),
            Column("parked_at", time, nullable=False),
            PrimaryKeyConstraint("subscription", "sequence_number", name=f"{prefix}parked_events_pkey"),
            Index(f"{prefix}parked_events_stream_idx", "subscription", "category", "stream", "sequence_number"),
            **innodb,
        ),
    )


def _create_tables(site: Site) -> Iterator[ExecutableDDLElement]:
    if site.database == "postgresql" and site.schema is not None:
        name = quoted(site.schema)
        literal, tag = name.replace("'", "''"), dollar_tag(name)
        # Checked first, because CREATE SCHEMA IF NOT EXISTS requires the privilege even if the schema exists.
        yield statement(
            f"DO {tag} BEGIN IF pg_catalog.to_regnamespace('{literal}') IS NULL THEN CREATE SCHEMA {name}; END IF; END {tag}"
        )
    for table in _tables(site):
        yield CreateTable(table)
        yield from (CreateIndex(index) for index in table.indexes)
    if site.database == "postgresql":
        for name in ("projections", "rebuilds"):
            # Their rows are updated often: this leaves room for the next version of a row on the same page.
            yield statement(f"ALTER TABLE {site.name(name)} SET (fillfactor = 70)")


def _drop_tables(site: Site) -> Iterator[ExecutableDDLElement]:
    yield from (DropTable(table) for table in reversed(_tables(site)))


_FORBID_CHANGE: Final = Function("forbid_change_v1")
_FENCE: Final = Function("fence_v1")
_GUARD_TAGS: Final = Function("guard_tags_v1")

VERSION: Final = Version(
    number=1,
    locks="Nothing: its tables are new.",
    routines=Routines(
        functions=(
            _FORBID_CHANGE,
            Function("last_number_v1", "regclass"),
            _FENCE,
            _GUARD_TAGS,
            Function("watermark_v1"),
            Function("read_log_v1", "bigint, int"),
            Function("try_lock_v1", "bigint, int"),
            Function("lock_widely_v1", "bigint, text"),
            Function("lock_tags_v1", "bigint[], boolean[]"),
            Function("lock_v1", "jsonb"),
            Function("lock_for_conditions_v1", "jsonb"),
            Function("unmet_v1", "jsonb, bigint[]"),
            Function("append_v1", "jsonb, boolean"),
            Function("append_guarded_v1", "jsonb"),
            Function("append_each_v1", "jsonb, int[]"),
            Function("append_and_load_v1", "jsonb, jsonb"),
            Function("add_tags_v1", "jsonb, text"),
        ),
        triggers=(
            Trigger("fence", "BEFORE INSERT", _FENCE),
            Trigger("forbid_change", "BEFORE UPDATE OR DELETE OR TRUNCATE", _FORBID_CHANGE),
            Trigger("guard_tags", "BEFORE INSERT", _GUARD_TAGS, rows="new.tags IS NOT NULL"),
            Trigger("forbid_change", "BEFORE UPDATE OR DELETE OR TRUNCATE", _FORBID_CHANGE, table="event_tags"),
            Trigger("guard_tags", "BEFORE INSERT", _GUARD_TAGS, table="event_tags", rows="new.tag IS NOT NULL"),
        ),
        row_triggers=(
            RowTrigger("forbid_update"),
            RowTrigger("forbid_delete"),
            RowTrigger("index_tags", databases=("sqlite",)),
            RowTrigger("forbid_update", table="event_tags"),
            RowTrigger("forbid_delete", table="event_tags"),
        ),
    ),
    upgrade_tables=_create_tables,
    downgrade_tables=_drop_tables,
)

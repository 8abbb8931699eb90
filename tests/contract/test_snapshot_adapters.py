"""The shipped cases about snapshots over every storage and driver: the same behaviour everywhere."""

from __future__ import annotations

import pytest
import pytest_asyncio
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore_sa.projection.adapters import (
    InMemorySnapshotStorageAdapter,
    SnapshotStorageAdapter,
    SQLAlchemySnapshotStorageAdapter,
    SyncInMemorySnapshotStorageAdapter,
    SyncSnapshotStorageAdapter,
    SyncSQLAlchemySnapshotStorageAdapter,
)
from eventstore_sa.testing import clear
from eventstore_sa.testing.cases import SnapshotStorageAdapterCases, SyncSnapshotStorageAdapterCases
from eventstore_sa.testing.postgres import PostgresDriver


class TestMemory(SnapshotStorageAdapterCases):
    def construct_storage_adapter(self) -> SnapshotStorageAdapter:
        return InMemorySnapshotStorageAdapter()


class TestSyncMemory(SyncSnapshotStorageAdapterCases):
    def construct_storage_adapter(self) -> SyncSnapshotStorageAdapter:
        return SyncInMemorySnapshotStorageAdapter()


class TestSQLite(SnapshotStorageAdapterCases):
    def construct_storage_adapter(self) -> SnapshotStorageAdapter:
        return SQLAlchemySnapshotStorageAdapter("sqlite+aiosqlite://")


class TestSyncSQLite(SyncSnapshotStorageAdapterCases):
    def construct_storage_adapter(self) -> SyncSnapshotStorageAdapter:
        return SyncSQLAlchemySnapshotStorageAdapter("sqlite://")


class _PostgreSQL(SnapshotStorageAdapterCases):
    driver: PostgresDriver

    @pytest_asyncio.fixture(loop_scope="class")
    async def storage_adapter(self, engine: AsyncEngine) -> SnapshotStorageAdapter:
        await clear(engine)
        return SQLAlchemySnapshotStorageAdapter(engine)


class _SyncPostgreSQL(SyncSnapshotStorageAdapterCases):
    driver: PostgresDriver

    @pytest.fixture
    def storage_adapter(self, sync_engine: Engine) -> SyncSnapshotStorageAdapter:
        clear(sync_engine)
        return SyncSQLAlchemySnapshotStorageAdapter(sync_engine)


class TestAsyncpg(_PostgreSQL):
    driver = "asyncpg"


class TestAsyncPsycopg(_PostgreSQL):
    driver = "psycopg"


class TestSyncPsycopg(_SyncPostgreSQL):
    driver = "psycopg"


class TestSyncPsycopg2(_SyncPostgreSQL):
    driver = "psycopg2"

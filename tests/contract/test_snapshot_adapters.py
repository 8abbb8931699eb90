"""The shipped cases about snapshots over every storage and driver: the same behaviour everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

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
from eventstore_sa.testing.postgres import PostgresDriver, PostgresServer
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.stores import install_schema


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

    @pytest_asyncio.fixture(loop_scope="function")
    async def storage_adapter(self, contract_database: PostgresDatabase) -> AsyncIterator[SnapshotStorageAdapter]:
        engine = create_async_engine(contract_database.url(self.driver))
        await clear(engine)
        yield SQLAlchemySnapshotStorageAdapter(engine)
        await engine.dispose()


class _SyncPostgreSQL(SyncSnapshotStorageAdapterCases):
    driver: PostgresDriver

    @pytest.fixture
    def storage_adapter(self, contract_database: PostgresDatabase) -> Iterator[SyncSnapshotStorageAdapter]:
        engine = create_engine(contract_database.url(self.driver))
        clear(engine)
        yield SyncSQLAlchemySnapshotStorageAdapter(engine)
        engine.dispose()


@pytest.fixture(scope="module")
def contract_database(
    postgres_server: PostgresServer, postgres_templates: PostgresTemplates
) -> Iterator[PostgresDatabase]:
    """One database for all cases, emptied before each."""
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_schema)) as database:
        yield database


class TestAsyncpg(_PostgreSQL):
    driver = "asyncpg"


class TestAsyncPsycopg(_PostgreSQL):
    driver = "psycopg"


class TestSyncPsycopg(_SyncPostgreSQL):
    driver = "psycopg"


class TestSyncPsycopg2(_SyncPostgreSQL):
    driver = "psycopg2"

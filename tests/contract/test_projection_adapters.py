"""The shipped cases about projections over every storage and driver: the same behaviour everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore_sa.projection.adapters import (
    InMemoryProjectionStorageAdapter,
    ProjectionStorageAdapter,
    SQLAlchemyProjectionStorageAdapter,
    SyncInMemoryProjectionStorageAdapter,
    SyncProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)
from eventstore_sa.testing import clear
from eventstore_sa.testing.cases import ProjectionStorageAdapterCases, SyncProjectionStorageAdapterCases
from eventstore_sa.testing.postgres import PostgresDriver, PostgresServer
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.stores import install_schema


class TestMemory(ProjectionStorageAdapterCases):
    def construct_storage_adapter(self) -> ProjectionStorageAdapter:
        return InMemoryProjectionStorageAdapter()


class TestSyncMemory(SyncProjectionStorageAdapterCases):
    def construct_storage_adapter(self) -> SyncProjectionStorageAdapter:
        return SyncInMemoryProjectionStorageAdapter()


class TestSQLite(ProjectionStorageAdapterCases):
    def construct_storage_adapter(self) -> ProjectionStorageAdapter:
        return SQLAlchemyProjectionStorageAdapter("sqlite+aiosqlite://")


class TestSyncSQLite(SyncProjectionStorageAdapterCases):
    def construct_storage_adapter(self) -> SyncProjectionStorageAdapter:
        return SyncSQLAlchemyProjectionStorageAdapter("sqlite://")


class _PostgreSQL(ProjectionStorageAdapterCases):
    driver: PostgresDriver

    @pytest_asyncio.fixture(loop_scope="function")
    async def storage_adapter(self, contract_database: PostgresDatabase) -> AsyncIterator[ProjectionStorageAdapter]:
        engine = create_async_engine(contract_database.url(self.driver))
        await clear(engine)
        yield SQLAlchemyProjectionStorageAdapter(engine)
        await engine.dispose()


class _SyncPostgreSQL(SyncProjectionStorageAdapterCases):
    driver: PostgresDriver

    @pytest.fixture
    def storage_adapter(self, contract_database: PostgresDatabase) -> Iterator[SyncProjectionStorageAdapter]:
        engine = create_engine(contract_database.url(self.driver))
        clear(engine)
        yield SyncSQLAlchemyProjectionStorageAdapter(engine)
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

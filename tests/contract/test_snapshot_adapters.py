"""The shipped cases about snapshots over every storage and driver: the same behaviour everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

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


@pytest.fixture(scope="class")
def engine(request: pytest.FixtureRequest, contract_database: PostgresDatabase) -> AsyncEngine:
    """One for all cases of a class: it keeps the statements that it has compiled."""
    return create_async_engine(contract_database.url(request.cls.driver))


@pytest.fixture(scope="class")
def sync_engine(request: pytest.FixtureRequest, contract_database: PostgresDatabase) -> Iterator[Engine]:
    """One for all cases of a class: it keeps the statements that it has compiled."""
    engine = create_engine(contract_database.url(request.cls.driver))
    yield engine
    engine.dispose()


class _PostgreSQL(SnapshotStorageAdapterCases):
    driver: PostgresDriver

    @pytest_asyncio.fixture(loop_scope="function")
    async def storage_adapter(self, engine: AsyncEngine) -> AsyncIterator[SnapshotStorageAdapter]:
        await clear(engine)
        yield SQLAlchemySnapshotStorageAdapter(engine)
        await engine.dispose()  # Its connections belong to this event loop.


class _SyncPostgreSQL(SyncSnapshotStorageAdapterCases):
    driver: PostgresDriver

    @pytest.fixture
    def storage_adapter(self, sync_engine: Engine) -> SyncSnapshotStorageAdapter:
        clear(sync_engine)
        return SyncSQLAlchemySnapshotStorageAdapter(sync_engine)


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

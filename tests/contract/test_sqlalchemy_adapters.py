"""The shipped cases over every database and driver: the same behaviour everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore_sa.store.adapters import (
    EventStorageAdapter,
    SQLAlchemyEventStorageAdapter,
    SyncEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)
from eventstore_sa.testing import clear
from eventstore_sa.testing.cases import EventStorageAdapterCases, SyncEventStorageAdapterCases
from eventstore_sa.testing.postgres import PostgresDriver, PostgresServer
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.stores import install_schema


class TestSQLiteInMemory(EventStorageAdapterCases):
    def construct_storage_adapter(self) -> EventStorageAdapter:
        return SQLAlchemyEventStorageAdapter("sqlite+aiosqlite://")


class TestSyncSQLiteInMemory(SyncEventStorageAdapterCases):
    def construct_storage_adapter(self) -> SyncEventStorageAdapter:
        return SyncSQLAlchemyEventStorageAdapter("sqlite://")


class TestSQLiteFile(EventStorageAdapterCases):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.url = f"sqlite+aiosqlite:///{tmp_path}/events.db"

    def construct_storage_adapter(self) -> EventStorageAdapter:
        return SQLAlchemyEventStorageAdapter(self.url)


class TestSyncSQLiteFile(SyncEventStorageAdapterCases):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/events.db"

    def construct_storage_adapter(self) -> SyncEventStorageAdapter:
        return SyncSQLAlchemyEventStorageAdapter(self.url)


class _PostgreSQL(EventStorageAdapterCases):
    driver: PostgresDriver

    @pytest_asyncio.fixture(loop_scope="function")
    async def storage_adapter(self, contract_database: PostgresDatabase) -> AsyncIterator[EventStorageAdapter]:
        engine = create_async_engine(contract_database.url(self.driver), pool_size=5, max_overflow=30)
        await clear(engine)
        yield SQLAlchemyEventStorageAdapter(engine)
        await engine.dispose()


class _SyncPostgreSQL(SyncEventStorageAdapterCases):
    driver: PostgresDriver

    @pytest.fixture
    def storage_adapter(self, contract_database: PostgresDatabase) -> Iterator[SyncEventStorageAdapter]:
        engine = create_engine(contract_database.url(self.driver), pool_size=5, max_overflow=30)
        clear(engine)
        yield SyncSQLAlchemyEventStorageAdapter(engine)
        engine.dispose()


@pytest.fixture(scope="module")
def contract_database(
    postgres_server: PostgresServer, postgres_templates: PostgresTemplates
) -> Iterator[PostgresDatabase]:
    """One database for all cases, emptied before each: hundreds of new ones would take minutes."""
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

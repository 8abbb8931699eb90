"""The shipped cases over every database and driver: the same behaviour everywhere.

One class of each database is thorough, and each driver passes all groups. What that leaves out takes `long`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore_sa.store.adapters import (
    EventStorageAdapter,
    SQLAlchemyEventStorageAdapter,
    SyncEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)
from eventstore_sa.testing import clear
from eventstore_sa.testing.cases import EventStorageAdapterCases, SyncEventStorageAdapterCases
from eventstore_sa.testing.cases.concurrency import ConcurrencyCases
from eventstore_sa.testing.cases.conditions import ConditionCases
from eventstore_sa.testing.cases.event_storage import AsyncSetting, SyncSetting
from eventstore_sa.testing.cases.publishing import PublishingCases
from eventstore_sa.testing.cases.reading import ReadingCases
from eventstore_sa.testing.cases.repetition import RepetitionCases
from eventstore_sa.testing.postgres import PostgresDriver


class _SQLiteInMemory(AsyncSetting):
    def construct_storage_adapter(self) -> EventStorageAdapter:
        return SQLAlchemyEventStorageAdapter("sqlite+aiosqlite://")


class _SyncSQLiteInMemory(SyncSetting):
    def construct_storage_adapter(self) -> SyncEventStorageAdapter:
        return SyncSQLAlchemyEventStorageAdapter("sqlite://")


class _SQLiteFile(AsyncSetting):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.url = f"sqlite+aiosqlite:///{tmp_path}/events.db"

    def construct_storage_adapter(self) -> EventStorageAdapter:
        return SQLAlchemyEventStorageAdapter(self.url)


class _SyncSQLiteFile(SyncSetting):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/events.db"

    def construct_storage_adapter(self) -> SyncEventStorageAdapter:
        return SyncSQLAlchemyEventStorageAdapter(self.url)


class _PostgreSQL(AsyncSetting):
    driver: PostgresDriver

    @pytest_asyncio.fixture(loop_scope="function")
    async def storage_adapter(self, engine: AsyncEngine) -> AsyncIterator[EventStorageAdapter]:
        await clear(engine)
        yield SQLAlchemyEventStorageAdapter(engine)
        await engine.dispose()  # Its connections belong to this event loop.


class _SyncPostgreSQL(SyncSetting):
    driver: PostgresDriver

    @pytest.fixture
    def storage_adapter(self, sync_engine: Engine) -> SyncEventStorageAdapter:
        clear(sync_engine)
        return SyncSQLAlchemyEventStorageAdapter(sync_engine)


class _ConnectionCases(ReadingCases, PublishingCases, ConditionCases, RepetitionCases, ConcurrencyCases):
    """The groups in which it matters how connections are used; the others are about values, statements and errors."""

    thorough = False


class TestSyncSQLiteFile(_SyncSQLiteFile, SyncEventStorageAdapterCases):
    pass


class TestAsyncpg(_PostgreSQL, EventStorageAdapterCases):
    driver = "asyncpg"


class TestSQLiteFile(_SQLiteFile, EventStorageAdapterCases):
    thorough = False


class TestSyncPsycopg(_SyncPostgreSQL, SyncEventStorageAdapterCases):
    driver = "psycopg"
    thorough = False


class TestSyncPsycopg2(_SyncPostgreSQL, SyncEventStorageAdapterCases):
    driver = "psycopg2"
    thorough = False


# Their drivers pass all groups above.
class TestSQLiteInMemory(_SQLiteInMemory, _ConnectionCases):
    pass


class TestSyncSQLiteInMemory(_SyncSQLiteInMemory, _ConnectionCases):
    pass


class TestAsyncPsycopg(_PostgreSQL, _ConnectionCases):
    driver = "psycopg"


@pytest.mark.long
class TestAllOfSQLiteInMemory(_SQLiteInMemory, EventStorageAdapterCases):
    pass


@pytest.mark.long
class TestAllOfSyncSQLiteInMemory(_SyncSQLiteInMemory, SyncEventStorageAdapterCases):
    pass


@pytest.mark.long
class TestAllOfSQLiteFile(_SQLiteFile, EventStorageAdapterCases):
    pass


@pytest.mark.long
class TestAllOfAsyncPsycopg(_PostgreSQL, EventStorageAdapterCases):
    driver = "psycopg"


@pytest.mark.long
class TestAllOfSyncPsycopg(_SyncPostgreSQL, SyncEventStorageAdapterCases):
    driver = "psycopg"


@pytest.mark.long
class TestAllOfSyncPsycopg2(_SyncPostgreSQL, SyncEventStorageAdapterCases):
    driver = "psycopg2"

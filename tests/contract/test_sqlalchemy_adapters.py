"""The shipped cases over every database and driver: the same behaviour everywhere.

Each database passes all groups, with asyncio or without it, and so do two drivers of PostgreSQL. The third passes those in
which its connections, values and errors matter. What that leaves out takes `long`, and so do the thorough cases.
"""

from __future__ import annotations

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
from eventstore_sa.testing.cases.event_storage import AsyncSetting, SyncSetting
from eventstore_sa.testing.cases.fidelity import FidelityCases
from eventstore_sa.testing.cases.names import NameCases
from eventstore_sa.testing.cases.refusals import RefusalCases
from eventstore_sa.testing.postgres import PostgresDriver
from tests.contract.connection_cases import ConnectionCases


class _SQLiteInMemory(AsyncSetting):
    keeps_subscriptions = True

    def construct_storage_adapter(self) -> EventStorageAdapter:
        return SQLAlchemyEventStorageAdapter("sqlite+aiosqlite://")


class _SyncSQLiteInMemory(SyncSetting):
    keeps_subscriptions = True

    def construct_storage_adapter(self) -> SyncEventStorageAdapter:
        return SyncSQLAlchemyEventStorageAdapter("sqlite://")


class _SQLiteFile(AsyncSetting):
    keeps_subscriptions = True

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.url = f"sqlite+aiosqlite:///{tmp_path}/events.db"

    def construct_storage_adapter(self) -> EventStorageAdapter:
        return SQLAlchemyEventStorageAdapter(self.url)


class _SyncSQLiteFile(SyncSetting):
    keeps_subscriptions = True

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/events.db"

    def construct_storage_adapter(self) -> SyncEventStorageAdapter:
        return SyncSQLAlchemyEventStorageAdapter(self.url)


class _PostgreSQL(AsyncSetting):
    keeps_subscriptions = True
    driver: PostgresDriver
    coalesce: bool = False

    @pytest_asyncio.fixture(loop_scope="class")
    async def storage_adapter(self, engine: AsyncEngine) -> EventStorageAdapter:
        await clear(engine)
        return SQLAlchemyEventStorageAdapter(engine, coalesce=self.coalesce)


class _SyncPostgreSQL(SyncSetting):
    keeps_subscriptions = True
    driver: PostgresDriver
    coalesce: bool = False

    @pytest.fixture
    def storage_adapter(self, sync_engine: Engine) -> SyncEventStorageAdapter:
        clear(sync_engine)
        return SyncSQLAlchemyEventStorageAdapter(sync_engine, coalesce=self.coalesce)


class TestSyncSQLiteFile(_SyncSQLiteFile, SyncEventStorageAdapterCases):
    thorough = False


class TestAsyncpg(_PostgreSQL, EventStorageAdapterCases):
    driver = "asyncpg"
    thorough = False


class TestSyncPsycopg(_SyncPostgreSQL, SyncEventStorageAdapterCases):
    driver = "psycopg"
    thorough = False


class TestSyncPsycopg2(_SyncPostgreSQL, ConnectionCases, FidelityCases, NameCases, RefusalCases):
    driver = "psycopg2"


# Their drivers pass all groups above, or what these are made of does: aiosqlite runs sqlite3 in a thread.
class TestSQLiteFile(_SQLiteFile, ConnectionCases):
    pass


class TestSQLiteInMemory(_SQLiteInMemory, ConnectionCases):
    pass


class TestSyncSQLiteInMemory(_SyncSQLiteInMemory, ConnectionCases):
    pass


class TestAsyncPsycopg(_PostgreSQL, ConnectionCases):
    driver = "psycopg"


# One by one, publishes go the same way as without coalescing.
class TestCoalescingAsyncpg(_PostgreSQL, ConcurrencyCases):
    driver = "asyncpg"
    coalesce = True


class TestCoalescingSyncPsycopg(_SyncPostgreSQL, ConcurrencyCases):
    driver = "psycopg"
    coalesce = True


@pytest.mark.long
class TestAllOfCoalescingAsyncpg(_PostgreSQL, EventStorageAdapterCases):
    driver = "asyncpg"
    coalesce = True


@pytest.mark.long
class TestAllOfCoalescingSyncPsycopg(_SyncPostgreSQL, SyncEventStorageAdapterCases):
    driver = "psycopg"
    coalesce = True


@pytest.mark.long
class TestAllOfSQLiteInMemory(_SQLiteInMemory, EventStorageAdapterCases):
    pass


@pytest.mark.long
class TestAllOfSyncSQLiteInMemory(_SyncSQLiteInMemory, SyncEventStorageAdapterCases):
    pass


@pytest.mark.long
class TestAllOfSyncSQLiteFile(_SyncSQLiteFile, SyncEventStorageAdapterCases):
    pass


@pytest.mark.long
class TestAllOfSQLiteFile(_SQLiteFile, EventStorageAdapterCases):
    pass


@pytest.mark.long
class TestAllOfAsyncpg(_PostgreSQL, EventStorageAdapterCases):
    driver = "asyncpg"


@pytest.mark.long
class TestAllOfAsyncPsycopg(_PostgreSQL, EventStorageAdapterCases):
    driver = "psycopg"


@pytest.mark.long
class TestAllOfSyncPsycopg(_SyncPostgreSQL, SyncEventStorageAdapterCases):
    driver = "psycopg"


@pytest.mark.long
class TestAllOfSyncPsycopg2(_SyncPostgreSQL, SyncEventStorageAdapterCases):
    driver = "psycopg2"

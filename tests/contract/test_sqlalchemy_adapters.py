"""The shipped cases over every database and driver: the same behaviour everywhere.

Each database passes all groups, with asyncio or without it, and so do two drivers of PostgreSQL. The third passes those in
which its connections, values and errors matter. What that leaves out takes `long`, and so do the thorough cases.
"""

from __future__ import annotations

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
from tests.contract.connection_cases import ConnectionCases


class _SQLiteInMemory(AsyncSetting):
    keeps_subscriptions = True

    def construct_storage_adapter(self) -> EventStorageAdapter:
        return SQLAlchemyEventStorageAdapter("sqlite+aiosqlite://")


class _SyncSQLiteInMemory(SyncSetting):
    keeps_subscriptions = True

    def construct_storage_adapter(self) -> SyncEventStorageAdapter:
        return SyncSQLAlchemyEventStorageAdapter("sqlite://")


class _OnEngine(AsyncSetting):
    keeps_subscriptions = True
    driver: str
    coalesce: bool = False

    @pytest_asyncio.fixture(loop_scope="class")
    async def storage_adapter(self, engine: AsyncEngine) -> EventStorageAdapter:
        await clear(engine)
        return SQLAlchemyEventStorageAdapter(engine, coalesce=self.coalesce)


class _SyncOnEngine(SyncSetting):
    keeps_subscriptions = True
    driver: str
    coalesce: bool = False

    @pytest.fixture
    def storage_adapter(self, sync_engine: Engine) -> SyncEventStorageAdapter:
        clear(sync_engine)
        return SyncSQLAlchemyEventStorageAdapter(sync_engine, coalesce=self.coalesce)


class TestSyncSQLiteFile(_SyncOnEngine, SyncEventStorageAdapterCases):
    driver = "sqlite"
    thorough = False


class TestAsyncpg(_OnEngine, EventStorageAdapterCases):
    driver = "asyncpg"
    thorough = False


class TestSyncPsycopg(_SyncOnEngine, SyncEventStorageAdapterCases):
    driver = "psycopg"
    thorough = False


class TestSyncPsycopg2(_SyncOnEngine, ConnectionCases, FidelityCases, NameCases, RefusalCases):
    driver = "psycopg2"


# Their drivers pass all groups above, or what these are made of does: aiosqlite runs sqlite3 in a thread.
class TestSQLiteFile(_OnEngine, ConnectionCases):
    driver = "sqlite+aiosqlite"


class TestSQLiteInMemory(_SQLiteInMemory, ConnectionCases):
    pass


class TestSyncSQLiteInMemory(_SyncSQLiteInMemory, ConnectionCases):
    pass


class TestAsyncPsycopg(_OnEngine, ConnectionCases):
    driver = "psycopg"


# One by one, publishes go the same way as without coalescing.
class TestCoalescingAsyncpg(_OnEngine, ConcurrencyCases):
    driver = "asyncpg"
    coalesce = True


class TestCoalescingSyncPsycopg(_SyncOnEngine, ConcurrencyCases):
    driver = "psycopg"
    coalesce = True


@pytest.mark.long
class TestAllOfCoalescingAsyncpg(_OnEngine, EventStorageAdapterCases):
    driver = "asyncpg"
    coalesce = True


@pytest.mark.long
class TestAllOfCoalescingSyncPsycopg(_SyncOnEngine, SyncEventStorageAdapterCases):
    driver = "psycopg"
    coalesce = True


@pytest.mark.long
class TestAllOfSQLiteInMemory(_SQLiteInMemory, EventStorageAdapterCases):
    pass


@pytest.mark.long
class TestAllOfSyncSQLiteInMemory(_SyncSQLiteInMemory, SyncEventStorageAdapterCases):
    pass


@pytest.mark.long
class TestAllOfSyncSQLiteFile(_SyncOnEngine, SyncEventStorageAdapterCases):
    driver = "sqlite"


@pytest.mark.long
class TestAllOfSQLiteFile(_OnEngine, EventStorageAdapterCases):
    driver = "sqlite+aiosqlite"


@pytest.mark.long
class TestAllOfAsyncpg(_OnEngine, EventStorageAdapterCases):
    driver = "asyncpg"


@pytest.mark.long
class TestAllOfAsyncPsycopg(_OnEngine, EventStorageAdapterCases):
    driver = "psycopg"


@pytest.mark.long
class TestAllOfSyncPsycopg(_SyncOnEngine, SyncEventStorageAdapterCases):
    driver = "psycopg"


@pytest.mark.long
class TestAllOfSyncPsycopg2(_SyncOnEngine, SyncEventStorageAdapterCases):
    driver = "psycopg2"

"""The shipped cases over MariaDB, with and without asyncio. The thorough ones take `long`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from eventstore_sa import SyncEventStore
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
from eventstore_sa.testing.cases.publishing import PublishingCases
from tests.mariadb import NEEDS_MARIADB, fresh_mariadb_database, on_driver

pytestmark = NEEDS_MARIADB


@pytest.fixture(scope="module")
def mariadb_url() -> Iterator[URL]:
    """One database for all cases, emptied before each."""
    with fresh_mariadb_database() as url:
        with SyncEventStore(url, locking="row") as store:
            store.create_schema()
        yield url


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def engine(mariadb_url: URL) -> AsyncIterator[AsyncEngine]:
    """One for all cases of a class: it keeps its connections and the statements that it has compiled."""
    engine = create_async_engine(on_driver(mariadb_url, "asyncmy"), pool_size=5, max_overflow=30)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="class")
def sync_engine(mariadb_url: URL) -> Iterator[Engine]:
    """One for all cases of a class: it keeps its connections and the statements that it has compiled."""
    engine = create_engine(mariadb_url, pool_size=5, max_overflow=30)
    yield engine
    engine.dispose()


class _Asyncmy(AsyncSetting):
    adds_tags = False
    checks_queries = False

    @pytest_asyncio.fixture(loop_scope="class")
    async def storage_adapter(self, engine: AsyncEngine) -> EventStorageAdapter:
        await clear(engine)
        return SQLAlchemyEventStorageAdapter(engine, locking="row")


class _PyMySQL(SyncSetting):
    adds_tags = False
    checks_queries = False

    @pytest.fixture
    def storage_adapter(self, sync_engine: Engine) -> SyncEventStorageAdapter:
        clear(sync_engine)
        return SyncSQLAlchemyEventStorageAdapter(sync_engine, locking="row")


# What is between it and the server is what PyMySQL has there too, but for the connections.
class TestAsyncmy(_Asyncmy, PublishingCases, ConcurrencyCases):
    thorough = False


class TestPyMySQL(_PyMySQL, SyncEventStorageAdapterCases):
    thorough = False
    # Its driver sends values within the statement: there is no number of parameters to go beyond.
    many_events = 3_000


@pytest.mark.long
class TestAllOfAsyncmy(_Asyncmy, EventStorageAdapterCases):
    pass


@pytest.mark.long
class TestAllOfPyMySQL(_PyMySQL, SyncEventStorageAdapterCases):
    pass

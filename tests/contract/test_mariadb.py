"""The shipped cases over MariaDB, with and without asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore_sa import SyncEventStore
from eventstore_sa.store.adapters import (
    EventStorageAdapter,
    SQLAlchemyEventStorageAdapter,
    SyncEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)
from eventstore_sa.testing import clear
from eventstore_sa.testing.cases import EventStorageAdapterCases, SyncEventStorageAdapterCases
from tests.mariadb import NEEDS_MARIADB, fresh_mariadb_database

pytestmark = NEEDS_MARIADB


@pytest.fixture(scope="module")
def mariadb_url() -> Iterator[URL]:
    """One database for all cases, emptied before each."""
    with fresh_mariadb_database() as url:
        with SyncEventStore(url, locking="row") as store:
            store.create_schema()
        yield url


class TestAsyncmy(EventStorageAdapterCases):
    @pytest_asyncio.fixture(loop_scope="function")
    async def storage_adapter(self, mariadb_url: URL) -> AsyncIterator[EventStorageAdapter]:
        engine = create_async_engine(mariadb_url.set(drivername="mysql+asyncmy"), pool_size=5, max_overflow=30)
        await clear(engine)
        yield SQLAlchemyEventStorageAdapter(engine, locking="row")
        await engine.dispose()


class TestPyMySQL(SyncEventStorageAdapterCases):
    @pytest.fixture
    def storage_adapter(self, mariadb_url: URL) -> Iterator[SyncEventStorageAdapter]:
        engine = create_engine(mariadb_url, pool_size=5, max_overflow=30)
        clear(engine)
        yield SyncSQLAlchemyEventStorageAdapter(engine, locking="row")
        engine.dispose()

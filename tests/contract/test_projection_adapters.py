"""The shipped cases about projections over every storage and driver: the same behaviour everywhere.

Each database passes all groups, with asyncio or without it, and so do two drivers of PostgreSQL. What that leaves out takes
`long`.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Engine, func
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore_sa.projection.adapters import (
    InMemoryProjectionStorageAdapter,
    ProjectionStorageAdapter,
    SQLAlchemyProjectionStorageAdapter,
    SyncInMemoryProjectionStorageAdapter,
    SyncProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)
from eventstore_sa.projection.adapters.projection_contract import AwaitableProjectionStorageAdapter
from eventstore_sa.query import value_at
from eventstore_sa.testing import clear
from eventstore_sa.testing.cases import (
    ProjectionConverterCases,
    ProjectionStorageAdapterCases,
    SyncProjectionStorageAdapterCases,
)
from eventstore_sa.testing.cases.fixtures import AsyncFixtures, SyncFixtures
from eventstore_sa.testing.cases.projection_batches import ProjectionBatchCases
from eventstore_sa.testing.cases.projection_converters import STARTS_WITH, LengthOf, ShorterThan
from eventstore_sa.testing.cases.projection_saving import ProjectionSavingCases
from eventstore_sa.testing.postgres import PostgresDriver


class _InMemory(ProjectionConverterCases):
    def register_converters(self, storage_adapter: Any) -> None:
        storage_adapter.register_filter(
            ShorterThan,
            lambda filter_, document: (
                isinstance(found := value_at(document, filter_.path), str) and len(found) < filter_.length
            ),
        )
        storage_adapter.register_operator(
            STARTS_WITH, lambda stored, value: isinstance(stored, str) and stored.startswith(value)
        )
        storage_adapter.register_function(
            LengthOf,
            lambda function, document: (
                len(found) if isinstance(found := value_at(document, function.path), str) else None
            ),
        )


class _InSQL(ProjectionConverterCases):
    def register_converters(self, storage_adapter: Any) -> None:
        storage_adapter.register_filter(
            ShorterThan, lambda filter_, columns: func.length(columns.at(filter_.path).text) < filter_.length
        )
        storage_adapter.register_operator(
            STARTS_WITH, lambda place, value: func.substr(place.text, 1, len(value)) == value
        )
        storage_adapter.register_function(
            LengthOf, lambda function, columns: func.length(columns.at(function.path).text)
        )


class TestMemory(_InMemory, ProjectionStorageAdapterCases):
    def construct_storage_adapter(self) -> ProjectionStorageAdapter:
        return InMemoryProjectionStorageAdapter()


class TestSyncMemory(_InMemory, SyncProjectionStorageAdapterCases):
    def construct_storage_adapter(self) -> SyncProjectionStorageAdapter:
        return SyncInMemoryProjectionStorageAdapter()


class _ConnectionCases(ProjectionSavingCases, ProjectionBatchCases):
    """The groups in which it matters how connections are used; the others are about values, statements and errors."""


class _AsyncConnectionCases(AsyncFixtures[ProjectionStorageAdapter], _ConnectionCases):
    pass


class _SyncConnectionCases(SyncFixtures[SyncProjectionStorageAdapter], _ConnectionCases):
    awaitable = AwaitableProjectionStorageAdapter


class _SQLite(_InSQL):
    def construct_storage_adapter(self) -> ProjectionStorageAdapter:
        return SQLAlchemyProjectionStorageAdapter("sqlite+aiosqlite://")


class TestSyncSQLite(_InSQL, SyncProjectionStorageAdapterCases):
    def construct_storage_adapter(self) -> SyncProjectionStorageAdapter:
        return SyncSQLAlchemyProjectionStorageAdapter("sqlite://")


class TestSQLite(_SQLite, _AsyncConnectionCases):
    pass


@pytest.mark.long
class TestAllOfSQLite(_SQLite, ProjectionStorageAdapterCases):
    pass


class _PostgreSQL(_InSQL):
    driver: PostgresDriver

    @pytest_asyncio.fixture(loop_scope="class")
    async def storage_adapter(self, engine: AsyncEngine) -> ProjectionStorageAdapter:
        await clear(engine)
        return SQLAlchemyProjectionStorageAdapter(engine)


class _SyncPostgreSQL(_InSQL):
    driver: PostgresDriver

    @pytest.fixture
    def storage_adapter(self, sync_engine: Engine) -> SyncProjectionStorageAdapter:
        clear(sync_engine)
        return SyncSQLAlchemyProjectionStorageAdapter(sync_engine)


class TestAsyncpg(_PostgreSQL, ProjectionStorageAdapterCases):
    driver = "asyncpg"


class TestAsyncPsycopg(_PostgreSQL, _AsyncConnectionCases):
    driver = "psycopg"


@pytest.mark.long
class TestAllOfAsyncPsycopg(_PostgreSQL, ProjectionStorageAdapterCases):
    driver = "psycopg"


class TestSyncPsycopg(_SyncPostgreSQL, SyncProjectionStorageAdapterCases):
    driver = "psycopg"


class TestSyncPsycopg2(_SyncPostgreSQL, _SyncConnectionCases):
    driver = "psycopg2"


@pytest.mark.long
class TestAllOfSyncPsycopg2(_SyncPostgreSQL, SyncProjectionStorageAdapterCases):
    driver = "psycopg2"

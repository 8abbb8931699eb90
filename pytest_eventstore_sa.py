"""The pytest plugin of eventstore_sa: stores of which each test finds the tables empty.

pytest imports this module at every start, so it imports nothing but pytest; it is outside of the package because importing
anything there imports SQLAlchemy. `eventstore_sa/testing/isolation.py` does the work, once a test asks for a fixture.

All fixtures are ordinary functions, those of asyncio stores too, so they work with any plugin that runs coroutines, in any
mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from eventstore_sa import EventStore, EventStoreSchema, SyncEventStore
    from eventstore_sa.testing.isolation import PreparedPostgres, PreparedSqlite
    from eventstore_sa.testing.postgres import PostgresServer
    from eventstore_sa.types import StaticClock

__all__: list[str] = []


@pytest.fixture(scope="session")
def eventstore_sa_schema() -> EventStoreSchema:
    """Give the tables of the stores; override it to return your own schema, and all tables of its MetaData are created."""
    from eventstore_sa import EventStoreSchema

    return EventStoreSchema()


@pytest.fixture
def eventstore_sa_memory() -> EventStore:
    """Provide a new EventStore in memory."""
    from eventstore_sa import EventStore
    from eventstore_sa.store.adapters import InMemoryEventStorageAdapter

    return EventStore(InMemoryEventStorageAdapter())


@pytest.fixture
def eventstore_sa_memory_sync(eventstore_sa_memory: EventStore) -> SyncEventStore:
    """Provide a new SyncEventStore in memory; it has the events of `eventstore_sa_memory`."""
    from eventstore_sa import SyncEventStore
    from eventstore_sa.store.adapters import InMemoryEventStorageAdapter

    assert isinstance(eventstore_sa_memory.adapter, InMemoryEventStorageAdapter)
    return SyncEventStore(eventstore_sa_memory.adapter)


@pytest.fixture(scope="session")
def _eventstore_sa_prepared_sqlite(eventstore_sa_schema: EventStoreSchema) -> Iterator[PreparedSqlite]:
    from eventstore_sa.testing.isolation import prepared_sqlite

    with prepared_sqlite(eventstore_sa_schema) as prepared:
        yield prepared


@pytest.fixture
def eventstore_sa_sqlite_url(_eventstore_sa_prepared_sqlite: PreparedSqlite) -> Iterator[URL]:
    """Provide the URL of a new SQLite file in which the tables exist."""
    from sqlalchemy import URL

    with _eventstore_sa_prepared_sqlite.file() as path:
        yield URL.create("sqlite", database=str(path))


@pytest.fixture
def eventstore_sa_sqlite_engine(eventstore_sa_sqlite_url: URL) -> AsyncEngine:
    """Provide an AsyncEngine on `eventstore_sa_sqlite_url`, configured for transactions."""
    from eventstore_sa.testing.isolation import async_sqlite_engine

    return async_sqlite_engine(eventstore_sa_sqlite_url)


@pytest.fixture
def eventstore_sa_sqlite_engine_sync(eventstore_sa_sqlite_url: URL) -> Iterator[Engine]:
    """Provide an Engine on `eventstore_sa_sqlite_url`, configured for transactions."""
    from sqlalchemy import create_engine

    from eventstore_sa import configure_sqlite

    engine = create_engine(eventstore_sa_sqlite_url)
    configure_sqlite(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def eventstore_sa_sqlite(
    eventstore_sa_sqlite_engine: AsyncEngine, eventstore_sa_schema: EventStoreSchema
) -> EventStore:
    """Provide an empty EventStore on `eventstore_sa_sqlite_engine`."""
    from eventstore_sa import EventStore

    return EventStore(eventstore_sa_sqlite_engine, schema=eventstore_sa_schema)


@pytest.fixture
def eventstore_sa_sqlite_sync(
    eventstore_sa_sqlite_engine_sync: Engine, eventstore_sa_schema: EventStoreSchema
) -> SyncEventStore:
    """Provide an empty SyncEventStore on `eventstore_sa_sqlite_engine_sync`."""
    from eventstore_sa import SyncEventStore

    return SyncEventStore(eventstore_sa_sqlite_engine_sync, schema=eventstore_sa_schema)


@pytest.fixture(scope="session")
def eventstore_sa_postgres_server() -> Iterator[PostgresServer]:
    """Provide a throwaway PostgreSQL server, or the one of EVENTSTORE_SA_TEST_POSTGRES_URL."""
    from eventstore_sa.testing.postgres import temporary_postgres

    with temporary_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def _eventstore_sa_prepared_postgres(
    eventstore_sa_postgres_server: PostgresServer, eventstore_sa_schema: EventStoreSchema
) -> Iterator[PreparedPostgres]:
    from eventstore_sa.testing.isolation import prepared_postgres

    with prepared_postgres(eventstore_sa_postgres_server, eventstore_sa_schema) as prepared:
        yield prepared


@pytest.fixture
def eventstore_sa_postgres_url(_eventstore_sa_prepared_postgres: PreparedPostgres) -> URL:
    """Provide the URL of a PostgreSQL database, without a driver, in which the tables exist and are empty."""
    _eventstore_sa_prepared_postgres.empty()
    return _eventstore_sa_prepared_postgres.url


@pytest.fixture
def eventstore_sa_postgres_engine(
    eventstore_sa_postgres_url: URL, _eventstore_sa_prepared_postgres: PreparedPostgres
) -> AsyncEngine:
    """Provide an AsyncEngine on `eventstore_sa_postgres_url`, with asyncpg or psycopg."""
    return _eventstore_sa_prepared_postgres.async_engine


@pytest.fixture
def eventstore_sa_postgres_engine_sync(
    eventstore_sa_postgres_url: URL, _eventstore_sa_prepared_postgres: PreparedPostgres
) -> Engine:
    """Provide an Engine on `eventstore_sa_postgres_url`, with psycopg or psycopg2."""
    return _eventstore_sa_prepared_postgres.engine


@pytest.fixture
def eventstore_sa_postgres(
    eventstore_sa_postgres_engine: AsyncEngine, eventstore_sa_schema: EventStoreSchema
) -> EventStore:
    """Provide an empty EventStore on `eventstore_sa_postgres_engine`."""
    from eventstore_sa import EventStore

    return EventStore(eventstore_sa_postgres_engine, schema=eventstore_sa_schema)


@pytest.fixture
def eventstore_sa_postgres_sync(
    eventstore_sa_postgres_engine_sync: Engine, eventstore_sa_schema: EventStoreSchema
) -> SyncEventStore:
    """Provide an empty SyncEventStore on `eventstore_sa_postgres_engine_sync`."""
    from eventstore_sa import SyncEventStore

    return SyncEventStore(eventstore_sa_postgres_engine_sync, schema=eventstore_sa_schema)


@pytest.fixture
def eventstore_sa_clock() -> Iterator[StaticClock]:
    """Stop the clock of the library, and count the ids of new events; see `eventstore_sa.testing.frozen`."""
    from eventstore_sa.testing import frozen

    with frozen() as clock:
        yield clock

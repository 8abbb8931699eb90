"""What the shipped cases need on databases: one of PostgreSQL for each module, and an engine for each class."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from eventstore_sa import SyncEventStore, configure_sqlite
from eventstore_sa.testing.postgres import PostgresServer
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.stores import install_schema


@pytest.fixture(scope="module")
def contract_database(
    postgres_server: PostgresServer, postgres_templates: PostgresTemplates
) -> Iterator[PostgresDatabase]:
    """One database for all cases, emptied before each: hundreds of new ones would take minutes."""
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_schema)) as database:
        yield database


def pytest_itemcollected(item: pytest.Item) -> None:
    """Run cases that share an engine in one event loop, to which its connections belong; the shipped mark is a loop each."""
    if isinstance(item, pytest.Function) and item.get_closest_marker("asyncio") and "engine" in item.fixturenames:
        item.add_marker(pytest.mark.asyncio(loop_scope="class"), append=False)


@pytest.fixture(scope="class")
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> URL | str:
    """The database of all cases of a class: on SQLite, a file of its own."""
    driver: Any = request.cls.driver
    if not driver.startswith("sqlite"):
        database: PostgresDatabase = request.getfixturevalue("contract_database")
        return database.url(driver)
    file = tmp_path_factory.mktemp("contract") / "events.db"
    with SyncEventStore(f"sqlite:///{file}") as store:
        store.create_schema()
    return f"{driver}:///{file}"


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def engine(url: URL | str) -> AsyncIterator[AsyncEngine]:
    """One for all cases of a class: it keeps its connections and the statements that it has compiled."""
    engine = create_async_engine(url, pool_size=5, max_overflow=30)
    configure_sqlite(engine)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="class")
def sync_engine(url: URL | str) -> Iterator[Engine]:
    """One for all cases of a class: it keeps its connections and the statements that it has compiled."""
    engine = create_engine(url, pool_size=5, max_overflow=30)
    configure_sqlite(engine)
    yield engine
    engine.dispose()

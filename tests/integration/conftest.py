"""Fixtures of the tests in which a host application and the event store share a database.

PostgreSQL databases are shared by the tests of a module and emptied before each: new ones would take minutes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import Engine, create_engine

from eventstore_sa.testing.postgres import PostgresDriver, PostgresServer
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.hosts import (
    ASYNC_DRIVERS,
    POSTGRES_DRIVERS,
    Ground,
    Host,
    install_host,
    open_postgres_ground,
    open_sqlite_ground,
)


@pytest.fixture(scope="module")
def host_database(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[PostgresDatabase]:
    """One database for all tests of a module."""
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_host)) as database:
        yield database


@pytest.fixture(scope="module")
def shared_postgres_ground(host_database: PostgresDatabase) -> Iterator[Ground]:
    """Connections to that database, kept open between tests."""
    with open_postgres_ground(host_database) as ground:
        yield ground


@pytest.fixture(scope="module")
def postgres_engines(host_database: PostgresDatabase) -> Iterator[dict[str, Engine]]:
    """Engines of hosts without asyncio, kept between tests with their connections and compiled statements."""
    drivers: tuple[PostgresDriver, ...] = ("psycopg", "psycopg2")
    engines = {f"postgresql+{driver}": create_engine(host_database.url(driver)) for driver in drivers}
    yield engines
    for engine in engines.values():
        engine.dispose()


@pytest.fixture
def postgres_ground(shared_postgres_ground: Ground) -> Ground:
    """Provide a PostgreSQL database with an event store and a table of the host's, both empty."""
    shared_postgres_ground.empty()
    return shared_postgres_ground


@pytest.fixture
def sqlite_ground(tmp_path: Path) -> Iterator[Ground]:
    """Provide a SQLite file with an event store and a table of the host's, both empty."""
    with open_sqlite_ground(tmp_path) as ground:
        yield ground


@pytest.fixture
def make_host(request: pytest.FixtureRequest) -> Callable[[str], Host]:
    """Make a host on a driver, which the caller closes; it connects anew each time unless `keeps_connections` is marked."""

    def make(driver: str) -> Host:
        if driver not in POSTGRES_DRIVERS:
            return Host(request.getfixturevalue("sqlite_ground"), driver)
        ground: Ground = request.getfixturevalue("postgres_ground")
        if request.node.get_closest_marker("keeps_connections") is None:
            return Host(ground, driver)
        if driver in ASYNC_DRIVERS:
            return Host(ground, driver, poolclass=None)  # Its connections belong to the event loop of this test.
        engines: dict[str, Engine] = request.getfixturevalue("postgres_engines")
        return Host(ground, driver, shared=engines[driver])

    return make


@pytest_asyncio.fixture(loop_scope="function")
async def host(request: pytest.FixtureRequest, make_host: Callable[[str], Host]) -> AsyncIterator[Host]:
    """Provide a host on the driver that the test is parametrised with; see `each_driver`."""
    host = make_host(request.param)
    yield host
    await host.aclose()

"""Fixtures of the tests in which a host application and the event store share a database.

PostgreSQL databases are shared by the tests of a module and emptied before each: new ones would take minutes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from eventstore_sa.testing.postgres import PostgresServer
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.hosts import POSTGRES_DRIVERS, Ground, Host, install_host, open_postgres_ground, open_sqlite_ground


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


@pytest_asyncio.fixture(loop_scope="function")
async def host(request: pytest.FixtureRequest) -> AsyncIterator[Host]:
    """Provide a host on the driver that the test is parametrised with; see `each_driver`."""
    driver: str = request.param
    name = "postgres_ground" if driver in POSTGRES_DRIVERS else "sqlite_ground"
    host = Host(request.getfixturevalue(name), driver)
    yield host
    await host.aclose()

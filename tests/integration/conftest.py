"""Fixtures of the tests in which a host application and the event store share a database.

PostgreSQL databases are shared by the tests of a module and emptied before each: new ones would take minutes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore_sa.testing.postgres import PostgresServer
from tests.awaiting import settled
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have tests that keep connections share an event loop, which connections of asyncio drivers belong to."""
    for item in items:
        if item.get_closest_marker("keeps_connections") and iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def postgres_engines(host_database: PostgresDatabase) -> AsyncIterator[dict[str, Any]]:
    """Engines of hosts, kept between tests with their connections and compiled statements."""
    engines: dict[str, Any] = {}
    for name in POSTGRES_DRIVERS:
        create: Any = create_async_engine if name in ASYNC_DRIVERS else create_engine
        engines[name] = create(host_database.url("psycopg").set(drivername=name))
    yield engines
    for engine in engines.values():
        await settled(engine.dispose())


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
    keeps_connections = request.node.get_closest_marker("keeps_connections") is not None
    engines: dict[str, Any] = request.getfixturevalue("postgres_engines") if keeps_connections else {}

    def make(driver: str) -> Host:
        if driver not in POSTGRES_DRIVERS:
            return Host(request.getfixturevalue("sqlite_ground"), driver)
        return Host(request.getfixturevalue("postgres_ground"), driver, shared=engines.get(driver))

    return make


@pytest_asyncio.fixture(loop_scope="function")
async def host(request: pytest.FixtureRequest, make_host: Callable[[str], Host]) -> AsyncIterator[Host]:
    """Provide a host on the driver that the test is parametrised with; see `each_driver`."""
    host = make_host(request.param)
    yield host
    await host.aclose()

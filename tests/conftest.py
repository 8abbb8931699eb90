"""Fixtures shared by all tests; what they are made of is in modules beside this one.

No fixture skips when a database is missing: a suite that silently tests less is worse than one that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import URL

from eventstore_sa.testing.postgres import PostgresDriver, PostgresServer, temporary_postgres
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database

# How long an example takes says more about the machine than about the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the whole session."""
    with temporary_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_templates(postgres_server: PostgresServer) -> PostgresTemplates:
    """Template databases, each prepared once a session: `postgres_templates.prepared_by(install_schema)`."""
    return PostgresTemplates(postgres_server)


@pytest.fixture
def make_postgres_database(
    postgres_server: PostgresServer, postgres_templates: PostgresTemplates
) -> Iterator[Callable[..., PostgresDatabase]]:
    """Make any number of databases, empty or `prepared_by` a function; all are dropped after the test."""
    with ExitStack() as stack:

        def make(*, prepared_by: Callable[[PostgresDatabase], object] | None = None) -> PostgresDatabase:
            template = postgres_templates.prepared_by(prepared_by) if prepared_by else None
            return stack.enter_context(fresh_database(postgres_server, template))

        yield make


@pytest.fixture
def postgres_database(make_postgres_database: Callable[..., PostgresDatabase]) -> PostgresDatabase:
    """Provide an empty database for this test alone."""
    return make_postgres_database()


@pytest.fixture
def postgres_url(postgres_database: PostgresDatabase) -> Callable[[PostgresDriver | None], URL]:
    """Give the address of this test's empty database for a driver: `postgres_url("asyncpg")`."""
    return postgres_database.url

"""What the tests of commands share: a database with an event store, and a way to call a command about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from eventstore_sa import SyncEventStore
from eventstore_sa.cli import main
from tests.databases import PostgresDatabase
from tests.stores import install_schema

Command = Callable[..., Result]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a new event store: on SQLite, unless a test is parametrised with a driver."""
    driver: str = getattr(request, "param", "sqlite")
    if driver.startswith("sqlite"):
        file = tmp_path / "events.db"
        with SyncEventStore(f"sqlite:///{file}") as store:
            store.create_schema()
        return f"{driver}:///{file}"
    make: Callable[..., PostgresDatabase] = request.getfixturevalue("make_postgres_database")
    url = make(prepared_by=install_schema).url("psycopg").set(drivername=driver)
    return url.render_as_string(hide_password=False)


@pytest.fixture
def store(url: str) -> Iterator[SyncEventStore]:
    """Open that event store, as its application."""
    with SyncEventStore(url.replace("+aiosqlite", "").replace("+asyncpg", "+psycopg")) as store:
        yield store


@pytest.fixture
def command(url: str) -> Command:
    """Call a command about that event store."""

    def call(*arguments: str, **options: Any) -> Result:
        return CliRunner(env={"EVENTSTORE_SA_URL": url}).invoke(main, list(arguments), **options)

    return call


def each_kind_of_driver() -> pytest.MarkDecorator:
    """Run a test on SQLite and PostgreSQL, with asyncio and without."""
    return pytest.mark.parametrize(
        "url", ["sqlite", "sqlite+aiosqlite", "postgresql+psycopg", "postgresql+asyncpg"], indirect=True
    )

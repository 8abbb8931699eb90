"""Databases for hosts on disk: one for each test, reached by the driver that the host uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from tests.databases import PostgresDatabase
from tests.migrations.projects import Project

__all__ = ["MakeProject"]

MakeProject = Callable[..., Project]


@pytest.fixture
def make_project(make_postgres_database: Callable[..., PostgresDatabase], tmp_path: Path) -> MakeProject:
    """Make a host for a driver, with a database of its own: `make_project("postgresql+asyncpg", template="async")`."""

    def make(driver: str = "sqlite", **options: object) -> Project:
        if driver.startswith("sqlite"):
            url: URL = make_url(f"{driver}:///{tmp_path}/host.db")
        else:
            url = make_postgres_database().url(None).set(drivername=driver)
        return Project(tmp_path / "host", url, **options)  # type: ignore[arg-type]

    return make

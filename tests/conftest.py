"""Fixtures shared by all tests; what they are made of is in modules beside this one.

No fixture skips when PostgreSQL is missing: a suite that silently tests less is worse than one that fails. What needs
MariaDB or Chromium is left out where there is none, and the summary says so.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import URL

from eventstore_sa.testing.postgres import PostgresDriver, PostgresServer, temporary_postgres
from tests.chromium import CHROMIUM
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.mariadb import MARIADB_URL, MARIADB_VARIABLE

pytest_plugins = ["pytester"]

# How long an example takes says more about the machine than about the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


_MEMORY: Final = Path("/dev/shm")
_MEMORY_NEEDED_BYTES: Final = 6 * 2**30  # Two servers are there too; containers often have 64 MB.

_LEFT_OUT: Final = pytest.StashKey[dict[str, int]]()

# Marks of tests that need what a machine may lack: whether it is there, and what the summary says if it is not.
_NEEDS: Final = {
    "mariadb": (
        bool(MARIADB_URL),
        f"MariaDB was not tested: {{}} tests need a server, and {MARIADB_VARIABLE} names none.",
    ),
    "chromium": (
        CHROMIUM is not None,
        "The browser was not tested in Chromium: {} tests need one; on Debian and Ubuntu: apt install chromium.",
    ),
}

# Files whose tests are few and long, then the others, and the quickest last: so that no process that shares the suite ends
# long before another.
_ORDER: Final = {"migrations": 0, "contract": 1, "integration": 2}


def pytest_configure(config: pytest.Config) -> None:
    """Have pytest-xdist hand out files in the order of the items; its own begins with those that have the most tests.

    And keep the files of tests in memory where there is room: SQLite waits for the disk at each commit.
    """
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    if os.environ.keys().isdisjoint(("TMPDIR", "TEMP", "TMP")) and _memory_is_roomy():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector the tests themselves: they are hundreds of thousands of objects, and stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _memory_is_roomy() -> bool:
    """Return whether there is a file system in memory with room for what tests write."""
    return os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED_BYTES


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the folders, and leave out what needs what is not there."""
    items.sort(key=lambda item: _ORDER.get(item.path.parent.name, len(_ORDER)))
    counts: dict[str, int] = {}
    for mark, (is_there, _) in _NEEDS.items():
        left_out = [] if is_there else [item for item in items if item.get_closest_marker(mark)]
        if left_out:
            items[:] = [item for item in items if not item.get_closest_marker(mark)]
            config.hook.pytest_deselected(items=left_out)
            counts[mark] = len(left_out)
    config.stash[_LEFT_OUT] = counts


def pytest_sessionfinish(session: pytest.Session) -> None:
    """As a process that shares the suite: tell the one that prints the summary."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_out"] = session.config.stash.get(_LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """As the process that prints the summary: learn what one of those that share the suite has left out."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in a line what was not run."""
    for mark, count in config.stash.get(_LEFT_OUT, {}).items():
        _, message = _NEEDS[mark]
        terminalreporter.write_line(message.format(count), yellow=True)


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

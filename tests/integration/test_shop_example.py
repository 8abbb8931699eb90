"""The example that docs/tutorial.md builds: migrated and tested as its reader would, and shown there as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.integration import markdown
from tests.project import ROOT, run_python

SHOP = ROOT / "examples" / "shop"
COMMANDS = """
import sys
import pytest
from alembic.config import main
sys.path.insert(0, ".")
main(["upgrade", "head"])
main(["check"])
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-c", "pytest.ini"]))
"""


def test_shop_migrates_and_passes_its_tests(tmp_path: Path) -> None:
    folder = shutil.copytree(SHOP, tmp_path / "shop", ignore=shutil.ignore_patterns("*.db*", "__pycache__"))

    outcome = run_python("-c", COMMANDS, cwd=folder)

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "5 passed" in outcome.stdout


def test_tutorial_shows_the_program_as_it_is() -> None:
    shown = markdown.files((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))

    written = {path.relative_to(SHOP).as_posix() for path in SHOP.rglob("*.py")} - {"shop/__init__.py"}
    assert {name for name in written if "versions" not in name} == set(shown)
    for name, code in shown.items():  # parts of a file end without its empty lines
        assert [*filter(None, code.splitlines())] == [
            *filter(None, (SHOP / name).read_text(encoding="utf-8").splitlines())
        ], name

"""Every example runs on its own, in an empty folder, without a warning, and has something to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.preloaded import run_preloaded
from tests.project import ROOT, run_python

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
QUICKSTART = ROOT / "examples" / "quickstart.py"


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example_runs_twice_in_a_row(example: Path, tmp_path: Path) -> None:
    """A database file left by the first run must not break the second, which is what a newcomer does next."""
    # The first of all with nothing imported but what it imports.
    run_first = run_python if example == QUICKSTART else run_preloaded
    first = run_first(str(example), cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    assert first.stdout.strip()

    second = run_preloaded(str(example), cwd=tmp_path)

    assert second.returncode == 0, second.stderr


def test_the_example_of_the_demo_is_there() -> None:
    assert QUICKSTART in EXAMPLES

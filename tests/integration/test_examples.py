"""Every example runs on its own, in an empty folder, without a warning, and has something to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import ROOT, run_python

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example_runs(example: Path, tmp_path: Path) -> None:
    outcome = run_python(str(example), cwd=tmp_path)

    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr == ""
    assert outcome.stdout.strip()


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example_can_be_run_twice_in_a_row(example: Path, tmp_path: Path) -> None:
    """What a newcomer does next: a database file left by the first run must not break the second."""
    run_python(str(example), cwd=tmp_path)

    outcome = run_python(str(example), cwd=tmp_path)

    assert outcome.returncode == 0, outcome.stderr


def test_the_example_of_the_demo_is_there() -> None:
    assert ROOT / "examples" / "quickstart.py" in EXAMPLES

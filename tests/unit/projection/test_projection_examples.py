"""The examples in the documentation of projections, and `examples/profiles.py`, run and print what they say."""

from __future__ import annotations

import doctest
import runpy
from pathlib import Path
from types import ModuleType

import pytest

from eventstore_sa.projection import handlers, naming, projector, table
from eventstore_sa.testing.cases.tables import in_turn

EXAMPLES = Path(__file__).parents[3] / "examples"


@in_turn("module", [handlers, naming, projector, table])
def test_documented_examples_run(module: ModuleType) -> None:
    failed, attempted = doctest.testmod(module)

    assert attempted > 0
    assert failed == 0


def test_the_profiles_example_prints_the_projected_profile(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "profiles.py"), run_name="__main__")

    assert capsys.readouterr().out.splitlines() == [
        "profile/ada: Ada, 6 Great Cumberland Place, London",
        "changes: 2, read from StreamIdentifier(category='profiles', stream='ada')",
    ]

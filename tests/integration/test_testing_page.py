"""The files that docs/testing.md shows are a suite that passes, with warnings as errors."""

from __future__ import annotations

import pytest

from tests.integration import markdown
from tests.integration.test_pytest_plugin import INI, suite
from tests.project import ROOT

__all__ = ["suite"]


def test_files_of_the_page_are_a_suite_that_passes(suite: pytest.Pytester) -> None:
    files = markdown.files((ROOT / "docs" / "testing.md").read_text(encoding="utf-8"))
    for name, code in files.items():
        (suite.path / name).write_text(code, encoding="utf-8")
    suite.makeini(
        f"{INI}    ignore:Using .httpx. with .starlette.testclient. is deprecated\n"
        "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )

    result = suite.runpytest_subprocess()

    tests = sum(code.count("def test_") for code in files.values())
    assert tests > 10
    result.assert_outcomes(passed=tests)

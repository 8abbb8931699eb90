"""The files that docs/testing.md shows are a suite that passes, with warnings as errors."""

from __future__ import annotations

import re

import pytest

from eventstore_sa.testing.postgres import URL_VARIABLE
from tests.integration import markdown
from tests.integration.test_pytest_plugin import INI, suite
from tests.project import ROOT

__all__ = ["suite"]


PAGE = ROOT / "docs" / "testing.md"


def test_files_of_the_page_are_a_suite_that_passes(suite: pytest.Pytester) -> None:
    files = markdown.files(PAGE.read_text(encoding="utf-8"))
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


@pytest.mark.long
def test_workers_share_the_server_that_the_page_starts_for_them(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    found = re.search(r"```python\n((?:(?!```).)*workerinput.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    suite.makeconftest(found[1])
    suite.makepyfile(f"""
        import os

        def test_one(eventstore_sa_postgres_sync, eventstore_sa_postgres_url):
            assert str(eventstore_sa_postgres_url.port) in os.environ[{URL_VARIABLE!r}]
            assert eventstore_sa_postgres_sync.log().read() == []

        test_two = test_one
    """)

    suite.runpytest_subprocess("-n", "2").assert_outcomes(passed=2)

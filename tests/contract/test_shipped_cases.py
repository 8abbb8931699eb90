"""The adapter cases as a product: what a third party sees who subclasses them, in a suite without our configuration."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any

import pytest

from eventstore_sa.testing.cases import EventStorageAdapterCases, SyncEventStorageAdapterCases
from tests.patience import PATIENCE_S
from tests.project import run_python

SUITE = """
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.testing.cases import EventStorageAdapterCases, SyncEventStorageAdapterCases


class Defective(InMemoryEventStorageAdapter):
    async def latest(self, *, target):
        return None


class TestAsync(EventStorageAdapterCases):
    keeps_subscriptions = True

    def construct_storage_adapter(self):
        return InMemoryEventStorageAdapter()


class TestDefective(TestAsync):
    def construct_storage_adapter(self):
        return Defective()


class TestSync(SyncEventStorageAdapterCases):
    keeps_subscriptions = True

    def construct_storage_adapter(self):
        return SyncInMemoryEventStorageAdapter()
"""

CASE_CLASSES = [EventStorageAdapterCases, SyncEventStorageAdapterCases]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run two cases over a third party's adapters, in pytest-asyncio's default mode and with warnings as errors."""
    suite = tmp_path_factory.mktemp("suite") / "test_adapter.py"
    suite.write_text(SUITE)
    options = ["-v", "-W", "error", "-p", "no:cacheprovider", "-k", "latest_is_the_last or exactly_one_wins"]
    # Without this option pytest-asyncio itself begins with a warning.
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    return run_python("-m", "pytest", "--rootdir", str(suite.parent), *options, str(suite), cwd=suite.parent).stdout


def test_the_cases_run_in_the_strict_mode_of_pytest_asyncio(output: str) -> None:
    for cases in ("TestAsync", "TestSync"):
        assert len(re.findall(rf"::{cases}::\w+ PASSED", output)) == 3, output


def test_a_defect_of_an_adapter_is_shown_with_its_values(output: str) -> None:
    assert "1 failed, 8 passed" in output, output
    assert "assert None == StoredEvent(" in output
    assert "in the case LogIdentifier()" in output


@pytest.mark.parametrize("cases", CASE_CLASSES)
def test_a_class_that_makes_no_adapter_is_told_what_to_override(cases: Callable[[], Any]) -> None:
    with pytest.raises(NotImplementedError, match="construct_storage_adapter"):
        cases().construct_storage_adapter()


@pytest.mark.parametrize("cases", CASE_CLASSES)
@pytest.mark.parametrize("at_once", [True, False])
async def test_operations_run_side_by_side_unless_the_adapter_cannot(cases: Callable[[], Any], at_once: bool) -> None:
    under_way: list[int] = []
    most: list[int] = []
    deadline = time.monotonic() + PATIENCE_S

    async def operation(number: int) -> tuple[int, int]:
        under_way.append(number)
        # No event of asyncio will do: they may be in threads.
        while at_once and len(under_way) + len(most) < 4 and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        most.append(len(under_way))
        await asyncio.sleep(0)
        under_way.remove(number)
        if number == 2:
            raise LookupError(number)
        return number, get_ident()

    setting = cases()
    setting.publishes_run_concurrently = at_once
    outcomes = await setting.run_concurrently([lambda n=n: operation(n) for n in range(4)])

    assert max(most) == (4 if at_once else 1)
    assert isinstance(outcomes.pop(2), LookupError)
    assert [number for number, _ in outcomes] == [0, 1, 3]
    in_threads = at_once and cases is SyncEventStorageAdapterCases
    assert {thread == get_ident() for _, thread in outcomes} == {not in_threads}

"""The examples in the docstrings of the testing tools run and print what they say."""

from __future__ import annotations

import doctest
from types import ModuleType

from eventstore_sa.testing import freezing, scenarios, sessions
from eventstore_sa.testing.cases.tables import in_turn


@in_turn("module", [freezing, scenarios, sessions])
def test_documented_examples_run(module: ModuleType) -> None:
    failed, attempted = doctest.testmod(module)

    assert attempted > 0
    assert failed == 0

"""What is measured, in the order of the tables: each suite sets something up that its workloads share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.harness import Suite
from benchmarks.workloads import (
    alone,
    business,
    catching_up,
    deciding,
    growth,
    reading,
    searching,
    sqlite,
    subscribing,
    typed,
    writing,
)

__all__ = ["SUITES"]

SUITES: Final[Sequence[Suite]] = (
    writing.SUITE,
    reading.SUITE,
    catching_up.SUITE,
    searching.SUITE,
    business.SUITE,
    sqlite.SUITE,
    typed.SUITE,
    deciding.SUITE,
    *subscribing.SUITES,
    *alone.SUITES,
    growth.SUITE,
)

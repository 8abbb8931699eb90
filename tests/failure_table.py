"""The table of failures in docs/subscriptions.md: each of its rows has tests, which say so.

Nothing else is here, so that tests can be read without being imported: see `tests/architecture/test_failure_table.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["row"]

T = TypeVar("T")


def row(*_happens: str) -> Callable[[T], T]:
    """Mark a test of rows, by their first columns."""
    return lambda test: test

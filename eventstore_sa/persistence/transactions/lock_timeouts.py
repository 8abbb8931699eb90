"""How long later statements of a transaction wait for locks on PostgreSQL, from seconds as they are given."""

from __future__ import annotations

from math import ceil
from typing import Final

from sqlalchemy import Connection, func, select

__all__ = ["LONGEST_MS", "limit_waits", "milliseconds"]

LONGEST_MS: Final = 2**31 - 1
"""The longest that `lock_timeout` can be; 24 days."""


def milliseconds(seconds: float) -> int:
    """Return a time that was checked by `checked_seconds` in milliseconds, at least 1: 0 would stand for no limit."""
    return max(1, ceil(min(seconds * 1000, LONGEST_MS)))


def limit_waits(connection: Connection, seconds: float) -> None:
    """Set `lock_timeout` for the rest of the transaction or savepoint."""
    connection.execute(select(func.pg_catalog.set_config("lock_timeout", f"{milliseconds(seconds)}ms", True)))

"""Nobody misses an event: processes that write, read, roll back and die on a real PostgreSQL.

A longer run of the same: `make soak`. That it can fail is proved in `test_order_soak_can_fail.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from tests.databases import PostgresDatabase
from tests.soak.run import Size, soak


@pytest.mark.parametrize("commits", [120, pytest.param(5000, marks=pytest.mark.long)])
def test_every_reader_sees_every_committed_event_once_and_in_order(
    postgres_database: PostgresDatabase, record_property: Callable[[str, object], None], commits: int
) -> None:
    # The number ends it: a machine that is busy with other things gets the time it needs.
    size = Size(seconds=3600, commits=commits, writers=4, workers=5, readers=2)

    report = soak(postgres_database.url, size, seed=secrets.randbelow(2**32))

    record_property("summary", report.summary)
    assert report.findings == [], report.summary
    assert report.commits >= commits

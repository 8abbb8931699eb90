"""Nobody misses an event: processes that write, read, roll back and die on a real PostgreSQL.

A longer run of the same: `make soak`. That it can fail is proved in `test_order_soak_can_fail.py`.
"""

from __future__ import annotations

import secrets

import pytest

from tests.databases import PostgresDatabase
from tests.soak.run import Size, soak

COMMITS = 3000
# It takes half a minute; a machine that is busy with other things gets more time to reach the number.
SIZE = Size(seconds=300, commits=COMMITS, writers=4, workers=5, readers=2)


def test_every_reader_sees_every_committed_event_once_and_in_order(
    postgres_database: PostgresDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    report = soak(postgres_database.url, SIZE, seed=secrets.randbelow(2**32))

    with capsys.disabled():
        print(f"\norder soak: {report.summary}")
    assert report.findings == []
    assert report.commits >= COMMITS

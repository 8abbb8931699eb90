"""The order soak finds the mistakes that it is for: a test that cannot fail is worse than none.

Each mutation gets small soaks, of growing size, until one is red.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.databases import PostgresDatabase
from tests.soak.mutations import (
    count_events_that_were_refused,
    read_last_position_before_the_lock,
    read_the_sequence_without_its_lock,
    take_out_the_fence,
)
from tests.soak.run import Report, Size, soak

MakeDatabase = Callable[[], PostgresDatabase]

COMMITS = (150, 300, 600, 1200, 2400)
# Such a fence is raised a few times in a hundred thousand: this goes on until there is one.
FENCES = Size(seconds=300, writers=1, workers=1, readers=0, kills=False, leisure_of_fences=0.0)


def test_soak_finds_that_the_fence_is_missing(make_postgres_database: MakeDatabase) -> None:
    report = _first_red(lambda size: soak(make_postgres_database().url, size, seed=1, mutate=take_out_the_fence))

    assert any("missed: " in finding for finding in report.findings)


@pytest.mark.long  # until chance shows it, which may take many rounds
def test_soak_finds_that_the_watermark_is_read_after_the_page(make_postgres_database: MakeDatabase) -> None:
    report = _first_red(lambda size: soak(make_postgres_database().url, size, seed=1, late_watermark=True))

    assert all("missed: " in finding for finding in report.findings)


def test_soak_finds_that_the_last_position_is_read_before_the_lock(make_postgres_database: MakeDatabase) -> None:
    report = _first_red(
        lambda size: soak(make_postgres_database().url, size, seed=1, mutate=read_last_position_before_the_lock)
    )

    assert any("at the same position of a stream" in finding for finding in report.findings)


@pytest.mark.long  # until chance shows it, which may take many rounds
def test_soak_finds_that_publishes_that_failed_move_the_ends_of_streams(make_postgres_database: MakeDatabase) -> None:
    # One process, whose publishes travel together, and so few streams that many of them meet.
    report = _first_red(
        lambda size: soak(make_postgres_database().url, size, seed=1, mutate=count_events_that_were_refused),
        writers=1,
        workers=16,
        streams=4,
    )

    assert any("position out of order" in finding for finding in report.findings)


@pytest.mark.long
def test_soak_finds_that_the_sequence_is_read_without_its_lock(make_postgres_database: MakeDatabase) -> None:
    report = soak(make_postgres_database().url, FENCES, seed=1, mutate=read_the_sequence_without_its_lock)

    assert any("the fence of a transaction is at" in finding for finding in report.findings)


def _first_red(run: Callable[[Size], Report], *, writers: int = 2, workers: int = 6, streams: int = 8) -> Report:
    """Soak until something is found; return the last report, be it red or not."""
    report = Report(findings=[], commits=0, summary="")
    for commits in COMMITS:
        size = Size(
            seconds=3600,
            commits=commits,
            writers=writers,
            workers=workers,
            readers=1,
            streams=streams,
            kills=False,
        )
        report = run(size)
        if report.findings:
            break
    return report

"""Rows and events agree, whenever the process dies: business transactions that are killed at random points."""

from __future__ import annotations

import secrets

import pytest
from sqlalchemy import text

from tests.hosts import Host, each_driver
from tests.killing import LEAST_KILLS, disagreements, open_accounts
from tests.patience import wait_until
from tests.preloaded import run_preloaded

kept_apart = each_driver("sqlite+aiosqlite", "sqlite", "postgresql+asyncpg", "postgresql+psycopg")


def kill(host: Host, *, transactions: int, mistake: bool = False) -> tuple[list[str], int, int]:
    """Run transactions in processes that are killed; return disagreements, and the numbers of events and processes."""
    engine = host.ground.outside
    open_accounts(engine)
    try:
        url = host.ground.url(host.driver).render_as_string(hide_password=False)
        seed = secrets.randbelow(2**32)
        outcome = run_preloaded("-m", "tests.killing", url, str(transactions), str(seed), str(mistake))
        assert outcome.returncode == 0, outcome.stderr
        await_the_end_of_others(host)
        differing, stored = disagreements(engine)
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE killing_accounts"))
    print(f"seed {seed}: {outcome.stdout.strip()} processes killed, {stored} events stored")
    return differing, stored, int(outcome.stdout)


def await_the_end_of_others(host: Host) -> None:
    """Wait until PostgreSQL has noticed that the processes are gone: one may have sent its COMMIT before."""
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    if host.postgres:
        with host.ground.outside.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            wait_until(lambda: connection.scalar(others) == 0, "the sessions of killed processes have ended")


@kept_apart
def test_rows_and_events_agree_after_kills(host: Host) -> None:
    differing, stored, killed = kill(host, transactions=20)

    assert differing == []
    assert stored >= 40  # those before the first kill
    assert killed >= LEAST_KILLS


@pytest.mark.long
@kept_apart
def test_rows_and_events_agree_after_many_kills(host: Host) -> None:
    differing, stored, _ = kill(host, transactions=500)

    assert differing == []
    assert stored >= 40  # those before the first kill


@each_driver("sqlite", pytest.param("postgresql+psycopg", marks=pytest.mark.long))
def test_kills_tell_rows_and_events_apart_that_are_not_of_one_transaction(host: Host) -> None:
    """A test of the test: here events are published after the commit, as a careless application does."""
    for transactions in (40, 160, 640):
        differing, stored, _ = kill(host, transactions=transactions, mistake=True)
        assert stored > 0
        if differing:
            return
        host.ground.empty()
    pytest.fail("no kill came between a commit and its events")

"""A rule across streams, kept by many processes that are killed: how many students a course takes, and the reverse."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
from msgspec.json import encode
from msgspec.structs import replace
from sqlalchemy import NullPool, create_engine

from eventstore_sa import SyncEventStore
from tests.databases import PostgresDatabase
from tests.enrolling import EnrolmentPlan, illegal
from tests.interleaving import install_schema
from tests.preloaded import run_preloaded
from tests.soak.mutations import read_last_position_before_the_lock

SMALL = EnrolmentPlan(processes=4, least=60, courses=4, places=2, students=8, most=3, seed=0)
FULL = EnrolmentPlan(processes=16, least=4000, courses=20, places=30, students=200, most=10, seed=0)


def enrol(database: PostgresDatabase, plan: EnrolmentPlan) -> list[str]:
    """Have students enrol; return what should not have been stored."""
    plan = replace(plan, seed=secrets.randbelow(2**32))
    url = database.url("psycopg").render_as_string(hide_password=False)
    outcome = run_preloaded("-m", "tests.enrolling", url, encode(plan).decode())
    assert outcome.returncode == 0, outcome.stderr
    killed, refused = map(int, outcome.stdout.split())
    with SyncEventStore(url) as store:
        events = store.log().read()
    print(f"seed {plan.seed}: {killed} processes killed, {len(events)} events stored, {refused} decisions refused")
    assert events
    return illegal(events, plan)


@pytest.fixture
def database(make_postgres_database: Callable[..., PostgresDatabase]) -> PostgresDatabase:
    return make_postgres_database(prepared_by=install_schema)


def test_every_enrolment_is_legal_at_its_place(database: PostgresDatabase) -> None:
    assert enrol(database, SMALL) == []


@pytest.mark.long
def test_every_enrolment_of_many_is_legal_at_its_place(database: PostgresDatabase) -> None:
    assert enrol(database, FULL) == []


def with_a_late_lock(database: PostgresDatabase) -> EnrolmentPlan:
    with create_engine(database.url("psycopg"), poolclass=NullPool).begin() as connection:
        read_last_position_before_the_lock(connection)
    return SMALL


MISTAKES: dict[str, Callable[[PostgresDatabase], EnrolmentPlan]] = {
    "conditions are checked before the lock": with_a_late_lock,
    "one number serves all items": lambda _: replace(
        SMALL, processes=6, courses=6, places=1, students=3, most=6, mistake="one number"
    ),
    "the pages of a decision are read one after another": lambda _: replace(SMALL, mistake="paged reads"),
}


@pytest.mark.long  # until chance shows it, which may take many rounds
@pytest.mark.parametrize("mistake", MISTAKES)
def test_too_many_enrol_if_a_mistake_is_made(database: PostgresDatabase, mistake: str) -> None:
    """A test of the test."""
    plan = MISTAKES[mistake](database)
    for _ in range(100):
        if enrol(database, plan):
            return
    pytest.fail("everything was legal nevertheless")

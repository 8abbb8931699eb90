"""Subscriptions in the same process are woken when events are committed: never before, and not by what is rolled back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from eventstore_sa import NewEvent
from eventstore_sa.testing.postgres import PostgresServer
from tests.awaiting import entered, settled
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.patience import PATIENCE_S
from tests.subscribers import EVERY, MEMORY, POSTGRES, Place, install_effects, open_place

on_databases = pytest.mark.parametrize("place", [kind for kind in EVERY if kind not in MEMORY], indirect=True)


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[PostgresDatabase]:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_effects)) as database:
        yield database


@pytest_asyncio.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    postgres = request.getfixturevalue("database") if request.param in POSTGRES else None
    async with open_place(request.param, tmp_path, postgres) as place:
        yield place


@pytest.fixture
def woken(place: Place) -> Iterator[list[int]]:
    """How many events others could read whenever somebody was woken."""
    seen: list[int] = []

    def note() -> None:
        seen.append(place.execute("SELECT count(*) FROM es_events")[0][0])

    wakeups = place.store.adapter.wakeups
    assert not wakeups.is_heard
    wakeups.listen(note)
    yield seen
    wakeups.ignore(note)


def event() -> NewEvent[str, Any, Any]:
    return NewEvent(name="placed", payload=None)


async def stored(place: Place, bind: Any, how: str) -> None:
    """Publish or stage an event within a session or a connection."""
    # A store within a session of another, or on a session or connection.
    within = place.store.within(bind) if how == "stage" else type(place.store)(bind)
    stream = within.stream(category="orders", stream="1")
    await settled(getattr(stream, how)(events=[event()]))


@on_databases
async def test_a_session_wakes_once_it_is_committed_and_not_before(place: Place, woken: list[int]) -> None:
    await place.publish("1")
    assert woken == [1]
    for number, how in enumerate(("publish", "stage"), start=2):
        async with entered(place.sessions()) as session:
            await stored(place, session, how)
            await settled(session.flush())
            assert len(woken) == number - 1
            await settled(session.commit())
        assert woken[number - 1 :] == [number]


@on_databases
async def test_what_is_rolled_back_wakes_nobody(place: Place, woken: list[int]) -> None:
    for how in ("publish", "stage"):
        async with entered(place.sessions()) as session:
            await stored(place, session, how)
            await settled(session.rollback())
            # What else the session commits is not of interest either.
            await settled(session.connection())
            await settled(session.commit())
        async with entered(place.sessions()) as session:
            await stored(place, session, how)
    async with entered(place.engine.connect()) as connection:
        await stored(place, connection, "publish")
        await settled(connection.rollback())
    assert woken == []


@on_databases
async def test_a_session_that_joined_a_transaction_wakes_when_that_is_committed(place: Place, woken: list[int]) -> None:
    kind: Any = AsyncSession if place.asynchronous else Session
    async with entered(place.engine.connect()) as connection:
        transaction = await settled(connection.begin())
        async with entered(kind(connection)) as session:
            await stored(place, session, "stage")
            await settled(session.commit())
        assert woken == []
        await settled(transaction.commit())
    assert woken == [1]


@on_databases
@pytest.mark.parametrize("coalesce", [False, True], ids=["alone", "coalesced"])
async def test_a_connection_wakes_when_it_is_given_back_after_the_commit(
    place: Place, woken: list[int], coalesce: bool
) -> None:
    async with entered(place.engine.connect()) as connection:
        store = type(place.store)(connection, coalesce=coalesce)
        await settled(store.stream(category="orders", stream="1").publish(events=[event()]))
        assert woken == []
        await settled(connection.commit())
    assert woken == [1]


@on_databases
async def test_a_staged_event_is_handled_without_polling(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore_sa.subscriptions.node._FIRST_POLL_S", 2 * PATIENCE_S)
    monkeypatch.setattr("eventstore_sa.subscriptions.node._LONGEST_POLL_S", 2 * PATIENCE_S)
    subscription = place.subscription()
    async with place.running(subscription):
        for how in ("publish", "stage"):
            async with entered(place.sessions()) as session:
                await stored(place, session, how)
                await settled(session.commit())
            last = await settled(place.store.log().latest())
            await settled(subscription.wait_for(last, timeout_s=PATIENCE_S))

"""Notifications between processes: two stores that share nothing but the database stand for two processes.

Nothing is polled for: what is not notified is found too late.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import NullPool, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore_sa import EventStore, EventStoreSchema, NewEvent, SyncEventStore
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.subscriptions import notifications
from eventstore_sa.persistence.subscriptions.notifications import PostgreSQLEar
from eventstore_sa.subscriptions import Notifier, SyncNotifier
from eventstore_sa.testing.postgres import PostgresServer
from tests.awaiting import entered, settled
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.failure_table import row
from tests.hosts import POSTGRES_DRIVERS, statements_of
from tests.patience import PATIENCE_S
from tests.subscribers import ALL, POSTGRES, Place, eventually, install_effects, open_place

with_every_driver = pytest.mark.parametrize("place", POSTGRES_DRIVERS, indirect=True)
on_postgres = pytest.mark.parametrize("place", ["postgresql+asyncpg", "postgresql+psycopg2"], indirect=True)
on_asyncpg = pytest.mark.parametrize("place", ["postgresql+asyncpg"], indirect=True)


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[PostgresDatabase]:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_effects)) as database:
        yield database


@pytest_asyncio.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    postgres = request.getfixturevalue("database") if request.param.startswith("postgresql") else None
    async with open_place(request.param, tmp_path, postgres) as place:
        yield place


@pytest.fixture
def unpolled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore_sa.subscriptions.node._FIRST_POLL_S", 2 * PATIENCE_S)
    monkeypatch.setattr("eventstore_sa.subscriptions.node._LONGEST_POLL_S", 2 * PATIENCE_S)


@asynccontextmanager
async def publisher(place: Place) -> AsyncIterator[Callable[[str], Any]]:
    """Publish like another process, which notifies."""
    schema = EventStoreSchema()
    kind: Any = EventStore if place.asynchronous else SyncEventStore
    create: Any = create_async_engine if place.asynchronous else create_engine
    store: Any = kind(create(place.engine.url, poolclass=NullPool), schema=schema)
    notifier: Any = Notifier if place.asynchronous else SyncNotifier

    async def publish(stream: str) -> Any:
        target = store.stream(category="orders", stream=stream)
        return (await settled(target.publish(events=[NewEvent(name="placed", payload=None)])))[0]

    async with entered(notifier(store)):
        yield publish
    assert not schema.wakeups.is_heard


@with_every_driver
async def test_what_another_process_publishes_is_handled_without_polling(place: Place, unpolled: None) -> None:
    subscription = place.subscription(partitions=2)
    async with place.running(subscription, notifications=True), publisher(place) as publish:
        for stream in ("1", "2", "3"):
            event = await publish(stream)
            await settled(subscription.wait_for(event, timeout_s=PATIENCE_S))
    assert not place.store.adapter.wakeups.is_heard


@row("a notification is lost")
@with_every_driver
async def test_a_lost_connection_is_replaced_and_nothing_is_missed(
    place: Place, unpolled: None, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = place.subscription()
    # Found by what it did last, which is to check itself, on a connection that is idle from then on.
    listening = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND query LIKE '%pg_notify%' AND state = 'idle'"
    )
    async with place.running(subscription, notifications=True):
        await eventually(lambda: place.execute(listening), "it listens")
        before = set(place.execute(listening))
        place.execute(f"SELECT pg_terminate_backend(pid) FROM ({listening}) l")
        # Published while nobody listens, and not notified either.
        (event,) = await place.publish("1")
        await settled(subscription.wait_for(event, timeout_s=PATIENCE_S))
        await eventually(lambda: set(place.execute(listening)) - before, "it listens again")
        async with publisher(place) as publish:
            await settled(subscription.wait_for(await publish("2"), timeout_s=PATIENCE_S))
    assert "cannot listen for notifications now" in caplog.text


@on_postgres
async def test_many_commits_are_notified_at_once_and_apart_from_them(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventstore_sa.subscriptions.notifying._LEAST_PAUSE_S", 0.5)
    kind: Any = Notifier if place.asynchronous else SyncNotifier
    with statements_of(place.engine) as statements:
        async with entered(kind(place.store)):
            await place.publish(*"1234567890")
            await eventually(lambda: any("pg_notify" in each for each in statements), "a notification is sent")
    sent = [each for each in statements if "pg_notify" in each]
    assert len(sent) < 10
    assert all("es_append" not in each for each in sent)


@on_asyncpg
async def test_a_connection_on_which_nothing_comes_back_is_not_trusted(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As through a pooler in transaction mode."""
    monkeypatch.setattr(notifications, "_ANSWER_WITHIN_S", 0.01)
    monkeypatch.setattr(notifications._Line, "send", lambda *_: None)
    subscription = place.subscription()
    async with place.running(subscription, notifications=True):
        await eventually(lambda: "goes through a pooler" in caplog.text, "it is noticed")
        (event,) = await place.publish("1")
        await settled(subscription.wait_for(event, timeout_s=PATIENCE_S))


@pytest.mark.parametrize("place", [kind for kind in ALL if kind not in POSTGRES], indirect=True)
async def test_where_one_process_is_all_there_is_nothing_to_notify(place: Place) -> None:
    subscription = place.subscription()
    kind: Any = Notifier if place.asynchronous else SyncNotifier
    async with entered(kind(place.store)), place.running(subscription, notifications=True):
        (event,) = await place.publish("1")
        await settled(subscription.wait_for(event, timeout_s=PATIENCE_S))


def test_drivers_that_cannot_listen_are_refused() -> None:
    engine: Any = SimpleNamespace(dialect=SimpleNamespace(driver="pg8000"))
    with pytest.raises(ConfigurationError, match="cannot be received with pg8000"):
        PostgreSQLEar(engine, "es_events")


def test_stopping_goes_on_if_the_connection_is_closed_meanwhile_because_it_is_broken() -> None:
    class Closed:
        def interrupt(self) -> None:
            raise OSError("Bad file descriptor")

    ear = PostgreSQLEar(create_engine("postgresql+psycopg2://nowhere"), "es_events")
    ear._line = Closed()  # type: ignore[assignment]
    ear.stop()


def test_a_notifier_is_for_a_store() -> None:
    store: Any = SyncEventStore("sqlite://")
    with pytest.raises(ConfigurationError, match="expected EventStore; got SyncEventStore"):
        Notifier(store)

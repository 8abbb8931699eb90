"""Subscriptions at their limits: many partitions, an empty log, odd names, changes while they run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.store.adapters.memory_subscriptions import InMemorySubscriptionStorage
from eventstore_sa.subscriptions import catch_up
from eventstore_sa.testing.postgres import PostgresServer
from tests.awaiting import settled
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.patience import PATIENCE_S
from tests.subscribers import ALL, DATABASES, POSTGRES, Place, eventually, install_effects, numbers, open_place

everywhere = pytest.mark.parametrize("place", ALL, indirect=True)
on_databases = pytest.mark.parametrize("place", DATABASES, indirect=True)
on_asyncpg = pytest.mark.parametrize("place", ["postgresql+asyncpg"], indirect=True)


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[PostgresDatabase]:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_effects)) as database:
        yield database


@pytest_asyncio.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    postgres = request.getfixturevalue("database") if request.param in POSTGRES else None
    async with open_place(request.param, tmp_path, postgres) as place:
        yield place


@everywhere
async def test_an_empty_log_is_caught_up_with_at_once(place: Place) -> None:
    seen: list[Any] = []
    subscription = place.subscription(partitions=3, start="now")
    await place.catch_up(subscription, progress=seen.append)
    await settled(subscription.rewind())

    assert place.effects() == []
    assert await place.checkpoints(subscription) == [0, 0, 0]
    assert (seen[-1].sequence_number, seen[-1].last_sequence_number, seen[-1].handled) == (0, 0, 0)


@everywhere
async def test_names_may_be_of_any_letters(place: Place) -> None:
    for name in ("naïve 🎉", "'; DROP TABLE es_events; --", "%s {0} :a \\", "é" * 100):
        (event,) = await place.publish("🎉 ' \\ %s", category="orders")
        subscription = place.subscription(name=name, start=event.sequence_number - 1)
        await place.catch_up(subscription)
        await settled(subscription.wait_for(event, timeout_s=PATIENCE_S))
        assert [each.subscription for each in await settled(subscription.status())] == [name]
    with pytest.raises(ConfigurationError, match="at most 200 bytes"):
        place.subscription(name="é" * 101)


@pytest.mark.parametrize("place", ["memory"], indirect=True)
async def test_a_node_says_that_it_is_alive_while_it_takes_many_partitions(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease_s, late_s, beats = 30.0, 0.0, list[float]()
    take, heartbeat = InMemorySubscriptionStorage.take, InMemorySubscriptionStorage.heartbeat

    def now() -> float:
        return time.monotonic() + late_s

    def take_slowly(*arguments: Any) -> Any:
        nonlocal late_s
        late_s += lease_s / 2
        return take(*arguments)

    def note(*arguments: Any) -> None:
        beats.append(now())
        heartbeat(*arguments)

    monkeypatch.setattr("eventstore_sa.subscriptions.node.time", SimpleNamespace(monotonic=now))
    monkeypatch.setattr(InMemorySubscriptionStorage, "take", take_slowly)
    monkeypatch.setattr(InMemorySubscriptionStorage, "heartbeat", note)
    await place.publish("1")
    await place.catch_up(place.subscription(partitions=8), lease_s=lease_s)

    assert late_s >= 4 * lease_s
    assert max(later - before for before, later in pairwise(beats)) < lease_s


@pytest.mark.long
@on_asyncpg
async def test_a_thousand_partitions(place: Place) -> None:
    stored = await place.publish(*(str(number) for number in range(50)))
    await place.catch_up(place.subscription(partitions=1000))
    assert sorted(place.effects()) == numbers(stored)
    await place.catch_up(place.subscription(partitions=1))
    assert len(place.effects()) == 50


@on_databases
async def test_partitions_change_while_nodes_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version is started beside the old one, and ends; what both handle is handled once."""
    monkeypatch.setattr("eventstore_sa.subscriptions.node._SURVEY_EVERY_S", 0.05)
    stored = await place.publish(*"123456")
    async with place.running(place.subscription(partitions=2)):
        for partitions in (5, 1, 3):
            newer = place.subscription(partitions=partitions)
            async with place.running(newer):
                stored += await place.publish(*"123456")
                for event in stored[-6:]:
                    await settled(newer.wait_for(event, timeout_s=PATIENCE_S))

                async def is_divided(newer: Any = newer, partitions: int = partitions) -> bool:
                    return len(await settled(newer.status())) == partitions

                await eventually(is_divided, "the number of partitions changes")
    assert sorted(place.effects()) == numbers(stored)


@on_asyncpg
async def test_a_clock_of_a_process_that_jumps_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are kept by the clock of the database, and by the monotonic one."""
    subscription = place.subscription()
    real = time.time
    async with place.running(subscription):
        for jump_s in (86_400.0, -86_400.0):
            monkeypatch.setattr(time, "time", lambda jump_s=jump_s: real() + jump_s)
            (event,) = await place.publish("1")
            await settled(subscription.wait_for(event, timeout_s=PATIENCE_S))
        (status,) = await settled(subscription.status())
    assert status.owner is not None
    assert len(place.effects()) == 2


@on_asyncpg
async def test_a_handler_that_swallows_its_cancellation_does_not_stop_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventstore_sa.subscriptions.node._SURVEY_EVERY_S", 0.05)
    stored = await place.publish("1", "2")
    swallowed, released = asyncio.Event(), asyncio.Event()

    async def handle(event: Any, session: Any) -> None:
        await place.store_effect(event, session)
        if event.stream == "1" and not swallowed.is_set():
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    swallowed.set()

    # Its node takes the partition from it when the deadline has been over for a while.
    subscription = place.subscription(handle, deadline_s=0.05, commit_every_s=0.0)
    await catch_up(subscription, connections=1)
    assert place.effects() == numbers(stored)
    released.set()
    # It finds that its transaction was ended, and gives its connection back.
    await eventually(lambda: place.engine.pool.checkedout() == 0, "the handler has ended")
    assert place.effects() == numbers(stored)


@everywhere
async def test_a_runner_that_is_left_at_once_leaves_nothing_behind(place: Place) -> None:
    subscription = place.subscription()
    for _ in range(3):
        async with place.running(subscription, notifications=place.postgres):
            pass
    runner: Any = place.running(subscription)
    async with runner as entered_runner:
        entered_runner.stop()
        entered_runner.stop()
        entered_runner.wake()
    assert {each.owner for each in await settled(subscription.status())} == {None}
    assert not place.store.adapter.wakeups.is_heard

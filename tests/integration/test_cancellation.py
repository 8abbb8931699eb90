"""A call that is cancelled, or runs out of time, stores all of its events or none, and leaves the pool as it was.

It is cancelled wherever it waits: for a lock, a place in the pool, the driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import StaticPool, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from eventstore_sa import EventStore, NewEvent, configure_sqlite
from eventstore_sa.testing.cases.tables import in_turn
from tests.awaiting import collected
from tests.blocking import wait_for_waiting
from tests.hosts import ASYNC_DRIVERS, Host, each_driver
from tests.integration.test_lost_connections import hold_stream, small_pool

each_async_driver = each_driver(*ASYNC_DRIVERS)
each_async_postgres_driver = each_driver("postgresql+asyncpg", "postgresql+psycopg_async")

CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "publish": lambda store: publish(store, 3),
    "latest": lambda store: store.log().latest(),
    "scan": lambda store: collected(store.log().iterate()),
    "streams": lambda store: collected(store.streams()),
    "categories": lambda store: collected(store.categories()),
    "watermark": lambda store: store.watermark(),
    "create_schema": lambda store: store.create_schema(),
}


async def publish(store: Any, number: int, *, stream: str = "1") -> Any:
    """Publish so many events at once."""
    events = [NewEvent(name="something-happened", payload=n) for n in range(number)]
    return await store.stream(category="orders", stream=stream).publish(events=events)


class _CancelledAt(Generator[Any, Any, Any]):
    """A call whose task is cancelled when it waits for the so manieth time."""

    def __init__(self, suspension: int, call: Awaitable[Any]) -> None:
        self._suspension = suspension
        self._steps: Any = call.__await__()

    def __await__(self) -> _CancelledAt:
        return self

    def send(self, value: Any) -> Any:
        return self._waiting_for(self._steps.send(value))

    def throw(self, *error: Any) -> Any:
        return self._waiting_for(self._steps.throw(*error))

    @property
    def waited(self) -> bool:
        return self._suspension < 0

    def _waiting_for(self, future: Any) -> Any:
        task = asyncio.current_task()
        if self._suspension == 0 and task is not None:
            task.cancel()
        self._suspension -= 1
        return future


async def cancelled_at(suspension: int, call: Awaitable[Any]) -> bool:
    """Make a call and cancel it where it waits for the so manieth time; return whether it waited so often."""
    steps = _CancelledAt(suspension, call)

    async def work() -> Any:
        return await steps

    (outcome,) = await asyncio.gather(work(), return_exceptions=True)
    # Not always cancelled: on Python 3.11, wait_for keeps a cancellation to itself that comes together with the result.
    assert not isinstance(outcome, Exception), outcome
    return steps.waited


async def publish_until_it_waits(host: Host, store: Any) -> None:
    """Publish with a time limit that ends when the publish waits for a lock."""
    async with asyncio.timeout(None) as limit:
        waiting = asyncio.create_task(asyncio.to_thread(wait_for_waiting, host.ground))
        waiting.add_done_callback(lambda _: limit.reschedule(asyncio.get_running_loop().time()))
        await publish(store, 3)


@each_async_postgres_driver
async def test_publish_that_runs_out_of_time_while_it_waits_stores_nothing_and_waits_no_longer(host: Host) -> None:
    engine = small_pool(host)
    store = host.store_on(engine)
    with host.ground.outside.connect() as outside:
        hold_stream(outside)

        with pytest.raises(TimeoutError):
            await publish_until_it_waits(host, store)

        assert engine.pool.checkedout() == 0
        await publish(store, 1, stream="2")
        outside.rollback()
    await publish(store, 1)
    await engine.dispose()
    assert len(host.ground.names()) == 2


@in_turn("call", list(CALLS))
@each_async_driver
async def test_call_can_be_cancelled_at_any_step_and_the_next_one_works(host: Host, call: str) -> None:
    host.ground.empty()
    engine = small_pool(host)
    store = host.store_on(engine)
    await publish(store, 3)
    suspension = 0
    while await cancelled_at(suspension, CALLS[call](store)):
        assert engine.pool.checkedout() == 0
        assert len(await store.log().read()) % 3 == 0
        suspension += 1

    await publish(store, 1, stream="2")
    await engine.dispose()
    assert suspension > 0
    assert len(host.ground.names()) % 3 == 1


@asynccontextmanager
async def memory_by_url() -> AsyncGenerator[EventStore]:
    async with EventStore("sqlite+aiosqlite://") as store:
        yield store


def memory_engine() -> AsyncEngine:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    configure_sqlite(engine)
    return engine


@asynccontextmanager
async def memory_of_an_engine() -> AsyncGenerator[EventStore]:
    engine = memory_engine()
    yield EventStore(engine)
    await engine.dispose()


@asynccontextmanager
async def memory_of_a_factory() -> AsyncGenerator[EventStore]:
    engine = memory_engine()
    yield EventStore(async_sessionmaker(engine))
    await engine.dispose()


@in_turn("make", [memory_by_url, memory_of_an_engine, memory_of_a_factory])
@in_turn("call", list(CALLS))
async def test_database_in_memory_outlives_calls_that_are_cancelled(make: Any, call: str) -> None:
    async with make() as store:
        await store.create_schema()
        await publish(store, 3)
        suspension = 0
        while await cancelled_at(suspension, CALLS[call](store)):
            suspension += 1
            events = await store.log().read()
            assert len(events) >= 3
            assert len(events) % 3 == 0

        assert suspension > 0


async def test_call_on_a_database_in_memory_is_cancelled_though_it_runs_to_its_end() -> None:
    async with memory_by_url() as store:
        await store.create_schema()
        task = asyncio.create_task(publish(store, 3))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)

        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await store.log().read()) == 3


async def test_tasks_share_a_database_in_memory_while_some_are_cancelled() -> None:
    async with memory_by_url() as store:
        await store.create_schema()
        tasks = [asyncio.create_task(publish(store, 2, stream=str(number))) for number in range(20)]
        await asyncio.sleep(0.005)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

        stored = {event.stream for event in await store.log().read()}
        assert {str(number) for number in range(1, 20, 2)} <= stored
        assert len(await store.log().read()) == 2 * len(stored)
        assert all(not isinstance(outcome, Exception) for outcome in outcomes)


@each_async_postgres_driver
async def test_cancelled_publish_leaves_no_lock_on_the_server(host: Host) -> None:
    engine = small_pool(host)
    store = host.store_on(engine)
    await publish(store, 1)
    for suspension in range(20):
        await cancelled_at(suspension, publish(store, 3))
    await publish(store, 1)
    query = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with host.ground.outside.connect() as outside:
        assert outside.scalar(query) == 0
    await engine.dispose()

"""Many writers that stage to the same streams in any order: their locks are taken last, and in one order."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, select, update

from eventstore_sa import exists_row, retry_transaction
from eventstore_sa.conditions import stream_exists, stream_is_empty
from eventstore_sa.errors import ConcurrencyError
from tests.awaiting import entered, settled
from tests.hosts import Host, each_driver, new_event

WORKERS = 16
SOME, MANY = 300, 2000
STREAMS = [str(number) for number in range(20)]
ROWS = range(5)

touched = Table("touched_rows", MetaData(), Column("id", Integer, primary_key=True), Column("touches", Integer))


@asynccontextmanager
async def rows_to_touch(host: Host) -> AsyncIterator[None]:
    outside = host.ground.outside
    touched.create(outside)
    with outside.begin() as connection:
        connection.execute(touched.insert(), [{"id": row, "touches": 0} for row in ROWS])
    yield
    touched.drop(outside)


async def touch_and_stage(host: Host, session: Any, seed: int) -> None:
    chance = random.Random(seed)
    for row in sorted(chance.sample(ROWS, 2)):
        await settled(session.execute(update(touched).where(touched.c.id == row).values(touches=touched.c.touches + 1)))
    orders = host.store.within(session).category(category="orders")
    locked = exists_row(select(touched).where(touched.c.id == row))
    for stream in chance.sample(STREAMS, 3):
        condition = locked if chance.random() < 0.1 else stream_exists() | stream_is_empty()
        orders.stream(stream=stream).stage(events=[new_event()], condition=condition)
    await settled(session.commit())


def require_all_stored(host: Host, *, transactions: int) -> None:
    assert len(host.ground.names()) == 3 * transactions
    with host.ground.outside.connect() as connection:
        assert connection.scalar(select(func.sum(touched.c.touches))) == 2 * transactions


@pytest.mark.parametrize("transactions", [SOME, pytest.param(MANY, marks=pytest.mark.long)])
@each_driver("postgresql+asyncpg")
async def test_staging_to_the_same_streams_in_random_orders_does_not_deadlock(host: Host, transactions: int) -> None:
    engine = host.make_engine(poolclass=None, pool_size=WORKERS)
    numbers = iter(range(transactions))

    async def work() -> None:
        for number in numbers:
            async with entered(host.session(engine)) as session:
                await touch_and_stage(host, session, number)

    async with rows_to_touch(host):
        await asyncio.gather(*(work() for _ in range(WORKERS)))
        require_all_stored(host, transactions=transactions)
    await engine.dispose()


@pytest.mark.long
@each_driver("postgresql+psycopg", "postgresql+psycopg2")
async def test_threads_that_stage_in_random_orders_do_not_deadlock(host: Host) -> None:
    engine = host.make_engine(poolclass=None, pool_size=WORKERS)

    def work(number: int) -> None:
        async def in_a_session() -> None:
            with host.session(engine) as session:
                await touch_and_stage(host, session, number)

        asyncio.run(in_a_session())

    async with rows_to_touch(host):
        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(work, range(MANY)))
        require_all_stored(host, transactions=MANY)
    engine.dispose()


@each_driver("postgresql+asyncpg", "postgresql+psycopg_async")
async def test_immediate_publishes_in_opposite_orders_deadlock_and_can_be_run_again(host: Host) -> None:
    """What staging is for: publishes at once lock in the order of the program."""
    failures: Counter[str] = Counter()
    meeting = asyncio.Barrier(2)

    async def publish(first: str, second: str, deadlock_timeout: str) -> None:
        met = False

        async def work(session: Any) -> None:
            nonlocal met
            await host.execute(session, f"SET LOCAL deadlock_timeout = '{deadlock_timeout}'")
            store = host.store.within(session)
            await host.publish(store, stream=first)
            if not met:
                met = True
                await meeting.wait()
            try:
                await host.publish(store, stream=second)
            except ConcurrencyError as error:
                failures[type(error).__name__] += error.retryable
                raise

        await retry_transaction(host.factory(), work)

    await asyncio.gather(publish("1", "2", "10s"), publish("2", "1", "20ms"))

    assert failures == {"ConcurrencyError": 1}
    assert len(host.ground.names()) == 4

"""Staged publishes on PostgreSQL with asyncpg: against publishes at once, and against a lock that is held meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from benchmarks.databases import Setting, database
from benchmarks.harness import Contest, benchmark, rate
from benchmarks.samples import new_events, new_stream
from eventstore_sa import EventStore, EventStoreSchema

__all__: list[str] = []

WRITERS = 8
WORK_S = 0.005


@benchmark(
    "stage-and-work",
    f"{WRITERS} writers that stage and then work for 5 ms, against the log locked at the publish",
    unit="transactions/s",
    floor=5.0,
)
async def stage_and_work(setting: Setting) -> AsyncIterator[Contest]:
    """Hold transactions that go on after staging against such that go on after publishing under one lock on the log."""
    times = setting.sized(20, 2)
    async with database(setting) as db:
        engine = await db.engine(pool_size=WRITERS)
        staging = EventStore(engine, schema=EventStoreSchema())
        # On tables of its own, because all stores on the same tables lock alike.
        locking = EventStore(engine, schema=EventStoreSchema(prefix="locked_", locking="advisory"))
        await staging.create_schema()
        await locking.create_schema()

        async def stage(store: EventStore, events: Any) -> None:
            store.stream(category="orders", stream=new_stream()).stage(events=events)

        async def all_writers(store: EventStore, write: Any, _: None) -> None:
            await asyncio.gather(*(_write_and_work(engine, store, write, times) for _ in range(WRITERS)))

        yield Contest(
            rate(WRITERS * times, partial(all_writers, staging, stage)),
            rate(WRITERS * times, partial(all_writers, locking, _publish)),
        )


async def _publish(store: EventStore, events: Any) -> None:
    await store.stream(category="orders", stream=new_stream()).publish(events=events)


async def _write_and_work(engine: AsyncEngine, store: EventStore, write: Any, times: int) -> None:
    for _ in range(times):
        async with AsyncSession(engine) as session, session.begin():
            await write(store.within(session), new_events(1))
            await asyncio.sleep(WORK_S)


def _stage_against_publish(publishes: int) -> Any:
    async def contest(setting: Setting) -> AsyncIterator[Contest]:
        times = setting.sized(max(300 // publishes, 20), 2)
        async with database(setting) as db:
            engine = await db.engine()
            store = await db.store()

            async def stage_all(transactions: Any) -> None:
                for transaction in transactions:
                    async with AsyncSession(engine) as session, session.begin():
                        here = store.within(session)
                        for events in transaction:
                            here.stream(category="orders", stream=new_stream()).stage(events=events)

            async def publish_all(transactions: Any) -> None:
                for transaction in transactions:
                    async with AsyncSession(engine) as session, session.begin():
                        here = store.within(session)
                        for events in transaction:
                            await here.stream(category="orders", stream=new_stream()).publish(events=events)

            def transactions() -> Any:
                return [[new_events(1) for _ in range(publishes)] for _ in range(times)]

            yield Contest(
                rate(times * publishes, stage_all, transactions), rate(times * publishes, publish_all, transactions)
            )

    return contest


stage_one = benchmark(
    "stage-one", "stage one publish and commit a session, against publishing it at once", unit="publishes/s"
)(_stage_against_publish(1))

stage_fifty = benchmark(
    "stage-fifty", "stage fifty publishes and commit a session, against publishing each at once", unit="publishes/s"
)(_stage_against_publish(50))

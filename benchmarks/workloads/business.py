"""W11: business transactions that go on working after they have stored an event, by many writers at once.

The mark inserts a plain row in the place of the event. What costs here is what an event store locks until the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.contenders import opened_contenders
from benchmarks.contenders.contender import Contender, at_once
from benchmarks.contenders.ours import Ours
from benchmarks.databases import Setting
from benchmarks.harness import Side, Suite, Workload, rate
from benchmarks.samples import CREATE_ORDERS, INSERT_ORDER, new_stream
from eventstore_sa.types import encode_json

__all__ = ["SUITE"]

PLAIN = "a plain row instead"
WRITERS = 8
WORK_S = 0.005

_CREATE_PLAIN = """
CREATE TABLE plain (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload jsonb NOT NULL, stored_at timestamptz NOT NULL
)
"""
_INSERT_PLAINLY = text("INSERT INTO plain (payload, stored_at) VALUES (CAST(:payload AS jsonb), now())")


@asynccontextmanager
async def _opened(setting: Setting) -> AsyncIterator[list[Contender]]:
    async with opened_contenders(setting, connections=_writers(setting)) as contenders:
        able = [contender for contender in contenders if contender.can("transact")]
        for contender in able:
            await (await contender.db.raw()).execute(CREATE_ORDERS)
        await (await able[0].db.raw()).execute(_CREATE_PLAIN)
        yield able


def _writers(setting: Setting) -> int:
    return setting.sized(WRITERS, WRITERS, 2)


def _sides(able: list[Contender], setting: Setting) -> Sequence[Side]:
    writers = _writers(setting)
    ours = able[0]
    assert isinstance(ours, Ours)

    async def insert_plainly(stream: int, events: Any, work_s: float) -> None:
        async with AsyncSession(ours.engine) as session, session.begin():
            await session.execute(INSERT_ORDER, {"id": stream})
            await session.execute(_INSERT_PLAINLY, {"payload": encode_json(events[0].payload).decode()})
            await asyncio.sleep(work_s)

    def side(name: str, contender: Contender, transact: Any) -> Side:
        async def write(transactions: Any) -> None:
            for stream, events in transactions:
                await transact(stream, events, WORK_S)

        async def work(prepared: Any) -> None:
            await at_once(contender, [write(transactions) for transactions in prepared])

        def prepare(times: int) -> Any:
            streams = [[new_stream() for _ in range(times)] for _ in range(writers)]
            return [
                [(stream, contender.new_events("orders", stream, 1, after=-1)) for stream in writer]
                for writer in streams
            ]

        return rate(name, writers, work, prepare, most=100)

    sides = [side(contender.name, contender, contender.transact) for contender in able]
    return [sides[0], side(PLAIN, ours, insert_plainly), *sides[1:]]


SUITE = Suite(
    _opened,
    (
        Workload(
            name="W11",
            title=f"{WRITERS} transactions at once: store, work for 5 ms",
            unit="transactions/s",
            sides=_sides,
            mark=PLAIN,
            floor=0.85,
            aim=0.95,
        ),
    ),
)

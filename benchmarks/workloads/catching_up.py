"""W9: a stored projection of each stream catches up with the log; all sides store the same states in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from benchmarks.contenders import opened_contenders
from benchmarks.contenders.contender import Contender
from benchmarks.contenders.ours import Ours
from benchmarks.databases import Setting
from benchmarks.harness import Side, Suite, Workload, rate
from benchmarks.samples import new_events

__all__ = ["SUITE"]

EVENTS_PER_STREAM = 10

_runs = count(1)


@asynccontextmanager
async def _opened(setting: Setting) -> AsyncIterator[list[tuple[Contender, int]]]:
    """Fill logs with streams that take turns; those of peers that save one projection at a time are shorter."""
    many, few = setting.sized(2000, 500, 20), setting.sized(50, 20, 2)
    # Some read by one connection while they save by another.
    async with opened_contenders(setting, connections=2) as contenders:
        able: list[tuple[Contender, int]] = []
        for contender in contenders:
            if isinstance(contender, Ours):
                await _fill_at_once(contender, many)
            elif contender is not contenders[1] and contender.can("catch_up"):
                await _fill(contender, few)
            if contender.can("catch_up"):
                able.append((contender, EVENTS_PER_STREAM * (many if contender in contenders[:2] else few)))
        yield able


async def _fill_at_once(ours: Ours, streams: int) -> None:
    for _ in range(EVENTS_PER_STREAM):
        await ours.store.category(category="orders").publish(
            streams={f"orders-{number}": {"events": new_events(1)} for number in range(streams)}
        )
    await ours.settle()


async def _fill(contender: Contender, streams: int) -> None:
    for turn in range(EVENTS_PER_STREAM):
        for stream in range(1, streams + 1):
            events = contender.new_events("orders", stream, 1, after=turn - 1)
            await contender.append("orders", stream, events, after=turn - 1)


def _sides(able: list[tuple[Contender, int]], setting: Setting) -> Sequence[Side]:
    def work(contender: Contender, events: int) -> Callable[[str], Awaitable[Any]]:
        async def catch_up(run: str) -> None:
            seen = await contender.catch_up(run)
            if seen != events:
                raise AssertionError(f"{contender.name} has projected {seen} events of {events}")

        return catch_up

    # A new name in each round, because events that are applied already are left out.
    return [
        rate(contender.name, events, work(contender, events), lambda _: f"orders-{next(_runs)}")
        for contender, events in able
    ]


SUITE = Suite(
    _opened,
    (
        Workload(
            name="W9",
            title="stored projections catch up with the log",
            unit="events/s",
            sides=_sides,
            floor=0.75,
            aim=0.9,
        ),
    ),
)

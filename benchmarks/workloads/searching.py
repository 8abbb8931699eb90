"""W10: searches of 20,000 stored projections that no index serves, and saves of single projections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count

from benchmarks.contenders import opened_contenders
from benchmarks.contenders.contender import Contender
from benchmarks.databases import Setting
from benchmarks.harness import Side, Suite, Workload, rate
from benchmarks.samples import STATUSES

__all__ = ["SUITE"]

_numbers = count(1)


@asynccontextmanager
async def _opened(setting: Setting) -> AsyncIterator[list[Contender]]:
    size = setting.sized(20_000, 5000, 200)
    async with opened_contenders(setting, connections=1) as contenders:
        able = [contender for contender in contenders if contender.can("search_projections")]
        for contender in able:
            # Ours and the raw driver read the same table.
            if contender is not contenders[1]:
                await contender.fill_projections(size)
        yield able


def _searches(able: list[Contender], setting: Setting) -> Sequence[Side]:
    def work(contender: Contender) -> Callable[[int], Awaitable[None]]:
        async def search(times: int) -> None:
            for turn in range(times):
                if await contender.search_projections(STATUSES[turn % 4], turn % 5) != 10:
                    raise AssertionError(f"{contender.name} has not found a page")

        return search

    return [rate(contender.name, 1, work(contender), most=100) for contender in able]


def _saves(able: list[Contender], setting: Setting) -> Sequence[Side]:
    def work(contender: Contender) -> Callable[[int], Awaitable[None]]:
        async def save(times: int) -> None:
            for _turn in range(times):
                await contender.save_projection(next(_numbers) % 10_000)

        return save

    return [rate(contender.name, 1, work(contender), most=1000) for contender in able]


SUITE = Suite(
    _opened,
    (
        Workload(
            name="W10a",
            title="search projections without an index",
            unit="searches/s",
            sides=_searches,
            floor=0.75,
            aim=0.9,
        ),
        Workload(name="W10b", title="save one projection", unit="saves/s", sides=_saves, floor=0.45, aim=0.6),
    ),
)

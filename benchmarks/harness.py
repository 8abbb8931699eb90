"""Workloads: several sides that do the same work, in interleaved rounds, by the clock and by processor time.

Knows no event store. The ratio of a workload is the median over the rounds of ours divided by its mark, both of the same
round; a workload with a floor passes when that median reaches it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from statistics import median
from typing import Any, TypeAlias

from msgspec import Struct

from benchmarks.databases import Setting

__all__ = ["OURS", "RAW", "Figure", "Outcome", "Side", "Suite", "Workload", "rate", "run", "value"]

OURS = "eventstore_sa"
RAW = "raw driver"

Measure: TypeAlias = Callable[[Setting], Awaitable["Figure"]]


class Figure(Struct, frozen=True):
    """What one side did in one round.

    Attributes:
        value: Work per second, or another quantity, such as bytes.
        client_us: Microseconds of processor time that this process spent on a unit of work; None if it was not measured.
        server_us: The same of all processes of the server, its background writers included; None if they cannot be seen.
    """

    value: float
    client_us: float | None = None
    server_us: float | None = None


class Side(Struct, frozen=True):
    """One way of doing the work of a workload; `measure` does it once."""

    name: str
    measure: Measure


class Workload(Struct, frozen=True, kw_only=True):
    """The same work, done by several sides.

    Attributes:
        name: What it is called on the command line and in tables.
        title: What is done.
        unit: What its values count.
        sides: Makes the sides, of what the suite has set up; ours comes first.
        mark: The side to which ours is compared.
        floor: The lowest ratio that is good enough.
        aim: The ratio that is aimed at.
        ceiling: The highest ratio that is good enough, where less is better.
        most_rounds: How many rounds are enough for values that do not depend on the clock.
    """

    name: str
    title: str
    unit: str
    sides: Callable[[Any, Setting], Sequence[Side]]
    mark: str = RAW
    floor: float | None = None
    aim: float | None = None
    ceiling: float | None = None
    most_rounds: int = 1000


class Suite(Struct, frozen=True):
    """Workloads that share what they are measured on, such as stores that have been filled."""

    opened: Callable[[Setting], AbstractAsyncContextManager[Any]]
    workloads: Sequence[Workload]


class Outcome(Struct, frozen=True):
    """The figures of each side of a workload, round by round; and why sides have failed."""

    workload: Workload
    figures: Mapping[str, Sequence[Figure]]
    failures: Mapping[str, str]

    @property
    def ours(self) -> str:
        """The name of the side that is judged: the first one."""
        return next(iter(self.figures))

    def middle(self, side: str) -> float:
        """Return the median value of a side."""
        return median(figure.value for figure in self.figures[side])

    def processor_us(self, side: str) -> tuple[float | None, float | None]:
        """Return the median microseconds of client and server for a unit of work of a side."""
        return (
            _median([figure.client_us for figure in self.figures[side]]),
            _median([figure.server_us for figure in self.figures[side]]),
        )

    def ratios(self, mark: str | None = None) -> list[float]:
        """Return ours divided by the mark, round by round; empty if that side did not take part."""
        others = self.figures.get(mark or self.workload.mark, ())
        return [ours.value / other.value for ours, other in zip(self.figures[self.ours], others, strict=False)]

    @property
    def verdict(self) -> str:
        """Whether the floor is reached; empty without one."""
        ratios, workload = self.ratios(), self.workload
        if ratios and workload.floor is not None:
            return "OK" if median(ratios) >= workload.floor else "BELOW"
        if ratios and workload.ceiling is not None:
            return "OK" if median(ratios) <= workload.ceiling else "ABOVE"
        return ""


def rate(
    name: str,
    count: int,
    work: Callable[[Any], Awaitable[object]],
    prepare: Callable[[int], Any] = lambda times: times,
    *,
    most: int = 1,
) -> Side:
    """Make a side that is measured in work per second.

    Args:
        name: The name of the side.
        count: How much work is done each time.
        work: What is timed; it gets what `prepare` returned.
        prepare: Makes, outside of the time, what is needed to do the work so many times.
        most: How often the work is done in a round, at most: as often as fits into the time for a round, which the first
            measure finds out.
    """
    times = 0

    async def measure(setting: Setting) -> Figure:
        nonlocal times
        if times == 0:
            times = await _fitting(work, prepare, most=most, round_s=setting.round_s)
        prepared = prepare(times)
        if not setting.is_tiny:
            gc.collect()
        server_start = setting.server_time()
        client_start, start = time.process_time(), time.perf_counter()
        await work(prepared)
        elapsed, client = time.perf_counter() - start, time.process_time() - client_start
        server_end = setting.server_time()
        done = count * times
        return Figure(
            done / elapsed,
            client * 1e6 / done,
            None if server_start is None or server_end is None else (server_end - server_start) * 1e6 / done,
        )

    return Side(name, measure)


async def _fitting(
    work: Callable[[Any], Awaitable[object]], prepare: Callable[[int], Any], *, most: int, round_s: float
) -> int:
    """Return how often work can be done in a round; to find out is also what warms a side up."""
    times = 1
    # What is done for the first time takes longer: what comes of that is not final.
    for share in (0.05, 0.3, 1.0) if round_s else ():
        prepared = prepare(times)
        start = time.perf_counter()
        await work(prepared)
        each = (time.perf_counter() - start) / times
        times = max(1, min(most, int(round_s * share / each)))
        if times == most or (share > 0.05 and each > round_s):
            break
    return times


def value(name: str, work: Callable[[], Awaitable[float]]) -> Side:
    """Make a side whose measure is what `work` returns."""

    async def measure(_: Setting) -> Figure:
        return Figure(await work())

    return Side(name, measure)


async def run(workload: Workload, sides: Sequence[Side], setting: Setting) -> Outcome:
    """Measure the sides in rounds, each of which begins with another side.

    A peer that fails is left out from then on: it must not take the figures of all others with it.
    """
    figures: dict[str, list[Figure]] = {side.name: [] for side in sides}
    failures: dict[str, str] = {}
    needed = {sides[0].name, workload.mark}
    for turn in range(min(setting.rounds, workload.most_rounds)):
        first = turn % len(sides)
        for side in [*sides[first:], *sides[:first]]:
            if side.name in failures:
                continue
            try:
                figures[side.name].append(await side.measure(setting))
            except Exception as error:  # whatever a peer raises
                if side.name in needed:
                    raise
                failures[side.name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return Outcome(workload, {name: values for name, values in figures.items() if name not in failures}, failures)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None

"""Contests: two ways to do the same, in interleaved rounds, and what comes of them as a table.

Knows no database and no event store. A contest that has a floor passes when the median of its ratios reaches it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from statistics import median
from typing import Any, TypeAlias

from msgspec import Struct

from benchmarks.databases import Setting

__all__ = ["Benchmark", "Contest", "Outcome", "benchmark", "rate", "run", "table"]

Measure: TypeAlias = Callable[[], Awaitable[float]]
"""Does the work once, and returns the figure: work per second, or bytes."""


class Contest(Struct, frozen=True):
    """Two measures of the same work; without a reference, ours is merely told."""

    ours: Measure
    reference: Measure | None = None


class Benchmark(Struct, frozen=True):
    """A contest by name.

    Attributes:
        name: What it is called on the command line.
        title: What it compares.
        unit: What its figures count.
        prepare: Sets the contest up, and cleans up after it.
        floor: The lowest ratio that is good enough.
        ceiling: The highest one, where less is better.
        most_rounds: How many rounds are enough for figures that do not depend on the clock.
    """

    name: str
    title: str
    unit: str
    prepare: Callable[[Setting], AbstractAsyncContextManager[Contest]]
    floor: float | None = None
    ceiling: float | None = None
    most_rounds: int = 1000


class Outcome(Struct, frozen=True):
    """The figures of all rounds of a benchmark, in their order."""

    benchmark: Benchmark
    ours: Sequence[float]
    reference: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Ours divided by the reference, round by round."""
        return [ours / reference for ours, reference in zip(self.ours, self.reference, strict=False)]

    @property
    def verdict(self) -> str:
        """Whether the floor is reached; empty without a floor."""
        contest = self.benchmark
        if contest.floor is not None:
            return "OK" if median(self.ratios) >= contest.floor else "BELOW"
        if contest.ceiling is not None:
            return "OK" if median(self.ratios) <= contest.ceiling else "ABOVE"
        return ""


def benchmark(
    name: str,
    title: str,
    *,
    unit: str,
    floor: float | None = None,
    ceiling: float | None = None,
    most_rounds: int = 1000,
) -> Callable[[Callable[[Setting], AsyncIterator[Contest]]], Benchmark]:
    """Make a benchmark of a function that sets a contest up, yields it and cleans up."""
    return lambda prepare: Benchmark(name, title, unit, asynccontextmanager(prepare), floor, ceiling, most_rounds)


def rate(count: int, work: Callable[[Any], Awaitable[object]], prepare: Callable[[], Any] = lambda: None) -> Measure:
    """Measure work per second.

    Args:
        count: How much one call of `work` does.
        work: What is timed; it gets what `prepare` returned.
        prepare: What is made anew for every round, outside of the time.
    """

    async def measure() -> float:
        prepared = prepare()
        gc.collect()
        start = time.perf_counter()
        await work(prepared)
        return count / (time.perf_counter() - start)

    return measure


async def run(contender: Benchmark, setting: Setting) -> Outcome:
    """Run a benchmark in rounds, in which the sides take turns at going first, after one to warm up unless it is quick."""
    async with contender.prepare(setting) as contest:
        measures = [contest.ours] if contest.reference is None else [contest.ours, contest.reference]
        figures: list[list[float]] = [[] for _ in measures]
        for measure in () if setting.quick else measures:
            await measure()
        for turn in range(min(setting.rounds, contender.most_rounds)):
            sides = list(zip(measures, figures, strict=True))
            for measure, results in sides if turn % 2 else reversed(sides):
                results.append(await measure())
    return Outcome(contender, figures[0], figures[1] if len(figures) > 1 else ())


def table(outcomes: Iterable[Outcome], *, judged: bool) -> str:
    """Lay the outcomes out: medians, the median ratio with its range over the rounds, and whether that is enough."""
    rows: list[tuple[str, ...]] = [("", "ours", "reference", "", "ratio", "(range)", "floor", "")]
    rows += [_row(outcome, judged=judged) for outcome in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(_line(row, widths) for row in rows)


def _row(outcome: Outcome, *, judged: bool) -> tuple[str, ...]:
    contest, ratios = outcome.benchmark, outcome.ratios
    floor = "" if contest.floor is None else f">= {contest.floor}"
    return (
        contest.title,
        f"{median(outcome.ours):,.0f}",
        f"{median(outcome.reference):,.0f}" if outcome.reference else "-",
        contest.unit,
        f"{median(ratios):.2f}" if ratios else "-",
        f"({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "",
        floor if contest.ceiling is None else f"<= {contest.ceiling}",
        outcome.verdict if judged else "",
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    words = {0, 3, 5, 7}
    cells = (
        text.ljust(width) if column in words else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()

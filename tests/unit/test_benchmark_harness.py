"""How benchmarks measure: in turns, in ratios of the same round, and without regard for peers that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from benchmarks.databases import Setting
from benchmarks.harness import Figure, Outcome, Side, Workload, rate, run, value
from benchmarks.report import page, table


def _setting(*, rounds: int = 3, size: str = "tiny") -> Setting:
    return Setting(server=cast("Any", None), server_time=lambda: None, rounds=rounds, size=size)


def _workload(**options: Any) -> Workload:
    return Workload(name="X", title="work", unit="1/s", sides=lambda _opened, _setting: [], **options)


def _returning(*values: float) -> Callable[[], Awaitable[float]]:
    remaining = iter(values)

    async def work() -> float:
        return next(remaining)

    return work


async def test_ratios_are_those_of_the_same_round_and_decide_on_the_floor() -> None:
    sides = [value("ours", _returning(10, 40, 90)), value("raw driver", _returning(10, 20, 30))]

    outcome = await run(_workload(floor=2.0), sides, _setting())

    assert outcome.ratios() == [1.0, 2.0, 3.0]
    assert outcome.verdict == "OK"


async def test_a_missed_floor_and_an_exceeded_ceiling_are_told() -> None:
    figures = {"ours": [Figure(1.0)], "raw driver": [Figure(2.0)]}

    assert Outcome(_workload(floor=0.6), figures, {}).verdict == "BELOW"
    assert Outcome(_workload(ceiling=0.4), figures, {}).verdict == "ABOVE"
    assert Outcome(_workload(), figures, {}).verdict == ""


async def test_each_round_begins_with_another_side() -> None:
    order: list[str] = []

    def side(name: str) -> Side:
        async def measure(_: Setting) -> Figure:
            order.append(name)
            return Figure(1.0)

        return Side(name, measure)

    await run(_workload(mark="b"), [side("a"), side("b"), side("c")], _setting())

    assert "".join(order) == "abcbcacab"


async def test_a_peer_that_fails_is_left_out_and_reported() -> None:
    sides = [value("ours", _returning(1, 1)), value("raw driver", _returning(1, 1)), value("peer", _returning(1))]

    outcome = await run(_workload(), sides, _setting(rounds=2))

    assert set(outcome.figures) == {"ours", "raw driver"}
    assert "peer" in outcome.failures
    assert "peer" in table([outcome], judged=True)
    assert "| peer | failed: " in page([outcome], circumstances="", note="")


@pytest.mark.parametrize("failing", ["ours", "raw driver"])
async def test_a_failure_of_ours_or_of_the_mark_ends_the_run(failing: str) -> None:
    async def fail() -> float:
        raise RuntimeError(failing)

    sides = [value(name, fail if name == failing else _returning(1)) for name in ("ours", "raw driver")]

    with pytest.raises(RuntimeError, match=failing):
        await run(_workload(), sides, _setting())


async def test_work_is_done_as_often_as_fits_into_a_round_and_prepared_outside_of_the_time() -> None:
    done: list[int] = []

    async def work(times: int) -> None:
        done.append(times)
        await asyncio.sleep(0.01 * times)

    quick = await rate("side", 5, work, most=4).measure(_setting(size="quick"))
    done_quickly, done[:] = list(done), []
    await rate("side", 5, work, most=4).measure(_setting())

    assert done_quickly[0] == 1
    assert done_quickly[-1] in range(1, 5)
    assert 0 < quick.value <= 500
    assert done == [1]

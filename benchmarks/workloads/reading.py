"""W5 to W8: a long stream, the log, a small category and the latest event, in a log of 200,000 events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from benchmarks.contenders import opened_contenders
from benchmarks.contenders.contender import Contender
from benchmarks.databases import Setting
from benchmarks.harness import Side, Suite, Workload, rate

__all__ = ["SUITE"]


class _Filled(Struct, frozen=True):
    """Contenders whose logs hold blocks of two streams: a long one of orders, and a short one of returns."""

    contenders: Sequence[Contender]
    blocks: int
    orders: int
    returns: int

    @property
    def events(self) -> int:
        return self.blocks * (self.orders + self.returns)


@asynccontextmanager
async def _opened(setting: Setting) -> AsyncIterator[_Filled]:
    orders = setting.sized(990, 990, 30)
    blocks = setting.sized(200, 30, 2)
    async with opened_contenders(setting, connections=1) as contenders:
        filled = _Filled(contenders, blocks, orders, orders // 99 or 1)
        for contender in contenders:
            # Ours and the raw driver read the same tables.
            if contender is not contenders[1]:
                await _fill(contender, filled)
            await contender.settle()
        yield filled


async def _fill(contender: Contender, filled: _Filled) -> None:
    for block in range(1, filled.blocks + 1):
        for category, stream, size in (
            ("orders", block, filled.orders),
            ("returns", filled.blocks + block, filled.returns),
        ):
            events = contender.new_events(category, stream, size, after=-1)
            await contender.append(category, stream, events, after=-1)


def _sides(
    filled: _Filled, method: str, count: int, work: Callable[[Contender], Callable[[Any], Awaitable[None]]]
) -> Sequence[Side]:
    return [rate(contender.name, count, work(contender)) for contender in filled.contenders if contender.can(method)]


def _streams(filled: _Filled, setting: Setting) -> Sequence[Side]:
    times = setting.sized(20, 5, 1)

    def work(contender: Contender) -> Callable[[Any], Awaitable[None]]:
        async def read(_: None) -> None:
            for number in range(times):
                seen = await contender.read_stream("orders", 1 + number * 7 % filled.blocks)
                _expect(contender, filled.orders, seen)

        return read

    return _sides(filled, "read_stream", times * filled.orders, work)


def _log(filled: _Filled, setting: Setting) -> Sequence[Side]:
    def work(contender: Contender) -> Callable[[Any], Awaitable[None]]:
        async def read(_: None) -> None:
            # One peer has no log, but a category of nearly all events.
            if await contender.read_log() not in {filled.events, filled.blocks * filled.orders}:
                raise AssertionError(f"{contender.name} has lost events")

        return read

    return _sides(filled, "read_log", filled.events, work)


def _category(filled: _Filled, setting: Setting) -> Sequence[Side]:
    times = setting.sized(10, 3, 1)

    def work(contender: Contender) -> Callable[[Any], Awaitable[None]]:
        async def read(_: None) -> None:
            for _turn in range(times):
                _expect(contender, filled.blocks * filled.returns, await contender.read_category("returns"))

        return read

    return _sides(filled, "read_category", times * filled.blocks * filled.returns, work)


def _latest(filled: _Filled, setting: Setting) -> Sequence[Side]:
    times = setting.sized(500, 100, 2)

    def work(contender: Contender) -> Callable[[Any], Awaitable[None]]:
        async def read(_: None) -> None:
            for number in range(times):
                await contender.read_latest("orders", 1 + number * 7 % filled.blocks)

        return read

    return _sides(filled, "read_latest", times, work)


def _expect(contender: Contender, expected: int, seen: int) -> None:
    if seen != expected:
        raise AssertionError(f"{contender.name} has read {seen} events of {expected}")


SUITE = Suite(
    _opened,
    (
        Workload(name="W5", title="read streams of 1,000 events", unit="events/s", sides=_streams, floor=0.65, aim=0.8),
        Workload(name="W6", title="read a log of 200,000 events", unit="events/s", sides=_log, floor=0.65, aim=0.8),
        Workload(
            name="W7",
            title="read a category that has one event in a hundred of the log",
            unit="events/s",
            sides=_category,
            floor=0.65,
            aim=0.8,
        ),
        Workload(
            name="W8", title="read the latest event of a stream", unit="events/s", sides=_latest, floor=0.45, aim=0.6
        ),
    ),
)

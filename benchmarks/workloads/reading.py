"""W5 to W8: a long stream, the log, a small category and the latest event, in a log of 200,000 events.

The logs of peers are a fifth as long, because some take minutes to fill; that does not slow them down.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from benchmarks.contenders import opened_contenders
from benchmarks.contenders.contender import Contender
from benchmarks.databases import Setting
from benchmarks.harness import Side, Suite, Workload, rate

__all__ = ["SUITE"]


class _Filled(Struct, frozen=True):
    """A contender whose log has blocks of two streams: a long one of orders, and a short one of returns."""

    contender: Contender
    blocks: int
    orders: int
    returns: int

    def expect(self, expected: int, seen: int) -> None:
        """Raise an error if not all events were read."""
        if seen != expected:
            raise AssertionError(f"{self.contender.name} has read {seen} events of {expected}")

    def stream(self, number: int) -> int:
        """Return the number of a stream of orders."""
        return 1 + number * 7 % self.blocks


@asynccontextmanager
async def _opened(setting: Setting) -> AsyncIterator[list[_Filled]]:
    orders = setting.sized(990, 990, 30)
    async with opened_contenders(setting, connections=1) as contenders:
        filled: list[_Filled] = []
        for contender in contenders:
            # Ours and the raw driver read the same tables.
            blocks = setting.sized(200, 30, 2) if contender in contenders[:2] else setting.sized(40, 3, 2)
            filled.append(_Filled(contender, blocks, orders, orders // 99 or 1))
            if contender is not contenders[1]:
                await _fill(filled[-1])
        yield filled


async def _fill(filled: _Filled) -> None:
    contender = filled.contender
    for block in range(1, filled.blocks + 1):
        for category, stream, size in (
            ("orders", block, filled.orders),
            ("returns", filled.blocks + block, filled.returns),
        ):
            events = contender.new_events(category, stream, size, after=-1)
            await contender.append(category, stream, events, after=-1)
    await contender.settle()


def _side(filled: _Filled, count: int, read: Callable[[int], Awaitable[None]], *, most: int) -> Side:
    async def work(times: int) -> None:
        for number in range(times):
            await read(number)

    return rate(filled.contender.name, count, work, most=most)


def _streams(logs: list[_Filled], _: Setting) -> Sequence[Side]:
    def side(log: _Filled) -> Side:
        async def read(number: int) -> None:
            log.expect(log.orders, await log.contender.read_stream("orders", log.stream(number)))

        return _side(log, log.orders, read, most=100)

    return [side(log) for log in logs]


def _log(logs: list[_Filled], _: Setting) -> Sequence[Side]:
    def side(log: _Filled) -> Side:
        # One peer has no log, but a category of nearly all events.
        count = log.blocks * (log.orders + (log.returns if log.contender.reads_log else 0))

        async def read(_: int) -> None:
            log.expect(count, await log.contender.read_log())

        return _side(log, count, read, most=1)

    return [side(log) for log in logs if log.contender.can("read_log")]


def _category(logs: list[_Filled], _: Setting) -> Sequence[Side]:
    def side(log: _Filled) -> Side:
        count = log.blocks * log.returns

        async def read(_: int) -> None:
            log.expect(count, await log.contender.read_category("returns"))

        return _side(log, count, read, most=100)

    return [side(log) for log in logs if log.contender.can("read_category")]


def _latest(logs: list[_Filled], _: Setting) -> Sequence[Side]:
    def side(log: _Filled) -> Side:
        async def read(number: int) -> None:
            await log.contender.read_latest("orders", log.stream(number))

        return _side(log, 1, read, most=1000)

    return [side(log) for log in logs if log.contender.can("read_latest")]


SUITE = Suite(
    _opened,
    (
        Workload(name="W5", title="read streams of 1,000 events", unit="events/s", sides=_streams, floor=0.65, aim=0.8),
        Workload(name="W6", title="read a log of 200,000 events", unit="events/s", sides=_log, floor=0.65, aim=0.8),
        Workload(
            name="W7",
            title="read a category, a hundredth of the log",
            unit="events/s",
            sides=_category,
            floor=0.65,
            aim=0.8,
        ),
        Workload(
            name="W8", title="read the latest event of a stream", unit="reads/s", sides=_latest, floor=0.45, aim=0.6
        ),
    ),
)

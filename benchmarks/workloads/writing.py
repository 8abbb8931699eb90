"""W1 to W4: appends with a condition, alone, in batches, and by many writers at once; commits wait for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.contenders import opened_contenders
from benchmarks.contenders.contender import Contender, at_once
from benchmarks.contenders.ours import CoalescingOurs, Ours
from benchmarks.contenders.raw import CoalescedWriter, RawDriver
from benchmarks.databases import Setting
from benchmarks.harness import Side, Suite, Workload, rate
from benchmarks.samples import new_stream

__all__ = ["SUITE"]

WRITERS = 16
COALESCED = "raw, coalesced"
QUEUED = "raw, queued"

_CATEGORY = "orders"


@asynccontextmanager
async def _opened(setting: Setting) -> AsyncIterator[list[Contender]]:
    async with opened_contenders(setting, connections=_writers(setting)) as contenders:
        yield contenders


def _writers(setting: Setting) -> int:
    return setting.sized(WRITERS, WRITERS, 2)


def _appends(contender: Contender, size: int) -> Side:
    """Append to new streams, one after the other, on condition that they are empty."""

    async def work(prepared: Any) -> None:
        for stream, events in prepared:
            await contender.append(_CATEGORY, stream, events, after=-1)

    def prepare(times: int) -> Any:
        streams = [new_stream() for _ in range(times)]
        return [(stream, contender.new_events(_CATEGORY, stream, size, after=-1)) for stream in streams]

    return rate(contender.name, size, work, prepare, most=1000)


def _one_by_one(contenders: list[Contender], setting: Setting) -> Sequence[Side]:
    return [_appends(contender, 1) for contender in contenders]


def _in_batches(contenders: list[Contender], setting: Setting) -> Sequence[Side]:
    return [_appends(contender, setting.sized(1000, 1000, 20)) for contender in contenders]


def _own_streams(contenders: list[Contender], setting: Setting) -> Sequence[Side]:
    writers = _writers(setting)

    async def write(append: Any, stream: int, batches: Any) -> None:
        for after, events in enumerate(batches, start=-1):
            await append(_CATEGORY, stream, events, after=after)

    def side(contender: Contender, name: str, append: Any) -> Side:
        def prepare(times: int) -> Any:
            return [
                (
                    stream,
                    [contender.new_events(_CATEGORY, stream, 1, after=number - 1) for number in range(times)],
                )
                for stream in (new_stream() for _ in range(writers))
            ]

        async def work(prepared: Any) -> None:
            await at_once(contender, [write(append, stream, batches) for stream, batches in prepared])

        return rate(name, writers, work, prepare, most=200)

    raw, coalescing = _raw(contenders), _coalescing(contenders)
    sides = [side(contender, contender.name, contender.append) for contender in contenders]
    # What is judged comes first: the mark coalesces too.
    first = side(coalescing, coalescing.name, coalescing.append)
    return [first, *sides[:2], side(raw, COALESCED, CoalescedWriter(raw).append), *sides[2:]]


def _one_stream(contenders: list[Contender], setting: Setting) -> Sequence[Side]:
    writers = _writers(setting)

    async def write(append_decided: Any, stream: int, times: int) -> None:
        for _ in range(times):
            await append_decided(_CATEGORY, stream)

    def side(contender: Contender, name: str, append_decided: Any) -> Side:
        async def work(times: int) -> None:
            stream = new_stream()
            await at_once(contender, [write(append_decided, stream, times) for _ in range(writers)])
            if await contender.read_stream(_CATEGORY, stream) != writers * times:
                raise AssertionError(f"{name} has lost events")

        # The stream gets longer with each time, and is read each time.
        return rate(name, writers, work, most=6)

    raw, coalescing = _raw(contenders), _coalescing(contenders)
    queue = asyncio.Lock()

    async def queued(category: str, stream: int) -> None:
        async with queue:
            await raw.append_decided(category, stream)

    sides = [side(contender, contender.name, contender.append_decided) for contender in contenders]
    ours, second = sides[0], side(coalescing, coalescing.name, coalescing.append_decided)
    return [ours, second, sides[1], side(raw, QUEUED, queued), *sides[2:]]


def _coalescing(contenders: list[Contender]) -> CoalescingOurs:
    return CoalescingOurs.beside(next(contender for contender in contenders if type(contender) is Ours))


def _raw(contenders: list[Contender]) -> RawDriver:
    return next(contender for contender in contenders if type(contender) is RawDriver)


SUITE = Suite(
    _opened,
    (
        Workload(
            name="W1",
            title="append one event, if the stream is empty",
            unit="events/s",
            sides=_one_by_one,
            floor=0.6,
            aim=0.7,
        ),
        Workload(
            name="W2",
            title="append batches of 1,000 events",
            unit="events/s",
            sides=_in_batches,
            floor=0.85,
            aim=1.0,
        ),
        Workload(
            name="W3",
            title=f"{WRITERS} writers, each to a stream of its own",
            unit="events/s",
            sides=_own_streams,
            mark=COALESCED,
            floor=0.4,
            aim=0.6,
        ),
        Workload(
            name="W4",
            title=f"{WRITERS} writers to one stream: load, decide, append",
            unit="events/s",
            sides=_one_stream,
            mark=QUEUED,
            floor=0.4,
            aim=0.6,
        ),
    ),
)

"""Turns of updates in one process: who waits, who does not, and that nobody waits for long."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from eventstore_sa import StreamIdentifier
from eventstore_sa.store import turns as module
from eventstore_sa.store.turns import Turns, no_turn

ONE, OTHER = StreamIdentifier("orders", "1"), StreamIdentifier("orders", "2")


async def test_tasks_take_turns_in_order_for_each_stream() -> None:
    turns, seen = Turns(), []

    async def work(number: int) -> None:
        leave = await turns.take(ONE)
        seen.append(number)
        await asyncio.sleep(0)
        seen.append(number)
        leave()

    await asyncio.gather(*map(work, range(5)))
    assert seen == [number for number in range(5) for _ in range(2)]

    first, other = await turns.take(ONE), await turns.take(OTHER)
    first()
    other()
    assert not any(turns._of_loops.values())


async def test_whoever_has_waited_for_long_goes_on_without_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.01)
    turns = Turns()
    leave, leave_sync = await turns.take(ONE), turns.take_sync(ONE)

    assert await turns.take(ONE) is no_turn
    assert turns.take_sync(ONE) is no_turn

    leave()
    leave_sync()
    assert not any(turns._of_loops.values())
    assert not turns._of_threads


async def test_a_cancelled_caller_leaves_the_queue() -> None:
    turns = Turns()
    leave = await turns.take(ONE)
    waiting: Any = asyncio.ensure_future(turns.take(ONE))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    leave()

    assert not any(turns._of_loops.values())


def test_threads_take_turns() -> None:
    turns, inside = Turns(), []

    def work(number: int) -> int:
        leave = turns.take_sync(ONE)
        inside.append(number)
        most = len(inside)
        inside.remove(number)
        leave()
        return most

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(work, range(40))) == {1}
    assert not turns._of_threads


def test_forked_process_waits_for_no_turn_of_its_parent() -> None:
    turns = Turns()
    leave = turns.take_sync(ONE)

    child = os.fork()
    if child == 0:
        os._exit(1 if turns.take_sync(ONE) is no_turn else 0)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    leave()
    assert not turns._of_threads

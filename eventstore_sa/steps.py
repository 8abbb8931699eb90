"""Logic that is written once, for asyncio and without: a generator of steps, and a driver of either kind.

A step is a call, or a pause. The generator yields it and receives the result of the call; what the call raises is
raised at that `yield`. So loops, conditions and `try` are written as anywhere else, and the drivers know nothing of
them. With asyncio, a result that can be awaited is awaited; without, it is passed on as it is. Cancellation, and
GeneratorExit when a coroutine is closed, are raised in the generator too, so that its `with` and `finally` blocks run.
As in any generator, a StopIteration that a call lets escape becomes a RuntimeError.

psycopg separates protocol and waiting in the same way (`psycopg/generators.py`, `psycopg/waiting.py`). Anything that
has a twin may import this; it imports nothing of the package.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from inspect import isawaitable
from typing import Any, NamedTuple, TypeAlias, TypeVar

__all__ = ["Pause", "Step", "Steps", "drive", "drive_async"]

R = TypeVar("R")


class Pause(NamedTuple):
    """A step that waits.

    Attributes:
        seconds: How long; None: not at all.
        sleep: Waits with asyncio.
        sleep_sync: Waits without asyncio.
    """

    seconds: float | None
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    sleep_sync: Callable[[float], object] = time.sleep

    def wait(self) -> None:
        """Wait without asyncio."""
        if self.seconds is not None:
            self.sleep_sync(self.seconds)

    async def wait_async(self) -> None:
        """Wait with asyncio."""
        if self.seconds is not None:
            await self.sleep(self.seconds)


Step: TypeAlias = Callable[[], Any] | Pause
Steps: TypeAlias = Generator[Step, Any, R]


def drive(steps: Steps[R]) -> R:
    """Take all steps in order; return what the generator returns."""
    try:
        step = next(steps)
        while True:
            try:
                result = step.wait() if isinstance(step, Pause) else step()
            except BaseException as error:  # noqa: BLE001 - the generator decides what becomes of it
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        returned: R = stop.value
        return returned


async def drive_async(steps: Steps[R]) -> R:
    """Take all steps in order, with asyncio; return what the generator returns."""
    try:
        step = next(steps)
        while True:
            try:
                result: Any = step.wait_async() if isinstance(step, Pause) else step()
                if isawaitable(result):
                    result = await result
            except BaseException as error:  # noqa: BLE001 - the generator decides what becomes of it
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        returned: R = stop.value
        return returned

"""Attempts at something that may fail for a passing reason: how many there are, after which errors, and the pauses between.

One iterator for every loop of this kind, in the shape of stamina's `retry_context`:

    for attempt in Attempts(4, on=ConcurrencyError):
        with attempt:
            return publish()

The loop ends when a `with attempt` block is left without an error. An error that `on` does not match, and the error of
the last attempt, leave the block as they are, with their causes. A loop without `with` has all attempts unless it stops
itself.

Pure Python; anything above `steps` may import this.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

from msgspec import Struct

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.steps import Pause

__all__ = ["Attempts", "Backoff", "RetryOn"]

R = TypeVar("R")

RetryOn: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Which errors another attempt may follow: those of some types, or those for which a function returns True."""

_NO_PAUSE: Final = Pause(None)


class Backoff(Struct, frozen=True, kw_only=True):
    """How long to pause between attempts: a random time up to a limit that doubles with each.

    The time is random over the whole range ("full jitter"), so that writers that collided once do not collide again;
    see https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.

    Args:
        first_s: The limit of the first pause, in seconds.
        longest_s: What the limit grows to, in seconds.
        random: Returns a number from 0 up to 1.
        sleep: Pauses an `async def` function.
        sleep_sync: Pauses an ordinary function.

    Raises:
        ConfigurationError: If `first_s` is negative, or greater than `longest_s`.
    """

    first_s: float = 0.01
    longest_s: float = 1.0
    random: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    sleep_sync: Callable[[float], object] = time.sleep

    def __post_init__(self) -> None:
        if not 0 <= self.first_s <= self.longest_s:
            raise ConfigurationError(
                f"a backoff needs 0 <= first_s <= longest_s; got first_s={self.first_s}, longest_s={self.longest_s}"
            )

    def pause_s(self, failures: int) -> float:
        """Return how long to pause after so many failures, in seconds."""
        # Beyond 2**64 every limit has been reached, and floats are close to overflowing.
        limit_s = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 64))
        return limit_s * self.random()


class Attempts:
    """At most so many attempts, which end with the first that succeeds; to be iterated over once.

    Each turn of the loop is given this object, as the context manager of an attempt: it suppresses an error when another
    attempt follows. Iterating does not pause: `pause` is for whoever iterates, as `call` and `call_async` do, or a step.

    Args:
        most: How many attempts there are at most, 1 or more.
        on: Which errors another attempt may follow. A function is called with the error of every attempt, the last one
            included.
        backoff: How long to pause between attempts; None: not at all.

    Attributes:
        number: That of the current attempt, from 1.
    """

    def __init__(self, most: int, *, on: RetryOn = (), backoff: Backoff | None = None) -> None:
        self.number: int = 0
        self._most = most
        # To type checkers, a class of exceptions is a function as well.
        self._on: Any = on
        self._types: Any = on if isinstance(on, (type, tuple)) else None
        self._backoff = backoff
        self._succeeded = False

    def __iter__(self) -> Iterator[Self]:
        while self.number < self._most and not self._succeeded:
            self.number += 1
            yield self

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._succeeded = error is None
        return isinstance(error, Exception) and self.another_follows(error)

    @property
    def pause(self) -> Pause:
        """What has to come before the current attempt; nothing before the first."""
        if self._backoff is None or self.number == 1:
            return _NO_PAUSE
        return Pause(self._backoff.pause_s(self.number - 1), self._backoff.sleep, self._backoff.sleep_sync)

    def another_follows(self, error: Exception) -> bool:
        """Tell whether there is another attempt after the error of the current one."""
        passing = self._on(error) if self._types is None else isinstance(error, self._types)
        return bool(passing) and self.number < self._most

    def call(self, work: Callable[[], R]) -> R:
        """Call a function until it returns; return what it returns."""
        for attempt in self:
            attempt.pause.wait()
            with attempt:
                return work()
        raise AssertionError("the last attempt returns or raises")

    async def call_async(self, work: Callable[[], Awaitable[R]]) -> R:
        """Call an `async def` function until it returns; return what it returns."""
        for attempt in self:
            await attempt.pause.wait_async()
            with attempt:
                return await work()
        raise AssertionError("the last attempt returns or raises")

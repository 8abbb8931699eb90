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
from typing import Any, Final, TypeAlias, TypeVar

from msgspec import Struct

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.steps import Pause

__all__ = ["Attempt", "Attempts", "Backoff", "RetryOn"]

R = TypeVar("R")

RetryOn: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Which errors another attempt may follow: those of some types, or those for which a function returns True."""

_NO_PAUSE: Final = Pause(0.0)


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


class Attempt:
    """One attempt: a context manager that suppresses an error when another attempt follows.

    Attributes:
        number: Counts from 1.
        pause: What has to come before it; none before the first.
    """

    __slots__ = ("_attempts", "number", "pause", "succeeded")

    def __init__(self, attempts: Attempts, number: int, pause: Pause) -> None:
        self._attempts = attempts
        self.number: int = number
        self.pause: Pause = pause
        self.succeeded: bool = False

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            self.succeeded = True
            return False
        return isinstance(error, Exception) and self._attempts.another_follows(error, self.number)


class Attempts:
    """At most so many attempts, which end with the first that succeeds.

    Iterating does not pause: `attempt.pause` is for whoever iterates, as `call` and `call_async` do, or a step.

    Args:
        most: How many attempts there are at most, 1 or more.
        on: Which errors another attempt may follow. A function is called with the error of every attempt, the last one
            included.
        backoff: How long to pause between attempts; None: not at all.
    """

    __slots__ = ("_backoff", "_on", "_types", "most")

    def __init__(self, most: int, *, on: RetryOn = (), backoff: Backoff | None = None) -> None:
        self.most: int = most
        # To type checkers, a class of exceptions is a function as well.
        self._on: Any = on
        self._types: Any = on if isinstance(on, (type, tuple)) else None
        self._backoff = backoff

    def __iter__(self) -> Iterator[Attempt]:
        for number in range(1, self.most + 1):
            attempt = Attempt(self, number, self._pause_before(number))
            yield attempt
            if attempt.succeeded:
                return

    def call(self, work: Callable[[], R]) -> R:
        """Call a function until it returns; return what it returns."""
        number = 1
        while True:
            try:
                return work()
            except Exception as error:
                if not self.another_follows(error, number):
                    raise
            number += 1
            self._pause_before(number).wait()

    async def call_async(self, work: Callable[[], Awaitable[R]]) -> R:
        """Call an `async def` function until it returns; return what it returns."""
        number = 1
        while True:
            try:
                return await work()
            except Exception as error:
                if not self.another_follows(error, number):
                    raise
            number += 1
            await self._pause_before(number).wait_async()

    def another_follows(self, error: Exception, number: int) -> bool:
        """Tell whether there is another attempt after the error of an attempt."""
        passing = self._on(error) if self._types is None else isinstance(error, self._types)
        return bool(passing) and number < self.most

    def _pause_before(self, number: int) -> Pause:
        if self._backoff is None or number == 1:
            return _NO_PAUSE
        return Pause(self._backoff.pause_s(number - 1), self._backoff.sleep, self._backoff.sleep_sync)

"""Decorators for functions that read, decide and publish: run them again, or let it go, when publishing fails.

They know nothing of stores: what is decorated is run as a whole, so it must read what it decides upon each time. They stack,
the innermost first, and take `async def` and ordinary functions alike.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from inspect import isasyncgenfunction, isawaitable, iscoroutinefunction, isgeneratorfunction
from typing import Any, ClassVar, ParamSpec, TypeVar, overload

from msgspec import Struct

from eventstore_sa.errors import ConfigurationError, UnmetWriteConditionError
from eventstore_sa.types.numbers import checked_count

__all__ = [
    "Backoff",
    "event_store_transaction",
    "ignore_on_error",
    "ignore_on_unmet_condition_error",
    "retry_on_error",
    "retry_on_unmet_condition_error",
]

P = ParamSpec("P")
R = TypeVar("R")


class Backoff(Struct, frozen=True, kw_only=True):
    """How long to pause between tries: a random time up to a limit that doubles with each.

    Random over the whole range ("full jitter"), so that writers who collided once do not collide again; see
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.

    Args:
        first_s: The limit of the first pause, in seconds.
        longest_s: What the limit grows to, in seconds.
        random: Returns a number from 0 up to 1.
        sleep: Pauses an `async def` function.
        sleep_sync: Pauses an ordinary function.
    """

    first_s: float = 0.01
    longest_s: float = 1.0
    random: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    sleep_sync: Callable[[float], object] = time.sleep

    def __post_init__(self) -> None:
        if not 0 <= self.first_s <= self.longest_s:
            raise ConfigurationError(
                f"a backoff pauses 0 s or more, and at last no shorter than at first; got first_s={self.first_s}, "
                f"longest_s={self.longest_s}"
            )

    def pause_s(self, failures: int) -> float:
        """Return how long to pause after so many failures, in seconds."""
        # Beyond 2**64 every limit has been reached, and floats are not far from their end.
        limit_s = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 64))
        return limit_s * self.random()


class event_store_transaction(ABC):  # noqa: N801 - a decorator
    """The base of the decorators: subclass it for one of your own, such as one that logs or measures.

    Implement `wrap_handler` for `async def` functions, and `wrap_handler_sync` where ordinary ones are decorated too.

    Example:
        >>> class counting(event_store_transaction):
        ...     calls = 0
        ...
        ...     async def wrap_handler(self, handler):
        ...         counting.calls += 1
        ...         return await handler()
        >>> @counting()
        ... async def place_order(number: int) -> int:
        ...     return number
        >>> asyncio.run(place_order(42)), counting.calls
        (42, 1)
    """

    def __call__(self, handler: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: what it is called with goes through, and `wrap_handler` decides when it runs."""
        decorated: Callable[P, R] = self._decorated(handler)
        return decorated

    @abstractmethod
    async def wrap_handler(self, handler: Callable[[], Awaitable[R]]) -> R:
        """Run a call of the decorated function: never, once or several times; return what the caller gets."""
        raise NotImplementedError

    def wrap_handler_sync(self, handler: Callable[[], R]) -> R:
        """Run a call of an ordinary function; the twin of `wrap_handler`."""
        raise NotImplementedError

    def _decorated(self, handler: Callable[..., Any]) -> Any:
        if iscoroutinefunction(handler) or iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004

            @wraps(handler)
            async def run(*args: Any, **kwargs: Any) -> Any:
                return await self.wrap_handler(partial(handler, *args, **kwargs))

            return run
        if isgeneratorfunction(handler) or isasyncgenfunction(handler):
            raise ConfigurationError(
                f"{_name_of(handler)} is a generator function, which fails only after it has returned: decorate the "
                "function that goes through what it yields"
            )
        if type(self).wrap_handler_sync is event_store_transaction.wrap_handler_sync:
            raise ConfigurationError(
                f"{type(self).__name__} decorates `async def` functions only, and {_name_of(handler)} is none: implement "
                "wrap_handler_sync for others"
            )

        @wraps(handler)
        def run_sync(*args: Any, **kwargs: Any) -> Any:
            return self.wrap_handler_sync(partial(_at_once, handler, *args, **kwargs))

        return run_sync


class retry_on_error(event_store_transaction):  # noqa: N801 - a decorator
    """Run the function again when it raises an exception, up to so many times in all; then its last error is raised.

    Cancellation, KeyboardInterrupt and the like are no reasons to try again.

    Args:
        tries: How often the function is run at most, 1 or more.
        backoff: How long to pause before each further try; None: not at all.

    Raises:
        ConfigurationError: `tries` is no such number.

    Example:
        >>> attempts = iter([OSError("once"), OSError("twice"), None])
        >>> @retry_on_error(3)
        ... def place_order() -> str:
        ...     if error := next(attempts):
        ...         raise error
        ...     return "placed"
        >>> place_order()
        'placed'
    """

    error_type: ClassVar[type[Exception]] = Exception

    def __init__(self, tries: int, *, backoff: Backoff | None = None) -> None:
        self.tries: int = checked_count("tries, how often a function is run at most,", tries)
        self.backoff = backoff

    async def wrap_handler(self, handler: Callable[[], Awaitable[R]]) -> R:
        for failures in range(1, self.tries):
            try:
                return await handler()
            except self.error_type:
                pass
            if self.backoff is not None:
                await self.backoff.sleep(self.backoff.pause_s(failures))
        return await handler()

    def wrap_handler_sync(self, handler: Callable[[], R]) -> R:
        for failures in range(1, self.tries):
            try:
                return handler()
            except self.error_type:
                pass
            if self.backoff is not None:
                self.backoff.sleep_sync(self.backoff.pause_s(failures))
        return handler()


class retry_on_unmet_condition_error(retry_on_error):  # noqa: N801 - a decorator
    """Run the function again when another writer was faster: only after an UnmetWriteConditionError.

    Args:
        tries: How often the function is run at most, 1 or more.
        backoff: How long to pause before each further try; None: not at all.

    Raises:
        ConfigurationError: `tries` is no such number.
    """

    error_type: ClassVar[type[Exception]] = UnmetWriteConditionError


class ignore_on_error(event_store_transaction):  # noqa: N801 - a decorator
    """Return None when the function raises an exception; cancellation, KeyboardInterrupt and the like go through."""

    error_type: ClassVar[type[Exception]] = Exception

    @overload  # type: ignore[override]
    def __call__(self, handler: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R | None]]: ...
    @overload
    def __call__(self, handler: Callable[P, R]) -> Callable[P, R | None]: ...
    def __call__(self, handler: Callable[P, Any]) -> Callable[P, Any]:
        """Decorate a function, which then may return None."""
        return super().__call__(handler)

    async def wrap_handler(self, handler: Callable[[], Awaitable[R]]) -> Any:
        try:
            return await handler()
        except self.error_type:
            return None

    def wrap_handler_sync(self, handler: Callable[[], R]) -> Any:
        try:
            return handler()
        except self.error_type:
            return None


class ignore_on_unmet_condition_error(ignore_on_error):  # noqa: N801 - a decorator
    """Return None when another writer was faster: the function raised an UnmetWriteConditionError."""

    error_type: ClassVar[type[Exception]] = UnmetWriteConditionError


def _at_once(handler: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    result = handler(*args, **kwargs)
    if isawaitable(result):
        close = getattr(result, "close", None)
        if close is not None:
            close()
        raise ConfigurationError(
            f"{_name_of(handler)} is no `async def` function but returns an awaitable, whose errors nobody would see: "
            "decorate the `async def` function itself"
        )
    return result


def _name_of(handler: object) -> str:
    return getattr(handler, "__qualname__", None) or repr(handler)

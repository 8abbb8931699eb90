"""Decorators for functions that read, decide and publish: they run them again, or ignore the error, when publishing fails.

They know nothing of stores: a decorated function runs as a whole, so it has to read whatever it decides on each time.
They stack, the innermost first, and take `async def` and ordinary functions alike. Transactions of the application's
own are run again in `transactions.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from inspect import isasyncgenfunction, isawaitable, iscoroutinefunction, isgeneratorfunction
from typing import Any, ClassVar, Generic, Never, ParamSpec, overload

from typing_extensions import TypeVar

from eventstore_sa.attempts import Attempts, Backoff
from eventstore_sa.errors import ConfigurationError, UnmetWriteConditionError
from eventstore_sa.types.numbers import checked_count

__all__ = [
    "event_store_transaction",
    "ignore_on_error",
    "ignore_on_unmet_condition_error",
    "retry_on_error",
    "retry_on_unmet_condition_error",
]

P = ParamSpec("P")
R = TypeVar("R")
AdditionalReturn = TypeVar("AdditionalReturn", covariant=True, default=Never)


class event_store_transaction(ABC, Generic[AdditionalReturn]):  # noqa: N801 - a decorator
    """The base of the decorators: subclass it for a decorator of your own, such as one that logs or measures.

    Implement `wrap_handler` for `async def` functions, and `wrap_handler_sync` to decorate ordinary functions too. A
    decorator that returns something of its own says so: `event_store_transaction[str]` may return a string as well.

    Examples:
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

    @overload
    def __call__(
        self, handler: Callable[P, Coroutine[Any, Any, R]]
    ) -> Callable[P, Coroutine[Any, Any, R | AdditionalReturn]]: ...
    @overload
    def __call__(self, handler: Callable[P, R]) -> Callable[P, R | AdditionalReturn]: ...
    def __call__(self, handler: Callable[P, Any]) -> Callable[P, Any]:
        """Decorate a function: its arguments are passed on, and `wrap_handler` decides when it runs."""
        decorated: Callable[P, Any] = self._decorated(handler)
        return decorated

    @abstractmethod
    async def wrap_handler(self, handler: Callable[[], Awaitable[R]]) -> R | AdditionalReturn:
        """Run a call of the decorated function: never, once or several times; return what the caller gets."""
        raise NotImplementedError

    def wrap_handler_sync(self, handler: Callable[[], R]) -> R | AdditionalReturn:
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
                "function that iterates over it"
            )
        if type(self).wrap_handler_sync is event_store_transaction.wrap_handler_sync:
            raise ConfigurationError(
                f"{type(self).__name__} decorates only `async def` functions, and {_name_of(handler)} is not one: implement "
                "wrap_handler_sync to decorate ordinary functions"
            )

        @wraps(handler)
        def run_sync(*args: Any, **kwargs: Any) -> Any:
            return self.wrap_handler_sync(partial(_at_once, handler, *args, **kwargs))

        return run_sync


class retry_on_error(event_store_transaction):  # noqa: N801 - a decorator
    """Run the function again when it raises an exception, up to `tries` times in all; then raise its last error.

    Cancellation, KeyboardInterrupt and the like are not retried. A subclass may name the errors that are:

        class retry_on_timeout(retry_on_error):
            exception = TimeoutError

    Args:
        tries: How often the function runs at most, 1 or more.
        backoff: How long to pause before each further try; None: not at all.

    Raises:
        ConfigurationError: If `tries` is not an integer from 1.

    Examples:
        >>> attempts = iter([OSError("once"), OSError("twice"), None])
        >>> @retry_on_error(3)
        ... def place_order() -> str:
        ...     if error := next(attempts):
        ...         raise error
        ...     return "placed"
        >>> place_order()
        'placed'
    """

    exception: ClassVar[type[Exception] | tuple[type[Exception], ...]] = Exception

    def __init__(self, tries: int, *, backoff: Backoff | None = None) -> None:
        self.tries: int = checked_count("tries, how often a function runs at most,", tries)
        self.backoff = backoff

    async def wrap_handler(self, handler: Callable[[], Awaitable[R]]) -> R:
        return await self._attempts().call_async(handler)

    def wrap_handler_sync(self, handler: Callable[[], R]) -> R:
        return self._attempts().call(handler)

    def _attempts(self) -> Attempts:
        return Attempts(self.tries, on=self.exception, backoff=self.backoff)


class retry_on_unmet_condition_error(retry_on_error):  # noqa: N801 - a decorator
    """Run the function again after an UnmetWriteConditionError only: when another writer was faster.

    Args:
        tries: How often the function runs at most, 1 or more.
        backoff: How long to pause before each further try; None: not at all.

    Raises:
        ConfigurationError: If `tries` is not an integer from 1.
    """

    exception: ClassVar[type[Exception] | tuple[type[Exception], ...]] = UnmetWriteConditionError


class ignore_on_error(event_store_transaction[None]):  # noqa: N801 - a decorator
    """Return None when the function raises an exception; cancellation, KeyboardInterrupt and the like are raised.

    A subclass may name the errors that are ignored, as with `retry_on_error`.
    """

    exception: ClassVar[type[Exception] | tuple[type[Exception], ...]] = Exception

    async def wrap_handler(self, handler: Callable[[], Awaitable[R]]) -> R | None:
        try:
            return await handler()
        except self.exception:
            return None

    def wrap_handler_sync(self, handler: Callable[[], R]) -> R | None:
        try:
            return handler()
        except self.exception:
            return None


class ignore_on_unmet_condition_error(ignore_on_error):  # noqa: N801 - a decorator
    """Return None when another writer was faster: the function raised an UnmetWriteConditionError."""

    exception: ClassVar[type[Exception] | tuple[type[Exception], ...]] = UnmetWriteConditionError


def _at_once(handler: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    result = handler(*args, **kwargs)
    if isawaitable(result):
        close = getattr(result, "close", None)
        if close is not None:
            close()
        raise ConfigurationError(
            f"{_name_of(handler)} is an ordinary function that returns an awaitable, whose errors would be missed: "
            "decorate the `async def` function itself"
        )
    return result


def _name_of(handler: object) -> str:
    return getattr(handler, "__qualname__", None) or repr(handler)

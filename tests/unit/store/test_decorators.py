"""The decorators run a function again, or let its error go; async and ordinary functions alike."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import pytest

from eventstore_sa.errors import ConfigurationError, UnmetWriteConditionError
from eventstore_sa.store import (
    Backoff,
    event_store_transaction,
    ignore_on_error,
    ignore_on_unmet_condition_error,
    retry_on_error,
    retry_on_unmet_condition_error,
)

R = TypeVar("R")
UNMET = UnmetWriteConditionError("stream 'orders/42' is at position 7, expected 5")


class Call:
    """A function that raises the given errors in turn and then returns; called as it would be in either world."""

    def __init__(self, kind: str, *errors: BaseException) -> None:
        self.kind = kind
        self.errors = list(errors)
        self.calls: list[Any] = []

    def through(self, *decorators: Any) -> Any:
        """Decorate it, the first decorator outermost, call it, and return what comes of it."""

        def handler(number: int, *, name: str) -> str:
            """Do it."""
            self.calls.append((number, name))
            if self.errors:
                raise self.errors.pop(0)
            return f"{name} {number}"

        async def async_handler(number: int, *, name: str) -> str:
            """Do it."""
            await asyncio.sleep(0)
            return handler(number, name=name)

        decorated: Any = async_handler if self.kind == "async" else handler
        for decorator in reversed(decorators):
            decorated = decorator(decorated)
        result = decorated(42, name="order")
        return asyncio.run(result) if self.kind == "async" else result


KINDS = pytest.mark.parametrize("kind", ["async", "sync"])


@KINDS
@pytest.mark.parametrize("decorator", [retry_on_error, retry_on_unmet_condition_error])
def test_retrying_stops_at_the_first_success(kind: str, decorator: Any) -> None:
    call = Call(kind, UNMET, UNMET)

    assert call.through(decorator(5)) == "order 42"
    assert call.calls == [(42, "order")] * 3


@KINDS
@pytest.mark.parametrize("decorator", [retry_on_error, retry_on_unmet_condition_error])
@pytest.mark.parametrize("tries", [1, 2, 3])
def test_after_the_last_try_the_last_error_is_raised_as_it_was(kind: str, decorator: Any, tries: int) -> None:
    errors = [UnmetWriteConditionError(str(number)) for number in range(4)]
    call = Call(kind, *errors)

    with pytest.raises(UnmetWriteConditionError) as caught:
        call.through(decorator(tries))

    assert caught.value is errors[tries - 1]
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)
    assert len(call.calls) == tries


@KINDS
def test_only_the_error_that_is_meant_is_retried_or_ignored(kind: str) -> None:
    for decorator in (retry_on_unmet_condition_error(3), ignore_on_unmet_condition_error()):
        call = Call(kind, OSError("disk"))
        with pytest.raises(OSError, match="disk"):
            call.through(decorator)
        assert len(call.calls) == 1
    assert Call(kind, OSError("disk")).through(retry_on_error(2)) == "order 42"
    assert Call(kind, OSError("disk")).through(ignore_on_error()) is None


@KINDS
@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_what_is_no_exception_goes_through_at_once(kind: str, error: BaseException) -> None:
    for decorator in (retry_on_error(3), ignore_on_error()):
        call = Call(kind, error)
        with pytest.raises(type(error)):
            call.through(decorator)
        assert len(call.calls) == 1


@KINDS
def test_what_is_ignored_becomes_none(kind: str) -> None:
    for decorator in (ignore_on_error(), ignore_on_unmet_condition_error()):
        assert Call(kind, UNMET).through(decorator) is None
        assert Call(kind).through(decorator) == "order 42"


@KINDS
def test_decorators_stack(kind: str) -> None:
    call = Call(kind, UNMET, UNMET, UNMET)

    assert call.through(ignore_on_unmet_condition_error(), retry_on_unmet_condition_error(2)) is None
    assert len(call.calls) == 2
    assert call.through(retry_on_error(2), retry_on_unmet_condition_error(1)) == "order 42"


@KINDS
def test_between_tries_it_pauses_at_random_up_to_a_limit_that_doubles(kind: str) -> None:
    pauses: list[float] = []
    randoms: Iterator[float] = iter([1.0, 0.5, 1.0, 0.25, 1.0])

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    backoff = Backoff(first_s=1.0, longest_s=5.0, random=lambda: next(randoms), sleep=sleep, sleep_sync=pauses.append)
    with pytest.raises(UnmetWriteConditionError):
        Call(kind, *[UNMET] * 6).through(retry_on_error(6, backoff=backoff))

    assert pauses == [1.0, 1.0, 4.0, 1.25, 5.0]


def test_pauses_do_not_overflow() -> None:
    assert Backoff(random=lambda: 1.0).pause_s(100_000) == 1.0
    assert all(0 <= Backoff().pause_s(failures) <= 1.0 for failures in range(1, 50))


def test_nonsense_is_refused() -> None:
    for tries in (0, -1, True, 1.5, None):
        with pytest.raises(ConfigurationError, match="tries"):
            retry_on_error(tries)  # type: ignore[arg-type]
    for first_s, longest_s in ((-1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(ConfigurationError, match="backoff"):
            Backoff(first_s=first_s, longest_s=longest_s)


def test_functions_keep_their_names_and_signatures() -> None:
    async def place_order(number: int) -> int:
        """Place it."""
        return number

    for decorator in (retry_on_error(2), ignore_on_error()):
        decorated: Any = decorator(place_order)
        assert (decorated.__name__, decorated.__doc__) == ("place_order", "Place it.")
        assert decorated.__wrapped__ is place_order
        assert inspect.signature(decorated) == inspect.signature(place_order)
        assert inspect.iscoroutinefunction(decorated)


async def test_methods_and_callable_objects_can_be_decorated() -> None:
    class Handler:
        calls = 0

        @retry_on_error(2)
        async def handle(self, number: int) -> int:
            Handler.calls += 1
            if Handler.calls == 1:
                raise OSError
            return number

        async def __call__(self, number: int) -> int:
            return await self.handle(number)

    assert await Handler().handle(1) == 1
    assert await retry_on_error(2)(Handler())(2) == 2
    assert await retry_on_error(2)(partial(Handler().handle, 3))() == 3


def test_functions_that_only_return_an_awaitable_are_refused_when_called() -> None:
    async def later() -> int:
        return 1

    def handler() -> Awaitable[int]:
        return later()

    decorated = retry_on_error(2)(handler)

    with pytest.raises(ConfigurationError, match="decorate the `async def` function itself"):
        decorated()


def test_generator_functions_are_refused() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def async_numbers() -> Any:
        yield 1

    for function in (numbers, async_numbers):
        with pytest.raises(ConfigurationError, match="generator function"):
            retry_on_error(2)(function)


class Counting(event_store_transaction):
    def __init__(self) -> None:
        self.calls = 0

    async def wrap_handler(self, handler: Callable[[], Awaitable[R]]) -> R:
        self.calls += 1
        return await handler()


async def test_a_transaction_of_ones_own_wraps_the_call() -> None:
    counting = Counting()

    @counting
    @retry_on_error(2)
    async def place_order(number: int) -> int:
        return number

    assert await place_order(42) == 42
    assert counting.calls == 1


def test_a_transaction_for_async_functions_only_refuses_others() -> None:
    with pytest.raises(ConfigurationError, match="wrap_handler_sync"):
        Counting()(lambda: 1)
    with pytest.raises(TypeError):
        event_store_transaction()  # type: ignore[abstract]


@KINDS
@pytest.mark.parametrize("errors", [OSError, (OSError, KeyError)])
def test_subclasses_name_the_errors_that_they_are_about(kind: str, errors: Any) -> None:
    class retry(retry_on_error):
        exception = errors

    class ignore(ignore_on_error):
        exception = errors

    assert Call(kind, OSError(), TimeoutError()).through(retry(3)) == "order 42"
    assert Call(kind, OSError()).through(ignore()) is None
    for decorator in (retry(3), ignore()):
        with pytest.raises(ValueError, match="another"):
            Call(kind, ValueError("another")).through(decorator)

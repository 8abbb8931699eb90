"""Steps: one generator runs with asyncio and without, and both drivers treat it as a call would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import pytest

from eventstore_sa.steps import Pause, Steps, drive, drive_async

KINDS = pytest.mark.parametrize("kind", ["async", "sync"])


def taken(kind: str, steps: Steps[Any]) -> Any:
    return asyncio.run(drive_async(steps)) if kind == "async" else drive(steps)


def call_of(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as it would be in either world."""

    async def called(*arguments: Any) -> Any:
        await asyncio.sleep(0)
        return function(*arguments)

    return called if kind == "async" else function


@KINDS
def test_a_step_receives_the_result_of_its_call(kind: str) -> None:
    add = call_of(kind, lambda a, b: a + b)

    def steps() -> Steps[int]:
        three = yield partial(add, 1, 2)
        return (yield partial(add, three, 4))

    assert taken(kind, steps()) == 7


@KINDS
def test_steps_may_need_no_call_at_all(kind: str) -> None:
    def steps() -> Steps[str]:
        return "done"
        yield print

    assert taken(kind, steps()) == "done"


def test_without_asyncio_an_awaitable_is_passed_on_as_it_is() -> None:
    async def never_run() -> None: ...

    coroutine = never_run()

    def steps() -> Steps[Any]:
        return (yield lambda: coroutine)

    assert drive(steps()) is coroutine
    coroutine.close()


@KINDS
def test_an_error_is_raised_where_the_step_was_yielded(kind: str) -> None:
    error = OSError("disk")

    def fail() -> None:
        raise error

    def steps() -> Steps[OSError | None]:
        try:
            yield call_of(kind, fail)
        except OSError as caught:
            return (yield partial(call_of(kind, lambda again: again), caught))

    assert taken(kind, steps()) is error


@KINDS
@pytest.mark.parametrize("kind_of_error", [OSError, KeyboardInterrupt, asyncio.CancelledError])
def test_an_error_that_steps_do_not_catch_leaves_them_as_it_was(kind: str, kind_of_error: type[BaseException]) -> None:
    cause, error = ValueError("cause"), kind_of_error("disk")

    def fail() -> None:
        raise error from cause

    def steps() -> Steps[None]:
        yield call_of(kind, fail)

    with pytest.raises(kind_of_error) as caught:
        taken(kind, steps())

    assert caught.value is error
    assert caught.value.__cause__ is cause
    assert caught.value.__context__ is None


@KINDS
def test_a_stop_iteration_does_not_pass_for_the_end_of_the_steps(kind: str) -> None:
    def fail() -> None:
        raise StopIteration("not a result")

    def steps() -> Steps[None]:
        yield fail

    with pytest.raises(RuntimeError, match="StopIteration"):
        taken(kind, steps())


@KINDS
def test_pauses_sleep_unless_there_is_none(kind: str) -> None:
    slept: list[float] = []
    sleep = call_of("async", slept.append)

    def steps() -> Steps[str]:
        for seconds in (0.5, None, 0.0):
            assert (yield Pause(seconds, sleep, slept.append)) is None
        return "rested"

    assert taken(kind, steps()) == "rested"
    assert slept == [0.5, 0.0]


async def test_cancellation_is_raised_in_the_steps_which_may_still_clean_up() -> None:
    seen: list[str] = []

    def steps() -> Steps[None]:
        try:
            yield asyncio.Event().wait
        finally:
            yield call_of("async", partial(seen.append, "cleaned up"))

    running = asyncio.create_task(drive_async(steps()))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert seen == ["cleaned up"]


def test_steps_are_closed_with_the_coroutine_that_drives_them() -> None:
    seen: list[str] = []

    class Forever:
        def __await__(self) -> Generator[None, None, None]:
            yield

    def steps() -> Steps[None]:
        try:
            yield Forever
        except GeneratorExit:
            seen.append("closed")
            raise

    driving = drive_async(steps())
    driving.send(None)
    driving.close()

    assert seen == ["closed"]

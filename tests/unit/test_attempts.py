"""Attempts: how many there are, which errors end them, and the pauses between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eventstore_sa.attempts import Attempts, Backoff

KINDS = pytest.mark.parametrize("kind", ["async", "sync"])


class Work:
    """Raises the given errors in turn, then returns."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def through(self, kind: str, attempts: Attempts) -> str:
        async def work() -> str:
            return self()

        return asyncio.run(attempts.call_async(work)) if kind == "async" else attempts.call(self)


def numbers(attempts: Attempts, work: Work) -> list[int]:
    tried = []
    for attempt in attempts:
        tried.append(attempt.number)
        with attempt:
            work()
    return tried


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_attempts_end_with_the_first_that_succeeds(failures: int) -> None:
    work = Work(*[OSError()] * failures)

    assert numbers(Attempts(3, on=OSError), work) == list(range(1, failures + 2))


@KINDS
def test_after_the_last_attempt_its_error_is_raised_as_it_was(kind: str) -> None:
    cause, errors = ValueError("cause"), [OSError("first"), OSError("second"), OSError("third")]
    errors[1].__cause__ = cause
    work = Work(*errors)

    with pytest.raises(OSError, match="second") as caught:
        work.through(kind, Attempts(2, on=OSError))

    assert caught.value is errors[1]
    assert (caught.value.__cause__, caught.value.__context__) == (cause, None)
    assert work.calls == 2


@KINDS
def test_other_errors_are_raised_at_once(kind: str) -> None:
    for on, error in ((OSError, ValueError()), ((OSError, KeyError), ValueError()), ((), OSError())):
        work = Work(error)
        with pytest.raises(type(error)):
            work.through(kind, Attempts(3, on=on))
        assert work.calls == 1


@KINDS
def test_a_function_is_asked_about_every_error_the_last_included(kind: str) -> None:
    asked: list[Exception] = []
    errors = [OSError("first"), OSError("second")]

    def passing(error: Exception) -> bool:
        asked.append(error)
        return True

    with pytest.raises(OSError, match="second"):
        Work(*errors).through(kind, Attempts(2, on=passing))

    assert asked == errors


@KINDS
def test_a_function_that_is_asked_may_raise_another_error(kind: str) -> None:
    def passing(error: Exception) -> bool:
        raise ValueError("lasting") from error

    work = Work(OSError("first"))
    with pytest.raises(ValueError, match="lasting"):
        work.through(kind, Attempts(3, on=passing))
    assert work.calls == 1


@KINDS
@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_what_is_not_an_exception_is_never_suppressed(kind: str, error: BaseException) -> None:
    work = Work(error)

    with pytest.raises(type(error)):
        work.through(kind, Attempts(3, on=lambda _: True))

    assert work.calls == 1


@KINDS
def test_pauses_come_before_all_attempts_but_the_first(kind: str) -> None:
    pauses: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    backoff = Backoff(first_s=1.0, longest_s=3.0, random=lambda: 1.0, sleep=sleep, sleep_sync=pauses.append)
    work = Work(*[OSError()] * 3)

    assert work.through(kind, Attempts(5, on=OSError, backoff=backoff)) == "done"
    assert pauses == [1.0, 2.0, 3.0]


@KINDS
def test_a_pause_of_no_time_lets_others_run(kind: str) -> None:
    pauses: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    backoff = Backoff(first_s=0.0, longest_s=0.0, sleep=sleep, sleep_sync=pauses.append)
    work = Work(OSError(), OSError())

    assert work.through(kind, Attempts(3, on=OSError, backoff=backoff)) == "done"
    assert pauses == [0.0, 0.0]


def test_a_loop_without_with_has_all_attempts_and_stops_itself() -> None:
    tried: list[Any] = []
    for attempt in Attempts(3):
        tried.append((attempt.number, attempt.pause.seconds))

    assert tried == [(1, None), (2, None), (3, None)]

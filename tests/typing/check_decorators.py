"""Types of the decorators: what a decorated function returns, and what a decorator adds to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, assert_type

from eventstore_sa.store import event_store_transaction, ignore_on_error, retry_on_error

R = TypeVar("R")


class retry_on_timeout(retry_on_error):
    exception = TimeoutError


class ignore_on_timeout(ignore_on_error):
    exception = (TimeoutError, ConnectionError)


class reported(event_store_transaction[str]):
    async def wrap_handler(self, handler: Callable[[], Awaitable[R]]) -> R | str:
        try:
            return await handler()
        except TimeoutError as error:
            return str(error)


class counted(event_store_transaction):
    async def wrap_handler(self, handler: Callable[[], Awaitable[R]]) -> R:
        return await handler()


@retry_on_timeout(3)
async def retried(number: int) -> int:
    return number


@ignore_on_timeout()
async def ignored(number: int) -> int:
    return number


@ignore_on_timeout()
def ignored_without_asyncio(number: int) -> int:
    return number


@reported()
async def with_report(number: int) -> int:
    return number


@counted()
async def with_count(number: int) -> int:
    return number


async def check_results() -> None:
    assert_type(await retried(1), int)
    assert_type(await ignored(1), int | None)
    assert_type(ignored_without_asyncio(1), int | None)
    assert_type(await with_report(1), int | str)
    assert_type(await with_count(1), int)

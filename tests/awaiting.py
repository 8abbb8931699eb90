"""One way to write a case for asyncio and without it: await what has to be awaited, take the rest as it is."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

__all__ = ["collected", "entered", "settled"]


async def settled(value: Any) -> Any:
    """Return a value, awaited if it is awaitable."""
    return await value if inspect.isawaitable(value) else value


async def collected(values: AsyncIterable[Any] | Iterable[Any]) -> list[Any]:
    """Return all values of an iterator of either kind."""
    return [value async for value in values] if isinstance(values, AsyncIterable) else list(values)


@asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    """Enter a context manager of either kind."""
    if isinstance(manager, AbstractAsyncContextManager):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value

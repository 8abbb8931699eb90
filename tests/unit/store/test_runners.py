"""The ways to run a synchronous adapter from asyncio: how often work is entered, and where it runs."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, cast

import pytest
from sqlalchemy import create_engine

from eventstore_sa.errors import StorageError
from eventstore_sa.persistence.sqlalchemy_internals import await_in_greenlet
from eventstore_sa.persistence.transactions.binds import ConnectionBind, EngineBind
from eventstore_sa.store.adapters import runners
from eventstore_sa.store.adapters.runners import IN_TASK, GreenletRunner, Paged, Runner, paged
from eventstore_sa.testing.cases.tables import in_turn


class Counting(GreenletRunner):
    """Counts how often something is run."""

    runs = 0

    async def run(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.runs += 1
        return await super().run(work, *args, **kwargs)


def greenlets() -> Counting:
    return Counting(EngineBind(create_engine("sqlite://"), blocking=False))


@pytest.mark.parametrize("runner", [IN_TASK, greenlets()])
async def test_items_come_in_order_whether_they_are_paged_or_not(runner: Runner) -> None:
    assert [item async for item in runner.iterate(iter([1, 2, 3]))] == [1, 2, 3]
    assert [item async for item in runner.iterate(paged(iter([[1, 2], (), [3]])))] == [1, 2, 3]


async def test_a_greenlet_is_entered_once_for_each_page() -> None:
    runner = greenlets()

    assert [item async for item in runner.iterate(paged(iter([range(500), range(500)])))] == [*range(500)] * 2

    assert runner.runs == 3  # two pages, and the end


async def test_no_page_is_fetched_before_it_is_needed_or_after_the_iterator_is_closed() -> None:
    fetched: list[int] = []

    def pages() -> Iterator[list[int]]:
        for number in range(3):
            fetched.append(number)
            yield [number, number]

    async with aclosing(greenlets().iterate(paged(pages()))) as items:  # type: ignore[type-var]
        assert fetched == []
        assert [await anext(items), await anext(items)] == [0, 0]
        assert fetched == [0]

    assert fetched == [0]


class Ahead(GreenletRunner):
    """Reads ahead, with pages that wait for their turn and may fail."""

    def __init__(self, *failures: Exception | None) -> None:
        super().__init__(ConnectionBind(cast("Any", None)))
        self.begun: list[int] = []
        self.may_end = asyncio.Event()
        self._failures = iter(failures)
        self._ended = 0

    def _has_idle_connection(self) -> bool:
        return True

    async def run(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.begun.append(self._ended)
        if self._ended >= 2:
            await self.may_end.wait()
        failure = next(self._failures, None)
        if failure is not None:
            raise failure
        self._ended += 1
        return await super().run(work, *args, **kwargs)


def four_pages() -> Paged[int]:
    return paged(iter([[0], [1], [2], [3]]), ahead=True)


async def test_next_page_is_fetched_while_the_caller_works_on_this_one_but_not_on_the_first() -> None:
    runner = Ahead()
    items = runner.iterate(four_pages())

    assert await anext(items) == 0
    assert runner.begun == [0]
    assert await anext(items) == 1
    assert runner.begun == [0, 1, 2]
    runner.may_end.set()
    assert [item async for item in items] == [2, 3]
    assert runner.begun == [0, 1, 2, 3, 4]


async def test_page_that_could_not_be_fetched_ahead_is_fetched_when_it_is_needed() -> None:
    runner = Ahead(None, None, StorageError("no connection became free"))
    runner.may_end.set()

    assert [item async for item in runner.iterate(four_pages())] == [0, 1, 2, 3]
    assert runner.begun == [0, 1, 2, 2, 3, 4]


async def test_other_errors_of_pages_that_are_fetched_ahead_come_where_the_page_would() -> None:
    runner = Ahead(None, None, ValueError("unreadable"))
    runner.may_end.set()
    items = runner.iterate(four_pages())
    assert [await anext(items), await anext(items)] == [0, 1]

    with pytest.raises(ValueError, match="unreadable"):
        await anext(items)


async def test_iterator_that_is_closed_waits_for_the_page_that_is_being_fetched() -> None:
    runner = Ahead(None, None, ValueError("nobody sees this"))
    items: Any = runner.iterate(four_pages())
    assert [await anext(items), await anext(items)] == [0, 1]

    closing = asyncio.ensure_future(items.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    runner.may_end.set()
    await closing

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_iterator_that_is_closed_gives_up_a_page_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "_LONGEST_PAGE_S", 0)
    items: Any = Ahead().iterate(four_pages())
    assert [await anext(items), await anext(items)] == [0, 1]

    await items.aclose()
    await asyncio.sleep(0)

    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_turn("waiting", {"for the page": True, "to be closed": False})
async def test_cancelled_caller_leaves_no_page_behind_that_is_being_fetched(waiting: bool) -> None:
    runner = Ahead()
    items: Any = runner.iterate(four_pages())
    assert [await anext(items), await anext(items)] == [0, 1]

    waiter = asyncio.ensure_future(anext(items) if waiting else items.aclose())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter

    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_nobody_complains_of_errors_that_come_after_a_caller_has_stopped_waiting() -> None:
    """As on SQLite, where what was begun goes on, and finds the file locked in the end."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    runner, released, failed = greenlets(), asyncio.Event(), asyncio.Event()

    def work() -> None:
        await_in_greenlet(released.wait())
        failed.set()
        raise StorageError("the file is locked")

    calling = asyncio.ensure_future(runner.run(work))
    # A second cancellation ends the patience.
    for _ in range(2):
        await asyncio.sleep(0)
        calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    assert calling.cancelled()
    assert not failed.is_set()

    released.set()
    await failed.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    del calling
    gc.collect()

    assert complaints == []


def test_paged_items_are_an_ordinary_iterator() -> None:
    items = paged(iter([[1, 2], [3]]))

    assert next(items) == 1
    assert list(items) == [2, 3]

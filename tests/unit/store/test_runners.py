"""The ways to run a synchronous adapter from asyncio: how often work is entered, and where it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
from sqlalchemy import create_engine

from eventstore_sa.persistence.transactions.binds import EngineBind
from eventstore_sa.store.adapters.runners import IN_TASK, GreenletRunner, Runner, paged


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


def test_paged_items_are_an_ordinary_iterator() -> None:
    items = paged(iter([[1, 2], [3]]))

    assert next(items) == 1
    assert list(items) == [2, 3]

"""Scans that fetch a page while the caller works on the one before: on connections of their own that nobody needs."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from sqlalchemy import AsyncAdaptedQueuePool, Connection, event, text

from eventstore_sa import EventStore
from eventstore_sa.store.adapters import SQLAlchemyEventStorageAdapter
from tests.blocking import wait_for_waiting
from tests.hosts import Host, each_driver, new_event, open_connections
from tests.patience import wait_until

STREAM = {"category": "orders", "stream": "1"}
each_driver_that_awaits = each_driver("postgresql+asyncpg", "postgresql+psycopg_async")


async def filled(host: Host, bind: Any) -> EventStore:
    """Return a store whose log has four pages."""
    store = EventStore(SQLAlchemyEventStorageAdapter(bind, page_size=2))
    await store.stream(**STREAM).publish(events=[new_event(str(number)) for number in range(8)])
    return store


def pages_read(engine: Any) -> list[str]:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "is_enough" in statement:
            seen.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    return seen


def pooled(host: Host) -> Any:
    return host.make_engine(poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0)


@each_driver_that_awaits
async def test_third_page_is_asked_for_before_the_second_is_worked_off(host: Host) -> None:
    engine = pooled(host)
    store = await filled(host, engine)
    seen = pages_read(engine)

    async with aclosing(store.log().iterate()) as events:  # type: ignore[type-var]
        assert [(await anext(events)).name for _ in range(2)] == ["0", "1"]
        assert len(seen) == 1
        assert (await anext(events)).name == "2"
        await asyncio.to_thread(wait_until, lambda: len(seen) == 3, "the third page is asked for")

    # Nothing is left behind, and the connection is as good as before.
    assert len(seen) == 3
    assert engine.pool.checkedout() == 0
    assert engine.pool.checkedin() == 1
    await engine.dispose()


@each_driver_that_awaits
async def test_caller_may_use_the_only_connection_while_a_page_is_fetched(host: Host) -> None:
    engine = pooled(host)
    store = await filled(host, engine)
    seen: list[str] = []

    async for each in store.log().iterate():
        await store.stream(category="copies", stream=each.name).publish(events=[new_event()])
        seen.append(each.name)

    assert seen == [str(number) for number in range(8)]
    assert len(await store.category(category="copies").read()) == 8
    await engine.dispose()


@each_driver_that_awaits
async def test_nothing_is_fetched_ahead_on_the_connection_of_the_caller(host: Host) -> None:
    engine = pooled(host)
    store = await filled(host, engine)
    seen = pages_read(engine)

    async with host.session(engine) as session, session.begin():
        events: Any = store.within(session).log().iterate()
        assert [(await anext(events)).name for _ in range(3)] == ["0", "1", "2"]
        await asyncio.sleep(0)
        assert len(seen) == 2
        await events.aclose()
    await engine.dispose()


def hold_third_page(engine: Any, holder: Connection) -> list[str]:
    """Have the third page of a scan wait for the holder's transaction; return the statements of its pages so far."""
    pages: list[str] = []

    def hold(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "is_enough" in statement:
            pages.append(statement)
            if len(pages) == 3:
                holder.execute(text("LOCK TABLE es_events"))

    event.listen(engine, "before_cursor_execute", hold)
    return pages


async def give_up_scan_whose_third_page_waits(store: EventStore, engine: Any, holder: Connection) -> None:
    """End a loop over events while the page after its own is fetched, which waits for the holder's transaction."""
    pages = hold_third_page(engine, holder)
    async for each in store.log().iterate():
        if each.name == "2":
            break
    await asyncio.to_thread(wait_until, lambda: len(pages) == 3, "the third page is asked for")


@each_driver_that_awaits
async def test_page_that_waited_in_vain_for_the_caller_is_fetched_again(host: Host) -> None:
    limited: dict[str, Any] = (
        {"server_settings": {"lock_timeout": "50"}} if "asyncpg" in host.driver else {"options": "-c lock_timeout=50"}
    )
    engine = host.make_engine(poolclass=AsyncAdaptedQueuePool, connect_args=limited)
    store = await filled(host, engine)
    seen: list[str] = []
    with host.ground.outside.connect() as holder:
        pages = hold_third_page(engine.sync_engine, holder)
        async for each in store.log().iterate():
            seen.append(each.name)
            if each.name == "2":
                given_up = lambda: len(pages) == 3 and engine.pool.checkedout() == 0  # noqa: E731
                await asyncio.to_thread(wait_until, given_up, "the page is given up")
                holder.rollback()
    assert seen == [str(number) for number in range(8)]
    await engine.dispose()


@each_driver_that_awaits
async def test_page_that_nobody_needs_leaves_no_connection_in_an_engine_that_is_disposed_of(host: Host) -> None:
    engine = host.make_engine(poolclass=AsyncAdaptedQueuePool)
    store = await filled(host, engine)
    await engine.dispose()
    open_now = open_connections(engine.sync_engine)
    with host.ground.outside.connect() as holder:
        await give_up_scan_whose_third_page_waits(store, engine.sync_engine, holder)
        await asyncio.to_thread(wait_for_waiting, host.ground)

        await engine.dispose()
        assert len(open_now) == 1
    await asyncio.to_thread(wait_until, lambda: open_now == [], "its connection is closed")


@each_driver_that_awaits
async def test_store_that_is_closed_waits_for_the_page_that_nobody_needs(host: Host) -> None:
    await filled(host, host.engine)
    store = EventStore(SQLAlchemyEventStorageAdapter(host.ground.url(host.driver), page_size=2))
    engine: Any = store.adapter.bind.engine  # type: ignore[attr-defined]
    open_now = open_connections(engine)
    with host.ground.outside.connect() as holder:
        await give_up_scan_whose_third_page_waits(store, engine, holder)
        closing = asyncio.create_task(store.aclose())
        await asyncio.to_thread(wait_for_waiting, host.ground)
        assert not closing.done()
    await closing
    assert open_now == []

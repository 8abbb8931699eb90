"""What mypy --strict and pyright strict must infer about the tools for tests, and refuse. Never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from eventstore_sa import EventStore, NewEvent, Projector, StoredEvent, StreamIdentifier, SyncEventStore
from eventstore_sa.projection import TableProjection
from eventstore_sa.testing import (
    Decided,
    FakeAsyncSession,
    FakeSession,
    Result,
    Rows,
    StagedEvent,
    assert_published,
    given,
    matching,
    published_in,
    staged_in,
)

AnyEvent = StoredEvent[Any, Any, Any]


def ship(state: int) -> list[NewEvent]:
    return []


async def ship_async(state: int) -> list[NewEvent]:
    return []


def handle(event: AnyEvent) -> str:
    return event.stream


async def handle_async(event: AnyEvent) -> str:
    return event.stream


def when_knows_what_comes_out(projector: Projector[StreamIdentifier, int, None], rows: TableProjection) -> None:
    happened = given([NewEvent(name="placed", payload=1), NewEvent(name="paid", payload=None)])
    assert_type(happened.when(projector), Result[int])
    assert_type(happened.when(projector).value, int)
    assert_type(happened.when(projector, ship), Decided)
    assert_type(happened.when(rows), Rows)
    assert_type(happened.when(handle), Result[list[str]])
    happened.when(projector).then(3)
    happened.when(projector, ship).then([matching("shipped"), "told", NewEvent(name="x", payload={"a": 1})])
    happened.when(projector).then("3")  # type: ignore[arg-type]


async def when_async_knows_what_comes_out(projector: Projector[StreamIdentifier, int, None]) -> None:
    happened = given()
    assert_type(await happened.when_async(projector), Result[int])
    assert_type(await happened.when_async(projector, ship_async), Decided)
    assert_type(await happened.when_async(projector, ship), Decided)
    assert_type(await happened.when_async(handle_async), Result[list[str]])


async def what_is_awaited_is_known(
    store: EventStore, sync_store: SyncEventStore, session: Session, async_session: AsyncSession
) -> None:
    await assert_published(store, "placed")
    await assert_published(store.log(), "placed")
    assert_published(sync_store, "placed")
    assert_published(staged_in(async_session), matching("placed"))
    assert_published(await published_in(async_session), "placed")
    assert_type(staged_in(session), Sequence[StagedEvent])
    assert_type(published_in(session), Sequence[AnyEvent])
    assert_type(await published_in(async_session), Sequence[AnyEvent])


def fakes_are_sessions(store: EventStore, sync_store: SyncEventStore) -> None:
    store.within(FakeAsyncSession())
    sync_store.within(FakeSession())
    sync_store.within(FakeAsyncSession())  # type: ignore[arg-type]

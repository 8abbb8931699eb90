"""Events applied to rows of a host's by table projections, and the rows that come of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from eventstore_sa import StoredEvent
from tests.awaiting import entered, settled
from tests.hosts import Host

__all__ = ["AnyEvent", "applied", "committing", "project_all", "rows", "stored"]

AnyEvent = StoredEvent[Any, Any, Any]

_MOMENT = datetime(2024, 2, 29, 12, tzinfo=UTC)
_numbers = count(1)


def stored(name: str, stream: str = "1", payload: Any = None, *, category: str = "orders") -> AnyEvent:
    """Make an event with a number above all before."""
    number = next(_numbers)
    return StoredEvent(
        id=UUID(int=number),
        name=name,
        stream=stream,
        category=category,
        position=number,
        sequence_number=number,
        payload=payload,
        metadata=None,
        observed_at=_MOMENT,
        occurred_at=_MOMENT,
    )


async def applied(session: Any, projection: Any, events: Sequence[AnyEvent]) -> None:
    """Apply events in the transaction of a session of either kind."""
    if isinstance(session, Session):
        projection.apply(session, events)
    else:
        await session.run_sync(projection.apply, events)


@asynccontextmanager
async def committing(host: Host, **options: Any) -> AsyncIterator[Any]:
    """Open a session, and commit it at the end."""
    async with entered(host.session(expire_on_commit=False, **options)) as session:
        yield session
        await settled(session.commit())


async def project_all(host: Host, projection: Any, *events: AnyEvent) -> None:
    """Apply events in a transaction of its own."""
    async with committing(host) as session:
        await applied(session, projection, events)


def rows(host: Host, row_class: type[Any]) -> list[Any]:
    """Return the committed rows of a class, in the order of their keys, as a reader sees them."""
    with Session(host.ground.outside, expire_on_commit=False) as session:
        found = session.scalars(select(row_class).order_by(*row_class.__mapper__.primary_key)).unique().all()
        session.commit()
        return list(found)

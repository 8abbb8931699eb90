"""Table projections, as type checkers see them: never run."""

from __future__ import annotations

from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import EventStore, StoredEvent, SyncEventStore
from eventstore_sa.projection import DELETE, RowDeletion, TableProjection, handles, project


class Base(DeclarativeBase):
    pass


class OrderRow(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int]


@project(OrderRow, sequence_number="total")
class OrderProjection(TableProjection):
    categories = ("orders",)

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def key(self, event: StoredEvent) -> list[int]:
        return [1, 2]

    def create(self, key: int, event: StoredEvent) -> OrderRow | None:
        return OrderRow(id=key, total=0)

    def order_placed(self, row: OrderRow, event: StoredEvent[str, int]) -> None:
        row.total += event.payload * self.factor

    @handles("order-cancelled")
    def forget(self, row: OrderRow, event: StoredEvent) -> RowDeletion:
        return DELETE


@project(Session)
class Ledger:
    def __init__(self, name: str) -> None:
        self.account = name

    def order_placed(self, session: Session, event: StoredEvent) -> None: ...


async def a_decorated_class_is_still_itself(
    store: EventStore, sync_store: SyncEventStore, session: Session, async_session: AsyncSession, event: StoredEvent
) -> None:
    projection = OrderProjection(3)
    assert_type(projection, OrderProjection)
    assert_type(projection.factor, int)
    assert_type(projection.name, str)
    assert_type(Ledger("main").account, str)
    assert_type(store.with_projections(projection), EventStore)
    assert_type(sync_store.with_projections(projection), SyncEventStore)
    projection.apply(session, [event])
    await async_session.run_sync(projection.apply, [event])

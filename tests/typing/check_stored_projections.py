"""Checked by mypy and pyright only: projections as an application writes them and hands them over."""

from __future__ import annotations

from typing import Any, assert_type

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventstore_sa import (
    EventStore,
    EventStoreSchema,
    Projection,
    ProjectionStore,
    Projector,
    RecordsEvents,
    StoredEvent,
    StreamIdentifier,
    SyncEventStore,
)
from eventstore_sa.projection import (
    SnapshotStore,
    SyncSnapshotStore,
    TableProjection,
    project,
    projection_index,
    rebuild,
    rebuild_sync,
)
from eventstore_sa.query import FilterClause, Operator, Path, SortClause, SortField, SortOrder


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "rows"
    id: Mapped[str] = mapped_column(primary_key=True)


class Total(Projector[StreamIdentifier, int, None]):
    name = "total"
    categories = ("orders",)
    state_type = int
    snapshot_every = 5

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: StreamIdentifier) -> str:
        return source.stream

    def order_placed(self, state: int, event: StoredEvent[str, Any]) -> int:
        return state + 1


@project(Row)
class Rows(TableProjection):
    categories = ("orders",)

    def order_placed(self, row: Row, event: StoredEvent[str, Any]) -> None:
        row.id = row.id


class Order(RecordsEvents, Base):
    __tablename__ = "orders"
    __event_projections__ = (Total(), Rows())
    id: Mapped[int] = mapped_column(primary_key=True)


schema = EventStoreSchema(Base.metadata)
projection_index("total", Path("state"), SortField(Path("id"), SortOrder.DESC), schema=schema)


async def check_asyncio(store: EventStore, snapshots: SnapshotStore) -> None:
    projecting = store.with_projections(Total(), Rows())
    assert_type(await rebuild(Total(), store=projecting, progress=print), int)
    projections = ProjectionStore(projecting)
    named = FilterClause(Operator.EQUAL, Path("name"), "total")
    found = await projections.search(filters=[named], sort=SortClause([SortField(Path("state"))]), state_type=int)
    assert_type(found[0].state, int)
    assert_type(await projections.project(Total(), events=await store.log().read()), int)
    stream = store.stream(category="orders", stream="1")
    assert_type(await Total().project(source=stream, snapshots=snapshots), Projection[int, None])
    await stream.update(Total(), lambda state: [], snapshots=snapshots)


def check_sync(store: SyncEventStore, snapshots: SyncSnapshotStore) -> None:
    projecting = store.with_projections(Total(), Rows())
    assert_type(rebuild_sync(Total(), store=projecting, source=StreamIdentifier("orders", "1")), int)
    stream = store.stream(category="orders", stream="1")
    assert_type(Total().project_sync(source=stream, snapshots=snapshots), Projection[int, None])

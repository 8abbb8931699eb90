"""One connection is enough: nothing of the public API takes a second one while it holds the first.

Every public method of the stores is called on a pool of one, which fails whoever waits for another. What was called is
noted, so that a method that is new has to be added here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import wraps
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventstore_sa import (
    EventQuery,
    EventStore,
    NewEvent,
    Projection,
    ProjectionStore,
    SyncEventStore,
    SyncProjectionStore,
    exists_row,
    retry_transaction,
    retry_transaction_sync,
)
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import DuplicateEventError, UnmetWriteConditionError
from eventstore_sa.persistence.schema import verify_schema
from eventstore_sa.projection import SnapshotStore, SyncSnapshotStore, TableProjection, project, rebuild, rebuild_sync
from eventstore_sa.query import FilterClause, KeySetPagingClause, Operator, Path, Search, SortClause, SortField
from eventstore_sa.sources.constraints import sequence_number_after
from eventstore_sa.store.streams import EventCategory, EventLog, EventPartition, EventSelection, EventStream
from eventstore_sa.store.sync_streams import (
    SyncEventCategory,
    SyncEventLog,
    SyncEventPartition,
    SyncEventSelection,
    SyncEventStream,
)
from eventstore_sa.testing import clear
from eventstore_sa.types import LogIdentifier, LogPartitionIdentifier, SnapshotKey, StreamIdentifier
from tests.awaiting import collected, entered, settled
from tests.hosts import Host, Note, each_kind_of_driver, new_event
from tests.projectors import CustomerProjector, OrderProjector
from tests.tables import AnyEvent

_CLASSES: dict[bool, tuple[type[Any], ...]] = {
    True: (
        EventStore,
        EventStream,
        EventCategory,
        EventLog,
        EventPartition,
        EventSelection,
        ProjectionStore,
        SnapshotStore,
    ),
    False: (
        SyncEventStore,
        SyncEventStream,
        SyncEventCategory,
        SyncEventLog,
        SyncEventPartition,
        SyncEventSelection,
        SyncProjectionStore,
        SyncSnapshotStore,
    ),
}


class Base(DeclarativeBase):
    pass


class OrderRow(Base):
    __tablename__ = "one_connection_orders"

    id: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


@project(OrderRow)
class RowProjection(TableProjection):
    name = "row"
    categories = ("orders",)

    def something_happened(self, row: OrderRow, event: AnyEvent) -> None:
        row.count += 1


class CountedProjector(OrderProjector):
    name = "counted"
    snapshot_every = 1


class DecidingProjector(OrderProjector):
    name = "deciding"

    def id_factory(self, state: dict[str, Any], source: object) -> str:
        return "c1"


@pytest.fixture
def called(host: Host, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Note which public methods of the stores are called."""
    names: set[str] = set()

    def noting(name: str, method: Any) -> Any:
        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            names.add(name)
            return method(*arguments, **options)

        @wraps(method)
        async def call_async(*arguments: Any, **options: Any) -> Any:
            return await call(*arguments, **options)

        return call_async if inspect.iscoroutinefunction(method) else call

    for kind in _CLASSES[host.asynchronous]:
        for name in _public_methods(kind):
            monkeypatch.setattr(kind, name, noting(f"{kind.__name__}.{name}", getattr(kind, name)))
    return names


def _public_methods(kind: type[Any]) -> Iterator[str]:
    return (name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_"))


@pytest.fixture
def tables(host: Host) -> Iterator[None]:
    """Make the table of this module for the length of a test."""
    Base.metadata.create_all(host.ground.outside)
    yield
    Base.metadata.drop_all(host.ground.outside)


@each_kind_of_driver()
@pytest.mark.usefixtures("tables")
async def test_the_whole_api_works_on_a_pool_of_one(host: Host, called: set[str]) -> None:
    """Everything is done by one caller, so the pool's timeout is only reached by who waits for a connection of its own."""
    engine = host.make_engine(poolclass=None, pool_size=1, max_overflow=0, pool_timeout=2)
    try:
        await _Caller(host, engine).call_all()
    finally:
        await settled(engine.dispose())

    every = {f"{kind.__name__}.{name}" for kind in _CLASSES[host.asynchronous] for name in _public_methods(kind)}
    assert every - called == set()


class _Caller:
    """Calls everything there is, on one engine."""

    def __init__(self, host: Host, engine: Any) -> None:
        self.engine = engine
        self.asynchronous = host.asynchronous
        self.factory = host.factory(engine)
        plain = host.store_on(engine)
        self.store = plain.with_projections(OrderProjector(), CustomerProjector(), RowProjection())
        self.projections: Any = (ProjectionStore if self.asynchronous else SyncProjectionStore)(plain)
        self.snapshots: Any = (SnapshotStore if self.asynchronous else SyncSnapshotStore)(engine)

    async def call_all(self) -> None:
        await self._schema()
        await self._publish()
        await self._within_sessions()
        await self._read()
        await self._decide()
        await self._keep_projections()
        await self._rebuild()
        await self._keep_snapshots()
        for each in (self.store, self.projections, self.snapshots):
            await settled(each.aclose() if self.asynchronous else each.close())

    async def _on_connection(self, work: Any) -> None:
        async with entered(self.engine.begin()) as connection:
            await settled(connection.run_sync(work) if self.asynchronous else work(connection))

    async def _schema(self) -> None:
        for each in (self.store, self.projections, self.snapshots):
            await settled(each.create_schema())
        await self._on_connection(verify_schema)

    async def _publish(self) -> None:
        log, category = self.store.log(), self.store.category(category="orders")
        stream = category.stream(stream="1")
        await settled(stream.publish(events=[new_event(payload=1)], condition=stream_is_empty()))
        await settled(
            category.publish(streams={"2": {"events": [new_event(payload=1)], "condition": position_is(None)}})
        )
        await settled(self.store.publish(streams={StreamIdentifier("orders", "3"): {"events": [new_event()]}}))
        await settled(
            stream.publish(events=[new_event()], condition=exists_row(select(Note.note).limit(0)) | position_is(0))
        )
        repeated = [new_event(payload=1)]
        for _ in range(2):
            await settled(category.stream(stream="repeated").publish(events=repeated))
        with pytest.raises(UnmetWriteConditionError):
            await settled(stream.publish(events=[new_event()], condition=stream_is_empty()))
        with pytest.raises(DuplicateEventError):
            await settled(stream.publish(events=repeated))
        update = await settled(stream.update(CountedProjector(), lambda state: [new_event(payload=state["sum"])]))
        assert update.state["sum"] == 2
        await settled(stream.update(CountedProjector(), lambda _: [new_event()], snapshots=self.snapshots))
        async for event in _each(log):
            await settled(
                self.store.stream(category="copies", stream="1").publish(
                    events=[NewEvent(name="copied", payload=event.payload)]
                )
            )
        assert log.partitions(2)

    async def _within_sessions(self) -> None:
        async with entered(self.factory()) as session:
            here = self.store.within(session)
            here.after_commit(self._reading_callback)
            session.add(Note(note="one"))
            await settled(here.stream(category="orders", stream="4").publish(events=[new_event()]))
            stored = await settled(here.stream(category="orders", stream="4").latest())
            assert stored.position == 0
            here.stream(category="orders", stream="4").stage(events=[new_event()])
            here.category(category="orders").stage(streams={"5": {"events": [new_event()]}})
            await settled(here.flush())
            here.stage(streams={StreamIdentifier("orders", "6"): {"events": [new_event()]}})
            assert await settled(self.projections.within(session).count()) > 0
            assert await settled(self.snapshots.within(session).find(key=_KEY)) is None
            await settled(session.commit())
        await settled(self._retry(self.factory, self._work))

    @property
    def _retry(self) -> Any:
        return retry_transaction if self.asynchronous else retry_transaction_sync

    def _work(self, session: Any) -> Any:
        return self.store.within(session).stream(category="orders", stream="4").publish(events=[new_event()])

    @property
    def _reading_callback(self) -> Any:
        async def call(_: Any) -> None:
            await self.store.log().latest()

        return call if self.asynchronous else lambda _: self.store.log().latest()

    async def _read(self) -> None:
        store = self.store
        latest = await settled(store.log().latest())
        partition = LogPartitionIdentifier(0, 1)
        for source in (
            store.log(),
            store.category(category="copies"),
            store.stream(category="copies", stream="1"),
            store.partition(partition),
            *store.category(category="copies").partitions(1),
        ):
            assert await settled(source.read(constraints={sequence_number_after(0)}, limit=2))
            assert await settled(source.latest())
            assert await collected(source.iterate(backwards=True))
        await settled(store.log().read(wait_for=latest, timeout_s=10))
        async for identifier in _each(store.streams()):
            assert await settled(store.stream(category=identifier.category, stream=identifier.stream).latest())
        async for category in _each(store.categories()):
            assert await settled(store.category(category=category.category).latest())
        await settled(store.watermark())

    async def _decide(self) -> None:
        store, query, stream = self.store, EventQuery.tagged("course:c1"), StreamIdentifier("courses", "c1")
        joined = NewEvent(name="something-happened", payload=1, tags=["course:c1"])
        decision = await settled(store.decide(query, DecidingProjector()))
        condition = decision.unchanged()
        await settled(store.publish(streams={stream: {"events": [joined], "condition": condition}}))
        with pytest.raises(UnmetWriteConditionError):
            await settled(store.publish(streams={stream: {"events": [new_event()], "condition": condition}}))
        update = await settled(
            store.update_decision(
                query,
                DecidingProjector(),
                decide=lambda state: {stream: {"events": [new_event(payload=state["sum"], tags=["course:c1"])]}},
            )
        )
        assert update.state["sum"] == 2
        for source in (store.query(query), store.tag("course:c1"), *store.query(query).partitions(1)):
            assert len(await settled(source.read())) == 2
            assert await settled(source.latest())
            assert isinstance(await settled(source.tags_epoch()), str)
        for source in (store.log(), store.category(category="courses")):
            assert source.tags_epoch() == ""
        backfill = await settled(store.backfill_tags(lambda _: ["course:c2"], batch_size=2))
        assert backfill.changed > 2

    async def _keep_projections(self) -> None:
        projections = self.projections
        one = Projection(id="x", name="by-hand", source=LogIdentifier(), state={"a": 1}, metadata=None)
        await settled(projections.save(projection=one, expected_version=0))
        await settled(projections.save_all(projections=[one]))
        named = FilterClause(Operator.EQUAL, Path("name"), "by-hand")
        sort = SortClause([SortField(Path("state", "a"))])
        assert await settled(projections.load(id="x", name="by-hand"))
        assert await settled(projections.locate(source=LogIdentifier(), name="by-hand"))
        assert await settled(projections.search(filters=[named], sort=sort, paging=KeySetPagingClause()))
        assert await settled(projections.count(filters=Search(filters=[named]).filters)) == 1
        async for each in _each(projections.iterate(filters=[named], sort=sort)):
            assert await settled(projections.delete(id=each.id, name=each.name))
        events = await settled(self.store.log().read())
        assert await settled(projections.project(CountedProjector(), events=events))

    async def _rebuild(self) -> None:
        async def look(_: Any) -> None:
            await self.store.log().latest()

        progress: Any = look if self.asynchronous else lambda _: self.store.log().latest()
        again: Any = rebuild if self.asynchronous else rebuild_sync
        assert await settled(again(CustomerProjector(), store=self.store, batch_size=2, progress=progress)) > 1
        source = StreamIdentifier("orders", "1")
        assert await settled(again(OrderProjector(), store=self.store, source=source)) == 1

    async def _keep_snapshots(self) -> None:
        projector = CountedProjector()
        run = projector.project if self.asynchronous else projector.project_sync
        stream = self.store.stream(category="orders", stream="1")
        for _ in range(2):
            await settled(run(source=stream, snapshots=self.snapshots))
        key = SnapshotKey.of(projector.name, projector.version, stream.identifier)
        snapshot = await settled(self.snapshots.find(key=key))
        await settled(self.snapshots.save(snapshot=snapshot))
        assert await settled(self.snapshots.prune(projector=projector.name)) == 1
        await settled(clear(self.engine))
        for each in (self.snapshots, self.projections, self.store):
            await settled(each.drop_schema())
            await settled(each.create_schema())


_KEY = SnapshotKey.of("nobody", 1, StreamIdentifier("orders", "1"))


async def _each(values: Any) -> Any:
    """Iterate with asyncio or without, one at a time."""
    if hasattr(values, "__aiter__"):
        async for value in values:
            yield value
    else:
        for value in values:
            yield value

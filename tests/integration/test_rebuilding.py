"""Rebuilds: new projections grow beside the old, take their place at once, and lose nothing that happens meanwhile."""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from eventstore_sa import EventStore, ProjectionStore, SyncEventStore, SyncProjectionStore
from eventstore_sa.errors import ConcurrencyError, ConfigurationError, LockTimeoutError
from eventstore_sa.projection import RebuildProgress, TableProjection, is_rebuilding, rebuild, rebuild_sync
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.types import AnyStoredEvent, CategoryIdentifier, LogIdentifier, Projection, StreamIdentifier
from tests.awaiting import entered, settled
from tests.databases import PostgresDatabase
from tests.hosts import DRIVERS, KINDS_OF_DRIVERS, POSTGRES_DRIVERS, Host, each_driver, new_event, statements_of
from tests.preloaded import run_preloaded
from tests.projectors import CustomerProjector, OrderProjector
from tests.stores import install_schema

pytestmark = pytest.mark.keeps_connections


class DoublingProjector(OrderProjector):
    """The same projections, computed in another way."""

    version = 2
    seen_in_rebuild: set[bool]

    def __init__(self) -> None:
        self.seen_in_rebuild = set()

    def something_happened(self, state: dict[str, Any], event: AnyStoredEvent) -> dict[str, Any]:
        self.seen_in_rebuild.add(is_rebuilding())
        return {"names": [], "sum": state["sum"] + 2 * event.payload}


class Stopped(Exception):
    """Ends a rebuild half-way."""


class Ground:
    """A store, and rebuilds of its projections."""

    def __init__(self, store: Any, host: Host | None = None) -> None:
        self.store = store
        self.host = host
        asynchronous = isinstance(store, EventStore)
        self.projections: Any = ProjectionStore(store) if asynchronous else SyncProjectionStore(store)
        self._rebuild: Any = rebuild if asynchronous else rebuild_sync

    async def rebuild(self, projector: Any, **options: Any) -> int:
        """Rebuild with the function that fits."""
        return await settled(self._rebuild(projector, **{"store": self.store, **options}))  # type: ignore[no-any-return]

    async def publish(self, payload: Any, stream: str = "1", category: str = "orders", *inline: Any) -> None:
        """Publish an event."""
        store = self.store.with_projections(*inline)
        await settled(store.stream(category=category, stream=stream).publish(events=[new_event(payload=payload)]))

    async def sums(self) -> dict[str, int]:
        """Return what the projections have summed up."""
        return {each.id: each.state["sum"] for each in await settled(self.projections.search())}


@pytest_asyncio.fixture(loop_scope="function", params=["memory", "memory, sync", *KINDS_OF_DRIVERS])
async def ground(request: pytest.FixtureRequest, make_host: Callable[[str], Host]) -> AsyncIterator[Ground]:
    """Provide an empty store of each kind."""
    driver: str = request.param
    if driver.startswith("memory"):
        adapter = InMemoryEventStorageAdapter()
        yield Ground(SyncEventStore(adapter) if driver.endswith("sync") else EventStore(adapter))
        return
    host = make_host(driver)
    yield Ground(host.store, host)
    await host.aclose()


async def test_projections_are_made_anew_and_stale_ones_go(ground: Ground) -> None:
    for number in range(25):
        await ground.publish(number, str(number % 5), "orders", OrderProjector())
    source = StreamIdentifier("orders", "gone")
    stale = Projection(id="gone", name="order", source=source, state={"sum": 7}, metadata=None)
    other = Projection(id="1", name="other", source=source, state={"sum": -1}, metadata=None)
    await settled(ground.projections.save_all(projections=[stale]))
    before = await settled(ground.projections.load(id="1", name="order"))
    told: list[RebuildProgress] = []
    projector = DoublingProjector()

    assert await ground.rebuild(projector, batch_size=10, progress=told.append) == 5

    assert await ground.sums() == {"0": 100, "1": 110, "2": 120, "3": 130, "4": 140}
    assert projector.seen_in_rebuild == {True}
    assert not is_rebuilding()
    assert [(each.events, each.sequence_number) for each in told] == [
        (each.events, told[-1].sequence_number - 25 + each.events) for each in told
    ]
    assert [each.events for each in told] == [10, 20, 25]
    assert {each.last_sequence_number for each in told} == {told[-1].sequence_number}
    after = await settled(ground.projections.load(id="1", name="order"))
    assert after.version == before.version + 1
    await settled(ground.projections.save_all(projections=[other]))
    assert await ground.rebuild(projector) == 5
    assert (await settled(ground.projections.load(id="1", name="other"))).state == {"sum": -1}


async def test_what_is_rebuilt_goes_on_inline(ground: Ground) -> None:
    await ground.publish(1)
    assert await ground.sums() == {}

    await ground.rebuild(OrderProjector())
    await ground.publish(2, "1", "orders", OrderProjector())
    await ground.publish(4, "2", "orders", OrderProjector())

    assert await ground.sums() == {"1": 3, "2": 4}


async def test_a_rebuild_that_was_cut_short_is_gone_on_with(ground: Ground) -> None:
    for number in range(10):
        await ground.publish(number, str(number % 2), "orders", OrderProjector())
    before = await ground.sums()

    def stop(progress: RebuildProgress) -> None:
        if progress.events == 6:
            raise Stopped

    with pytest.raises(Stopped):
        await ground.rebuild(DoublingProjector(), batch_size=3, progress=stop)
    assert await ground.sums() == before
    told: list[RebuildProgress] = []
    await ground.rebuild(DoublingProjector(), batch_size=3, progress=told.append)

    assert [each.events for each in told] == [9, 10]
    assert await ground.sums() == {"0": 40, "1": 50}


async def test_another_version_or_source_begins_anew(ground: Ground) -> None:
    for number in range(6):
        await ground.publish(number)

    def stop(_: RebuildProgress) -> None:
        raise Stopped

    newer = DoublingProjector()
    newer.version = "three"
    for projector, source in (
        (DoublingProjector(), None),
        (newer, None),
        (newer, LogIdentifier()),
        (newer, CategoryIdentifier("orders")),
    ):
        told: list[RebuildProgress] = []
        with pytest.raises(Stopped):
            await ground.rebuild(
                projector, source=source, batch_size=2, progress=lambda each, told=told: (told.append(each), stop(each))
            )
        assert [each.events for each in told] == [2]
    await ground.rebuild(newer, batch_size=2)
    assert await ground.sums() == {"1": 30}


async def test_readers_find_the_old_or_the_new(ground: Ground) -> None:
    for number in range(9):
        await ground.publish(1, str(number % 3), "orders", OrderProjector())
    seen: list[dict[str, int]] = []

    async def look() -> None:
        seen.append(await ground.sums())

    def look_sync(_: RebuildProgress) -> None:
        seen.append({each.id: each.state["sum"] for each in ground.projections.search()})

    asynchronous = isinstance(ground.store, EventStore)
    await ground.rebuild(DoublingProjector(), batch_size=2, progress=(lambda _: look()) if asynchronous else look_sync)

    assert seen == [{"0": 3, "1": 3, "2": 3}] * 5
    assert await ground.sums() == {"0": 6, "1": 6, "2": 6}


async def test_what_is_published_during_a_rebuild_is_not_lost(ground: Ground) -> None:
    for number in range(10):
        await ground.publish(1, str(number % 2), "orders", CustomerProjector())

    async def publish() -> None:
        if not published:
            published.append(1)
            await ground.publish(100, "1", "payments", CustomerProjector())
            await ground.publish(1000, "new", "orders", CustomerProjector())

    def publish_sync(_: RebuildProgress) -> None:
        if not published:
            published.append(1)
            store = ground.store.with_projections(CustomerProjector())
            store.stream(category="payments", stream="1").publish(events=[new_event(payload=100)])
            store.stream(category="orders", stream="new").publish(events=[new_event(payload=1000)])

    published: list[int] = []
    asynchronous = isinstance(ground.store, EventStore)
    await ground.rebuild(
        CustomerProjector(), batch_size=4, progress=(lambda _: publish()) if asynchronous else publish_sync
    )

    assert await ground.sums() == {"0": 5, "1": 105, "new": 1000}


async def test_one_stream(ground: Ground) -> None:
    for number in range(6):
        await ground.publish(number, str(number % 2), "orders", OrderProjector())
    stale = Projection(id="7", name="order", source=StreamIdentifier("orders", "7"), state={"sum": 7}, metadata=None)
    await settled(ground.projections.save(projection=stale))

    assert await ground.rebuild(DoublingProjector(), source=StreamIdentifier("orders", "1")) == 1
    assert await ground.rebuild(DoublingProjector(), source=StreamIdentifier("orders", "7")) == 0

    assert await ground.sums() == {"0": 6, "1": 18}
    await ground.publish(1, "1", "orders", DoublingProjector())
    assert await ground.sums() == {"0": 6, "1": 20}
    with pytest.raises(ConfigurationError, match="built from several streams"):
        await ground.rebuild(CustomerProjector(), source=StreamIdentifier("orders", "1"))


async def test_one_stream_that_is_published_to_meanwhile(ground: Ground) -> None:
    class Slow(OrderProjector):
        meanwhile: list[Callable[[], Any]]

        def something_happened(self, state: dict[str, Any], event: AnyStoredEvent) -> dict[str, Any]:
            while self.meanwhile:
                self.meanwhile.pop()()
            return super().something_happened(state, event)

    if isinstance(ground.store, EventStore):
        return  # a handler cannot publish there
    await ground.publish(1, "1", "orders", OrderProjector())
    projector = Slow()
    store = ground.store.with_projections(OrderProjector())
    projector.meanwhile = [
        lambda: store.stream(category="orders", stream="1").publish(events=[new_event(payload=10)]) for _ in range(3)
    ]

    await ground.rebuild(projector, source=StreamIdentifier("orders", "1"))

    assert await ground.sums() == {"1": 31}


async def test_a_rebuild_of_nothing(ground: Ground) -> None:
    assert await ground.rebuild(OrderProjector()) == 0
    await ground.publish(1, "1", "invoices")
    assert await ground.rebuild(OrderProjector(), source=LogIdentifier()) == 0
    with pytest.raises(ConfigurationError, match="rebuilt from the log, a category or a stream"):
        await ground.rebuild(OrderProjector(), source="orders")


@pytest.mark.parametrize("later", [OrderProjector, DoublingProjector])
async def test_a_later_rebuild_takes_the_place_of_one_that_is_under_way(
    ground: Ground, later: type[OrderProjector]
) -> None:
    """Also when it stops just where the earlier one is: what they have made must not be mixed."""
    for number in range(4):
        await ground.publish(number)
    calls = 0

    def stop(_: RebuildProgress) -> None:
        raise Stopped

    async def begin_another() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            with pytest.raises(Stopped):
                await ground.rebuild(later(), batch_size=2, progress=stop)

    def begin_another_sync(_: RebuildProgress) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            with pytest.raises(Stopped):
                rebuild_sync(later(), store=ground.store, batch_size=2, progress=stop)

    asynchronous = isinstance(ground.store, EventStore)
    progress = (lambda _: begin_another()) if asynchronous else begin_another_sync
    with pytest.raises(ConcurrencyError, match="another rebuild of the projections 'order' has begun"):
        await ground.rebuild(OrderProjector(), batch_size=2, progress=progress)
    assert calls == 1

    assert await ground.rebuild(later(), batch_size=2) == 1
    assert await ground.sums() == {"1": 12 if later is DoublingProjector else 6}


async def test_a_rebuild_that_was_overtaken_in_the_end_changes_nothing(ground: Ground) -> None:
    await ground.publish(1)

    async def rebuild_all() -> None:
        await ground.rebuild(DoublingProjector())

    def rebuild_all_sync(_: RebuildProgress) -> None:
        rebuild_sync(DoublingProjector(), store=ground.store)

    asynchronous = isinstance(ground.store, EventStore)
    with pytest.raises(ConcurrencyError, match="wait for it to end"):
        await ground.rebuild(OrderProjector(), progress=(lambda _: rebuild_all()) if asynchronous else rebuild_all_sync)

    assert await ground.sums() == {"1": 2}


@pytest.mark.parametrize("ground", ["memory", "sqlite", "postgresql+asyncpg"], indirect=True)
@pytest.mark.parametrize("size", [0, -1, True, 2.0, 2**63])
async def test_batches_have_a_size(ground: Ground, size: Any) -> None:
    await ground.publish(1)

    with pytest.raises(ConfigurationError, match=r"batch_size is an integer from 1 to 9223372036854775807; got"):
        await ground.rebuild(OrderProjector(), batch_size=size)


async def test_the_time_to_wait_is_checked(ground: Ground) -> None:
    for seconds in (math.nan, -1, "1", None, True):
        with pytest.raises(ConfigurationError, match="timeout_s is a number of seconds from 0; got"):
            await ground.rebuild(OrderProjector(), timeout_s=seconds)
    for seconds in (math.inf, 1e10, 0, 0.0004):
        assert await ground.rebuild(OrderProjector(), timeout_s=seconds) == 0


async def test_handlers_may_be_coroutine_functions(ground: Ground) -> None:
    class Waiting(OrderProjector):
        async def something_happened(  # type: ignore[override]
            self, state: dict[str, Any], event: AnyStoredEvent
        ) -> dict[str, Any]:
            return {**state, "sum": state["sum"] + event.payload}

    for number in range(5):
        await ground.publish(number)

    if isinstance(ground.store, EventStore):
        assert await ground.rebuild(Waiting(), batch_size=2) == 1
        assert await ground.sums() == {"1": 10}
        assert await ground.rebuild(Waiting(), source=StreamIdentifier("orders", "1")) == 1
    else:
        with pytest.raises(ConfigurationError, match="coroutine function"):
            await ground.rebuild(Waiting())


@pytest.mark.parametrize("ground", list(DRIVERS), indirect=True)
async def test_a_rebuild_within_a_transaction_is_refused(ground: Ground) -> None:
    assert ground.host is not None
    async with entered(ground.host.session()) as session:
        with pytest.raises(ConfigurationError, match="commits each of its steps"):
            await ground.rebuild(OrderProjector(), store=ground.store.within(session))


@pytest.mark.parametrize("ground", ["memory", "memory, sync"], indirect=True)
async def test_what_cannot_be_stored_or_rebuilt_is_refused(ground: Ground) -> None:
    class RowProjection(TableProjection):
        pass

    for given, message in (
        (OrderProjector, "is a class: pass an instance"),
        (RowProjection(), "is not a Projector, so"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            await ground.rebuild(given)
        with pytest.raises(ConfigurationError, match=message):
            await settled(ground.projections.project(given, events=[]))
    with pytest.raises(ConfigurationError, match="a rebuild reads events from a store"):
        await ground.rebuild(OrderProjector(), store=ground.projections)


@pytest.mark.parametrize("ground", POSTGRES_DRIVERS, indirect=True)
async def test_a_publish_that_stays_under_way_makes_a_rebuild_give_up(ground: Ground) -> None:
    host = ground.host
    assert host is not None
    await ground.publish(1, "1", "orders", OrderProjector())
    async with entered(host.session()) as session:
        store = host.store.with_projections(OrderProjector()).within(session)
        await settled(store.stream(category="orders", stream="2").publish(events=[new_event(payload=1)]))
        with pytest.raises(LockTimeoutError, match=r"'order' did not end within 0\.05 s \(held by process \d+ "):
            await ground.rebuild(DoublingProjector(), timeout_s=0.05)
        assert await ground.sums() == {"1": 1}
        await settled(session.commit())

    assert await ground.rebuild(DoublingProjector()) == 2
    assert await ground.sums() == {"1": 2, "2": 2}


@pytest.fixture
def postgres_store(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[SyncEventStore]:
    """Provide a store with room for many writers."""
    database = make_postgres_database(prepared_by=install_schema)
    engine = create_engine(database.url("psycopg"), pool_size=12)
    yield SyncEventStore(engine)
    engine.dispose()


@pytest.mark.parametrize("projector", [OrderProjector, CustomerProjector])
def test_writers_during_rebuilds(postgres_store: SyncEventStore, projector: type[OrderProjector]) -> None:
    """What is there in the end is what a projection from scratch gives, whatever happened when."""
    store = postgres_store.with_projections(projector())
    done = Event()

    def write(number: int) -> int:
        written = 0
        while not done.is_set() or written < 20:
            stream = f"{(number + written) % 3}-{number}-{written % 4}"
            category = ("orders", "payments")[written % 2]
            adapter: Any = store.adapter
            if written % 5 == 0:
                with Session(adapter.bind.engine) as session:
                    store.within(session).stream(category=category, stream=stream).stage(
                        events=[new_event(payload=written)]
                    )
                    session.commit()
            else:
                store.stream(category=category, stream=stream).publish(events=[new_event(payload=written)])
            written += 1
        return written

    with ThreadPoolExecutor(8) as threads:
        writers = [threads.submit(write, number) for number in range(8)]
        try:
            for _ in range(4):
                rebuild_sync(projector(), store=postgres_store, batch_size=20)
        finally:
            done.set()
        written = sum(writer.result() for writer in writers)

    inline = {each.id: each.state for each in SyncProjectionStore(postgres_store).search()}
    rebuild_sync(projector(), store=postgres_store)
    assert {each.id: each.state["sum"] for each in SyncProjectionStore(postgres_store).search()} == {
        key: state["sum"] for key, state in inline.items()
    }
    assert len(postgres_store.log().read()) == written


def test_nothing_is_left_of_a_rebuild(postgres_store: SyncEventStore) -> None:
    postgres_store.stream(category="orders", stream="1").publish(events=[new_event(payload=1)])
    rebuild_sync(OrderProjector(), store=postgres_store)

    adapter: Any = postgres_store.adapter
    with adapter.bind.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM es_rebuilds")) == 0
        held = text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert connection.scalar(held) == 0


@pytest.mark.parametrize("ground", ["sqlite", "postgresql+psycopg"], indirect=True)
async def test_a_killed_rebuild_is_gone_on_with(ground: Ground) -> None:
    host = ground.host
    assert host is not None
    for number in range(10):
        await ground.publish(number, str(number % 2))
    url = host.ground.url(host.driver).render_as_string(hide_password=False)
    outcome = run_preloaded("-m", "tests.rebuilding_killed", url, "4")
    assert outcome.returncode == -signal.SIGKILL, outcome.stderr

    told: list[RebuildProgress] = []
    assert await ground.rebuild(OrderProjector(), batch_size=2, progress=told.append) == 2

    assert [each.events for each in told] == [6, 8, 10]
    assert await ground.sums() == {"0": 20, "1": 25}


@each_driver("sqlite", "postgresql+asyncpg")
async def test_a_stream_without_events_and_projection_is_left_alone(host: Host) -> None:
    with statements_of(host.engine) as statements:
        assert await Ground(host.store).rebuild(OrderProjector(), source=StreamIdentifier("orders", "none")) == 0

    assert not [each for each in statements if each.startswith("DELETE")]

"""Snapshots in databases: statements, transactions of the host, open writers, and histories that were put back."""

from __future__ import annotations

import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from eventstore_sa import EventStoreSchema, Projector
from eventstore_sa.errors import ConfigurationError, SchemaError
from eventstore_sa.persistence.snapshots.repository import SnapshotRepository
from eventstore_sa.projection import SnapshotStore, SyncSnapshotStore
from eventstore_sa.projection.adapters import (
    InMemorySnapshotStorageAdapter,
    SQLAlchemySnapshotStorageAdapter,
    SyncSQLAlchemySnapshotStorageAdapter,
)
from eventstore_sa.testing import clear
from eventstore_sa.types import EventSourceIdentifier, SnapshotKey, StreamIdentifier
from tests.awaiting import entered, settled
from tests.hosts import Host, each_driver, each_kind_of_driver, new_event, statements_of

pytestmark = pytest.mark.keeps_connections

ON_POSTGRESQL = ("postgresql+asyncpg", "postgresql+psycopg_async", "postgresql+psycopg", "postgresql+psycopg2")


class CountProjector(Projector[EventSourceIdentifier, Any, None]):
    name = "count"
    snapshot_every = 3

    def __init__(self) -> None:
        self.handled = 0

    def initial_state_factory(self) -> Any:
        return {"count": 0}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: Any, source: EventSourceIdentifier) -> str:
        return "all"

    def counted(self, state: Any, event: Any) -> Any:
        self.handled += 1
        return {"count": state["count"] + 1}


def snapshot_store(host: Host, bind: Any = None) -> Any:
    kind: Any = SnapshotStore if host.asynchronous else SyncSnapshotStore
    return kind(host.engine if bind is None else bind)


def stream_of(store: Any, stream: str = "1") -> Any:
    return store.stream(category="orders", stream=stream)


async def count(host: Host, source: Any, snapshots: Any) -> tuple[int, int]:
    """Project; return what is counted, and how many events were handled for it."""
    projector = CountProjector()
    project = projector.project if host.asynchronous else projector.project_sync
    projection = await settled(project(source=source, snapshots=snapshots))
    return projection.state["count"], projector.handled


async def publish(store: Any, number: int, stream: str = "1") -> None:
    await settled(stream_of(store, stream).publish(events=[new_event("counted") for _ in range(number)]))


def places(host: Host) -> list[int]:
    """Return the places of the committed snapshots."""
    with host.ground.outside.connect() as connection:
        return list(connection.scalars(text("SELECT place FROM es_snapshots ORDER BY place")))


@each_kind_of_driver()
async def test_a_stream_is_read_from_its_snapshot_on(host: Host) -> None:
    snapshots = snapshot_store(host)
    await publish(host.store, 5)
    assert await count(host, stream_of(host.store), snapshots) == (5, 5)
    await publish(host.store, 2)

    with statements_of(host.engine) as statements:
        assert await count(host, stream_of(host.store), snapshots) == (7, 2)

    assert [each.split()[0] for each in statements if not each.startswith("BEGIN")] == ["SELECT", "SELECT"]
    await publish(host.store, 1)
    assert await count(host, stream_of(host.store), snapshots) == (8, 3)
    assert places(host) == [7]


@each_kind_of_driver()
async def test_categories_partitions_and_the_log_are_too(host: Host) -> None:
    snapshots = snapshot_store(host)
    for stream in ("1", "2"):
        await publish(host.store, 3, stream)
    whole = [host.store.category(category="orders"), host.store.log(), *host.store.log().partitions(1)]

    for source in whole:
        assert await count(host, source, snapshots) == (6, 6)
        assert await count(host, source, snapshots) == (6, 0)
    await publish(host.store, 1, "2")
    for source in whole:
        assert await count(host, source, snapshots) == (7, 1)

    assert len(places(host)) == 3


@each_kind_of_driver()
async def test_snapshots_that_outlived_their_events_are_not_used(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    snapshots = snapshot_store(host)
    await publish(host.store, 5)
    sources = (stream_of(host.store), host.store.category(category="orders"))
    for source in sources:
        await count(host, source, snapshots)
    kept = [await settled(snapshots.find(key=SnapshotKey.of("count", 1, source.identifier))) for source in sources]
    clear(host.ground.outside)
    for snapshot in kept:
        await settled(snapshots.save(snapshot=snapshot))

    with caplog.at_level(logging.WARNING, "eventstore_sa.projection"):
        for source in sources:
            assert await count(host, source, snapshots) == (0, 0)
        await publish(host.store, 1)
        for source in sources:
            assert await count(host, source, snapshots) == (1, 1)
        for source in sources:
            assert await count(host, source, snapshots) == (1, 0)
        await publish(host.store, 9)
        for source in sources:
            assert await count(host, source, snapshots) == (10, 9)

    assert len(caplog.records) == 4


@each_kind_of_driver()
async def test_a_snapshot_changed_by_another_hand_is_not_used(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    snapshots = snapshot_store(host)
    await publish(host.store, 5)
    await count(host, stream_of(host.store), snapshots)
    with host.ground.outside.begin() as connection:
        connection.execute(text("UPDATE es_snapshots SET state = '[77]', place = 9000"))

    with caplog.at_level(logging.WARNING, "eventstore_sa.projection"):
        assert await count(host, stream_of(host.store), snapshots) == (5, 5)

    assert "damaged" in caplog.text
    assert places(host) == [4]


@each_kind_of_driver()
async def test_what_a_transaction_of_the_host_sees_is_not_kept_outside_of_it(host: Host) -> None:
    snapshots = snapshot_store(host)
    async with host.caller() as (caller, store):
        await publish(store, 5)
        assert await count(host, stream_of(store), snapshots) == (5, 5)
        await settled(caller.rollback())

    assert places(host) == []


@each_kind_of_driver()
@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_snapshots_within_a_session_end_with_its_transaction(host: Host, ending: str) -> None:
    snapshots = snapshot_store(host)
    async with host.caller() as (caller, store):
        await publish(store, 5)
        inside = snapshots.within(caller)
        assert await count(host, stream_of(store), inside) == (5, 5)
        await publish(store, 1)
        assert await count(host, stream_of(store), inside) == (6, 1)
        assert places(host) == []
        await settled(getattr(caller, ending)())

    assert places(host) == ([4] if ending == "commit" else [])
    assert await count(host, stream_of(host.store), snapshots) == ((6, 1) if ending == "commit" else (0, 0))


@each_kind_of_driver()
async def test_no_snapshots_of_the_log_or_a_category_are_taken_within_a_session(host: Host) -> None:
    snapshots = snapshot_store(host)
    await publish(host.store, 5)
    async with host.caller() as (caller, store):
        for source in (store.category(category="orders"), store.log(), *store.log().partitions(1)):
            assert await count(host, source, snapshots.within(caller)) == (5, 5)
        await settled(caller.commit())
    assert places(host) == []

    await count(host, host.store.log(), snapshots)
    await publish(host.store, 4)
    async with host.caller() as (caller, store):
        assert await count(host, store.log(), snapshots.within(caller)) == (9, 4)
        await settled(caller.commit())
    assert places(host) == [5]


@each_driver(*ON_POSTGRESQL)
async def test_a_snapshot_of_the_log_holds_nothing_that_open_writers_could_precede(host: Host) -> None:
    snapshots = snapshot_store(host)
    log = host.store.log()
    await publish(host.store, 3)
    async with host.caller() as (caller, store):
        await publish(store, 1, "slow")
        await publish(host.store, 3)
        assert await count(host, log, snapshots) == (3, 3)
        assert places(host) == [3]
        await settled(caller.commit())

    assert await count(host, log, snapshots) == (7, 4)
    assert await count(host, log, None) == (7, 7)


@each_driver(*ON_POSTGRESQL)
async def test_savers_in_transactions_of_hosts_never_wait_for_each_other(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(host.store, 5)
    snapshots = snapshot_store(host)
    async with host.caller() as (first, first_store), host.caller() as (second, second_store):
        assert await count(host, stream_of(first_store), snapshots.within(first)) == (5, 5)
        assert await count(host, stream_of(second_store), snapshots.within(second)) == (5, 5)
        await settled(second.commit())
        assert places(host) == []
        assert await host.execute(first, "SHOW lock_timeout") == "0"
        await settled(first.commit())

    assert places(host) == [4]
    assert caplog.records == []


@each_driver("postgresql+asyncpg", "postgresql+psycopg2")
async def test_savers_of_their_own_wait_briefly_for_a_transaction_of_a_host(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(host.store, 5)
    snapshots = snapshot_store(host)
    async with host.caller() as (caller, store):
        await count(host, stream_of(store), snapshots.within(caller))
        with caplog.at_level(logging.WARNING, "eventstore_sa.projection"):
            assert await count(host, stream_of(host.store), snapshots) == (5, 5)
        await settled(caller.rollback())

    assert "could be saved: a lock" in caplog.text
    assert await count(host, stream_of(host.store), snapshots) == (5, 5)
    assert places(host) == [4]


@each_driver(*ON_POSTGRESQL)
async def test_a_save_that_fails_leaves_the_transaction_of_the_host_usable(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(host.store, 5)
    async with host.caller() as (caller, store):
        await host.execute(caller, "SET TRANSACTION READ ONLY")
        with caplog.at_level(logging.WARNING, "eventstore_sa.projection"):
            inside = snapshot_store(host).within(caller)
            assert await count(host, stream_of(store), inside) == (5, 5)
        assert await host.execute(caller, "SELECT count(*) FROM es_events") == 5

    assert "could be saved" in caplog.text
    assert places(host) == []


@each_driver("postgresql+psycopg")
async def test_snapshots_of_the_log_are_right_while_others_write(host: Host) -> None:
    writers, events, ended = 4, 40, threading.Event()
    factory = host.factory()

    def write(number: int) -> None:
        chance = random.Random(number)
        for _ in range(events):
            with factory() as session:
                inside = host.store.within(session)
                stream_of(inside, f"{number}").publish(events=[new_event("counted")])
                time.sleep(chance.random() * 0.01)
                session.rollback() if chance.random() < 0.2 else session.commit()

    def read() -> list[int]:
        snapshots, seen = snapshot_store(host), [0]
        while not ended.is_set():
            projector = CountProjector()
            seen.append(projector.project_sync(source=host.store.log(), snapshots=snapshots).state["count"])
        return seen

    with ThreadPoolExecutor(writers + 2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        for writer in [threads.submit(write, number) for number in range(writers)]:
            writer.result()
        ended.set()
        counts = [reader.result() for reader in readers]

    total = len(host.ground.names())
    assert all(seen == sorted(seen) for seen in counts)
    assert (await count(host, host.store.log(), snapshot_store(host)))[0] == total


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_what_an_old_snapshot_of_the_transaction_does_not_show_is_not_used(host: Host) -> None:
    snapshots = snapshot_store(host)
    await publish(host.store, 4)
    async with host.caller(isolation_level="REPEATABLE READ") as (_, store):
        assert await count(host, stream_of(store), None) == (4, 4)
        await publish(host.store, 4)
        assert await count(host, stream_of(host.store), snapshots) == (8, 8)

        assert await count(host, stream_of(store), snapshots) == (4, 4)

    assert places(host) == [7]


@each_driver("sqlite", "sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg")
async def test_updates_begin_with_snapshots(host: Host) -> None:
    snapshots = snapshot_store(host)
    await publish(host.store, 4)

    def decide(state: Any) -> Any:
        return [new_event("counted")]

    for expected in (5, 6):
        update = await settled(stream_of(host.store).update(CountProjector(), decide, snapshots=snapshots))
        assert update.state == {"count": expected}
    async with host.caller() as (caller, store):
        inside = snapshots.within(caller)
        update = await settled(stream_of(store).update(CountProjector(), decide, snapshots=inside))
        assert [event.position for event in update.events] == [6]
        await settled(caller.commit())

    assert places(host) == [3]


@each_driver("sqlite", "sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg")
@pytest.mark.parametrize("kind", ["factory", "connection", "scoped"])
async def test_factories_connections_and_scoped_sessions_are_binds_too(host: Host, kind: str) -> None:
    await publish(host.store, 3)
    if kind == "factory":
        await count(host, stream_of(host.store), snapshot_store(host, host.factory()))
    elif kind == "connection":
        async with entered(host.engine.connect()) as connection:
            await count(host, stream_of(host.store), snapshot_store(host, connection))
            assert places(host) == []
            await settled(connection.commit())
    else:
        registry = host.scoped()
        await count(host, stream_of(host.store), snapshot_store(host).within(registry))
        await settled(registry.commit())
        await settled(registry.remove())

    assert places(host) == [2]


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_store_on_a_url_makes_and_drops_its_tables(asynchronous: bool, tmp_path: Path) -> None:
    url = f"sqlite{'+aiosqlite' if asynchronous else ''}:///{tmp_path}/snapshots.db"
    store: Any = (SnapshotStore if asynchronous else SyncSnapshotStore)(url, schema=EventStoreSchema(prefix="my_"))
    key = SnapshotKey.of("count", 1, StreamIdentifier("orders", "1"))
    async with entered(store):
        with pytest.raises(SchemaError, match="create_schema"):
            await settled(store.find(key=key))
        await settled(store.create_schema())
        assert await settled(store.find(key=key)) is None
        await settled(store.drop_schema())
        with pytest.raises(SchemaError):
            await settled(store.prune(projector="count"))

    with pytest.raises(ConfigurationError, match="closed"):
        await settled(store.find(key=key))


def test_databases_that_have_no_snapshots_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be kept in mariadb"):
        SnapshotRepository(EventStoreSchema(), "mariadb")


def test_what_is_no_bind_is_refused() -> None:
    sync_adapter: Any = SyncSQLAlchemySnapshotStorageAdapter("sqlite://")
    async_adapter: Any = SQLAlchemySnapshotStorageAdapter("sqlite+aiosqlite://")
    wrong: Any = object()
    for refused in (
        lambda: SnapshotStore(sync_adapter),
        lambda: SyncSnapshotStore(async_adapter),
        lambda: SnapshotStore(async_adapter, schema=EventStoreSchema()),
        lambda: SyncSnapshotStore(sync_adapter, schema=EventStoreSchema()),
        lambda: SyncSnapshotStore(wrong),
        lambda: SyncSnapshotStore(sync_adapter).within(wrong),
        lambda: SnapshotStore(async_adapter).within(wrong),
        lambda: SnapshotStore(InMemorySnapshotStorageAdapter()).within(wrong),
        lambda: SyncSnapshotStore(InMemorySnapshotStorageAdapter()).within(wrong),
    ):
        with pytest.raises(ConfigurationError):
            refused()


@each_driver("postgresql+psycopg", "postgresql+asyncpg")
async def test_tenants_do_not_keep_each_other_from_snapshots(host: Host) -> None:
    tenants = [host.engine.execution_options(schema_translate_map={None: tenant}) for tenant in ("one", "other")]
    for tenant in tenants:
        store = host.store_on(tenant)
        await settled(store.create_schema())
        await settled(stream_of(store).publish(events=[new_event("counted") for _ in range(3)]))

    async with entered(host.session(tenants[0])) as one, entered(host.session(tenants[1])) as other:
        for session in (one, other):
            assert await count(host, stream_of(host.store_on(session)), snapshot_store(host, session)) == (3, 3)
        for session in (one, other):
            assert await count(host, stream_of(host.store_on(session)), snapshot_store(host, session)) == (3, 0)

    with host.ground.outside.begin() as connection:
        connection.execute(text("DROP SCHEMA one CASCADE"))
        connection.execute(text("DROP SCHEMA other CASCADE"))

"""Behind a pooler that gives each transaction another connection to the server, and leaves no state of a client on any.

What drivers have to be told for that is documented in docs/databases.md, "Behind a pooler".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from sqlalchemy import URL, NullPool, create_engine, exists, text

from eventstore_sa import EventStore, Projector, StreamIdentifier, SyncEventStore
from eventstore_sa.conditions import ConditionScope, WriteCondition, position_is, stream_is_empty
from eventstore_sa.errors import ConfigurationError, DuplicateEventError, UnmetWriteConditionError
from eventstore_sa.persistence.events.conditions import ConditionContext
from eventstore_sa.projection import ProjectionStore, SnapshotStore, SyncProjectionStore, SyncSnapshotStore
from eventstore_sa.testing.postgres import PostgresServer
from eventstore_sa.types import LogIdentifier, Projection
from tests.awaiting import collected, settled
from tests.databases import PostgresTemplates, fresh_database
from tests.hosts import Ground, Host, install_host, new_event
from tests.poolers import NEEDS_PGBOUNCER, SERVERS, Pooler, PoolMode, pgbouncer

pytestmark = NEEDS_PGBOUNCER

# What a pooler sets for each client, or the driver asks it to.
_SET_BY_POOLER: Final = ("application_name", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings")


def unique_name() -> str:
    return f"__asyncpg_{uuid4()}__"


DRIVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncpg": ("postgresql+asyncpg", {"connect_args": {"statement_cache_size": 0}}),
    "asyncpg without any cache": (
        "postgresql+asyncpg",
        {"connect_args": {"statement_cache_size": 0, "prepared_statement_cache_size": 0}},
    ),
    "asyncpg with names": (
        "postgresql+asyncpg",
        {
            "connect_args": {
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": unique_name,
            }
        },
    ),
    "asyncpg with names and no pool": (
        "postgresql+asyncpg",
        {"poolclass": NullPool, "connect_args": {"prepared_statement_name_func": unique_name}},
    ),
    "psycopg, async": ("postgresql+psycopg_async", {"connect_args": {"prepare_threshold": None}}),
    "psycopg": ("postgresql+psycopg", {"connect_args": {"prepare_threshold": None}}),
    "psycopg2": ("postgresql+psycopg2", {}),
}

UNPREPARED: Final = {
    "asyncpg": "postgresql+asyncpg",
    "psycopg, async": "postgresql+psycopg_async",
    "psycopg": "postgresql+psycopg",
}


class PooledGround(Ground):
    """A database that hosts reach by way of a pooler."""

    def __init__(self, pooler: Pooler) -> None:
        super().__init__(create_engine(pooler.database.url("psycopg")))
        self._pooler = pooler

    def url(self, driver: str) -> URL:
        return self._pooler.url(driver)

    def servers(self) -> list[tuple[Any, ...]]:
        """Look at each of the pooler's connections to the server: pid, settings, prepared statements."""
        engine = create_engine(self.url("postgresql+psycopg2"), poolclass=NullPool)
        seen: dict[int, tuple[Any, ...]] = {}
        for _ in range(2 * SERVERS):
            with engine.connect() as connection:
                pid, *others = connection.execute(
                    text(
                        "SELECT pg_backend_pid(), (SELECT string_agg(name, ', ') FROM pg_settings WHERE source = 'session' "
                        "AND NOT name = ANY(:set_by_pooler)), (SELECT count(*) FROM pg_prepared_statements)"
                    ),
                    {"set_by_pooler": list(_SET_BY_POOLER)},
                ).one()
                seen[pid] = tuple(others)
        assert len(seen) == SERVERS
        return list(seen.values())

    def held(self) -> int:
        """Count the advisory locks and open transactions of the pooler's connections."""
        with self.outside.connect() as connection:
            held: int = connection.execute(
                text(
                    "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
                    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) + (SELECT count(*) "
                    "FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%' "
                    "AND pid <> pg_backend_pid())"
                )
            ).scalar_one()
            return held


@pytest.fixture(scope="module", params=["transaction"])
def ground(
    request: pytest.FixtureRequest,
    postgres_server: PostgresServer,
    postgres_templates: PostgresTemplates,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[PooledGround]:
    mode: PoolMode = request.param
    directory: Path = tmp_path_factory.mktemp("pgbouncer")
    with (
        fresh_database(postgres_server, postgres_templates.prepared_by(install_host)) as database,
        pgbouncer(database, directory, mode=mode) as pooler,
    ):
        pooled = PooledGround(pooler)
        yield pooled
        pooled.outside.dispose()


@asynccontextmanager
async def pooled_host(ground: PooledGround, driver: str, **options: Any) -> AsyncIterator[Host]:
    """Open a host that keeps two connections to the pooler."""
    ground.empty()
    host = Host(ground, driver, **{"poolclass": None, **options})
    try:
        yield host
    finally:
        await host.aclose()


class CategoryIsSmall(WriteCondition, frozen=True):
    """A condition of the application's own."""

    scope = ConditionScope.CATEGORY

    def to_expression(self, context: ConditionContext) -> Any:
        return ~exists().where(context.events.c.position > 1000)


class Counter(Projector[Any, int, None]):
    """Has a snapshot after each event."""

    name = "counter"
    snapshot_every = 1

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: Any) -> str:
        return str(source.stream)

    def counted(self, state: int, event: Any) -> int:
        return state + 1


async def publish_in_all_ways(host: Host) -> None:
    store, name = host.store, str(uuid4())
    stream = store.stream(category="orders", stream=name)
    event = new_event()
    await settled(stream.publish(events=[event], condition=stream_is_empty()))
    await settled(stream.publish(events=[new_event() for _ in range(3)], condition=position_is(0)))
    await settled(stream.publish(events=[event]))
    with pytest.raises(UnmetWriteConditionError):
        await settled(stream.publish(events=[new_event()], condition=stream_is_empty()))
    with pytest.raises(DuplicateEventError):
        await settled(stream.publish(events=[event, new_event()]))
    await settled(stream.publish(events=[new_event()], condition=CategoryIsSmall()))
    await settled(
        store.publish(
            streams={StreamIdentifier("orders", f"{name}-{number}"): {"events": [new_event()]} for number in range(3)}
        )
    )
    await settled(store.watermark())


async def read_in_all_ways(host: Host) -> None:
    store = host.store
    for source in (
        store.log(),
        store.category(category="orders"),
        store.stream(category="orders", stream="1"),
        *store.log().partitions(2),
    ):
        await settled(source.latest())
        await collected(source.iterate(limit=3))
        await collected(source.iterate(backwards=True))
    await collected(store.categories())
    await collected(store.streams(category="orders"))


async def project_in_all_ways(host: Host) -> None:
    kind: Any = ProjectionStore if host.asynchronous else SyncProjectionStore
    projections = kind(host.engine)
    projection = Projection(
        id=str(uuid4()), name="totals", source=LogIdentifier(), state={"total": 1}, metadata={"more": [1, None]}
    )
    await settled(projections.save(projection=projection))
    await settled(projections.save(projection=projection))
    found = await settled(projections.load(name="totals", id=projection.id))
    assert found.state == {"total": 1}


async def project_inline_and_from_snapshots(host: Host) -> None:
    store = host.store.with_projections(Counter())
    stream = store.stream(category="counters", stream=str(uuid4()))
    snapshots: Any = (SnapshotStore if host.asynchronous else SyncSnapshotStore)(host.engine)
    for number in (1, 2):
        await settled(stream.publish(events=[new_event("counted")]))
        projector = Counter()
        project = projector.project if host.asynchronous else projector.project_sync
        assert (await settled(project(source=stream, snapshots=snapshots))).state == number


async def ask_who_holds_the_log_back(host: Host) -> None:
    with host.ground.outside.connect() as outside:
        holder = SyncEventStore(outside).stream(category="orders", stream="of-holder")
        holder.publish(events=[new_event()])
        assert (await settled(host.store.watermark())).holder is not None


async def stage_in_a_session(host: Host) -> None:
    async with host.caller() as (session, store):
        await host.write(session, str(uuid4()))
        store.stream(category="orders", stream="1").stage(events=[new_event()])
        await settled(session.commit())


WORK: tuple[Callable[[Host], Any], ...] = (
    publish_in_all_ways,
    read_in_all_ways,
    project_in_all_ways,
    project_inline_and_from_snapshots,
    ask_who_holds_the_log_back,
    stage_in_a_session,
)


@pytest.mark.parametrize("way", DRIVERS)
async def test_everything_works_with_a_pooler_that_is_told_of_and_leaves_no_state_on_the_servers(
    ground: PooledGround, way: str
) -> None:
    driver, options = DRIVERS[way]
    before = ground.servers()
    async with pooled_host(ground, driver, **options) as host:
        for _ in range(2 * SERVERS):
            for work in WORK:
                await work(host)

        assert ground.held() == 0

    after = ground.servers()
    assert [settings for settings, _ in after] == [None] * SERVERS
    if "names" not in way:
        # Statements with names are the application's choice; asyncpg closes them wherever it happens to be.
        assert sum(prepared for _, prepared in after) == sum(prepared for _, prepared in before)


@pytest.mark.parametrize("way", [way for way, (driver, _) in DRIVERS.items() if "psycopg2" not in driver])
@pytest.mark.parametrize("coalesce", [False, True], ids=["", "coalesced"])
async def test_many_publishes_at_once_share_the_servers(ground: PooledGround, way: str, coalesce: bool) -> None:
    driver, options = DRIVERS[way]
    async with pooled_host(ground, driver, **options) as host:
        kind: Any = EventStore if host.asynchronous else SyncEventStore
        store = kind(host.engine, coalesce=coalesce)
        streams = [store.stream(category="orders", stream=str(number)) for number in range(40)]
        publishes = [stream.publish for stream in streams]
        if host.asynchronous:
            await asyncio.gather(*(publish(events=[new_event()]) for publish in publishes))
        else:
            await asyncio.gather(*(asyncio.to_thread(publish, events=[new_event()]) for publish in publishes))

        assert len(ground.names()) == 40


async def publish_twenty_times(host: Host) -> None:
    for _ in range(20):
        await host.publish(host.store)


@pytest.mark.parametrize("way", UNPREPARED)
async def test_driver_that_is_not_told_of_the_pooler_is_named_with_the_remedy(ground: PooledGround, way: str) -> None:
    async with pooled_host(ground, UNPREPARED[way]) as host:
        with pytest.raises(ConfigurationError, match=r"behind a pooler.*connect_args") as caught:
            await publish_twenty_times(host)

    assert caught.value.__cause__ is not None
    assert not caught.value.must_roll_back


@pytest.mark.parametrize("ground", ["session"], indirect=True)
@pytest.mark.parametrize("way", ["asyncpg", "psycopg, async", "psycopg", "psycopg2"])
async def test_a_pooler_in_session_mode_needs_no_settings(ground: PooledGround, way: str) -> None:
    async with pooled_host(ground, DRIVERS[way][0]) as host:
        for _ in range(3):
            for work in WORK:
                await work(host)

        assert ground.held() == 0

"""What a store may be bound to, and what it says when it is given something else, closed, or used in the wrong place.

Whose transaction events are in is shown in `test_host_transactions`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import URL, NullPool, StaticPool, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from eventstore_sa import EventStore, EventStoreSchema, StreamIdentifier, SyncEventStore, configure_sqlite
from eventstore_sa import store as stores
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import (
    ConfigurationError,
    EventStoreError,
    SerialisationError,
    StorageError,
    TransactionError,
    UnmetWriteConditionError,
)
from eventstore_sa.projection import ProjectionStore, SyncProjectionStore
from eventstore_sa.projection.adapters import (
    InMemoryProjectionStorageAdapter,
    ProjectionStorageAdapter,
    SQLAlchemyProjectionStorageAdapter,
    SyncInMemoryProjectionStorageAdapter,
    SyncProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)
from eventstore_sa.store.adapters import (
    EventStorageAdapter,
    InMemoryEventStorageAdapter,
    SQLAlchemyEventStorageAdapter,
    SyncEventStorageAdapter,
    SyncInMemoryEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import LogIdentifier, LogPartitionIdentifier
from tests.awaiting import collected, entered, settled
from tests.hosts import SQLITE_DRIVERS, Host, each_driver, each_kind_of_driver, new_event

SECRET = "hunter2"


@pytest_asyncio.fixture(loop_scope="function")
async def keep() -> AsyncIterator[Callable[[Any], Any]]:
    """Take an engine, to dispose of it after the test, and give it back."""
    engines: list[Any] = []

    def kept(engine: Any) -> Any:
        engines.append(engine)
        return engine

    yield kept
    for engine in engines:
        await settled(engine.dispose())


def stream(store: Any, name: str = "1") -> Any:
    return store.stream(category="orders", stream=name)


async def log_of(store: Any) -> list[str]:
    return [stored.name for stored in await collected(store.log().iterate())]


class TestKinds:
    @pytest.mark.parametrize("kind", ["engine", "factory", "url", "url text"])
    @each_kind_of_driver()
    async def test_a_publish_on_it_is_a_transaction_of_its_own(self, host: Host, kind: str) -> None:
        url: URL = host.ground.url(host.driver)
        bind = {
            "engine": lambda: host.engine,
            "factory": host.factory,
            "url": lambda: url,
            "url text": lambda: url.render_as_string(hide_password=False),
        }[kind]()
        async with entered(host.store_on(bind)) as store:
            (stored,) = await settled(stream(store).publish(events=[new_event("mine")], condition=stream_is_empty()))

            assert host.ground.names() == ["mine"]
            assert await settled(store.log().latest()) == stored
            assert store.adapter.in_transaction is False

    @pytest.mark.parametrize("kind", ["session", "scoped", "connection"])
    @each_kind_of_driver()
    async def test_a_publish_on_it_is_part_of_its_transaction(self, host: Host, kind: str) -> None:
        async with host.caller(f"on {kind}") as (caller, store):
            await host.publish(store)

            assert store.adapter.in_transaction is True
            assert host.ground.names() == []
            await settled(caller.commit())

        assert host.ground.names() == ["mine"]

    @each_kind_of_driver()
    async def test_an_engine_that_is_given_outlives_the_store(self, host: Host) -> None:
        await host.publish(host.store)
        await settled(host.store.aclose() if host.asynchronous else host.store.close())

        async with entered(host.engine.connect()) as connection:
            assert await host.execute(connection, "SELECT count(*) FROM es_events") == 1

    @in_turn("bind", [None, 42, object(), b"sqlite://", ["sqlite://"], EventStoreSchema])
    @in_turn("store_class", [EventStore, SyncEventStore])
    def test_what_is_no_bind_is_refused(self, store_class: Any, bind: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"a store is bound to an .*Engine.*Session.*URL; got \w"):
            store_class(bind)

    def test_a_synchronous_bind_in_an_asyncio_store_is_refused(self) -> None:
        engine = create_engine("sqlite://")
        with engine.connect() as connection, Session(engine) as session:
            registry = scoped_session(sessionmaker(engine))
            for bind in (engine, sessionmaker(engine), connection, session, registry):
                with pytest.raises(
                    ConfigurationError, match=r"is synchronous: use its asyncio counterpart .*SyncEventStore"
                ):
                    EventStore(bind)  # type: ignore[arg-type]
        engine.dispose()

    async def test_an_asyncio_bind_in_a_synchronous_store_is_refused(self) -> None:
        engine = create_async_engine("sqlite+aiosqlite://")
        async with engine.connect() as connection, AsyncSession(engine) as session:
            registry = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: None)
            for bind in (engine, async_sessionmaker(engine), connection, session, registry):
                with pytest.raises(
                    ConfigurationError, match=r"needs asyncio: use its synchronous counterpart .*or use EventStore"
                ):
                    SyncEventStore(bind)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match="works only with asyncio"):
                SyncEventStore(engine.sync_engine)
        await engine.dispose()

    @in_turn("url", ["nonsense", "", "postgresql:", "mysql+nodriver://user@host/database"])
    @in_turn("store_class", [EventStore, SyncEventStore])
    def test_a_url_that_is_none_is_refused(self, store_class: Any, url: str) -> None:
        with pytest.raises(ConfigurationError, match="write it as postgresql"):
            store_class(url)

    def test_the_url_of_a_synchronous_driver_in_an_asyncio_store_is_refused(self) -> None:
        for url in ("sqlite://", "postgresql+psycopg2://user@host/database"):
            with pytest.raises(ConfigurationError, match=r"does not work with asyncio .*postgresql\+asyncpg://"):
                EventStore(url)

    def test_the_url_of_an_asyncio_driver_in_a_synchronous_store_is_refused(self) -> None:
        for url in ("sqlite+aiosqlite://", "postgresql+asyncpg://user@host/database"):
            with pytest.raises(ConfigurationError, match="works only with asyncio: use EventStore"):
                SyncEventStore(url)

    async def test_within_takes_sessions_of_its_own_kind_only(self) -> None:
        engine, async_engine = create_engine("sqlite://"), create_async_engine("sqlite+aiosqlite://")
        with Session(engine) as session:
            async with AsyncSession(async_engine) as async_session, async_engine.connect() as connection:
                for wrong in (session, connection, async_engine, async_sessionmaker(async_engine), None):
                    with pytest.raises(ConfigurationError, match="takes an AsyncSession"):
                        EventStore(async_engine).within(wrong)  # type: ignore[arg-type]
                for wrong in (async_session, engine, sessionmaker(engine), None):
                    with pytest.raises(ConfigurationError, match="takes a Session"):
                        SyncEventStore(engine).within(wrong)  # type: ignore[arg-type]
        engine.dispose()
        await async_engine.dispose()

    @in_turn("options", [{"schema": EventStoreSchema()}, {"locking": "fence"}, {"serialisation_guarantee": 1}])
    def test_options_beside_a_ready_adapter_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match="pass options to the adapter"):
            EventStore(InMemoryEventStorageAdapter(), **options)
        with pytest.raises(ConfigurationError, match="pass options to the adapter"):
            SyncEventStore(SyncInMemoryEventStorageAdapter(), **options)

    def test_an_adapter_of_the_other_kind_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="SyncEventStore"):
            EventStore(SyncInMemoryEventStorageAdapter())  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="EventStore"):
            SyncEventStore(SQLAlchemyEventStorageAdapter("sqlite+aiosqlite://"))  # type: ignore[arg-type]


CALLS: dict[str, Callable[[Any], Any]] = {
    "publish": lambda store: stream(store).publish(events=[new_event()]),
    "publish to a category": lambda store: store.category(category="orders").publish(streams={}),
    "publish to the log": lambda store: store.publish(streams={StreamIdentifier("a", "b"): {"events": [new_event()]}}),
    "latest": lambda store: store.log().latest(),
    "read": lambda store: store.category(category="orders").read(),
    "iterate": lambda store: collected(stream(store).iterate()),
    "read of a partition": lambda store: store.partition(LogPartitionIdentifier(0, 2)).read(),
    "streams": lambda store: collected(store.streams()),
    "categories": lambda store: collected(store.categories()),
    "watermark": lambda store: store.watermark(),
    "create_schema": lambda store: store.create_schema(),
    "drop_schema": lambda store: store.drop_schema(),
    "within": lambda store: store.within(Session() if isinstance(store, SyncEventStore) else AsyncSession()),
    "adapter.save": lambda store: store.adapter.save(target=LogIdentifier(), streams={}),
    "adapter.latest": lambda store: store.adapter.latest(target=LogIdentifier()),
    "adapter.scan": lambda store: collected(store.adapter.scan()),
}


class TestClosed:
    @in_turn("call", list(CALLS))
    async def test_a_closed_store_says_so_in_every_method(self, call: str, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path}/a.db", poolclass=NullPool)
        stores: list[Any] = [
            EventStore("sqlite+aiosqlite://"),
            SyncEventStore("sqlite://"),
            SyncEventStore(engine),
            SyncEventStore(sessionmaker(engine)),
        ]
        for closed in stores:
            await settled(closed.aclose() if isinstance(closed, EventStore) else closed.close())
            with pytest.raises(ConfigurationError, match="this event store is closed: make a new one"):
                await settled(CALLS[call](closed))

    async def test_a_store_is_closed_twice_without_harm(self) -> None:
        async with EventStore("sqlite+aiosqlite://") as store:
            await store.create_schema()
            await store.aclose()
        with SyncEventStore("sqlite://") as sync_store:
            sync_store.close()

    @pytest.mark.parametrize("kind", ["on connection", "on session"])
    @each_kind_of_driver()
    async def test_a_connection_that_is_closed_or_not_started_is_named(self, host: Host, kind: str) -> None:
        if kind == "on connection" and host.asynchronous:
            with pytest.raises(ConfigurationError, match="not started or is closed"):
                await host.publish(host.store_on(host.engine.connect()))
        async with host.caller(kind) as (caller, store):
            await settled(caller.close())
            if kind == "on connection":
                with pytest.raises(ConfigurationError, match="closed"):
                    await host.publish(store)
                with pytest.raises(ConfigurationError, match="closed"):
                    await settled(store.log().latest())
            else:
                # A session begins anew.
                await host.publish(store)
                await settled(caller.commit())


class TestSharedConnections:
    @pytest.mark.parametrize("factory", [False, True], ids=["engine", "factory"])
    async def test_tasks_take_turns_on_the_only_connection(self, keep: Any, factory: bool) -> None:
        engine = keep(create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool))
        store = EventStore(async_sessionmaker(engine) if factory else engine)
        await store.create_schema()

        async def work(number: int) -> None:
            await stream(store, str(number)).publish(events=[new_event(str(number))], condition=stream_is_empty())
            assert await stream(store, str(number)).latest()
            with pytest.raises(UnmetWriteConditionError):
                await stream(store, str(number)).publish(events=[new_event()], condition=stream_is_empty())
            assert len([event async for event in store.log()]) >= 1

        await asyncio.gather(*(work(number) for number in range(30)))

        assert sorted(map(int, await log_of(store))) == list(range(30))

    @in_turn("factory", {"engine": False, "factory": True})
    def test_threads_take_turns_on_the_only_connection(self, factory: bool) -> None:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        store = SyncEventStore(sessionmaker(engine) if factory else engine)
        store.create_schema()

        def work(number: int) -> None:
            stream(store, str(number)).publish(events=[new_event(str(number))], condition=stream_is_empty())
            with pytest.raises(UnmetWriteConditionError):
                stream(store, str(number)).publish(events=[new_event()], condition=stream_is_empty())
            assert store.log().read()

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(100)))

        assert sorted(int(stored.name) for stored in store.log()) == list(range(100))
        engine.dispose()

    def test_a_database_in_memory_is_one_for_all_threads_of_a_store(self) -> None:
        with SyncEventStore("sqlite://") as store, ThreadPoolExecutor(8) as threads:
            store.create_schema()
            list(threads.map(lambda n: stream(store, str(n)).publish(events=[new_event()]), range(50)))

            assert len(store.log().read()) == 50

    @each_kind_of_driver()
    async def test_a_session_factory_bound_to_a_connection_joins_its_transaction(self, host: Host) -> None:
        """As test suites do: whatever is committed is rolled back at the end."""
        async with entered(host.engine.connect()) as connection:
            outer = await settled(connection.begin())
            factory = host.factory(connection, join_transaction_mode="create_savepoint")
            store = host.store_on(factory)
            (first,) = await settled(stream(store).publish(events=[new_event("first")]))
            async with entered(factory()) as session:
                await host.write(session)
                await host.publish(store.within(session), "second", condition=position_is(0))
                await settled(session.commit())
            with pytest.raises(UnmetWriteConditionError):
                await settled(stream(store).publish(events=[new_event()], condition=stream_is_empty()))

            assert await log_of(store) == ["first", "second"]
            assert await settled(store.log().read(wait_for=first))
            assert host.ground.names() == []
            await settled(outer.rollback())

        assert host.ground.names() == []
        assert host.ground.notes() == []


class TestRouting:
    @pytest.mark.parametrize("driver", SQLITE_DRIVERS)
    async def test_sessions_with_several_binds_send_events_where_their_mapper_goes(
        self, keep: Any, driver: str, tmp_path: Path
    ) -> None:
        schema = EventStoreSchema()

        class Base(DeclarativeBase):
            pass

        class Row(Base):
            __tablename__ = "rows"
            id: Mapped[int] = mapped_column(primary_key=True)

        asynchronous = "aio" in driver
        make: Any = create_async_engine if asynchronous else create_engine
        hosts, events = (keep(make(f"{driver}:///{tmp_path}/{name}.db")) for name in ("host", "events"))
        for engine in (hosts, events):
            configure_sqlite(engine)
        plain = create_engine(f"sqlite:///{tmp_path}/host.db", poolclass=NullPool)
        Base.metadata.create_all(plain)
        event_engine = create_engine(f"sqlite:///{tmp_path}/events.db", poolclass=NullPool)
        schema.metadata.create_all(event_engine)
        kind: Any = async_sessionmaker if asynchronous else sessionmaker
        factory = kind(binds={Base: hosts, schema.EventRecord: events})
        store: Any = (EventStore if asynchronous else SyncEventStore)(factory, schema=schema)

        await settled(stream(store).publish(events=[new_event("by factory")]))
        async with entered(factory()) as session:
            session.add(Row(id=1))
            await settled(stream(store.within(session)).publish(events=[new_event("by session")]))
            await settled(session.commit())

        assert await log_of(store) == ["by factory", "by session"]
        with event_engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM es_events")) == 2
        with plain.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM rows")) == 1

    @each_driver("sqlite", "postgresql+psycopg")
    async def test_a_factory_is_asked_anew_for_its_engine(self, host: Host, tmp_path: Path) -> None:
        other = SyncEventStore(f"sqlite:///{tmp_path}/other.db")
        other.create_schema()
        factory = host.factory()
        store = host.store_on(factory)
        await host.publish(store, "first")

        factory.configure(bind=other.adapter.bind.engine)  # type: ignore[attr-defined]
        await host.publish(store, "second")

        assert host.ground.names() == ["first"]
        assert [stored.name for stored in other.log()] == ["second"]
        other.close()

    async def test_a_session_that_does_not_know_where_the_events_are_is_refused(self) -> None:
        for store in (
            SyncEventStore(sessionmaker()),
            SyncEventStore(Session()),
            SyncEventStore("sqlite://").within(Session()),
        ):
            for call in ("publish", "read"):
                with pytest.raises(ConfigurationError, match=r"give it bind=engine, .*EventRecord"):
                    CALLS[call](store)
        for async_store in (EventStore(async_sessionmaker()), EventStore(AsyncSession())):
            for call in ("publish", "read"):
                with pytest.raises(ConfigurationError, match=r"give it bind=engine, .*EventRecord"):
                    await CALLS[call](async_store)


class TestUnfit:
    @in_turn("kind", ["within session", "on scoped", "on connection"])
    @each_kind_of_driver()
    async def test_autocommit_is_refused_for_publishes_within_it(self, host: Host, kind: str) -> None:
        async with host.caller(kind, isolation_level="AUTOCOMMIT") as (caller, store):
            with pytest.raises(TransactionError, match=r"autocommit|configure_sqlite"):
                await host.publish(store)
            await settled(caller.rollback())

        assert host.ground.names() == []

    @in_turn("kind", ["within session", "on scoped", "on connection"])
    @each_driver(*SQLITE_DRIVERS)
    async def test_a_sqlite_engine_without_real_transactions_is_refused(self, host: Host, kind: str) -> None:
        bare = Host(host.ground, host.driver, configured=False)
        for before in ("SELECT 1", "INSERT INTO notes VALUES ('mine')"):
            async with bare.caller(kind) as (caller, store):
                await bare.execute(caller, before)
                with pytest.raises(TransactionError, match=r"configure_sqlite\(engine\)"):
                    await bare.publish(store)
                await settled(caller.rollback())
        await bare.aclose()

        assert host.ground.names() == []

    @pytest.mark.parametrize("stores", [lambda host: host.store, lambda host: host.store_on(host.factory())])
    @each_driver(*SQLITE_DRIVERS)
    async def test_a_store_of_its_own_needs_no_configured_engine(self, host: Host, stores: Any) -> None:
        bare = Host(host.ground, host.driver, configured=False)
        await bare.publish(stores(bare))
        with pytest.raises(UnmetWriteConditionError):
            await bare.publish(stores(bare), condition=stream_is_empty())
        await bare.aclose()

        assert host.ground.names() == ["mine"]

    @each_driver(*SQLITE_DRIVERS)
    async def test_an_old_sqlite_is_named_with_its_version(self, host: Host) -> None:
        await host.publish(host.store)
        getattr(host.engine, "sync_engine", host.engine).dialect.server_version_info = (3, 37, 2)
        store = host.store_on(host.engine)
        calls = (lambda: host.publish(store), lambda: settled(store.log().latest()), store.create_schema)

        for call in calls:
            with pytest.raises(ConfigurationError, match=r"SQLite 3\.38\.0 or newer is needed, .* has 3\.37\.2"):
                await settled(call())

        assert host.ground.names() == ["mine"]

    @each_kind_of_driver()
    async def test_waiting_within_a_session_is_refused(self, host: Host) -> None:
        stored = host.ground.publish()
        async with host.caller() as (_, store):
            for source in (store.log(), store.category(category="orders")):
                with pytest.raises(ConfigurationError, match="wait_for cannot be used within a session"):
                    await settled(source.read(wait_for=stored, timeout_s=0))
            assert await settled(stream(store).read(wait_for=stored, timeout_s=0)) == [stored]

    @in_turn("wrong", {"new event": new_event(), "number": 3, "name": "event"})
    @each_driver("sqlite", "sqlite+aiosqlite", "postgresql+psycopg", "postgresql+asyncpg")
    async def test_waiting_for_what_is_no_stored_event_is_refused(self, host: Host, wrong: Any) -> None:
        with pytest.raises(ConfigurationError, match="wait_for takes a StoredEvent"):
            await settled(host.store.log().read(wait_for=wrong))


def told(error: BaseException) -> str:
    """Return all that a log of this error would show."""
    return repr(error) + "".join(traceback.format_exception(error))


class TestSecrets:
    @pytest.fixture
    def logged(self, caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
        caplog.set_level(logging.DEBUG, logger="eventstore_sa")
        return lambda: "".join(
            record.getMessage() for record in caplog.records if record.name.startswith("eventstore_sa")
        )

    @pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "psycopg2"])
    async def test_no_password_is_told(self, driver: str, logged: Callable[[], str]) -> None:
        # Nobody listens at this port.
        url = f"postgresql+{driver}://user:{SECRET}@127.0.0.1:1/database"
        host_store: Any = EventStore(url) if driver == "asyncpg" else SyncEventStore(url)
        shown = [repr(host_store), repr(host_store.adapter), repr(stream(host_store)), repr(host_store.log())]
        for call in ("publish", "read", "watermark", "create_schema"):
            with pytest.raises(StorageError, match="could not connect to the database") as caught:
                await settled(CALLS[call](host_store))
            shown.append(told(caught.value))
        await settled(host_store.aclose() if driver == "asyncpg" else host_store.close())

        assert SECRET not in "".join(shown) + logged()

    @in_turn("url", [f"postgresql+nodriver://user:{SECRET}@host/db", f"user:{SECRET}@host/db"])
    @in_turn("store_class", [EventStore, SyncEventStore])
    def test_no_password_of_a_url_that_is_refused_is_told(self, store_class: Any, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            store_class(url)

        assert SECRET not in str(caught.value)

    @each_kind_of_driver()
    async def test_no_payload_is_told(self, host: Host, logged: Callable[[], str]) -> None:
        known = host.ground.publish("known")
        secret = {"payload": {"card": SECRET}, "metadata": {"by": SECRET}}
        trigger = (
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'XX001'; END$$;"
            "CREATE OR REPLACE TRIGGER refuse AFTER INSERT ON es_events FOR EACH ROW "
            "WHEN (NEW.name = 'refused') EXECUTE FUNCTION refuse()"
            if host.postgres
            else "CREATE TRIGGER refuse AFTER INSERT ON es_events WHEN NEW.name = 'refused' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        with host.ground.outside.begin() as connection:
            connection.execute(text(trigger))
        publishes: dict[type[EventStoreError], Any] = {
            UnmetWriteConditionError: {"events": [new_event(**secret)], "condition": position_is(7)},
            EventStoreError: {"events": [new_event(id=known.id, **secret), new_event(**secret)]},
            SerialisationError: {"events": [new_event(payload={"card": SECRET, "why": float("nan")})]},
            StorageError: {"events": [new_event("refused", **secret)]},
            ConfigurationError: {"events": [new_event(**secret), secret]},
        }
        shown = []
        async with host.caller() as (_, within):
            for store in (host.store, within):
                for kind, arguments in publishes.items():
                    with pytest.raises(kind) as caught:
                        await settled(stream(store).publish(**arguments))
                    shown.append(told(caught.value))
        (stored,) = await settled(stream(host.store).publish(events=[new_event(**secret)]))
        await log_of(host.store)

        assert stored.payload["card"] == SECRET
        assert SECRET not in "".join(shown) + logged()

    @each_kind_of_driver()
    async def test_no_value_of_a_failed_flush_is_told(self, host: Host) -> None:
        async with host.caller() as (caller, store):
            caller.add(host.store.adapter.schema.EventRecord(category="orders", name="x", payload=SECRET))
            with pytest.raises(Exception, match=r"(?i)constraint"):
                await settled(caller.flush())
            with pytest.raises(TransactionError, match="roll back") as caught:
                await host.publish(store)
            await settled(caller.rollback())

        assert SECRET not in told(caught.value)


TWINS = [
    (stores.EventStore, stores.SyncEventStore),
    (stores.EventStream, stores.SyncEventStream),
    (stores.EventCategory, stores.SyncEventCategory),
    (stores.EventLog, stores.SyncEventLog),
    (stores.EventPartition, stores.SyncEventPartition),
    (stores.EventSource, stores.SyncEventSource),
    (stores.ConstrainedEventSource, stores.SyncConstrainedEventSource),
    (stores.InMemoryEventSource, stores.SyncInMemoryEventSource),
    (stores.EventStoreEventSourceFactory, stores.SyncEventStoreEventSourceFactory),
    (EventStorageAdapter, SyncEventStorageAdapter),
    (InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter),
    (SQLAlchemyEventStorageAdapter, SyncSQLAlchemyEventStorageAdapter),
    (ProjectionStore, SyncProjectionStore),
    (ProjectionStorageAdapter, SyncProjectionStorageAdapter),
    (InMemoryProjectionStorageAdapter, SyncInMemoryProjectionStorageAdapter),
    (SQLAlchemyProjectionStorageAdapter, SyncSQLAlchemyProjectionStorageAdapter),
]
OTHER_NAMES = {"aclose": "close", "__aiter__": "__iter__", "__aenter__": "__enter__", "__aexit__": "__exit__"}
# `over`, `runner` and `sync_adapter` are how asynchronous ones reach the synchronous ones, which typed reads, the browser,
# imports, publishes and updates use by themselves.
ONLY_ONE_OF_THEM = {
    *("over", "runner", "sync_adapter"),
    *("find_text", "locks_streams", "name_page", "record_page", "restoring", "save_parts", "scan_text", "storage"),
}


@in_turn("asynchronous, synchronous", TWINS)
def test_twins_have_the_same_methods_with_the_same_parameters(asynchronous: Any, synchronous: Any) -> None:
    def shape(kind: Any) -> dict[str, Any]:
        members = {}
        for name in dir(kind):
            if (name.startswith("_") and name not in (*OTHER_NAMES, *OTHER_NAMES.values(), "__init__")) or (
                name in ONLY_ONE_OF_THEM
            ):
                continue
            member = getattr(kind, name)
            parameters = (
                [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]
                if callable(member)
                else type(member).__name__
            )
            members[OTHER_NAMES.get(name, name)] = parameters
        return members

    assert shape(asynchronous) == shape(synchronous)


def test_sqlite_engine_may_be_configured_twice(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/events.db", poolclass=NullPool)
    configure_sqlite(engine)
    configure_sqlite(engine)

    with engine.begin() as connection:
        # A second BEGIN would have been refused.
        driver: Any = connection.connection.driver_connection
        assert driver.in_transaction

"""The tables in the database: whose MetaData they are on, what they are called, and that events in them never change.

The same on every driver, and with any name that a database takes. What `verify_schema` finds is in `test_verify_schema`.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    Connection,
    Engine,
    ForeignKey,
    MetaData,
    NullPool,
    create_engine,
    delete,
    event,
    func,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy import __version__ as SQLALCHEMY
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column, relationship

from eventstore_sa import (
    EventStore,
    EventStoreSchema,
    StreamIdentifier,
    SyncEventStore,
    configure_sqlite,
    verify_schema,
)
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import (
    ConfigurationError,
    DuplicateEventError,
    LockTimeoutError,
    SchemaError,
    StorageError,
    TransactionError,
    UnmetWriteConditionError,
)
from eventstore_sa.persistence.transactions import databases
from eventstore_sa.sources.constraints import name_in
from eventstore_sa.testing import clear
from eventstore_sa.testing.cases.tables import case, in_turn
from eventstore_sa.types import CategoryPartitionIdentifier, StreamNamePrefixPartitionIdentifier
from tests.awaiting import collected, entered, settled
from tests.databases import PostgresDatabase
from tests.hosts import DRIVERS, POSTGRES_DRIVERS, Ground, Host, each_driver, new_event

CONVENTION = {
    "ix": "hosts_ix_%(column_0_label)s",
    "uq": "hosts_uq_%(table_name)s_%(column_0_name)s",
    "ck": "hosts_ck_%(table_name)s_%(constraint_name)s",
    "fk": "hosts_fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "hosts_pk_%(table_name)s",
}

HOSTILE_NAMES = {
    "double quote": 'a"b""',
    "single quote": "a'b''",
    # Before 2.0.55 SQLAlchemy took such a name for a parameter of its own where parameters are numbered.
    "percent": "a%b%s%(c)s%%" if SQLALCHEMY >= "2.0.55" else "a%b%s%%",
    "colon": "a:b::c ",
    "emoji": "🎉_",
    "backslash": "a\\b\\\\",
    "braces": "{events}{0}",
    "dollars": "$1$$eventstore_sa$",
    "upper case and blank": "My Events ",
    "dot": "a.b.",
    "sql": "x; DROP TABLE notes; --",
    "line break": "x\n; DROP TABLE notes; --\r\n",
    "comment": "/* */ -- ",
    "backslash and colon": "a\\:b\\",
    "placeholder": "{sequence}{events_literal}",
    "reserved word": "select",
    "none at all": "",
}

# A schema for each of them takes long; what goes wrong with a character does so beside others too.
FEW_NAMES = {
    "all at once": "\"'%s%%:d 🎉_\\$1$$ E.;\r\n--/*",
    **{key: HOSTILE_NAMES[key] for key in ("dollars", "placeholder", "reserved word", "none at all")},
}
each_name = pytest.mark.parametrize(
    "names", [pytest.param(FEW_NAMES, id="few"), pytest.param(HOSTILE_NAMES, id="each", marks=pytest.mark.long)]
)


def enforce_foreign_keys(dbapi_connection: Any, _record: Any) -> None:
    """Let SQLite look at foreign keys on new connections."""
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine on an empty database."""
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/empty.db")
        configure_sqlite(engine)
    else:
        database: PostgresDatabase = request.getfixturevalue("postgres_database")
        engine = create_engine(database.url("psycopg"))
    yield engine
    engine.dispose()


@pytest.fixture(params=DRIVERS)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """A host on an empty database."""
    if request.param in POSTGRES_DRIVERS:
        database: PostgresDatabase = request.getfixturevalue("postgres_database")
        outside = create_engine(database.url("psycopg"), poolclass=NullPool)
    else:
        outside = create_engine(f"sqlite:///{tmp_path}/empty.db", poolclass=NullPool)
    yield Host(Ground(outside), request.param)
    outside.dispose()


def names_in_database(connection: Connection) -> set[str]:
    """Return the names of all tables, constraints, indexes, functions and triggers that are not the database's own."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_master WHERE substr(name, 1, 7) <> 'sqlite_'"
    else:
        query = """
            SELECT relname FROM pg_class WHERE relnamespace IN (SELECT oid FROM own)
            UNION SELECT proname FROM pg_proc WHERE pronamespace IN (SELECT oid FROM own)
            UNION SELECT conname FROM pg_constraint WHERE connamespace IN (SELECT oid FROM own)
            UNION SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
        """
        system = "'pg_catalog', 'pg_toast', 'information_schema'"
        query = f"WITH own AS (SELECT oid FROM pg_namespace WHERE nspname NOT IN ({system})) {query}"
    return set(connection.exec_driver_sql(query).scalars())


def names_in(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return names_in_database(connection)


def publish(store: SyncEventStore, stream: str = "1", **arguments: Any) -> Any:
    (stored,) = store.stream(category="orders", stream=stream).publish(events=[new_event()], **arguments)
    return stored


def assert_works(store: SyncEventStore) -> None:
    """Publish and read in every way."""
    first = publish(store, condition=stream_is_empty())
    second = publish(store, condition=position_is(0))
    other = publish(store, "2")
    with pytest.raises(UnmetWriteConditionError):
        publish(store, condition=stream_is_empty())
    with pytest.raises(DuplicateEventError):
        store.stream(category="orders", stream="3").publish(events=[new_event(id=first.id)])
    for source in (store.log(), store.category(category="orders")):
        assert source.read() == [first, second, other]
        assert source.read(constraints={name_in([first.name])}, backwards=True, limit=1) == [other]
    assert store.stream(category="orders", stream="1").read() == [first, second]
    assert store.category(category="orders").latest() == other
    assert store.partition(StreamNamePrefixPartitionIdentifier("orders", "2")).read() == [other]
    assert store.partition(CategoryPartitionIdentifier("orders", 0, 1)).read() == [first, second, other]
    assert list(store.streams()) == [StreamIdentifier("orders", "1"), StreamIdentifier("orders", "2")]
    assert [category.category for category in store.categories()] == ["orders"]
    # The refused id has cost a number on PostgreSQL.
    assert store.watermark().sequence_number >= other.sequence_number


class TestOnWhichMetaData:
    def test_a_schema_of_its_own_is_created_and_dropped_as_a_whole(self, engine: Engine) -> None:
        schema = EventStoreSchema()
        before = names_in(engine)

        schema.metadata.create_all(engine)
        created = names_in(engine) - before
        assert_works(SyncEventStore(engine, schema=schema))
        schema.metadata.drop_all(engine)

        assert {"es_events", "es_schema"} <= created
        assert all(name.startswith("es_") for name in created)
        assert names_in(engine) == before

    def test_a_naming_convention_of_the_host_leaves_our_names_alone(self, engine: Engine) -> None:
        EventStoreSchema().metadata.create_all(engine)
        expected = names_in(engine)
        EventStoreSchema().metadata.drop_all(engine)
        metadata = MetaData(naming_convention=CONVENTION)

        EventStoreSchema(metadata)
        metadata.create_all(engine)

        assert names_in(engine) == expected
        with engine.connect() as connection:
            verify_schema(connection)

    def test_creating_all_twice_changes_nothing(self, engine: Engine) -> None:
        schema = EventStoreSchema()
        schema.metadata.create_all(engine)
        store = SyncEventStore(engine, schema=schema)
        stored = publish(store)

        schema.metadata.create_all(engine)
        store.create_schema()

        assert store.log().read() == [stored]
        with engine.connect() as connection:
            verify_schema(connection)

    def test_one_metadata_has_one_event_store_of_a_name(self) -> None:
        metadata = MetaData()
        EventStoreSchema(metadata)
        EventStoreSchema(metadata, prefix="audit_")
        EventStoreSchema(metadata, schema="other")

        with pytest.raises(ConfigurationError, match="another prefix"):
            EventStoreSchema(metadata)

    def test_stores_that_are_given_no_schema_share_one(self, engine: Engine, tmp_path: Path) -> None:
        with SyncEventStore(engine) as store, SyncEventStore(f"sqlite:///{tmp_path}/other.db") as other:
            assert store.adapter.schema is other.adapter.schema  # type: ignore[attr-defined]
            store.create_schema()
            with pytest.raises(SchemaError):
                publish(other)
            other.create_schema()
            theirs = publish(other)
            assert_works(store)
            store.drop_schema()
            assert other.log().read() == [theirs]

    def test_a_schema_of_ones_own_is_not_the_shared_one(self, engine: Engine) -> None:
        schema = EventStoreSchema()
        store, other = SyncEventStore(engine, schema=schema), SyncEventStore(engine)

        assert schema.metadata is not other.adapter.schema.metadata  # type: ignore[attr-defined]
        store.create_schema()
        stored = publish(store)
        assert other.log().read() == [stored]


class TestBesideTablesOfTheHost:
    def make_models(self, *bases: Any) -> tuple[type[Any], EventStoreSchema]:
        """Map a table of the host's whose rows refer to events."""

        class Base(*bases, DeclarativeBase):  # type: ignore[misc]
            metadata = MetaData(naming_convention=CONVENTION)

        schema = EventStoreSchema(Base.metadata)

        class Remark(Base):
            __tablename__ = "remarks"
            text: Mapped[str] = mapped_column()
            event_id: Mapped[UUID] = mapped_column(ForeignKey(schema.events.c.id))
            id: Mapped[int] = mapped_column(primary_key=True, default=None)
            event: Mapped[Any] = relationship(schema.EventRecord, **({"init": False} if bases else {}))

        return Remark, schema

    @pytest.mark.parametrize("bases", [(), (MappedAsDataclass,)], ids=["declarative", "dataclasses"])
    def test_rows_of_the_host_refer_to_events_and_are_joined_with_them(self, engine: Engine, bases: Any) -> None:
        remark, schema = self.make_models(*bases)
        schema.metadata.create_all(engine)
        store = SyncEventStore(engine, schema=schema)
        with Session(engine) as session:
            stored = publish(store.within(session))
            session.add(remark(text="odd", event_id=stored.id))
            session.commit()

            record = schema.EventRecord
            joined = select(remark.text, record.stream).join(record, record.id == remark.event_id)
            assert session.execute(joined).all() == [("odd", "1")]
            (found,) = session.scalars(select(remark).join(remark.event).where(record.category == "orders"))
            assert (found.event.id, found.event.position, found.event.payload) == (stored.id, 0, None)

    def test_a_row_cannot_refer_to_an_event_that_is_not_there(self, engine: Engine) -> None:
        remark, schema = self.make_models()
        schema.metadata.create_all(engine)

        with Session(engine) as session:
            session.add(remark(text="odd", event_id=UUID(int=1)))
            with pytest.raises(IntegrityError):
                session.commit()

    def test_one_create_all_and_one_drop_all_serve_both(self, engine: Engine) -> None:
        before = names_in(engine)
        _, schema = self.make_models()

        schema.metadata.create_all(engine)
        created = names_in(engine)
        schema.metadata.drop_all(engine)

        ours = {table.name for table in schema.tables}
        assert {*ours, "remarks"} <= created
        assert names_in(engine) == before

    def test_create_schema_makes_our_tables_alone(self, engine: Engine) -> None:
        _, schema = self.make_models()

        SyncEventStore(engine, schema=schema).create_schema()

        made = {table.name for table in schema.tables}
        assert set(inspect(engine).get_table_names()) == made


class TestNames:
    @each_name
    def test_any_prefix_works(self, engine: Engine, names: dict[str, str]) -> None:
        for key, prefix in names.items():
            with case(key):
                self.assert_all_works(engine, EventStoreSchema(prefix=prefix))

    def test_the_longest_prefix_works(self, engine: Engine) -> None:
        self.assert_all_works(engine, EventStoreSchema(prefix="x" * 32))

    @each_name
    @pytest.mark.parametrize("driver", ["asyncpg", "psycopg2"])
    async def test_any_database_schema_and_prefix_work_on_the_other_drivers_of_postgresql(
        self, shared_postgres_ground: Ground, driver: str, names: dict[str, str]
    ) -> None:
        host = Host(shared_postgres_ground, f"postgresql+{driver}")
        for key, name in names.items():
            if not name:
                continue
            with case(key):
                store = host.store_on(host.engine, schema=EventStoreSchema(prefix=name, schema=name))
                await settled(store.create_schema())
                target = store.stream(category="orders", stream="1")

                stored = await settled(target.publish(events=[new_event()], condition=stream_is_empty()))
                with pytest.raises(UnmetWriteConditionError):
                    await settled(target.publish(events=[new_event()], condition=stream_is_empty()))

                for source in (store.log(), store.category(category="orders"), target):
                    assert await collected(source.iterate()) == list(stored)
                assert len(await collected(store.streams())) == 1
                assert (await settled(store.watermark())).sequence_number == stored[0].sequence_number
                await settled(store.drop_schema())
        await host.aclose()

    @pytest.mark.parametrize("name", ["x" * 63, "é" * 31])
    def test_the_longest_database_schema_works(self, postgres_database: PostgresDatabase, name: str) -> None:
        engine = create_engine(postgres_database.url("psycopg"))
        self.assert_all_works(engine, EventStoreSchema(schema=name))
        engine.dispose()

    def test_an_attached_database_of_sqlite_is_a_database_schema(self, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path}/main.db", poolclass=NullPool)
        configure_sqlite(engine)
        with engine.connect() as connection:
            connection.connection.dbapi_connection.execute(  # type: ignore[union-attr]
                f"ATTACH DATABASE '{tmp_path}/attached.db' AS elsewhere"
            )
            store = SyncEventStore(connection, schema=EventStoreSchema(schema="elsewhere"))
            store.create_schema()
            assert_works(store)
            connection.commit()
            connection.connection.dbapi_connection.execute("DETACH elsewhere")  # type: ignore[union-attr]

        attached = create_engine(f"sqlite:///{tmp_path}/attached.db", poolclass=NullPool)
        assert len(SyncEventStore(attached).log().read()) == 3
        with attached.begin() as connection, pytest.raises(DBAPIError, match="is forbidden"):
            connection.execute(text("DELETE FROM es_events"))

    def test_schema_translate_map_moves_tables_functions_and_triggers(
        self, postgres_database: PostgresDatabase
    ) -> None:
        engine = create_engine(postgres_database.url("psycopg"))
        tenants = [engine.execution_options(schema_translate_map={None: name}) for name in ("one", "other")]
        stores = [SyncEventStore(tenant) for tenant in tenants]
        for store, tenant in zip(stores, tenants, strict=True):
            store.create_schema()
            assert_works(store)
            with tenant.connect() as connection:
                verify_schema(connection)

        assert inspect(engine).get_table_names() == []
        engine.dispose()

    @in_turn("prefix", ["x" * 33, "é" * 17, "a\0", "\ud800", None, 3, b"es_"])
    def test_prefixes_that_cannot_be_used_are_refused(self, prefix: Any) -> None:
        with pytest.raises(ConfigurationError, match="prefix"):
            EventStoreSchema(prefix=prefix)

    @in_turn("schema", ["", "x" * 64, "é" * 32, "a\0", "\ud800", 3, b"events"])
    def test_database_schemas_that_cannot_be_used_are_refused(self, schema: Any) -> None:
        with pytest.raises(ConfigurationError, match="schema"):
            EventStoreSchema(schema=schema)

    def assert_all_works(self, engine: Engine, schema: EventStoreSchema) -> None:
        store = SyncEventStore(engine, schema=schema)
        before = names_in(engine)
        store.create_schema()
        assert_works(store)
        with engine.connect() as connection:
            verify_schema(connection, schema=schema)
        for statement in (delete(schema.events), update(schema.events).values(name="other")):
            with engine.begin() as connection, pytest.raises(DBAPIError, match="is forbidden"):
                connection.execute(statement)
        with Session(engine) as session:
            record = schema.EventRecord
            assert session.scalar(select(func.count()).select_from(record)) == 3
            assert session.scalars(select(record).order_by(record.sequence_number)).first().stream == "1"  # type: ignore[union-attr]
        clear(engine, schema=schema)
        assert publish(store).sequence_number == 1
        store.drop_schema()
        assert names_in(engine) == before


class TestSeveralStores:
    def test_two_stores_in_one_database_know_nothing_of_each_other(self, engine: Engine) -> None:
        metadata = MetaData()
        schemas = [EventStoreSchema(metadata), EventStoreSchema(metadata, prefix="audit_")]
        metadata.create_all(engine)
        store, audit = (SyncEventStore(engine, schema=schema) for schema in schemas)

        event = new_event("seen by both")
        for target in (store, audit):
            (stored,) = target.stream(category="orders", stream="1").publish(
                events=[event], condition=stream_is_empty()
            )
            assert (stored.sequence_number, stored.position) == (1, 0)
        publish(audit, condition=position_is(0))

        assert len(store.log().read()) == 1
        assert len(audit.log().read()) == 2
        clear(engine, schema=schemas[0])
        store.drop_schema()
        assert len(audit.log().read()) == 2
        publish(audit, condition=position_is(1))

    def test_an_open_transaction_of_one_store_does_not_hold_back_readers_of_the_other(
        self, postgres_database: PostgresDatabase
    ) -> None:
        engine = create_engine(postgres_database.url("psycopg"))
        store = SyncEventStore(engine)
        audit = SyncEventStore(engine, schema=EventStoreSchema(prefix="audit_"))
        for each in (store, audit):
            each.create_schema()
        with Session(engine) as session:
            publish(audit.within(session))
            stored = publish(store)

            assert store.log().read() == [stored]
            assert store.watermark().holder is None
        engine.dispose()


class TestCreating:
    @pytest.mark.parametrize("schema", [None, "events"])
    def test_processes_that_start_together_create_the_schema_once(
        self, postgres_database: PostgresDatabase, schema: str | None
    ) -> None:
        engines = [create_engine(postgres_database.url("psycopg"), poolclass=NullPool) for _ in range(6)]
        self.create_together([SyncEventStore(engine, schema=EventStoreSchema(schema=schema)) for engine in engines])

    def test_processes_that_start_together_create_the_file_once(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/events.db"
        self.create_together([SyncEventStore(url) for _ in range(4)])

    @pytest.mark.parametrize("driver", ["pysqlite", "aiosqlite"])
    async def test_connecting_waits_for_whoever_is_creating_the_file(
        self, tmp_path: Path, driver: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SQLite does not wait by itself, when several connections switch the file to write-ahead logging."""
        other = sqlite3.connect(tmp_path / "events.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(databases, "sleep", lambda _: other.execute("COMMIT") if other.in_transaction else None)
        monkeypatch.setattr(databases, "_BUSY_TIMEOUT_MS", 0)
        kind = SyncEventStore if driver == "pysqlite" else EventStore

        store = kind(f"sqlite+{driver}:///{tmp_path}/events.db")
        await settled(store.create_schema())

        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        await settled(store.close() if driver == "pysqlite" else store.aclose())
        other.close()

    def create_together(self, stores: list[SyncEventStore]) -> None:
        start = Barrier(len(stores))

        def create(store: SyncEventStore) -> Any:
            start.wait()
            store.create_schema()
            return publish(store, str(id(store)))

        with ThreadPoolExecutor(len(stores)) as threads:
            stored = list(threads.map(create, stores))

        assert sorted(event.sequence_number for event in stored) == list(range(1, len(stores) + 1))
        for store in stores:
            assert len(store.log().read()) == len(stores)
            store.close()

    async def test_schema_is_created_twice_and_dropped_twice_on_every_driver(self, empty: Host) -> None:
        for _ in range(2):
            await settled(empty.store.create_schema())
        (stored,) = await settled(empty.store.stream(category="orders", stream="1").publish(events=[new_event()]))
        await settled(empty.store.create_schema())
        assert await collected(empty.store.log().iterate()) == [stored]

        for _ in range(2):
            await settled(empty.store.drop_schema())
        assert names_in(empty.ground.outside) == set()
        await empty.aclose()

    async def test_schema_that_is_created_in_a_transaction_of_the_host_is_rolled_back_with_it(
        self, empty: Host
    ) -> None:
        async with empty.caller() as (session, store):
            await settled(store.create_schema())
            await empty.publish(store)
            await settled(session.rollback())

        assert names_in(empty.ground.outside) == set()
        await empty.aclose()


CALLS: dict[str, Callable[[Any], Any]] = {
    "publish": lambda store: store.stream(category="orders", stream="1").publish(events=[new_event()]),
    "publish with a condition": lambda store: store.stream(category="orders", stream="1").publish(
        events=[new_event()], condition=stream_is_empty()
    ),
    "condition alone": lambda store: store.stream(category="orders", stream="1").publish(
        events=[], condition=stream_is_empty()
    ),
    "publish to a category": lambda store: store.category(category="orders").publish(
        streams={"1": {"events": [new_event()]}}
    ),
    "publish to the log": lambda store: store.publish(
        streams={StreamIdentifier("orders", "1"): {"events": [new_event()]}}
    ),
    "latest of a stream": lambda store: store.stream(category="orders", stream="1").latest(),
    "read of a stream": lambda store: collected(store.stream(category="orders", stream="1").iterate()),
    "latest of a category": lambda store: store.category(category="orders").latest(),
    "read of a category": lambda store: collected(store.category(category="orders").iterate()),
    "latest of the log": lambda store: store.log().latest(),
    "read of the log": lambda store: collected(store.log().iterate(backwards=True)),
    "read of a partition": lambda store: collected(store.log().partitions(2)[0].iterate()),
    "streams": lambda store: collected(store.streams()),
    "categories": lambda store: collected(store.categories()),
    "watermark": lambda store: store.watermark(),
}


class TestMissing:
    @in_turn("call", list(CALLS))
    async def test_every_call_without_tables_says_how_to_create_them(self, empty: Host, call: str) -> None:
        with pytest.raises(SchemaError) as caught:
            await settled(CALLS[call](empty.store))
        async with empty.caller() as (_, store):
            with pytest.raises(SchemaError) as within:
                await settled(CALLS[call](store))

        for said in (str(caught.value), str(within.value)):
            assert "create_schema()" in said
            assert "es_" in said
            assert ("search path" in said) == empty.postgres

    async def test_missing_tables_leave_a_transaction_of_the_host_usable_on_publish(self, empty: Host) -> None:
        async with empty.caller() as (caller, store):
            await empty.execute(caller, "CREATE TABLE notes (note text)")
            await empty.write(caller)
            if not empty.postgres:
                with pytest.raises(SchemaError):
                    await empty.publish(store)
            await settled(caller.commit())

        assert empty.ground.notes() == ["mine"]
        await empty.aclose()

    @in_turn("given", [lambda engine: engine, Session, lambda engine: engine.url, lambda engine: None])
    def test_verify_schema_says_what_to_give_it(self, engine: Engine, given: Callable[[Engine], Any]) -> None:
        with pytest.raises(ConfigurationError, match=r"takes a Connection; got .*engine\.connect\(\).*run_sync"):
            verify_schema(given(engine))


CHANGES = {
    "update": "UPDATE es_events SET name = 'other'",
    "update of one": "UPDATE es_events SET position = 7 WHERE stream = '1'",
    "update of none": "UPDATE es_events SET name = 'other' WHERE false",
    "delete": "DELETE FROM es_events",
    "truncate": "TRUNCATE es_events",
    "truncate of all that refers to it": "TRUNCATE es_events CASCADE",
    "insert or replace": (
        "INSERT OR REPLACE INTO es_events (sequence_number, id, category, stream, position, name, payload, observed_at, "
        "occurred_at) VALUES (1, 'x', 'orders', '1', 0, 'other', '1', '2024-01-01', '2024-01-01')"
    ),
    "upsert": (
        "INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at) "
        "SELECT id, category, stream, position, 'other', payload, observed_at, occurred_at FROM es_events WHERE true "
        "ON CONFLICT (id) DO UPDATE SET name = 'other'"
    ),
}
POSTGRES_ONLY = {"truncate", "truncate of all that refers to it"}
SQLITE_ONLY = {"insert or replace"}
ROW_TRIGGERS_HAVE_NO_ROW = {"update of none"}


class TestImmutability:
    @in_turn("change", list(CHANGES))
    @each_driver()
    async def test_events_cannot_be_changed_and_the_message_says_what_to_do(self, host: Host, change: str) -> None:
        if (change in POSTGRES_ONLY and not host.postgres) or (change in SQLITE_ONLY and host.postgres):
            return
        if change in ROW_TRIGGERS_HAVE_NO_ROW and not host.postgres:
            return
        host.ground.empty()
        stored = host.ground.publish()
        async with host.caller() as (caller, _):
            with pytest.raises(DBAPIError) as caught:
                await host.execute(caller, CHANGES[change])
            await settled(caller.rollback())

        said = str(caught.value.orig)
        assert "is forbidden: events are history" in said
        assert "Publish an event that corrects the earlier one" in said
        assert "eventstore_sa.testing.clear()" in said
        assert await collected(host.store.log().iterate()) == [stored]

    @each_driver()
    async def test_events_cannot_be_changed_through_the_orm(self, host: Host) -> None:
        stored = host.ground.publish()
        record = host.store.adapter.schema.EventRecord
        for change in (lambda session, found: session.delete(found), lambda _, found: setattr(found, "name", "other")):
            async with host.caller() as (session, _):
                found = await settled(session.get(record, stored.sequence_number))
                await settled(change(session, found))
                with pytest.raises(DBAPIError, match="is forbidden: events are history"):
                    await settled(session.commit())
                await settled(session.rollback())

        assert await collected(host.store.log().iterate()) == [stored]

    @each_driver()
    async def test_clear_empties_the_tables_and_events_stay_as_they_are_afterwards(self, host: Host) -> None:
        host.ground.publish("gone")

        await settled(clear(host.engine))
        stored = await host.publish(host.store)

        assert (stored.sequence_number, stored.position) == (1, 0)
        async with host.caller() as (caller, _):
            with pytest.raises(DBAPIError, match="is forbidden"):
                await host.execute(caller, "DELETE FROM es_events")
            await settled(caller.rollback())
        assert await collected(host.store.log().iterate()) == [stored]

    @each_driver()
    async def test_clear_without_tables_says_what_is_missing(self, host: Host) -> None:
        missing = EventStoreSchema(prefix="missing_")

        with pytest.raises(SchemaError, match=r"missing_events.*create_schema"):
            await settled(clear(host.engine, schema=missing))

    @each_driver()
    async def test_clear_within_a_session_is_part_of_its_transaction(self, host: Host) -> None:
        stored = host.ground.publish()
        async with host.caller() as (session, store):
            await settled(clear(session))
            assert await collected(store.log().iterate()) == []
            await settled(session.rollback())

        assert await collected(host.store.log().iterate()) == [stored]
        async with host.caller() as (caller, _):
            with pytest.raises(DBAPIError, match="is forbidden"):
                await host.execute(caller, "DELETE FROM es_events")

    @each_driver(*POSTGRES_DRIVERS)
    @pytest.mark.parametrize(
        "statement",
        ["SELECT 1 FROM es_events", "SELECT 1 FROM es_projections FOR UPDATE"],
        ids=["a reader of events", "a writer of projections"],
    )
    async def test_clear_waits_so_long_for_an_open_transaction_and_names_it(self, host: Host, statement: str) -> None:
        stored = host.ground.publish()
        insert = (
            "INSERT INTO es_projections (name, id, source, source_hash, state, metadata, version) "
            "VALUES ('n', 'i', '{}', 1, '{}', '{}', 1)"
        )
        url = host.ground.url("postgresql+psycopg").update_query_dict({"application_name": "forgotten"})
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text(insert))
        with engine.connect() as forgotten:
            forgotten.execute(text(statement))
            pid = forgotten.scalar(text("SELECT pg_backend_pid()"))
            who = rf"process {pid} \(application_name 'forgotten', idle in transaction\) since 2"
            named = rf"within 0\.05 s\. They were in use by {who}"

            with pytest.raises(LockTimeoutError, match=named):
                await settled(clear(host.engine, timeout_s=0.05))
            async with host.caller() as (session, store):
                await host.execute(session, "SET LOCAL lock_timeout = '7s'")
                with pytest.raises(LockTimeoutError, match=named):
                    await settled(clear(session, timeout_s=0.05))
                assert await host.execute(session, "SHOW lock_timeout") == "7s"
                await host.publish(store)
                await settled(session.commit())

        assert len(await collected(host.store.log().iterate())) == 2
        async with host.caller() as (session, _):
            await host.execute(session, "SET LOCAL lock_timeout = '7s'")
            await settled(clear(session))
            assert await host.execute(session, "SHOW lock_timeout") == "7s"
            await settled(session.rollback())
        await settled(clear(host.engine))
        assert await collected(host.store.log().iterate()) == []
        assert stored.sequence_number == 1

    @each_driver(*POSTGRES_DRIVERS)
    async def test_clear_works_on_an_engine_in_autocommit_mode(self, host: Host) -> None:
        host.ground.publish()

        autocommit = host.engine.execution_options(isolation_level="AUTOCOMMIT")

        async with entered(autocommit.connect()) as connection:
            with pytest.raises(TransactionError, match="give the engine instead"):
                await settled(clear(connection))
        await settled(clear(autocommit))

        assert await collected(host.store.log().iterate()) == []

    @each_driver()
    @pytest.mark.parametrize("configured", [True, False])
    async def test_clear_that_a_row_of_the_host_prevents_leaves_everything_as_it_was(
        self, host: Host, configured: bool
    ) -> None:
        stored = host.ground.publish()
        engine = host.make_engine(configured=configured)
        if not host.postgres:
            event.listen(getattr(engine, "sync_engine", engine), "connect", enforce_foreign_keys)
        with host.ground.outside.begin() as connection:
            kind = "uuid" if host.postgres else "char(32)"
            connection.execute(text(f"CREATE TABLE receipts (id {kind} REFERENCES es_events (id))"))
            connection.execute(text("INSERT INTO receipts SELECT id FROM es_events"))
        try:
            for bind in (engine, engine.execution_options(isolation_level="AUTOCOMMIT")):
                with pytest.raises(StorageError):
                    await settled(clear(bind))
            async with entered(host.session(engine)) as session:
                await host.write(session)
                with pytest.raises(StorageError) as caught:
                    await settled(clear(session))
                assert not caught.value.must_roll_back
                await settled(session.commit())
            assert host.ground.notes() == ["mine"]
            assert await collected(host.store.log().iterate()) == [stored]
            with host.ground.outside.connect() as connection:
                verify_schema(connection)
        finally:
            with host.ground.outside.begin() as connection:
                connection.execute(text("DROP TABLE receipts"))
            await settled(engine.dispose())

    @each_driver("sqlite", "postgresql+psycopg")
    async def test_clear_checks_how_long_it_is_to_wait(self, host: Host) -> None:
        for seconds in (math.nan, -1, "1", None, True):
            with pytest.raises(ConfigurationError, match="timeout_s is a number of seconds from 0; got"):
                await settled(clear(host.engine, timeout_s=seconds))
        for seconds in (math.inf, 1e10, 0, 0.0004):
            await settled(clear(host.engine, timeout_s=seconds))

    def test_clear_takes_no_url(self) -> None:
        with pytest.raises(ConfigurationError, match="pass an engine"):
            clear("sqlite://")  # type: ignore[call-overload]

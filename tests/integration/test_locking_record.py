"""The mode of locking that is recorded in the database, and stores that disagree with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from eventstore_sa import EventStoreSchema, NewEvent, SyncEventStore, configure_sqlite
from eventstore_sa.errors import ConfigurationError, SchemaError
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee, Locking
from eventstore_sa.store.adapters import SyncSQLAlchemyEventStorageAdapter
from eventstore_sa.testing.cases.tables import in_turn
from tests.databases import PostgresDatabase
from tests.stores import install_schema

LOG, CATEGORY, STREAM = EventSerialisationGuarantee
MODES: list[tuple[Locking, EventSerialisationGuarantee]] = [
    ("fence", LOG),
    ("advisory", LOG),
    ("advisory", CATEGORY),
    ("row", LOG),
    ("row", STREAM),
]
EACH_MODE = pytest.mark.parametrize("mode", MODES, ids=lambda mode: f"{mode[0]}-{mode[1].value}")


@pytest.fixture
def empty(postgres_database: PostgresDatabase) -> Iterator[Engine]:
    """Provide an engine on a database without tables."""
    engine = create_engine(postgres_database.url("psycopg"))
    yield engine
    engine.dispose()


@pytest.fixture
def engine(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Engine]:
    """Provide an engine on tables that `metadata.create_all()` has made."""
    engine = create_engine(make_postgres_database(prepared_by=install_schema).url("psycopg"))
    yield engine
    engine.dispose()


def store_of(bind: Any, mode: tuple[Locking, EventSerialisationGuarantee]) -> SyncEventStore:
    return SyncEventStore(bind, locking=mode[0], serialisation_guarantee=mode[1])


def publish(store: SyncEventStore) -> Any:
    return store.stream(category="orders", stream="1").publish(events=[NewEvent(name="happened", payload=1)])


def latest(store: SyncEventStore) -> Any:
    return store.stream(category="orders", stream="1").latest()


def recorded(engine: Engine) -> Any:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT locking FROM es_schema"))


@EACH_MODE
def test_stores_of_another_mode_than_that_of_the_tables_are_refused(
    empty: Engine, mode: tuple[Locking, EventSerialisationGuarantee]
) -> None:
    store_of(empty, mode).create_schema()

    for other in MODES:
        store = store_of(empty, other)
        if other == mode:
            publish(store)
            assert len(store.stream(category="orders", stream="1").read()) == 1
            continue
        for use in (publish, latest, SyncEventStore.create_schema):
            with pytest.raises(ConfigurationError, match=f'UPDATE "es_schema" SET locking = \'{other[0]}'):
                use(store_of(empty, other))


@EACH_MODE
def test_tables_of_create_all_are_for_the_mode_of_the_schema(
    empty: Engine, mode: tuple[Locking, EventSerialisationGuarantee]
) -> None:
    schema = EventStoreSchema(locking=mode[0], serialisation_guarantee=mode[1])

    schema.metadata.create_all(empty)

    assert recorded(empty) == schema.locking_mode.recorded
    publish(SyncEventStore(empty, schema=schema))
    publish(store_of(empty, mode))


def test_creating_the_schema_leaves_the_mode_of_tables_that_are_there(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="'fence'"):
        store_of(engine, ("row", LOG)).create_schema()

    assert recorded(engine) == "fence"


@pytest.mark.parametrize("face", [SyncEventStore, SyncSQLAlchemyEventStorageAdapter])
def test_options_of_a_store_must_agree_with_its_schema(face: Any) -> None:
    schema = EventStoreSchema(locking="row", serialisation_guarantee=CATEGORY)

    for options in ({}, {"locking": "row"}, {"serialisation_guarantee": CATEGORY}):
        made = face("sqlite://", schema=schema, **options)
        adapter = getattr(made, "adapter", made)
        assert (adapter.locking, adapter.serialisation_guarantee) == ("row", CATEGORY)
    with pytest.raises(ConfigurationError, match=r"was given locking=fence, but its .* has row: .* set it there"):
        face("sqlite://", schema=schema, locking="fence")
    with pytest.raises(ConfigurationError, match=r"given serialisation_guarantee=\S*LOG, but its .* has \S*CATEGORY"):
        face("sqlite://", schema=schema, serialisation_guarantee=LOG)


def test_stores_without_a_schema_share_one_for_each_mode() -> None:
    schemas = [store_of("sqlite://", mode).adapter.schema for mode in MODES]

    assert len(set(schemas)) == len(MODES)
    assert [store_of("sqlite://", mode).adapter.schema for mode in MODES] == schemas
    assert SyncEventStore("sqlite://").adapter.schema is schemas[0]
    assert [schema.locking_mode.recorded for schema in schemas] == [
        "fence",
        "advisory/log",
        "advisory/category",
        "row/log",
        "row/stream",
    ]


@pytest.mark.parametrize("options", [{"locking": "table"}, {"serialisation_guarantee": "log"}])
def test_a_schema_refuses_what_is_no_mode(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"'table': use 'fence'|EventSerialisationGuarantee\.LOG; got 'log'"):
        EventStoreSchema(**options)


def test_tables_without_a_version_are_refused_at_the_first_use(engine: Engine) -> None:
    """As an autogenerated migration makes them when env.py lacks the import."""
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM es_schema"))

    with pytest.raises(SchemaError, match=r"`import eventstore_sa\.migrations`"):
        publish(SyncEventStore(engine))


def test_the_remedy_in_the_message_changes_the_mode(engine: Engine) -> None:
    publish(SyncEventStore(engine))
    with pytest.raises(ConfigurationError) as refusal:
        publish(store_of(engine, ("row", LOG)))
    _, _, remedy = str(refusal.value).partition("then execute: ")

    with engine.begin() as connection:
        for statement in remedy.split(";"):
            connection.execute(text(statement))

    (stored,) = publish(store_of(engine, ("row", LOG)))
    assert stored.position == 1


def test_it_is_looked_at_once_for_a_store_and_those_within_sessions(engine: Engine) -> None:
    looks: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *a: looks.append(a[2]) if "es_schema" in a[2] else None)
    store = SyncEventStore(engine)

    for _ in range(3):
        publish(store)
        store.log().read()
        with Session(engine) as session, session.begin():
            publish(store.within(session))

    assert len(looks) == 1


def test_tenants_of_one_engine_are_looked_at_one_by_one(empty: Engine) -> None:
    tables = EventStoreSchema(schema="tenant", locking="row")
    engines = [empty.execution_options(schema_translate_map={"tenant": name}) for name in ("one", "two")]
    for engine, schema in zip(engines, (tables, EventStoreSchema(schema="tenant", locking="advisory")), strict=True):
        SyncEventStore(engine, schema=schema).create_schema()
    store = SyncEventStore(empty, schema=tables)

    with Session(engines[0]) as session, session.begin():
        publish(store.within(session))
    with Session(engines[1]) as session, pytest.raises(ConfigurationError, match="advisory/log"):
        publish(store.within(session))


def test_all_modes_are_one_on_sqlite() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    configure_sqlite(engine)
    store = SyncEventStore(engine)
    store.create_schema()
    for mode in MODES:
        publish(store_of(engine, mode))

    assert len(store.log().read()) == len(MODES)
    engine.dispose()


def test_readers_are_told_on_sqlite_too_what_they_could_not_read_elsewhere() -> None:
    with SyncEventStore("sqlite://", locking="row", serialisation_guarantee=STREAM) as store:
        store.create_schema()
        publish(store)

        with pytest.raises(ConfigurationError, match="serialisation_guarantee=CATEGORY"):
            store.category(category="orders").read()
        assert len(store.stream(category="orders", stream="1").read()) == 1


@in_turn(
    "url, said",
    [
        ("mysql://root@localhost/test", r"mariadb\+pymysql://"),
        ("oracle://scott@localhost/test", "events cannot be kept in oracle"),
        ("postgresql+pg8000://localhost/test", r"postgresql\+asyncpg://"),
    ],
)
def test_drivers_that_are_unknown_are_no_extras_of_this_library(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refusal:
        SyncEventStore(url)

    assert "eventstore-sa[" not in str(refusal.value)

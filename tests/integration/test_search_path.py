"""Whose tables a call gets to: those of the schema that its function was created in, whatever the caller's search path.

Tenants by `search_path` and tenants by `schema_translate_map` are the same tenants, made and used in either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Connection, Engine, MetaData, create_engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateSchema

from eventstore_sa import EventStoreSchema, NewEvent, SyncEventStore, verify_schema
from eventstore_sa.conditions import stream_is_empty
from eventstore_sa.errors import SchemaError
from eventstore_sa.persistence.schema import SCHEMA_VERSION
from eventstore_sa.persistence.schema.versions import Site, latest, migration, repair
from tests.databases import PostgresDatabase

TENANTS = ("one", "other")
WAYS = ("search path", "map", "named schema")
NAMES = ["plain", "a'\"b''", "x$eventstore_sa$y {events} back\\slash a:b %s Ünïcode 🎉"]


@pytest.fixture
def engine_on(postgres_database: PostgresDatabase) -> Iterator[Callable[[str], Engine]]:
    """Make engines for one database, whose connections have a search path."""
    with ExitStack() as stack:

        def make(search_path: str = "public") -> Engine:
            engine = create_engine(postgres_database.url("psycopg"))
            stack.callback(engine.dispose)

            def set_path(connection: Any, _: object) -> None:
                connection.execute("SELECT set_config('search_path', %s, false)", (search_path,))
                connection.commit()

            event.listen(engine, "connect", set_path)
            return engine

        yield make


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Tenant(NamedTuple):
    """The event store of a tenant, on connections that lead to it."""

    engine: Engine
    schema: EventStoreSchema
    store: SyncEventStore


def tenant_by(way: str, name: str, engine_on: Callable[[str], Engine]) -> Tenant:
    """Lead to a tenant; unless that is done by the path, the path leads to the other one."""
    (other,) = set(TENANTS) - {name}
    schema = EventStoreSchema(schema=name if way == "named schema" else None)
    engine = engine_on(name if way == "search path" else other)
    if way == "map":
        engine = engine.execution_options(schema_translate_map={None: name})
    return Tenant(engine, schema, SyncEventStore(engine, schema=schema))


def create_tenants(way: str, engine_on: Callable[[str], Engine]) -> None:
    with engine_on("public").begin() as connection:
        for tenant in TENANTS:
            connection.execute(CreateSchema(tenant))
    for tenant in TENANTS:
        tenant_by(way, tenant, engine_on).store.create_schema()


def publish(store: SyncEventStore, name: str = "placed", **options: Any) -> Any:
    (stored,) = store.stream(category="orders", stream="1").publish(
        events=[NewEvent(name=name, payload=None)], **options
    )
    return stored


def functions_in(connection: Connection, schema: str) -> list[str]:
    query = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = to_regnamespace(:schema) ORDER BY proname"
    return list(connection.scalars(text(query), {"schema": quoted(schema)}))


@pytest.mark.parametrize("used", WAYS)
@pytest.mark.parametrize("created", WAYS)
def test_a_tenant_is_reached_however_it_was_created_and_wherever_the_path_leads(
    created: str, used: str, engine_on: Callable[[str], Engine]
) -> None:
    create_tenants(created, engine_on)
    tenants = [tenant_by(used, tenant, engine_on) for tenant in TENANTS]
    one, other = (tenant.store for tenant in tenants)

    first = publish(one, "first of one", condition=stream_is_empty())
    second = publish(other, "first of other", condition=stream_is_empty())
    # In one transaction of a host each, side by side: neither locks, numbers nor fences are shared.
    with Session(tenants[0].engine) as in_one, Session(tenants[1].engine) as in_other:
        third = publish(one.within(in_one), "second of one")
        fourth = publish(other.within(in_other), "second of other")
        assert one.log().read() == [first]
        in_one.commit()
        assert one.log().read() == [first, third]
        assert other.log().read() == [second]
        in_other.commit()

    assert other.log().read() == [second, fourth]
    assert [first.sequence_number, third.sequence_number] == [second.sequence_number, fourth.sequence_number] == [1, 2]
    for tenant in tenants:
        assert tenant.store.watermark().sequence_number == 2
        with tenant.engine.connect() as connection:
            verify_schema(connection, schema=tenant.schema)


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_the_same_whether_the_schema_was_named_or_found(
    name: str, engine_on: Callable[[str], Engine]
) -> None:
    engine = engine_on(f"{quoted(name)}, public")
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {quoted(name)}".replace(":", "\\:")))
        for element in migration(0, SCHEMA_VERSION, Site("postgresql")):
            connection.execute(element)
        found = functions_in(connection, name)
        verify_schema(connection)
    stored = publish(SyncEventStore(engine))

    with engine.begin() as connection:
        for element in repair(SCHEMA_VERSION, Site("postgresql", schema=name)):
            connection.execute(element)
        assert functions_in(connection, name) == found
        verify_schema(connection)
        verify_schema(connection, schema=EventStoreSchema(schema=name))
    assert SyncEventStore(engine).log().read() == [stored]


def test_a_repair_binds_triggers_to_the_functions_beside_the_table(engine_on: Callable[[str], Engine]) -> None:
    with engine_on("public").begin() as connection:
        for name in ("a", "b"):
            connection.execute(CreateSchema(name))
    engine = engine_on("b")
    SyncEventStore(engine).create_schema()
    with engine_on("a").begin() as connection:
        for name in ("fence", "forbid_change"):
            connection.exec_driver_sql(
                f"CREATE FUNCTION a.es_{name}_v1() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$"
            )
    with engine_on("a, b").begin() as connection:
        connection.execute(text("DROP TRIGGER es_events_fence ON es_events"))
        for element in repair(SCHEMA_VERSION, Site("postgresql")):
            connection.execute(element)
        bound = connection.scalars(
            text(
                "SELECT DISTINCT p.pronamespace::regnamespace::text FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
                "WHERE NOT t.tgisinternal"
            )
        ).all()
        assert bound == ["b"]
    with engine.connect() as connection:
        verify_schema(connection)


@pytest.mark.parametrize("path", ["pg_catalog", "", "pg_temp, pg_catalog", "elsewhere"])
def test_a_named_schema_needs_no_search_path(path: str, engine_on: Callable[[str], Engine]) -> None:
    engine = engine_on(path)
    store = SyncEventStore(engine, schema=EventStoreSchema(schema="events"))
    store.create_schema()

    first = publish(store, condition=stream_is_empty())
    with Session(engine) as session:
        second = publish(store.within(session))
        session.commit()

    assert store.log().read() == store.category(category="orders").read() == [first, second]
    assert store.watermark().sequence_number == 2
    with engine.connect() as connection:
        assert len(connection.execute(text("SELECT * FROM events.es_read_log_v1(0, 10)")).all()) == 2
        verify_schema(connection, schema=EventStoreSchema(schema="events"))


@pytest.mark.parametrize("created", ["search path", "map"])
def test_the_fence_of_one_table_is_not_taken_from_the_sequence_of_another(
    created: str, engine_on: Callable[[str], Engine]
) -> None:
    create_tenants(created, engine_on)
    one, other = (tenant_by("named schema", tenant, engine_on).store for tenant in TENANTS)
    for _ in range(20):
        publish(other)
    with engine_on("other").connect() as connection:
        # The host inserts into one tenant's table while its path leads to the other's.
        connection.execute(
            text(
                "INSERT INTO one.es_events (id, category, stream, position, name, payload, observed_at, occurred_at) "
                "VALUES (gen_random_uuid(), 'orders', '2', 0, 'first', '{}', now(), now())"
            )
        )
        publish(one, "second")

        assert one.log().read() == []
        connection.commit()
    assert [event.name for event in one.log()] == ["first", "second"]


def test_repair_goes_to_the_schema_of_the_tables_and_not_to_the_first_on_the_path(
    engine_on: Callable[[str], Engine],
) -> None:
    SyncEventStore(engine_on("public")).create_schema()
    engine = engine_on("mine, public")
    with engine.begin() as connection:
        connection.execute(CreateSchema("mine"))
        connection.execute(text("ALTER FUNCTION es_fence_v1() STABLE"))
        for element in repair(SCHEMA_VERSION, Site("postgresql")):
            connection.execute(element)

        assert functions_in(connection, "mine") == []
        verify_schema(connection)


def test_functions_of_another_schema_on_the_path_are_not_taken_for_those_of_the_tables(
    engine_on: Callable[[str], Engine],
) -> None:
    create_tenants("named schema", engine_on)
    with engine_on("one, other").begin() as connection:
        for definition in ("es_append_v1(jsonb, boolean)", "es_watermark_v1()"):
            connection.execute(text(f"DROP FUNCTION one.{definition}"))
        with pytest.raises(
            SchemaError, match=r"es_watermark_v1 .*in the schema other, but the table es_events is in one"
        ):
            verify_schema(connection)


def test_a_schema_that_was_renamed_is_found_out_and_repaired(engine_on: Callable[[str], Engine]) -> None:
    create_tenants("search path", engine_on)
    stored = publish(tenant_by("named schema", "one", engine_on).store)
    renamed = EventStoreSchema(schema="renamed")
    with engine_on("public").begin() as connection:
        connection.execute(text("ALTER SCHEMA one RENAME TO renamed"))
        with pytest.raises(
            SchemaError, match=r"es_append_v1 was changed.*repair --dialect postgresql --schema renamed"
        ):
            verify_schema(connection, schema=renamed)
        for element in repair(SCHEMA_VERSION, Site("postgresql", schema="renamed")):
            connection.execute(element)
        verify_schema(connection, schema=renamed)

    store = SyncEventStore(engine_on("other"), schema=renamed)
    assert store.log().read() == [stored]
    assert publish(store).sequence_number == 2


class TestSchemaOfTheMetaData:
    def test_the_event_store_is_where_the_tables_of_the_host_are(self, engine_on: Callable[[str], Engine]) -> None:
        metadata = MetaData(schema="app")
        schema = EventStoreSchema(metadata)
        engine = engine_on("public")
        with engine.begin() as connection:
            connection.execute(CreateSchema("app"))
        metadata.create_all(engine)

        store = SyncEventStore(engine, schema=schema)
        stored = publish(store)

        assert schema.schema == "app"
        assert store.log().read() == [stored]
        with engine.connect() as connection:
            verify_schema(connection, schema=schema)
            assert len(functions_in(connection, "app")) == len(latest().routines.functions)
        metadata.drop_all(engine)
        with engine.connect() as connection:
            assert functions_in(connection, "app") == []

    def test_a_schema_that_is_given_counts_more(self) -> None:
        assert EventStoreSchema(MetaData(schema="app"), schema="events").events.schema == "events"


def test_triggers_of_the_host_on_our_tables_keep_the_path_of_the_caller(engine_on: Callable[[str], Engine]) -> None:
    create_tenants("named schema", engine_on)
    engine = engine_on("public")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE outbox (name text)"))
        connection.execute(
            text(
                "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN INSERT INTO outbox SELECT NEW.name; RETURN NULL; END $$"
            )
        )
        connection.execute(
            text("CREATE TRIGGER tell AFTER INSERT ON one.es_events FOR EACH ROW EXECUTE FUNCTION tell()")
        )

    store = SyncEventStore(engine, schema=EventStoreSchema(schema="one"))
    publish(store, "alone")
    with Session(engine) as session:
        publish(store.within(session), "within")
        session.commit()

    with engine.connect() as connection:
        assert connection.scalars(text("SELECT name FROM outbox")).all() == ["alone", "within"]

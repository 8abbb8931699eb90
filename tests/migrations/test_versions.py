"""Versions of the schema: the way through all of them leads to what `create_all` makes, and loses no event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from eventstore_sa import EventStoreSchema, NewEvent, StoredEvent, SyncEventStore, configure_sqlite, verify_schema
from eventstore_sa.errors import SchemaError
from eventstore_sa.persistence.schema import SCHEMA_VERSION, versions
from eventstore_sa.persistence.schema.versions import Site, migration, repair
from tests.databases import PostgresDatabase
from tests.migrations import next_version
from tests.migrations.structure import structure_of

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(params=DATABASES)
def make_engine(
    request: pytest.FixtureRequest, make_postgres_database: Callable[..., PostgresDatabase], tmp_path: Any
) -> Iterator[Callable[[], Engine]]:
    """Make engines for empty databases."""
    engines: list[Engine] = []

    def make() -> Engine:
        if request.param == "sqlite":
            engine = create_engine(f"sqlite:///{tmp_path}/{len(engines)}.db", poolclass=NullPool)
        else:
            engine = create_engine(make_postgres_database().url("psycopg"), poolclass=NullPool)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.dispose()


def migrate(
    engine: Engine, from_version: int, to_version: int, *, prefix: str = "es_", schema: str | None = None
) -> None:
    with engine.connect() as connection:
        for element in migration(from_version, to_version, Site(engine.dialect.name, prefix, schema)):
            if versions.is_outside_transactions(element) and engine.dialect.name == "postgresql":
                connection.commit()
                with engine.connect() as other:
                    other.execution_options(isolation_level="AUTOCOMMIT").execute(element)
            else:
                connection.execute(element)
        connection.commit()


def publish(engine: Engine, *names: str) -> list[StoredEvent[Any, Any, Any]]:
    stream = SyncEventStore(engine).stream(category="orders", stream="1")
    return list(stream.publish(events=[NewEvent(name=name, payload={"name": name}) for name in names]))


def read(engine: Engine) -> list[StoredEvent[Any, Any, Any]]:
    return list(SyncEventStore(engine).log().read())


def test_versions_are_counted_from_one_without_a_gap() -> None:
    assert [version.number for version in versions.VERSIONS] == list(range(1, SCHEMA_VERSION + 1))


def test_every_version_says_what_the_way_to_it_locks() -> None:
    assert all(version.locks for version in versions.VERSIONS)


@pytest.mark.parametrize("newer", [False, True], ids=["this release", "a newer release"])
def test_all_migrations_make_what_create_all_makes(
    make_engine: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch, newer: bool
) -> None:
    if newer:
        next_version.install(monkeypatch)
    created, migrated = make_engine(), make_engine()

    EventStoreSchema().metadata.create_all(created)
    migrate(migrated, 0, versions.latest().number)

    assert structure_of(migrated) == structure_of(created)
    with migrated.connect() as connection:
        verify_schema(connection, schema=EventStoreSchema())


def test_migrations_to_a_named_schema_and_prefix_make_what_create_all_makes(
    make_postgres_database: Callable[..., PostgresDatabase],
) -> None:
    created, migrated = (create_engine(make_postgres_database().url("psycopg"), poolclass=NullPool) for _ in range(2))
    with created.begin() as connection:
        connection.execute(text('CREATE SCHEMA "The Events"'))
    EventStoreSchema(prefix="a'b_", schema="The Events").metadata.create_all(created)
    migrate(migrated, 0, SCHEMA_VERSION, prefix="a'b_", schema="The Events")

    assert structure_of(migrated, "The Events") == structure_of(created, "The Events")
    assert len(structure_of(migrated, "The Events")["functions"]) == len(versions.latest().routines.functions)


def test_every_way_down_leads_to_where_the_way_up_began(
    make_engine: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    next_version.install(monkeypatch)
    engine = make_engine()
    seen = [structure_of(engine)]
    for version in versions.VERSIONS:
        migrate(engine, version.number - 1, version.number)
        seen.append(structure_of(engine))

    for version in reversed(versions.VERSIONS):
        assert structure_of(engine) == seen.pop()
        migrate(engine, version.number, version.number - 1)
    assert structure_of(engine) == seen.pop()


def test_events_of_every_older_version_are_kept_by_the_way_up_and_down(
    make_engine: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    older = SCHEMA_VERSION
    next_version.install(monkeypatch)
    for version in range(1, older + 1):
        engine = make_engine()
        migrate(engine, 0, version)
        stored = publish(engine, "placed", "paid")

        migrate(engine, version, versions.latest().number)
        assert read(engine) == stored
        stored += publish(engine, "sent")
        migrate(engine, versions.latest().number, version)

        assert read(engine) == stored
        assert [event.sequence_number for event in publish(engine, "returned")] == [4]


def test_the_release_before_publishes_and_reads_while_the_database_is_newer(
    make_engine: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions carry a version in their names: those that older processes call are there, and work."""
    engine = make_engine()
    configure_sqlite(engine)
    store = SyncEventStore(engine)
    with monkeypatch.context() as newer:
        next_version.install(newer)
        migrate(engine, 0, versions.latest().number)

    stored = store.stream(category="orders", stream="1").publish(events=[NewEvent(name="placed", payload=1)])
    with engine.begin() as connection:
        hosted = SyncEventStore(connection).stream(category="orders", stream="1")
        stored = [*stored, *hosted.publish(events=[NewEvent(name="paid", payload=2)])]

    assert store.log().read() == stored
    assert store.watermark().sequence_number == 2


def test_the_new_trigger_is_in_force_after_the_way_up(
    make_postgres_database: Callable[..., PostgresDatabase], monkeypatch: pytest.MonkeyPatch
) -> None:
    next_version.install(monkeypatch)
    engine = create_engine(make_postgres_database().url("psycopg"), poolclass=NullPool)

    migrate(engine, 0, versions.latest().number)

    (fence,) = [definition for definition, _ in structure_of(engine)["triggers"] if "es_events_fence" in definition]
    assert "es_fence_v2" in fence


def test_migrations_record_how_writers_lock(make_engine: Callable[[], Engine]) -> None:
    created, migrated = make_engine(), make_engine()
    schema = EventStoreSchema(locking="row")

    schema.metadata.create_all(created)
    with migrated.begin() as connection:
        for element in migration(0, SCHEMA_VERSION, Site(migrated.dialect.name), "row/log"):
            connection.execute(element)

    for engine in (created, migrated):
        with engine.connect() as connection:
            verify_schema(connection, schema=schema)
            assert connection.scalar(text("SELECT locking FROM es_schema")) == "row/log"


def test_unknown_versions_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"does not support version 9 .* the newest it supports is 1"):
        list(migration(1, 9, Site("sqlite")))


def test_repair_puts_functions_and_triggers_back(make_engine: Callable[[], Engine]) -> None:
    engine = make_engine()
    EventStoreSchema().metadata.create_all(engine)
    whole = structure_of(engine)
    broken = (
        ["DROP TRIGGER es_events_forbid_update"]
        if engine.dialect.name == "sqlite"
        else [
            "DROP TRIGGER es_events_fence ON es_events",
            "ALTER TABLE es_events DISABLE TRIGGER es_events_forbid_change",
            "DROP FUNCTION es_watermark_v1()",
            "CREATE OR REPLACE FUNCTION es_fence_v1() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        ]
    )
    with engine.begin() as connection:
        for statement in broken:
            connection.execute(text(statement))
        assert structure_of(connection) != whole

        for element in repair(SCHEMA_VERSION, Site(engine.dialect.name)):
            connection.execute(element)

    assert structure_of(engine) == whole


def test_repair_leaves_grants_as_they_are(make_postgres_database: Callable[..., PostgresDatabase]) -> None:
    engine = create_engine(make_postgres_database().url("psycopg"), poolclass=NullPool)
    EventStoreSchema().metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("REVOKE EXECUTE ON FUNCTION es_watermark_v1() FROM PUBLIC"))
        before = connection.scalar(text("SELECT proacl::text FROM pg_proc WHERE proname = 'es_watermark_v1'"))

        for element in repair(SCHEMA_VERSION, Site("postgresql")):
            connection.execute(element)

        assert connection.scalar(text("SELECT proacl::text FROM pg_proc WHERE proname = 'es_watermark_v1'")) == before


def test_an_existing_schema_needs_no_right_to_create_schemas(
    make_postgres_database: Callable[..., PostgresDatabase],
) -> None:
    engine = create_engine(make_postgres_database().url("psycopg"), poolclass=NullPool)
    role = "migrator_of_a_schema"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        connection.execute(text(f"CREATE SCHEMA events AUTHORIZATION {role}"))
    try:
        with engine.begin() as connection:
            connection.execute(text(f"SET ROLE {role}"))
            for element in migration(0, SCHEMA_VERSION, Site("postgresql", schema="events")):
                connection.execute(element)
            create_another, *_ = migration(0, SCHEMA_VERSION, Site("postgresql", schema="elsewhere"))
            with pytest.raises(DBAPIError, match="permission denied"), connection.begin_nested():
                connection.execute(create_another)
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))

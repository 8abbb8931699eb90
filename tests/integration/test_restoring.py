"""The data of an event store, dumped by `pg_dump --data-only` and restored into a store that was prepared for it.

A dump sets an empty search path; triggers fire, and events are stored with their numbers. What is not there afterwards is
found by `verify_schema`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import Engine, NullPool, create_engine, select, text

from eventstore_sa import EventStoreSchema, NewEvent, SyncEventStore, verify_schema
from eventstore_sa.conditions import position_is
from eventstore_sa.errors import SchemaError
from eventstore_sa.testing.postgres import PostgresServer, find_postgres_binaries
from tests.databases import PostgresDatabase
from tests.interleaving import names

MakeDatabase = Callable[..., PostgresDatabase]
PREPARED = ("--data-only", "--exclude-table=*.es_schema")


class Programs(NamedTuple):
    """`pg_dump` and `psql` of the server's version."""

    folder: Path

    def dump(self, database: PostgresDatabase, *options: str) -> str:
        return self._run("pg_dump", database, *options)

    def restore(self, database: PostgresDatabase, script: str, *options: str, settings: str = "") -> str:
        return self._run("psql", database, "--no-psqlrc", "--quiet", *options, script=script, settings=settings)

    def _run(
        self, program: str, database: PostgresDatabase, *options: str, script: str = "", settings: str = ""
    ) -> str:
        url = database.url("psycopg")
        connection = {"PGHOST": url.host, "PGPORT": str(url.port), "PGUSER": url.username, "PGDATABASE": url.database}
        environment = {
            **os.environ,
            "PGOPTIONS": settings,
            **{name: value for name, value in connection.items() if value},
        }
        if url.password:
            environment["PGPASSWORD"] = str(url.password)
        outcome = subprocess.run(
            [self.folder / program, *options], input=script, capture_output=True, text=True, env=environment, check=True
        )
        return outcome.stdout


@pytest.fixture(scope="module")
def programs(postgres_server: PostgresServer) -> Programs:
    folders = [found.directory for found in find_postgres_binaries() if found.version[0] == postgres_server.version[0]]
    # Client programs are on PATH where there is no server.
    return Programs(next((folder for folder in folders if (folder / "pg_dump").exists()), Path()))


def engine_of(database: PostgresDatabase) -> Engine:
    return create_engine(database.url("psycopg"), poolclass=NullPool)


def store_in(database: PostgresDatabase, schema: str | None) -> SyncEventStore:
    store = SyncEventStore(engine_of(database), schema=EventStoreSchema(schema=schema))
    store.create_schema()
    return store


def filled(store: SyncEventStore, stream: str = "1") -> SyncEventStore:
    for number in range(3):
        store.stream(category="orders", stream=stream).publish(
            events=[NewEvent(name=str(number), payload={"a": "\\t"})]
        )
    return store


def tagged(store: SyncEventStore) -> SyncEventStore:
    for number in range(3):
        store.stream(category="courses", stream="1").publish(
            events=[NewEvent(name="subscribed", payload=None, tags={"course:c1", f"student:{number}", "a\tb\\"})]
        )
    return store


def index_in(database: PostgresDatabase) -> list[tuple[object, ...]]:
    with engine_of(database).connect() as connection:
        return [*map(tuple, connection.execute(select(EventStoreSchema().event_tags)))]


def verify(database: PostgresDatabase, schema: str | None = None) -> None:
    with engine_of(database).connect() as connection:
        verify_schema(connection, schema=EventStoreSchema(schema=schema))


@pytest.mark.parametrize("schema", [None, "events"])
@pytest.mark.parametrize("options", [(), ("--inserts",)], ids=["copy", "inserts"])
def test_data_is_restored_into_a_prepared_store(
    schema: str | None, options: tuple[str, ...], programs: Programs, make_postgres_database: MakeDatabase
) -> None:
    old, new = make_postgres_database(), make_postgres_database()
    stored = filled(store_in(old, schema)).log().read()
    store = store_in(new, schema)

    programs.restore(new, programs.dump(old, *PREPARED, *options), "--set=ON_ERROR_STOP=1", "--single-transaction")

    verify(new, schema)
    assert store.log().read() == stored
    assert store.watermark().sequence_number == 3
    (event,) = store.stream(category="orders", stream="1").publish(
        events=[NewEvent(name="next", payload=None)], condition=position_is(2)
    )
    assert event.sequence_number == 4


RESTORING = "-c eventstore_sa.restoring=on"


@pytest.mark.parametrize("options", [(), ("--inserts",)], ids=["copy", "inserts"])
def test_tags_are_restored_with_their_index_by_the_owner_who_says_so(
    options: tuple[str, ...], programs: Programs, make_postgres_database: MakeDatabase
) -> None:
    old, new = make_postgres_database(), make_postgres_database()
    stored = tagged(filled(store_in(old, None))).log().read()
    store = store_in(new, None)
    dump = programs.dump(old, *PREPARED, *options)

    with pytest.raises(subprocess.CalledProcessError) as refused:
        programs.restore(new, dump, "--set=ON_ERROR_STOP=1", "--single-transaction")
    assert "SET eventstore_sa.restoring = 'on'" in refused.value.stderr
    programs.restore(new, dump, "--set=ON_ERROR_STOP=1", "--single-transaction", settings=RESTORING)

    verify(new)
    assert store.log().read() == stored
    assert index_in(new) == index_in(old) != []


def test_events_that_were_restored_without_the_index_of_their_tags_are_found_out(
    programs: Programs, make_postgres_database: MakeDatabase
) -> None:
    old, new = make_postgres_database(), make_postgres_database()
    tagged(filled(store_in(old, None)))
    store_in(new, None)

    programs.restore(new, programs.dump(old, *PREPARED, "--exclude-table=*.es_event_tags"), settings=RESTORING)

    with pytest.raises(SchemaError, match=r"es_event_tags lacks tags of event 4") as caught:
        verify(new)
    remedy = str(caught.value).partition("execute ")[2]
    with engine_of(new).begin() as connection:
        for statement in remedy.split("; "):
            connection.execute(text(statement))
    verify(new)
    assert sorted(index_in(new)) == sorted(index_in(old))


def test_readers_see_nothing_of_a_restore_before_it_is_complete(
    programs: Programs, make_postgres_database: MakeDatabase
) -> None:
    old, new = make_postgres_database(), make_postgres_database()
    filled(store_in(old, None))
    store = store_in(new, None)
    events, sequence = programs.dump(old, *PREPARED).split("-- Name: es_events_sequence_number_seq", 1)

    programs.restore(new, f"{events}\n")
    assert store.log().read() == []
    with pytest.raises(SchemaError, match=r"es_events_sequence_number_seq is at 0.*RESTART WITH 4"):
        verify(new)
    programs.restore(new, f"-- {sequence}")

    assert names(store.log().iterate()) == ["0", "1", "2"]
    verify(new)


def test_a_store_whose_events_were_not_restored_is_found_out(
    programs: Programs, make_postgres_database: MakeDatabase
) -> None:
    old, new = make_postgres_database(), make_postgres_database()
    store = filled(store_in(old, None))
    store_in(new, None)
    with engine_of(old).begin() as connection:
        connection.execute(
            text(
                "INSERT INTO es_projections (name, id, source, source_hash, state, metadata, version, sequence_number) "
                "VALUES ('p', '1', '{}', 1, '{}', '{}', 1, 3)"
            )
        )
    assert len(store.log().read()) == 3

    programs.restore(new, programs.dump(old, *PREPARED, "--exclude-table-data=es_events"))

    with pytest.raises(SchemaError, match=r"es_events is empty, but 3 numbers .* es_projections refer"):
        verify(new)


def test_a_whole_database_is_restored_without_preparation(
    programs: Programs, make_postgres_database: MakeDatabase
) -> None:
    old, new = make_postgres_database(), make_postgres_database()
    stored = filled(store_in(old, "events")).log().read()

    script = programs.dump(old)
    programs.restore(new, script, "--set=ON_ERROR_STOP=1")

    verify(new, "events")
    assert SyncEventStore(engine_of(new), schema=EventStoreSchema(schema="events")).log().read() == stored

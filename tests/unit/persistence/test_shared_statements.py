"""Statements on events are made once for a schema and a database, shared by all stores on it, and gone with the schema."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from weakref import ref

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from eventstore_sa import EventStoreSchema, NewEvent, SyncEventStore, configure_sqlite
from eventstore_sa.persistence.events import dialects
from eventstore_sa.persistence.events.dialects import event_dialect
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.persistence.schema.schema import made_once


def test_stores_in_sessions_share_the_statements_of_their_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Counted(dialects.SQLiteDialect):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            made.append("sqlite")

    monkeypatch.setattr(dialects, "SQLiteDialect", Counted)
    schema = EventStoreSchema()
    engine = create_engine("sqlite://")
    configure_sqlite(engine)
    store = SyncEventStore(engine, schema=schema)
    store.create_schema()

    for _ in range(3):
        with Session(engine) as session, session.begin():
            stream = store.within(session).stream(category="orders", stream="1")
            stream.publish(events=[NewEvent(name="placed", payload=1)])
            stream.stage(events=[NewEvent(name="paid", payload=1)])
    SyncEventStore(engine, schema=schema).log().latest()

    assert made == ["sqlite"]
    engine.dispose()


def test_each_name_of_mariadb_has_statements_of_its_own() -> None:
    schema = EventStoreSchema(locking="row")

    mariadb, mysql = (made_once(EventRepository, schema, name) for name in ("mariadb", "mysql"))

    assert mariadb is not mysql
    assert made_once(EventRepository, schema, "mysql") is mysql


def test_schemas_do_not_share() -> None:
    schemas = [EventStoreSchema(prefix=prefix) for prefix in ("a_", "b_")]

    assert len({made_once(EventRepository, schema, "sqlite") for schema in schemas}) == 2


def test_threads_that_ask_together_get_the_same() -> None:
    schema, start = EventStoreSchema(), Barrier(8)

    def ask(_: int) -> EventRepository:
        start.wait()
        return made_once(EventRepository, schema, "postgresql")

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(8)))) == 1


def test_an_unused_schema_is_collected_with_its_statements() -> None:
    schema = EventStoreSchema()
    repository, schema_ref = ref(made_once(EventRepository, schema, "sqlite")), ref(schema)

    del schema
    gc.collect()

    assert (schema_ref(), repository()) == (None, None)


@pytest.mark.parametrize("name", ["postgresql", "sqlite", "mariadb", "mysql"])
@pytest.mark.parametrize("locking", ["fence", "row"])
def test_every_dialect_can_be_made(name: str, locking: str) -> None:
    schema = EventStoreSchema(locking=locking)  # type: ignore[arg-type]

    assert event_dialect(name, schema).copies_values is (name != "postgresql")

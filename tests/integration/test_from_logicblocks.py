"""The tables of `logicblocks.event.store` are imported by the SQL that the documentation shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError

from eventstore_sa import NewEvent, SyncEventStore
from eventstore_sa.conditions import position_is
from tests.databases import PostgresDatabase
from tests.project import ROOT

# The columns are those that release 0.1.11 of that library writes; its documentation leaves the tables to the application.
EVENTS = """
CREATE TABLE events (
    id text PRIMARY KEY, name text NOT NULL, stream text NOT NULL, category text NOT NULL, position integer NOT NULL,
    sequence_number serial NOT NULL, payload jsonb NOT NULL, observed_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL
)
"""
ROW = """
INSERT INTO events (id, name, stream, category, position, payload, observed_at, occurred_at)
VALUES (md5(random()::text), 'order-placed', :stream, 'orders', :position, '{"total": 3}', now(), now())
"""


@pytest.fixture
def engine(postgres_database: PostgresDatabase) -> Iterator[Engine]:
    engine = create_engine(postgres_database.url("psycopg"))
    SyncEventStore(engine).create_schema()
    with engine.begin() as connection:
        connection.execute(text(EVENTS))
    yield engine
    engine.dispose()


def import_events(engine: Engine) -> None:
    page = (ROOT / "docs" / "from-logicblocks.md").read_text(encoding="utf-8")
    (statements,) = re.findall(r"```sql\nBEGIN;\n(.*?)COMMIT;\n```", page, re.DOTALL)
    with engine.begin() as connection:
        connection.exec_driver_sql(statements)


def test_imported_events_are_read_and_continued(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER SEQUENCE events_sequence_number_seq RESTART 5"))
        for stream, position in [("1", 0), ("2", 0), ("1", 1)]:
            connection.execute(text(ROW), {"stream": stream, "position": position})

    import_events(engine)

    store = SyncEventStore(engine)
    assert [(each.sequence_number, each.stream, each.position, each.payload) for each in store.log()] == [
        (5, "1", 0, {"total": 3}),
        (6, "2", 0, {"total": 3}),
        (7, "1", 1, {"total": 3}),
    ]
    paid = NewEvent(name="order-paid", payload=None)
    (published,) = store.stream(category="orders", stream="1").publish(events=[paid], condition=position_is(1))
    assert (published.position, published.sequence_number) == (2, 8)
    assert store.watermark().sequence_number == 8


def test_nothing_is_imported_if_a_stream_has_two_events_at_a_position(engine: Engine) -> None:
    with engine.begin() as connection:
        for _ in range(2):
            connection.execute(text(ROW), {"stream": "1", "position": 0})

    with pytest.raises(IntegrityError, match="es_events_position_key"):
        import_events(engine)

    assert list(SyncEventStore(engine).log()) == []

"""`python -m benchmarks.data` makes stores that are as good as those that were published to."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median

import pytest
from sqlalchemy import URL, create_engine

from benchmarks.data import history, main
from eventstore_sa import EventStoreSchema, NewEvent, StoredEvent, SyncEventStore, configure_sqlite, verify_schema
from eventstore_sa.store.conditions import position_is
from eventstore_sa.testing.postgres import PostgresDriver


@pytest.fixture(params=["postgresql", "sqlite"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """Give the address of an empty database."""
    if request.param == "sqlite":
        return URL.create("sqlite", database=str(tmp_path / "events.db"))
    postgres_url: Callable[[PostgresDriver | None], URL] = request.getfixturevalue("postgres_url")
    return postgres_url("psycopg")


def test_a_filled_store_is_valid_and_can_be_filled_further_and_published_to(
    address: URL, capsys: pytest.CaptureFixture[str]
) -> None:
    text = address.render_as_string(hide_password=False)

    assert main(["--events", "1_500", "--url", text]) == 0
    assert main(["--events", "1000", "--url", text, "--seed", "2"]) == 0

    assert "1,500 events in " in capsys.readouterr().err
    engine = create_engine(address)
    configure_sqlite(engine)
    try:
        with engine.connect() as connection:
            verify_schema(connection)
        store = SyncEventStore(engine)
        events = list(store.log().iterate())
        assert len(events) == 2500
        streams: defaultdict[tuple[str, str], list[StoredEvent]] = defaultdict(list)
        for event in events:
            streams[event.category, event.stream].append(event)
        assert all([event.position for event in stream] == list(range(len(stream))) for stream in streams.values())
        assert [event.sequence_number for event in events] == sorted({event.sequence_number for event in events})
        last = max(streams.values(), key=len)[-1]
        (published,) = store.stream(category=last.category, stream=last.stream).publish(
            events=[NewEvent(name="noted", payload=None)], condition=position_is(last.position)
        )
        assert published.position == last.position + 1
    finally:
        engine.dispose()


def test_other_databases_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--events", "1", "--url", "mariadb+pymysql://root@127.0.0.1/test"]) == 2

    assert "mariadb" in capsys.readouterr().err


def test_a_store_of_another_locking_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"sqlite:///{tmp_path / 'events.db'}"
    engine = create_engine(address)
    configure_sqlite(engine)
    SyncEventStore(engine, schema=EventStoreSchema(locking="row")).create_schema()
    engine.dispose()

    assert main(["--events", "1", "--url", address]) == 2

    assert "locking" in capsys.readouterr().err


def test_the_same_seed_makes_the_same_events_and_lengths_differ_as_in_life() -> None:
    rows, again, other = (list(islice(history(seed=seed), 20_000)) for seed in (1, 1, 2))
    lengths = Counter((category, stream) for _, category, stream, *_ in rows)

    assert [row[1:7] for row in rows] == [row[1:7] for row in again]
    assert [row[1:7] for row in rows] != [row[1:7] for row in other]
    assert {row[1] for row in rows} == {"orders", "baskets", "customers", "accounts"}
    assert median(lengths.values()) < 10
    assert max(lengths.values()) > 30
    assert len({row[0] for row in rows}) == len(rows)
    for row in rows[:500]:
        json.loads(row[5])
        json.loads(row[6])

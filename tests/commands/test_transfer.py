"""Exports and imports: what comes out goes in again, whatever interrupts it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text

from eventstore_sa import NewEvent, StoredEvent, SyncEventStore
from eventstore_sa.errors import BrokenExportError, ConfigurationError, DuplicateEventError, UnmetWriteConditionError
from eventstore_sa.store.adapters import SyncInMemoryEventStorageAdapter
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.transfer import (
    ImportResult,
    export_events,
    foreign_events,
    import_events,
    read_export,
    verify_export,
)
from tests.commands.conftest import Command, each_kind_of_driver
from tests.databases import PostgresDatabase
from tests.patience import wait_until
from tests.project import ROOT

MOMENT = datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
PAYLOADS: list[Any] = [
    None,
    1,
    12345678901234567890123,
    1.5,
    "\x1b\u202e日本\u2028",
    [],
    {"a": {"b": [None, True]}},
    "x" * 9000,
]

# The columns, types and defaults are those of message-db 1.3.
MESSAGE_DB = """
CREATE SCHEMA message_store;
CREATE TABLE message_store.messages (
  global_position bigserial PRIMARY KEY, position bigint NOT NULL,
  time timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'), stream_name text NOT NULL, type text NOT NULL,
  data jsonb, metadata jsonb, id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO message_store.messages (position, time, stream_name, type, data, metadata) VALUES
(0, '2001-02-03 04:05:06.000007', 'account-1-2', 'Opened', '{"a"\\: 1}', NULL),
(0, '2001-02-03 04:05:06.000007', 'account\\:command', 'Open', NULL, '{"b"\\: 2}');
SET TimeZone = 'Asia/Tokyo';
INSERT INTO message_store.messages (position, stream_name, type) VALUES (1, 'account-1-2', 'Closed')
"""


def fill(store: SyncEventStore) -> None:
    """Store events of all kinds, in streams that take turns, in one publish each."""
    for number in range(40):
        event = NewEvent(
            name=f"event-{number % 3}",
            payload=PAYLOADS[number % len(PAYLOADS)],
            metadata={"correlation_id": "c"} if number % 4 else None,
            observed_at=MOMENT + timedelta(days=number),
            occurred_at=MOMENT - timedelta(microseconds=number),
            tags=["t:1", f"n:{number}"] if number % 5 == 0 else (),
            version=1 + number % 2,
        )
        store.stream(category="ab"[number % 2], stream=f"s/{number % 3}").publish(events=[event])


def exported(store: SyncEventStore, category: str | None = None) -> bytes:
    file = io.BytesIO()
    export_events(store, file, category=category)
    return file.getvalue()


def numberless(export: bytes) -> list[Any]:
    return [{**json.loads(line), "sequence_number": 0} for line in export.splitlines()[1:-1]]


@pytest.fixture
def source(store: SyncEventStore) -> SyncEventStore:
    fill(store)
    return store


@pytest.fixture
def other(tmp_path: Path) -> Iterator[SyncEventStore]:
    with SyncEventStore(f"sqlite:///{tmp_path}/other.db") as store:
        store.create_schema()
        yield store


@each_kind_of_driver()
def test_what_comes_out_goes_in_again(source: SyncEventStore, command: Command, tmp_path: Path) -> None:
    """To memory and back, because the store is one of each kind of database."""
    file, again = tmp_path / "export.jsonl", tmp_path / "again.jsonl"
    memory = SyncEventStore(SyncInMemoryEventStorageAdapter())

    assert command("export", str(file)).exit_code == 0
    assert import_events(memory, read_export(file.read_bytes().splitlines(keepends=True))) == ImportResult(40, 40)

    assert numberless(exported(memory)) == numberless(file.read_bytes())
    assert [*memory.log()] == [*source.log()]
    export_events(memory, again)
    assert json.loads(command("import", str(again), "--json").stdout) == {"events": 40, "stored": 0}


@pytest.mark.parametrize("url", ["sqlite", "postgresql+psycopg"], indirect=True)
@pytest.mark.parametrize("keep", [False, True])
def test_an_import_that_is_interrupted_is_resumed(
    store: SyncEventStore, make_postgres_database: Callable[..., PostgresDatabase], url: str, keep: bool
) -> None:
    memory = SyncEventStore(SyncInMemoryEventStorageAdapter())
    fill(memory)
    events = [*memory.log()]

    class Interrupted(Exception):
        pass

    def interrupt(done: ImportResult) -> None:
        if done.stored >= 14:
            raise Interrupted

    with pytest.raises(Interrupted):
        import_events(store, events, keep_numbers=keep, batch_size=7, progress=interrupt)
    if keep and url.startswith("postgresql"):
        assert store.log().read() == []
    # With other batches, so that one of them is there in part.
    assert import_events(store, events, keep_numbers=keep, batch_size=5) == ImportResult(40, 26)

    assert store.log().read() == events
    assert [event.position for event in store.tag("t:1").iterate()] == [
        event.position for event in memory.tag("t:1").iterate()
    ]
    assert import_events(store, events, keep_numbers=keep) == ImportResult(40, 0)
    (next_event,) = store.stream(category="c", stream="1").publish(events=[NewEvent(name="next", payload=1)])
    assert store.log().latest() == next_event


@pytest.mark.parametrize("url", ["sqlite", "postgresql+psycopg"], indirect=True)
def test_numbers_are_kept_with_their_gaps(store: SyncEventStore, url: str, command: Command, tmp_path: Path) -> None:
    memory = SyncEventStore(SyncInMemoryEventStorageAdapter())
    fill(memory)
    file = tmp_path / "category.jsonl"
    export_events(memory, file, category="b")

    assert command("import", "--keep-numbers", str(file)).stdout == "20 events, 20 of them new\n"

    assert exported(store, "b").splitlines()[1:] == file.read_bytes().splitlines()[1:]
    assert [event.sequence_number for event in store.log()] == list(range(2, 41, 2))
    (next_event,) = store.stream(category="c", stream="1").publish(events=[NewEvent(name="next", payload=1)])
    assert next_event.sequence_number == 41


def test_numbers_are_not_kept_beside_other_events(source: SyncEventStore, other: SyncEventStore) -> None:
    events = [*source.log()]
    other.stream(category="x", stream="1").publish(events=[NewEvent(name="x", payload=1)])

    with pytest.raises(ConfigurationError, match="the store has other events"):
        import_events(other, events, keep_numbers=True)
    with pytest.raises(ConfigurationError, match="only in a store on PostgreSQL or SQLite"):
        import_events(SyncEventStore(SyncInMemoryEventStorageAdapter()), events, keep_numbers=True)


def test_a_stream_that_has_gone_on_refuses_an_import(
    source: SyncEventStore, other: SyncEventStore, command: Command
) -> None:
    events = [*source.log()]
    other.stream(category="a", stream="s/0").publish(events=[NewEvent(name="x", payload=1)])

    with pytest.raises(UnmetWriteConditionError):
        import_events(other, events)
    assert len(other.log().read()) == 1
    moved = StoredEvent(events[0].id, "x", "elsewhere", "a", 0, 1, 1, None, MOMENT, MOMENT)
    import_events(other, [moved])
    with pytest.raises(DuplicateEventError, match="is to be stored in 'a'/'s/0' at position 0"):
        import_events(other, events)


def test_an_import_that_ctrl_c_ends_is_resumed_by_the_same_command(
    command: Command, other: SyncEventStore, tmp_path: Path
) -> None:
    memory = SyncEventStore(SyncInMemoryEventStorageAdapter())
    events = [NewEvent(name="x", payload=number) for number in range(700)]
    memory.stream(category="a", stream="1").publish(events=events)
    file, url = tmp_path / "export.jsonl", f"sqlite:///{tmp_path}/other.db"
    export_events(memory, file)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "eventstore_sa.cli", "import", "-", "--url", url],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    assert process.stderr is not None

    # It waits for more, and has stored a batch.
    process.stdin.writelines(file.read_bytes().splitlines(keepends=True)[:650])
    process.stdin.flush()
    wait_until(lambda: other.log().latest() is not None, "it has stored a batch", interval_s=0.05)
    process.send_signal(signal.SIGINT)

    assert (process.wait(), process.stderr.read()) == (130, b"interrupted: the same command goes on from here\n")
    process.stderr.close()
    process.stdin.close()
    stored = len(other.log().read())
    assert 0 < stored < 700
    assert command("import", str(file), "--url", url).stdout == f"700 events, {700 - stored} of them new\n"
    assert [event.id for event in other.log()] == [event.id for event in events]


@in_turn("part", [0.0, 0.02, 0.3, 0.5, 0.999])
def test_an_export_that_was_interrupted_is_resumed(
    source: SyncEventStore, command: Command, tmp_path: Path, part: float
) -> None:
    whole, file = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    command("export", str(whole))
    content = whole.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])

    assert command("export", str(file)).exit_code == 0

    assert file.read_bytes() == content
    assert command("export", str(file)).exit_code == 0
    assert file.read_bytes() == content


def test_an_export_goes_to_standard_output_and_comes_from_standard_input(
    source: SyncEventStore, command: Command, other: SyncEventStore, tmp_path: Path
) -> None:
    shown = command("export", "--category", "a")

    imported = command("import", "-", "--url", f"sqlite:///{tmp_path}/other.db", input=shown.stdout_bytes)

    assert (imported.stdout, imported.exit_code) == ("20 events, 20 of them new\n", 0)
    assert {event.category for event in other.log()} == {"a"}
    verified = verify_export(io.BytesIO(shown.stdout_bytes))
    lines = shown.stdout_bytes.splitlines(keepends=True)[1:-1]
    assert (verified.events, verified.sha256) == (20, hashlib.sha256(b"".join(lines)).hexdigest())


def changed(content: bytes) -> dict[str, bytes]:
    lines = content.splitlines(keepends=True)
    return {
        "empty": b"",
        "something else": b"hello\nworld\n",
        "another format": content.replace(b'"export":1', b'"export":2', 1),
        "no trailer": b"".join(lines[:-1]),
        "half a line": content[: len(content) // 2],
        "an event less": b"".join([lines[0], *lines[2:]]),
        "an event changed": content.replace(b"event-1", b"event-2", 1),
        "another order": b"".join([lines[0], lines[2], lines[1], *lines[3:]]),
        "more after the trailer": content + lines[1],
        "a line that is no event": b"".join([lines[0], b"{}\n", *lines[1:]]),
    }


def test_what_is_not_what_was_exported_is_refused_as_a_whole(
    source: SyncEventStore, other: SyncEventStore, command: Command, tmp_path: Path
) -> None:
    for kind, content in changed(exported(source)).items():
        file = tmp_path / "changed.jsonl"
        file.write_bytes(content)

        outcome = command("import", str(file), "--url", f"sqlite:///{tmp_path}/other.db")

        assert (outcome.exit_code, outcome.stdout) == (1, ""), kind
        assert "export" in outcome.stderr, kind
        assert other.log().latest() is None, kind
        with pytest.raises(BrokenExportError):
            [*read_export(io.BytesIO(content))]


def test_a_file_that_is_something_else_is_not_overwritten(
    source: SyncEventStore, command: Command, tmp_path: Path
) -> None:
    for content in (b"precious", b"precious\n"):
        file = tmp_path / "file"
        file.write_bytes(content)
        assert command("export", str(file)).exit_code == 1
        assert file.read_bytes() == content
    command("export", str(tmp_path / "a.jsonl"), "--category", "a")
    assert "of category 'a', not of a whole store" in command("export", str(tmp_path / "a.jsonl")).stderr


@in_turn(
    "arguments, code",
    [
        (["import", "missing.jsonl"], 3),
        (["import", "x", "--category", "a"], 2),
        (["import", "sqlite://", "--from", "logicblocks", "--category", "a"], 2),
        (["import", "nonsense", "--from", "logicblocks"], 2),
        (["import", "postgresql+asyncpg://me:secret@host/db", "--from", "logicblocks"], 2),
        (["import", "sqlite://", "--from", "logicblocks"], 2),
        (["export", "--json"], 2),
    ],
)
def test_wrong_calls(command: Command, arguments: list[str], code: int) -> None:
    outcome = command(*arguments)

    assert (outcome.exit_code, outcome.stdout) == (code, "")
    assert "secret" not in outcome.stderr


def test_events_are_imported_from_logicblocks(other: SyncEventStore, command: Command, tmp_path: Path) -> None:
    engine = create_engine(url := f"sqlite:///{tmp_path}/reference.db")
    known = uuid4()
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE events (id text PRIMARY KEY, name text, stream text, category text, position int, "
                "payload text, sequence_number integer, observed_at timestamp, occurred_at timestamp)"
            )
        )
        for number, event_id in enumerate((known.hex, "not-a-uuid"), start=7):
            connection.execute(
                text(
                    "INSERT INTO events VALUES (:id, 'placed', 's', 'c', :position, :payload, :number, "
                    "'2001-02-03 04:05:06.000007', '2001-02-03 04:05:06.000007')"
                ),
                {"id": event_id, "position": number - 7, "payload": '{"total":1}', "number": number},
            )
    engine.dispose()

    outcome = command(
        "import", "--from", "logicblocks", url, "--url", f"sqlite:///{tmp_path}/other.db", "--keep-numbers"
    )

    assert outcome.stdout == "2 events, 2 of them new\n"
    first, second = other.log().read()
    assert first == StoredEvent(known, "placed", "s", "c", 0, 7, {"total": 1}, None, MOMENT, MOMENT)
    assert (second.metadata, second.position, second.sequence_number) == ({"imported_id": "not-a-uuid"}, 1, 8)


def test_events_are_imported_from_eventsourcing(other: SyncEventStore, command: Command, tmp_path: Path) -> None:
    engine = create_engine(url := f"sqlite:///{tmp_path}/sourcing.db")
    state = '{"timestamp":{"_type_":"datetime_iso","_data_":"2001-02-03T04:05:06.000007+00:00"},"name":"Fido"}'
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE stored_events (originator_id TEXT, originator_version INTEGER, topic TEXT, state BLOB, "
                "PRIMARY KEY (originator_id, originator_version))"
            )
        )
        for version, topic in enumerate(("dogs.domain:Dog.Registered", "dogs.domain:Dog.Renamed"), start=1):
            connection.execute(
                text("INSERT INTO stored_events VALUES ('one', :version, :topic, CAST(:state AS BLOB))"),
                {"version": version, "topic": topic, "state": state},
            )
    arguments = ("import", "--from", "eventsourcing", url, "--url", f"sqlite:///{tmp_path}/other.db")

    assert command(*arguments).stdout == "2 events, 2 of them new\n"
    assert command(*arguments).stdout == "2 events, 0 of them new\n"

    first, second = other.log().read()
    assert (first.category, first.stream, first.position, first.name) == ("Dog", "one", 0, "Registered")
    assert (first.payload, first.metadata) == ({"name": "Fido"}, {"topic": "dogs.domain:Dog.Registered"})
    assert (first.observed_at, second.name, second.position) == (MOMENT, "Renamed", 1)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO stored_events VALUES ('one', 3, 'dogs.domain:Dog.Died', x'1f8b')"))
    outcome = command(*arguments)
    assert (outcome.exit_code, "event 3 of the other store" in outcome.stderr) == (1, True)
    engine.dispose()


def test_events_are_imported_from_message_db(
    make_postgres_database: Callable[..., PostgresDatabase], other: SyncEventStore
) -> None:
    engine = create_engine(make_postgres_database().url("psycopg"))
    with engine.begin() as connection:
        for statement in MESSAGE_DB.split(";"):
            connection.execute(text(statement))

    import_events(other, foreign_events(engine, "message-db"))

    first, second, third = other.log().read()
    assert (first.category, first.stream, first.name, first.payload) == ("account", "1-2", "Opened", {"a": 1})
    assert (second.category, second.stream, second.payload, second.metadata) == (
        "account:command",
        "account:command",
        None,
        {"b": 2},
    )
    assert {event.observed_at for event in (first, second)} == {MOMENT}
    with engine.connect() as connection:
        now = connection.execute(text("SELECT time AT TIME ZONE 'utc' FROM message_store.messages WHERE position = 1"))
        assert (third.position, third.observed_at, third.payload) == (1, now.scalar_one(), None)
    engine.dispose()


@pytest.mark.long
def test_events_that_eventsourcing_has_stored_are_imported(
    other: SyncEventStore, tmp_path: Path, make_postgres_database: Callable[..., PostgresDatabase]
) -> None:
    domain = pytest.importorskip("eventsourcing.domain")
    application = pytest.importorskip("eventsourcing.application")

    class Dog(domain.Aggregate):  # type: ignore[name-defined, misc]
        @domain.event("Registered")
        def __init__(self, name: str) -> None:
            self.name = name

        @domain.event("TrickAdded")
        def add_trick(self, trick: str) -> None:
            self.trick = trick

    postgres = make_postgres_database().url("psycopg")
    environments = {
        f"sqlite:///{tmp_path}/dogs.db": {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": f"{tmp_path}/dogs.db",
        },
        postgres.render_as_string(hide_password=False): {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": str(postgres.database),
            "POSTGRES_HOST": str(postgres.host or postgres.query.get("host", "")),
            "POSTGRES_PORT": str(postgres.port or 5432),
            "POSTGRES_USER": str(postgres.username),
            "POSTGRES_PASSWORD": str(postgres.password or ""),
        },
    }
    for url, environment in environments.items():
        dogs = application.Application(env=environment)
        dog = Dog("Fido")
        dog.add_trick("roll over")
        dogs.save(dog)
        dogs.close()
        engine = create_engine(url)
        import_events(other, foreign_events(engine, "eventsourcing", category="dogs"))
        engine.dispose()
        stored = other.stream(category="dogs", stream=str(dog.id)).read()
        assert [event.name for event in stored] == ["Registered", "TrickAdded"]
        assert stored[1].payload == {"trick": "roll over"}


@pytest.mark.long
async def test_events_that_logicblocks_has_stored_are_imported(
    other: SyncEventStore, make_postgres_database: Callable[..., PostgresDatabase]
) -> None:
    store_of = pytest.importorskip("logicblocks.event.store")
    adapters = pytest.importorskip("logicblocks.event.store.adapters")
    types = pytest.importorskip("logicblocks.event.types")
    pool_of = pytest.importorskip("psycopg_pool")
    url = make_postgres_database().url("psycopg")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE events (id text PRIMARY KEY, name text NOT NULL, stream text NOT NULL, "
                "category text NOT NULL, position int NOT NULL, payload jsonb NOT NULL, sequence_number bigserial NOT NULL, "
                "observed_at timestamptz NOT NULL, occurred_at timestamptz NOT NULL)"
            )
        )
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    async with pool_of.AsyncConnectionPool(dsn, open=False) as pool:
        reference = store_of.EventStore(adapters.PostgresEventStorageAdapter(connection_source=pool))
        await reference.stream(category="orders", stream="1").publish(
            events=[types.NewEvent(name="placed", payload={"total": number}) for number in range(3)]
        )

    import_events(other, foreign_events(engine, "logicblocks"))

    stored = other.stream(category="orders", stream="1").read()
    assert [event.payload for event in stored] == [{"total": number} for number in range(3)]
    engine.dispose()

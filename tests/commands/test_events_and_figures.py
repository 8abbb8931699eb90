"""The commands that show events, and figures about the store."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from eventstore_sa import NewEvent, StoredEvent, SyncEventStore, event_metadata
from eventstore_sa.testing.cases.tables import in_turn
from tests.commands.conftest import Command, each_kind_of_driver
from tests.patience import PATIENCE_S, wait_until
from tests.preloaded import start_preloaded
from tests.project import ROOT

PROGRAM = ("-m", "eventstore_sa.cli")
HOSTILE = "\x1b]0;owned\x07\x1b[31m\x9b1m\u202ered\u2066\r"


def publish(store: SyncEventStore, name: str, stream: str = "orders/1", **fields: Any) -> StoredEvent[Any, Any, Any]:
    category, _, name_of_stream = stream.partition("/")
    payload = fields.pop("payload", {"total": 12})
    (event,) = store.stream(category=category, stream=name_of_stream).publish(
        events=[NewEvent(name=name, payload=payload, **fields)]
    )
    return event


def names(output: str) -> list[str]:
    return [json.loads(line)["name"] for line in output.splitlines()]


@each_kind_of_driver()
def test_everything_is_shown_on_each_kind_of_driver(store: SyncEventStore, command: Command) -> None:
    placed = publish(store, "placed")
    with event_metadata(caused_by=placed):
        billed = publish(store, "billed", "bills/ü", tags=["t:1"])

    assert names(command("tail", "--json").stdout) == ["placed", "billed"]
    assert names(command("tail", "--json", "--since", "1h", "--category", "bills").stdout) == ["billed"]
    assert "bills/ü@0  billed" in command("tail", "--tag", "t:1", "--name", "billed").stdout
    assert json.loads(command("show", str(billed.id), "--json").stdout) == billed.serialise()
    assert f"{placed.id}" in command("show", "1").stdout
    assert names(command("stream", "bills/ü", "--json").stdout) == ["billed"]
    traced = command("trace", str(placed.id)).stdout.splitlines()
    assert ("placed" in traced[0], traced[1].startswith("  2  "), len(traced)) == (True, True, 2)
    assert command("trace", str(billed.id)).stdout.splitlines() == traced
    assert [json.loads(line)["category"] for line in command("categories", "--json").stdout.splitlines()] == [
        "bills",
        "orders",
    ]
    assert "orders    1            1  placed" in command("streams").stdout
    assert json.loads(command("stats", "--json").stdout)["last_sequence_number"] == 2
    assert "2 events" in command("stats", "--exact").stdout
    assert json.loads(command("watermark", "--json").stdout) == {
        "sequence_number": 2,
        "last_number": 2,
        "holders": [],
    }


def test_tail_prints_the_last_events_that_are_asked_for(store: SyncEventStore, command: Command) -> None:
    for number in range(12):
        publish(store, f"event-{number}", f"{'ab'[number % 2]}/1", tags=[f"third:{number % 3}"])

    assert names(command("tail", "--json").stdout) == [f"event-{number}" for number in range(2, 12)]
    assert names(command("tail", "--json", "-n", "2").stdout) == ["event-10", "event-11"]
    assert command("tail", "-n", "0").stdout == ""
    assert names(command("tail", "--json", "--category", "a", "-n", "1").stdout) == ["event-10"]
    assert names(command("tail", "--json", "--category", "a", "--tag", "third:0").stdout) == ["event-0", "event-6"]
    assert names(command("tail", "--json", "--name", "event-1", "--name", "event-3").stdout) == ["event-1", "event-3"]
    assert names(command("tail", "--json", "--since", "2001-01-01").stdout) == [f"event-{n}" for n in range(12)]
    assert command("tail", "--since", "2999-01-01").stdout == ""


def test_names_with_slashes_are_found(store: SyncEventStore, command: Command) -> None:
    store.stream(category="a/b", stream="c/d").publish(events=[NewEvent(name="x", payload=1)])

    assert names(command("stream", "a/b/c/d", "--json").stdout) == ["x"]


def test_a_trace_that_causes_itself_ends(store: SyncEventStore, command: Command) -> None:
    first, second, alone = (NewEvent(name=name, payload=1) for name in ("a", "b", "c"))
    for event, cause in ((first, second), (second, first), (alone, alone)):
        metadata = {"correlation_id": "x", "causation_id": str(cause.id)}
        publish(store, event.name, id=event.id, metadata=metadata)

    assert len(command("trace", "x").stdout.splitlines()) == 3
    assert "may be more" in command("trace", "x", "--limit", "1").stderr


def test_pages_of_names_go_on_where_the_last_one_ended(store: SyncEventStore, command: Command) -> None:
    for stream in ("a/1", "a/2", "b/1"):
        publish(store, "x", stream)

    assert "There may be more" in command("categories", "-n", "1").stderr
    assert json.loads(command("categories", "-n", "1", "--after", "a", "--json").stdout)["category"] == "b"
    assert json.loads(command("streams", "--category", "a", "--after", "1", "--json").stdout)["stream"] == "2"
    assert len(command("streams", "--json", "-n", "2").stdout.splitlines()) == 2
    assert command("streams", "--after", "1").exit_code == 2


@in_turn(
    "arguments, code",
    [
        (["show", "77"], 1),
        (["show", "0b4a3ff4-5ff1-4b0b-b4d0-a6f4b3f6a9b7"], 1),
        (["show", "nonsense"], 2),
        (["show", "9" * 40], 1),
        (["stream", "orders/unknown"], 1),
        (["stream", "orders"], 2),
        (["stream", "orders/" + "x" * 2000], 2),
        (["trace", "unknown"], 1),
        (["trace", "a\ud800"], 1),
        (["tail", "--since", "yesterday"], 2),
        (["tail", "--since", "9999999999999999w"], 2),
        (["tail", "--category", ""], 2),
        (["tail", "--url", "nonsense"], 2),
        (["tail", "--url", "os:path"], 2),
        (["tail", "--url", "nonsense://secret@host/db"], 2),
        (["tail", "--url", "postgresql+psycopg://me:secret@127.0.0.1:1/nowhere"], 3),
        (["tail", "--url", "postgresql+asyncpg://me:secret@127.0.0.1:1/nowhere"], 3),
        (["tail", "--url", "sqlite:///does-not-exist.db"], 3),
        (["tail", "--url", "sqlite://"], 1),
        (["tail", "--prefix", "other_"], 1),
    ],
)
def test_exit_codes(command: Command, arguments: list[str], code: int) -> None:
    outcome = command(*arguments)

    assert (outcome.exit_code, outcome.stdout) == (code, "")
    assert outcome.stderr
    assert "secret" not in outcome.output
    assert not Path("does-not-exist.db").exists()


@in_turn("name", ["engine", "async_engine", "store", "async_store"])
def test_the_store_of_an_application_is_found(
    store: SyncEventStore, command: Command, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    publish(store, "placed")
    program = f"""
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from eventstore_sa import EventStore, SyncEventStore
engine = create_engine({url!r})
async_engine = create_async_engine({url.replace("sqlite:", "sqlite+aiosqlite:")!r})
store, async_store = SyncEventStore(engine), EventStore(async_engine)
"""
    (tmp_path / "app_of_commands.py").write_text(program)
    monkeypatch.chdir(tmp_path)

    assert names(command("tail", "--json", "--url", f"app_of_commands:{name}").stdout)[:1] == ["placed"]


def test_what_is_stored_cannot_steer_a_terminal(store: SyncEventStore, command: Command, url: str) -> None:
    event = publish(
        store, HOSTILE, f"{HOSTILE}/{HOSTILE}", payload={HOSTILE: HOSTILE}, metadata={"correlation_id": "x"}
    )
    commands = ["tail", "categories", "streams", "stats", f"show {event.id}", "trace x", f"stream {HOSTILE}/{HOSTILE}"]

    for line in commands:
        outcome = command(*line.split(" "))
        assert outcome.exit_code == 0, line
        assert {each for each in outcome.output if not each.isprintable()} <= {"\n"}, line
    # On a pipe, JSON is exact.
    assert json.loads(command("tail", "--json").stdout)["name"] == HOSTILE


def on_terminal(url: str, *arguments: str, **environment: str) -> str:
    """Run a command at a terminal that is 60 columns wide; return what it shows."""
    terminal, end = pty.openpty()
    variables = {"PYTHONPATH": str(ROOT), "EVENTSTORE_SA_URL": url, "COLUMNS": "60", "TERM": "xterm"}
    with os.fdopen(end, "r+b", buffering=0) as file:
        process = start_preloaded(
            *PROGRAM, *arguments, environment=variables | environment, stdin=file, stdout=file, stderr=file
        )
    shown = b""
    try:
        while block := os.read(terminal, 65536):
            shown += block
    except OSError:
        # So Linux says that the other end is closed.
        pass
    os.close(terminal)
    assert process.wait() == 0, shown
    return shown.decode(errors="surrogateescape")


def test_a_terminal_gets_colours_and_lines_that_fit(store: SyncEventStore, url: str) -> None:
    publish(store, "placed", payload={"text": HOSTILE + "日本" * 100_000})

    coloured = on_terminal(url, "tail")
    plain = on_terminal(url, "tail", NO_COLOR="1", PYTHONIOENCODING="latin-1")
    as_json = on_terminal(url, "tail", "--json")

    assert "\x1b[33m1\x1b[0m" in coloured
    assert "\x1b" not in plain
    assert len(plain.strip()) < 120
    assert "\x1b" not in as_json
    assert json.loads(as_json)["payload"]["text"].startswith(HOSTILE)


def test_a_closed_pipe_ends_a_command_silently(store: SyncEventStore, url: str) -> None:
    store.stream(category="a", stream="1").publish(
        events=[NewEvent(name="x" * 200, payload="y" * 2000) for _ in range(200)]
    )
    environment = {"PYTHONPATH": str(ROOT), "EVENTSTORE_SA_URL": url}
    process = start_preloaded(
        *PROGRAM, "tail", "-n", "200", environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None

    process.stdout.readline()
    process.stdout.close()

    assert (process.stderr.read(), process.wait()) == ("", 141)
    process.stderr.close()


@pytest.mark.parametrize("url", ["sqlite+aiosqlite", "postgresql+psycopg", "postgresql+asyncpg"], indirect=True)
def test_tail_follows_until_it_is_interrupted(store: SyncEventStore, url: str, tmp_path: Path) -> None:
    publish(store, "before")
    output = tmp_path / "output"
    environment = {"PYTHONPATH": str(ROOT), "EVENTSTORE_SA_URL": url}
    with output.open("w") as file:
        process = start_preloaded(
            *PROGRAM, "tail", "-f", "--json", "--interval", "0.05", environment=environment, stdout=file, stderr=file
        )
        wait_until(lambda: names(output.read_text()) == ["before"], "it has started", interval_s=0.05)
        for number in range(3):
            publish(store, f"event-{number}")
        wait_until(lambda: len(output.read_text().splitlines()) == 4, "it has followed", interval_s=0.05)

        process.send_signal(signal.SIGINT)

        assert process.wait(PATIENCE_S) == 130
    assert names(output.read_text()) == ["before", "event-0", "event-1", "event-2"]

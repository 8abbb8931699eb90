"""The commands about subscriptions."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import NullPool, create_engine, text

from eventstore_sa import NewEvent, SyncEventStore
from eventstore_sa.cli import main
from eventstore_sa.subscriptions import FailurePolicy, SyncSubscription, catch_up_sync
from tests.integration import markdown
from tests.patience import wait_until
from tests.preloaded import run_preloaded, start_preloaded
from tests.project import ROOT

APPLICATION = """
import logging
from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker
from eventstore_sa import SyncEventStore, configure_sqlite
from eventstore_sa.subscriptions import SyncSubscription

engine = create_engine("sqlite:///events.db")
configure_sqlite(engine)

def handle(event, session):
    session.execute(text("INSERT INTO effects (number) VALUES (:number)"), {"number": event.sequence_number})

all = [SyncSubscription("billing", SyncEventStore(engine).log(), handle, sessions=sessionmaker(engine))]
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "subscribing_app.py").write_text(APPLICATION)
    with SyncEventStore("sqlite:///events.db") as store:
        store.create_schema()
        yield store


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def poisoned(store: SyncEventStore) -> None:
    """Have a subscription park an event."""
    store.stream(category="orders", stream="1").publish(events=[NewEvent(name="placed", payload=1)])

    def handle(event: Any) -> None:
        raise ValueError("poison")

    catch_up_sync(SyncSubscription("billing", store.log(), handle, on_failure=FailurePolicy(retries=0, then="park")))


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_subscriptions_are_listed_and_steered(store: SyncEventStore, driver: str) -> None:
    url = f"{driver}:///events.db"
    assert command("subscriptions", "pause", url, "billing").exit_code == 1
    poisoned(store)

    for action, state in (("pause", "paused"), ("resume", "running")):
        assert command("subscriptions", action, url, "billing").exit_code == 0
        listed = json.loads(command("subscriptions", "list", url, "--json").stdout)
        assert (listed["subscription"], listed["state"], listed["sequence_number"]) == ("billing", state, 1)
    (parked,) = command("subscriptions", "parked", url, "billing", "--json").stdout.splitlines()
    assert json.loads(parked)["error"] == "ValueError: poison"
    assert "state=parked" in command("subscriptions", "parked", url, "billing").stdout
    assert command("subscriptions", "rewind", url, "billing", "--to", "7").exit_code == 2
    assert command("subscriptions", "rewind", url, "billing").exit_code == 0
    assert "sequence_number=0" in command("subscriptions", "list", url).stdout


def test_url_is_an_option_a_variable_an_object_or_the_first_argument(
    store: SyncEventStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    url = "sqlite:///events.db"
    poisoned(store)
    environment = CliRunner(env={"EVENTSTORE_SA_URL": url})

    def state() -> str:
        return str(json.loads(command("subscriptions", "list", "--url", url, "--json").stdout)["state"])

    for name, expected in (("pause", "paused"), ("resume", "running")) * 2:
        assert environment.invoke(main, ["subscriptions", name, "billing"]).exit_code == 0
        assert state() == expected
    assert command("subscriptions", "pause", "billing", "-u", "subscribing_app:engine").exit_code == 0
    assert state() == "paused"
    assert command("subscriptions", "resume", "subscribing_app:engine", "billing").exit_code == 0
    assert state() == "running"
    assert environment.invoke(main, ["subscriptions", "discard", "billing", "1"]).exit_code == 0
    assert environment.invoke(main, ["subscriptions", "pause", "sqlite:///none.db", "billing"]).exit_code == 3
    twice = command("subscriptions", "pause", url, "billing", "--url", url)
    assert (twice.exit_code, "give the URL once" in twice.stderr) == (2, True)
    assert command("subscriptions", "pause", url, "shop", "billing").exit_code == 2
    nowhere = command("subscriptions", "pause", "billing")
    assert (nowhere.exit_code, "EVENTSTORE_SA_URL" in nowhere.stderr) == (2, True)
    sys.modules.pop("subscribing_app").engine.dispose()


def test_what_handlers_raised_cannot_steer_a_terminal(store: SyncEventStore) -> None:
    store.stream(category="orders", stream="1").publish(events=[NewEvent(name="placed", payload=1)])

    def handle(event: Any) -> None:
        raise ValueError("\x1b[2J")

    catch_up_sync(SyncSubscription("billing", store.log(), handle, on_failure=FailurePolicy(retries=0, then="park")))

    printed = command("subscriptions", "parked", "sqlite:///events.db", "billing").stdout
    assert r"\x1b[2J" in printed
    assert "\x1b" not in printed


def test_events_are_skipped_and_discarded(store: SyncEventStore) -> None:
    url = "sqlite:///events.db"
    poisoned(store)
    store.stream(category="orders", stream="2").publish(
        events=[NewEvent(name="placed", payload=number) for number in range(3)]
    )
    (parked,) = store.adapter.subscription_storage().parked_events("billing")

    assert command("subscriptions", "discard", url, "billing", "7").exit_code == 1
    assert command("subscriptions", "discard", url, "billing", str(parked.sequence_number)).exit_code == 0
    assert command("subscriptions", "parked", url, "billing").stdout == ""

    def skipped(*arguments: str) -> tuple[int, int]:
        code = command("subscriptions", "skip", url, "billing", *arguments).exit_code
        return code, json.loads(command("subscriptions", "list", url, "--json").stdout)["sequence_number"]

    assert skipped("--to", "5") == (2, 1)
    assert skipped("--to", "2") == (0, 2)
    assert skipped("--to", "1") == (2, 2)
    assert skipped() == (0, 4)
    assert command("subscriptions", "skip", url, "unknown").exit_code == 1


def test_a_command_catches_up_and_shows_how_far_it_is(
    store: SyncEventStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    engine = create_engine("sqlite:///events.db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE effects (number int)"))
    store.stream(category="orders", stream="1").publish(events=[NewEvent(name="placed", payload=1)])
    application = "subscribing_app:all"

    shown = command("subscriptions", "catch-up", application, "billing")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "catching up" in shown.stderr
    quiet = command("subscriptions", "catch-up", application, "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")
    assert command("subscriptions", "catch-up", application, "unknown").exit_code == 2
    command("subscriptions", "pause", "sqlite:///events.db", "billing")
    store.stream(category="orders", stream="1").publish(events=[NewEvent(name="placed", payload=1)])
    paused = command("subscriptions", "catch-up", application)
    assert (paused.exit_code, "is paused" in paused.stderr) == (1, True)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT number FROM effects")).scalar_one() == 1
    engine.dispose()
    del sys.modules["subscribing_app"]


def test_what_cannot_be_reached_or_imported_is_said(store: SyncEventStore) -> None:
    assert command("subscriptions", "list", "sqlite:///nowhere/at/all.db").exit_code == 3
    assert command("subscriptions", "list", "nonsense").exit_code == 2
    assert "cannot be imported" in command("run", "nowhere:all").stderr
    assert "is not a subscription" in command("run", "os:path").stderr


def test_the_worker_of_the_documentation_works(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "subscriptions.md").read_text(encoding="utf-8")
    for name, code in markdown.files(page).items():
        (tmp_path / name).write_text(code)
    order, run, listing = re.findall(r"^(?:python|eventstore-sa) [^#\n]+", page, re.MULTILINE)

    def program(command: str) -> tuple[str, ...]:
        name, *arguments = command.split()
        return ("-m", "eventstore_sa.cli", *arguments) if name == "eventstore-sa" else tuple(arguments)

    def said(command: str) -> str:
        outcome = run_preloaded(*program(command), cwd=tmp_path)
        assert (outcome.returncode, outcome.stderr) == (0, "")
        return outcome.stdout

    def bills() -> int:
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM bills")).scalar_one())

    engine = create_engine(f"sqlite:///{tmp_path}/shop.db", poolclass=NullPool)
    said(order)
    worker = start_preloaded(*program(run), cwd=tmp_path)
    said(order)
    wait_until(lambda: bills() == 2, "both orders are billed", interval_s=0.1)
    assert "subscription=billing" in said(listing)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_worker_runs_an_application_until_it_is_told_to_end(store: SyncEventStore) -> None:
    engine = create_engine("sqlite:///events.db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE effects (number int)"))
    poisoned(store)
    here = Path.cwd()

    replayed = run_preloaded(
        "-m", "eventstore_sa.cli", "subscriptions", "replay", "subscribing_app:all", "billing", cwd=here
    )
    assert (replayed.stdout, replayed.stderr) == ("1 events handled\n", "")

    store.stream(category="orders", stream="1").publish(events=[NewEvent(name="placed", payload=1)])
    with (here / "worker.log").open("w") as log:
        worker = start_preloaded("-m", "eventstore_sa.cli", "run", "subscribing_app:all", cwd=here, stderr=log)

    def handled() -> list[int]:
        with engine.connect() as connection:
            return list(connection.scalars(text("SELECT number FROM effects")))

    wait_until(lambda: handled() == [1, 2], "the worker has handled it", interval_s=0.05)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert (here / "worker.log").read_text().startswith("running billing")
    engine.dispose()

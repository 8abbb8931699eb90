"""The commands about stored projections, and the completion of commands in shells."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from eventstore_sa import NewEvent, SyncEventStore
from eventstore_sa.cli import main
from eventstore_sa.testing.cases.tables import in_turn
from tests.commands.conftest import Command, each_kind_of_driver

APPLICATION = """
from typing import Any
from sqlalchemy.orm import Session
from eventstore_sa import Projector
from eventstore_sa.projection import project
from eventstore_sa.types import StreamIdentifier

class Orders(Projector[StreamIdentifier, dict, dict]):
    name = "orders"

    def initial_state_factory(self) -> dict:
        return {"placed": 0}

    def initial_metadata_factory(self) -> dict:
        return {}

    def id_factory(self, state: Any, source: Any) -> str:
        return source.stream

    def placed(self, state: dict, event: Any) -> dict:
        return {"placed": state["placed"] + 1}

@project(Session)
class Rows:
    def placed(self, session: Session, event: Any) -> None: ...

rows = Rows()
"""


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"projecting_app_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


@each_kind_of_driver()
def test_projections_are_rebuilt_and_listed(store: SyncEventStore, command: Command, application: str) -> None:
    for stream in ("1", "2", "1"):
        store.stream(category="orders", stream=stream).publish(events=[NewEvent(name="placed", payload=1)])
    assert command("projections", "list", "--json").stdout == ""

    rebuilt = command("projections", "rebuild", f"{application}:Orders", "--category", "orders")

    assert (rebuilt.stdout, rebuilt.exit_code) == ("2 projections\n", 0)
    assert json.loads(command("projections", "list", "--json").stdout) == {
        "name": "orders",
        "projections": 2,
        "last_sequence_number": 3,
        "rebuilt_up_to": None,
    }
    assert "orders           2           3              -" in command("projections", "list").stdout


@in_turn("where", ["nowhere:Orders", "os:path"])
def test_what_is_no_projector_is_refused(command: Command, where: str) -> None:
    assert command("projections", "rebuild", where).exit_code == 2


@in_turn("name", ["Rows", "rows"])
def test_table_projection_is_refused_with_the_way_to_rebuild_its_rows(
    command: Command, application: str, name: str
) -> None:
    refused = command("projections", "rebuild", f"{application}:{name}")

    assert refused.exit_code == 2
    assert "table projection" in refused.stderr
    assert "apply all events" in refused.stderr


@in_turn("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(command: Command, shell: str) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        return
    script = command("completion", shell).stdout

    assert "_EVENTSTORE_SA_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_commands_are_completed_without_importing_them() -> None:
    found = BashComplete(main, {}, "eventstore-sa", "_EVENTSTORE_SA_COMPLETE").get_completions([], "st")

    assert [item.value for item in found] == ["stats", "stream", "streams"]
    assert all(item.help for item in found)
    options = BashComplete(main, {}, "eventstore-sa", "_EVENTSTORE_SA_COMPLETE").get_completions(["tail"], "--f")
    assert [item.value for item in options] == ["--follow"]

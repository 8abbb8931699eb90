"""`eventstore-sa browse`: it serves the pages on this machine, and refuses what would show them to others."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import httpx
import pytest
from click.testing import CliRunner

from eventstore_sa import NewEvent, SyncEventStore
from eventstore_sa.cli import main
from eventstore_sa.testing.cases.tables import in_turn
from tests.patience import PATIENCE_S
from tests.preloaded import start_preloaded


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = f"{tmp_path}/shop.db"
    with SyncEventStore(f"sqlite:///{path}") as store:
        store.create_schema()
        store.stream(category="orders", stream="1").publish(events=[NewEvent(name="placed", payload={"pin": "1234"})])
    return path


@contextmanager
def served(*arguments: str, **environment: str) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = ["-m", "eventstore_sa.cli", "browse", *arguments, "--port", str(port)]
    with TemporaryFile("w+") as errors:
        process = start_preloaded(*command, environment=environment, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        with process.stdout as output:
            try:
                line = output.readline()
                assert f"http://127.0.0.1:{port}/" in line, line + said_in(errors)
                yield f"http://127.0.0.1:{port}"
                process.send_signal(signal.SIGINT)
                rest = output.read() + said_in(errors)
                assert "Traceback" not in rest, rest
                assert process.wait(PATIENCE_S) in (0, 130, -signal.SIGINT), rest
            finally:
                process.kill()
                process.wait(PATIENCE_S)


def said_in(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


@in_turn("driver", ["sqlite+aiosqlite", "sqlite"])
def test_pages_are_served_with_each_kind_of_driver(driver: str, database: str) -> None:
    with served(f"{driver}:///{database}", "--redact", "pin") as address:
        with httpx.Client(base_url=address, transport=httpx.HTTPTransport(retries=20)) as client:
            page = client.get("/event/1")
            elsewhere = client.get("/", headers={"host": "attacker.example"})
            other = client.post("/")
        assert (page.status_code, elsewhere.status_code, other.status_code) == (200, 421, 405)
        assert "[hidden]" in page.text
        assert "1234" not in page.text


@in_turn("kind", ["create_async_engine('sqlite+aiosqlite", "create_engine('sqlite"])
def test_a_store_of_the_application_is_served(kind: str, database: str, tmp_path: Path) -> None:
    face = "EventStore" if "async" in kind else "SyncEventStore"
    name = face.lower() + "_to_browse"
    (tmp_path / f"{name}.py").write_text(
        "from eventstore_sa import EventStore, SyncEventStore\n"
        "from sqlalchemy import create_engine\n"
        "from sqlalchemy.ext.asyncio import create_async_engine\n"
        f"store = {face}({kind}:///{database}'))\n"
    )
    transport = httpx.HTTPTransport(retries=20)
    with (
        served(EVENTSTORE_SA_URL=f"{name}:store", PYTHONPATH=str(tmp_path)) as address,
        httpx.Client(base_url=address, transport=transport) as client,
    ):
        assert client.get("/event/1").status_code == 200


def test_a_password_is_asked_for_if_one_is_set(database: str) -> None:
    with served(f"sqlite+aiosqlite:///{database}", EVENTSTORE_SA_BROWSE_AUTH="ada:machine\n") as address:
        transport = httpx.HTTPTransport(retries=20)
        with httpx.Client(base_url=address, transport=transport) as client:
            assert client.get("/").status_code == 401
            assert client.get("/", auth=("ada", "machine")).status_code == 200


REFUSED: dict[str, tuple[list[str], str]] = {
    "an address for others": (["sqlite://", "--host", "0.0.0.0"], "can be reached from other machines"),
    "a name for others": (["sqlite://", "--host", "shop.example"], "can be reached from other machines"),
    "no URL": (["shop"], "or a URL such as"),
    "a URL with a typo": (["postgresql:/ada:secret@host/shop"], "not a valid SQLAlchemy URL"),
    "no place": ([], "EVENTSTORE_SA_URL"),
    "a locking that is none": (["sqlite://", "--locking", "hope"], "locking"),
    "a projector that is none": (["sqlite://", "--projectors", "os:path"], "projectors of a browser are Projectors"),
    "types that are none": (["sqlite://", "--types", "os:path"], "types are EventTypes"),
    "a module that is none": (["sqlite://", "--projectors", "nowhere:x"], "cannot be imported"),
}


@in_turn("case", REFUSED)
def test_what_cannot_be_served_is_refused(case: Any) -> None:
    arguments, message = case

    outcome = CliRunner().invoke(main, ["browse", *arguments])

    assert outcome.exit_code == 2, outcome.output
    assert message in " ".join(outcome.output.split())


def test_a_file_without_passwords_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "users"
    for text, message in (("ada", "written as name:password"), ("ada:", "written as"), ("\n", "other machines")):
        file.write_text(text)

        outcome = CliRunner().invoke(main, ["browse", "sqlite://", "--host", "0.0.0.0", "--auth-file", str(file)])

        assert (outcome.exit_code, message in outcome.output) == (2, True), outcome.output


def test_a_sqlite_file_that_is_missing_is_not_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore_sa.cli.browse._serve_in_threads", lambda *_: None)

    outcome = CliRunner().invoke(main, ["browse", f"sqlite:///{tmp_path}/none.db"])

    assert (outcome.exit_code, "there is no file" in outcome.output) == (3, True), outcome.output
    assert not (tmp_path / "none.db").exists()

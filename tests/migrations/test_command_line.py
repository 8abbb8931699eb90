"""The command line: SQL to migrate and repair without Alembic, and the check, with its exit codes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, NullPool, create_engine, text

from eventstore_sa import EventStoreSchema, SyncEventStore
from eventstore_sa.cli import main
from eventstore_sa.testing.cases.tables import in_turn
from tests.databases import PostgresDatabase
from tests.migrations import next_version
from tests.migrations.structure import structure_of
from tests.preloaded import run_preloaded
from tests.project import run_python


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(
    request: pytest.FixtureRequest, make_postgres_database: Callable[..., PostgresDatabase], tmp_path: Path
) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/events.db", poolclass=NullPool)
        (tmp_path / "events.db").touch()
    else:
        engine = create_engine(make_postgres_database().url("psycopg"), poolclass=NullPool)
    yield engine
    engine.dispose()


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["schema", *arguments])


def check(engine: Engine, *options: str) -> Result:
    return command("check", engine.url.render_as_string(hide_password=False), *options)


def execute_script(engine: Engine, script: str) -> None:
    """Execute a script as the database's own console does."""
    pooled = engine.raw_connection()
    connection: Any = pooled.driver_connection
    if engine.dialect.name == "sqlite":
        connection.executescript(script)
    else:
        connection.autocommit = True
        for piece in re.split(r"(?<=^COMMIT;)\n\n|\n\n(?=BEGIN;$)", script, flags=re.MULTILINE):
            connection.execute(piece)
    pooled.close()


def test_printed_sql_makes_what_create_all_makes(engine: Engine) -> None:
    printed = command("sql", "--dialect", engine.dialect.name)
    assert printed.exit_code == 0
    EventStoreSchema().metadata.create_all(engine)
    created = structure_of(engine)
    EventStoreSchema().metadata.drop_all(engine)

    execute_script(engine, printed.output)

    assert structure_of(engine) == created
    assert check(engine).exit_code == 0


def test_printed_sql_leads_up_and_down(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    EventStoreSchema().metadata.create_all(engine)
    before = structure_of(engine)
    next_version.install(monkeypatch)

    up = command("sql", "--from", "1", "--to", "3", "--dialect", engine.dialect.name).output
    down = command("sql", "--from", "3", "--to", "1", "--dialect", engine.dialect.name).output
    execute_script(engine, up)
    assert structure_of(engine)["rows of es_schema"] == [(3,)]
    execute_script(engine, down)

    assert structure_of(engine) == before
    assert "-- To version 3. Locks: Nothing: the index is built while writers run." in up


def test_how_writers_lock_is_printed_and_checked(engine: Engine) -> None:
    locking = ["--locking", "row/category"]

    execute_script(engine, command("sql", "--dialect", engine.dialect.name, *locking).output)

    assert check(engine, *locking).exit_code == 0
    assert "it records locking 'row/category'" in check(engine).stderr


def test_check_names_what_is_missing_and_exits_with_one(engine: Engine) -> None:
    outcome = check(engine)

    assert outcome.exit_code == 1
    assert f"{names_of(EventStoreSchema())} are missing" in outcome.stderr
    assert outcome.stdout == ""


def test_check_speaks_json_to_scripts(engine: Engine) -> None:
    missing = json.loads(check(engine, "--json").stdout)
    EventStoreSchema().metadata.create_all(engine)

    assert (missing["ok"], missing["version"]) == (False, 1)
    assert "are missing" in missing["problem"]
    assert json.loads(check(engine, "--json").stdout) == {"ok": True, "version": 1, "problem": None}


def test_repair_prints_what_check_asks_for(engine: Engine) -> None:
    EventStoreSchema().metadata.create_all(engine)
    whole = structure_of(engine)
    trigger = "es_events_forbid_delete" if engine.dialect.name == "sqlite" else "es_events_fence ON es_events"
    with engine.begin() as connection:
        connection.execute(text(f"DROP TRIGGER {trigger}"))
    assert f"`eventstore-sa schema repair --dialect {engine.dialect.name}`" in check(engine).stderr

    execute_script(engine, command("repair", "--dialect", engine.dialect.name).output)

    assert structure_of(engine) == whole


@pytest.mark.parametrize("driver", ["sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg2"])
def test_check_takes_any_driver(driver: str, postgres_url: Callable[..., object], tmp_path: Path) -> None:
    url = f"{driver}:///{tmp_path}/events.db" if driver.startswith("sqlite") else str(postgres_url(driver[11:]))

    (tmp_path / "events.db").touch()

    outcome = command("check", url, "--prefix", "audit_")

    assert outcome.exit_code == 1
    assert f"{names_of(EventStoreSchema(prefix='audit_'))} are missing" in outcome.stderr


@in_turn(
    "arguments",
    [
        ["sql", "--to", "99", "--dialect", "sqlite"],
        ["sql", "--dialect", "oracle"],
        ["sql", "--dialect", "mariadb"],
        ["sql", "--dialect", "postgresql", "--locking", "row"],
        ["check", "secret@nonsense"],
        ["check", "sqlite://", "--prefix", "p" * 40],
        ["check", "nonsense+driver://secret@host"],
    ],
)
def test_wrong_calls_exit_with_two(arguments: list[str]) -> None:
    outcome = command(*arguments)

    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("Usage:")
    assert "secret" not in outcome.output


def test_check_takes_the_url_as_other_commands_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    url = f"sqlite:///{tmp_path}/events.db"
    name = f"checked_app_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from sqlalchemy import create_engine\n"
        "from eventstore_sa import EventStoreSchema, SyncEventStore\n"
        f"engine = create_engine({url!r})\n"
        "store = SyncEventStore(engine, schema=EventStoreSchema(prefix='audit_'))\n"
    )
    with SyncEventStore(url) as store:
        store.create_schema()

    assert command("check", "--url", url).exit_code == 0
    assert command("check", f"{name}:engine").exit_code == 0
    assert "audit_events" in command("check", "--url", f"{name}:store").stderr
    assert CliRunner(env={"EVENTSTORE_SA_URL": url}).invoke(main, ["schema", "check"]).exit_code == 0
    assert command("check").exit_code == 2


def test_check_creates_no_sqlite_file(tmp_path: Path) -> None:
    outcome = command("check", f"sqlite:///{tmp_path}/none.db")

    assert (outcome.exit_code, "there is no file" in outcome.stderr) == (3, True)
    assert not (tmp_path / "none.db").exists()


@in_turn("driver", ["asyncpg", "psycopg", "psycopg2"])
def test_a_database_out_of_reach_exits_with_three(driver: str) -> None:
    outcome = command("check", f"postgresql+{driver}://someone:secret@127.0.0.1:1/nowhere")

    assert outcome.exit_code == 3
    assert "secret" not in outcome.output


def test_percent_signs_in_names_are_printed_once() -> None:
    assert 'CREATE TABLE "a%b_events"' in command("sql", "--dialect", "postgresql", "--prefix", "a%b_").output


def test_the_module_is_the_command() -> None:
    outcome = run_preloaded("-m", "eventstore_sa.cli", "schema", "sql", "--dialect", "sqlite")

    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout.endswith("COMMIT;\n")


def test_without_click_the_extra_is_named() -> None:
    outcome = run_preloaded("-c", "import sys; sys.modules['click'] = None; import eventstore_sa.cli")

    assert "eventstore-sa[cli]" in outcome.stderr


def test_without_alembic_the_extra_is_named() -> None:
    program = "import sys; sys.modules['alembic'] = None; import eventstore_sa.migrations"

    assert "eventstore-sa[alembic]" in run_python("-c", program).stderr


def names_of(schema: EventStoreSchema) -> str:
    return ", ".join(table.name for table in schema.tables)

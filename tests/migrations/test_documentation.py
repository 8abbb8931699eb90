"""docs/alembic.md and docs/command-line.md: a host that does what they say gets what they promise."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine

from eventstore_sa import EventStoreSchema, NewEvent, SyncEventStore, verify_schema
from eventstore_sa.cli import main
from eventstore_sa.persistence.schema import versions
from tests.migrations.conftest import MakeProject
from tests.migrations.projects import Project
from tests.migrations.structure import structure_of
from tests.project import ROOT

ALEMBIC = (ROOT / "docs" / "alembic.md").read_text()
COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text()


def section(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text: str, program: str) -> list[str]:
    run = re.sub(r"^<!-- not run: .*? -->\n```console\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line.split("#")[0].strip() for block in blocks(run, "console") for line in block.splitlines()]
    assert all(line.startswith(f"{program} ") for line in lines)
    return [line.removeprefix(f"{program} ") for line in lines]


MODELS, IMPORTS = blocks(section(ALEMBIC, "Add it to your Alembic project"), "python")


@pytest.mark.parametrize("driver", ["sqlite", pytest.param("postgresql+psycopg", marks=pytest.mark.long)])
def test_adding_it_to_an_alembic_project(driver: str, make_project: MakeProject) -> None:
    project = make_project(driver, models=MODELS, imports=IMPORTS)

    project.in_turn(*commands(section(ALEMBIC, "Add it to your Alembic project"), "alembic"))

    (shown,) = blocks(section(ALEMBIC, "Add it to your Alembic project"), "text")
    (revision,) = project.revisions()
    assert f"    {shown}" in revision.read_text()
    with project.engine().connect() as connection:
        verify_schema(connection)


@pytest.mark.long
def test_upgrading(make_project: MakeProject) -> None:
    newer = (
        "import os\nif os.environ.get('NEWER'):\n    from tests.migrations.next_version import install\n    install()\n"
    )
    project = make_project(models=newer + MODELS, imports=IMPORTS)
    project.in_turn("revision --autogenerate -m first", "upgrade head")
    project.environment["NEWER"] = "yes"
    assert "eventstore_migrate(from_version=1, to_version=3)" in project.alembic("check", fails=True)

    project.in_turn(*commands(section(ALEMBIC, "Upgrading"), "alembic"), "check")

    assert structure_of(project.engine())["rows of es_schema"] == [(3,)]


def test_the_locks_of_every_version_are_told() -> None:
    told = re.findall(r"^\| (\d+) \| (.*) \|$", section(ALEMBIC, "Upgrading"), re.MULTILINE)

    assert [(int(number), f"{locks}.".lower()) for number, locks in told] == [
        (version.number, version.locks.lower()) for version in versions.VERSIONS
    ]


def with_environment(project: Project, environment: str) -> None:
    (project.folder / "migrations" / "env.py").write_text(environment)


def test_several_tenants(make_project: MakeProject) -> None:
    by_search_path, by_map = blocks(section(ALEMBIC, "Several tenants"), "python")
    project = make_project("postgresql+psycopg", models=MODELS)
    with_environment(project, by_search_path)
    project.in_turn(
        "-x tenant=first revision --autogenerate -m first",
        "-x tenant=first upgrade head",
        "-x tenant=first check",
        "-x tenant=second upgrade head",
        "-x tenant=second check",
    )
    with_environment(project, by_map)
    # Twice, as a deployment does: the second time there must be nothing to do.
    project.in_turn("-x tenant=Third upgrade head", "-x tenant=Third upgrade head", "-x tenant=fourth upgrade head")

    for tenant, options in {
        "first": {"connect_args": {"options": "-c search_path=first"}},
        "Third": {"execution_options": {"schema_translate_map": {None: "Third"}}},
        "fourth": {"execution_options": {"schema_translate_map": {None: "fourth"}}},
    }.items():
        engine = create_engine(project.url, **options)  # type: ignore[arg-type]
        with engine.connect() as connection:
            verify_schema(connection)
        stream = SyncEventStore(engine).stream(category=tenant, stream="1")
        (stored,) = stream.publish(events=[NewEvent(name="placed", payload={})])
        assert stored.sequence_number == 1
        assert [event.category for event in SyncEventStore(engine).log()] == [tenant]
        engine.dispose()
    assert structure_of(project.engine(), "public")["functions"] == []

    project.in_turn("-x tenant=Third downgrade base")
    assert structure_of(project.engine(), "Third")["functions"] == []
    assert structure_of(project.engine(), "fourth")["functions"] != []


def test_the_commands_of_the_command_line_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = create_engine("sqlite:///events.db")
    EventStoreSchema().metadata.create_all(engine)
    engine.dispose()
    Path("shop").mkdir()
    Path("shop", "events.py").write_text("from eventstore_sa import EventTypes\n\nTYPES = EventTypes()\n")
    assert CliRunner().invoke(main, ["types", "check", "shop.events:TYPES", "--update"]).exit_code == 0

    lines = commands(COMMAND_LINE, "eventstore-sa")
    outcomes = [CliRunner().invoke(main, shlex.split(line)) for line in lines]

    assert [outcome.exit_code for outcome in outcomes] == [0] * len(lines)
    assert lines

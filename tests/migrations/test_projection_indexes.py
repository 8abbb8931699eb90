"""Indexes of `projection_index` on the host's MetaData, seen through Alembic's command."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest
from sqlalchemy import inspect, text

from tests.migrations.conftest import MakeProject
from tests.migrations.projects import MODELS, Project

INDEXED = f"""\
from eventstore_sa.projection import projection_index
from eventstore_sa.query import Path, SortField, SortOrder

{MODELS.format(prefix="es_", schema=None)}
total = SortField(Path("state", "it's 100% \\"{{total}}\\" :x"), SortOrder.DESC)
"""
ONE = 'projection_index("orders", Path("state", "status"), total, schema=schema)\n'
ANOTHER = 'projection_index("orders", Path("state", "tags", -1), schema=schema, contains=True)\n'

# Before, Alembic warns of the indexes on SQLite, and compares them, in the host's filters too, before it is told not to.
quiet_alembic = pytest.mark.skipif(
    tuple(map(int, re.findall(r"\d+", version("alembic"))[:3])) < (1, 18, 3), reason="Alembic is older than 1.18.3"
)


def indexes(project: Project) -> dict[str, str]:
    """Return how the indexes of the application are defined in the database."""
    with project.engine().connect() as connection:
        rows = connection.execute(
            text("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'es_projections' AND indexdef ~ 'WHERE'")
        )
        return {row.indexname: row.indexdef for row in rows}


def test_an_index_comes_with_the_first_revision_and_goes_with_its_declaration(make_project: MakeProject) -> None:
    project = make_project("postgresql+psycopg", models=INDEXED + ONE)

    project.in_turn("revision --autogenerate -m first", "upgrade head", "check")
    (first,) = indexes(project).items()
    lines = project.newest().splitlines()
    assert lines[1] == "    eventstore_migrate(from_version=0, to_version=1)"
    assert any(f"op.create_index(op.f('{first[0]}'), 'es_projections'" in line for line in lines)
    assert "CASE" in first[1]

    (project.folder / "models.py").write_text(INDEXED + ANOTHER)
    project.in_turn("revision --autogenerate -m second", "upgrade head", "check")
    (second,) = indexes(project).items()
    assert second[0] != first[0]
    assert "gin" in second[1]

    project.alembic("downgrade", "-1")
    assert list(indexes(project)) == [first[0]]
    project.alembic("downgrade", "base")
    assert not inspect(project.engine()).has_table("es_projections")


def test_an_index_that_create_all_has_made_is_the_one_that_is_compared(make_project: MakeProject) -> None:
    project = make_project("postgresql+psycopg", models=INDEXED + ONE + ANOTHER)
    project.in_turn("revision --autogenerate -m first", "upgrade head")
    by_revision = indexes(project)
    with project.engine().begin() as connection:
        for name in by_revision:
            connection.execute(text(f"DROP INDEX {name}"))

    refused = project.alembic("check", fails=True)
    assert all(name in refused for name in by_revision)
    outcome = project.run_python(
        "from models import schema; from sqlalchemy import create_engine, make_url;"
        f"engine = create_engine(make_url({project.url.render_as_string(hide_password=False)!r}));"
        "[index.create(engine) for index in schema.projections.indexes if index.info]"
    )
    assert outcome.returncode == 0, outcome.stderr

    assert indexes(project) == by_revision
    project.alembic("check")


@quiet_alembic
@pytest.mark.parametrize("url", ["sqlite", "postgresql+psycopg"])
def test_the_indexes_stay_on_the_hosts_table_while_it_is_compared(make_project: MakeProject, url: str) -> None:
    hook = """
def include_object(object_, name, type_, reflected, compare_to):
    assert [index for index in schema.projections.indexes if index.info], (type_, name)
    print("looked at", type_, name)
    return True
"""
    project = make_project(url, models=INDEXED + ONE + hook, configure="include_object=include_object")
    env = project.folder / "migrations" / "env.py"
    env.write_text("from models import include_object\n" + env.read_text())

    for command in ("revision --autogenerate -m first", "upgrade head", "check"):
        said = project.alembic(*command.split())
    assert "looked at table es_projections" in said


def test_what_alembic_finds_out_about_other_indexes_of_that_table_stands(make_project: MakeProject) -> None:
    project = make_project("postgresql+psycopg", models=INDEXED + ONE)
    project.in_turn("revision --autogenerate -m first", "upgrade head")
    with project.engine().begin() as connection:
        connection.execute(text("DROP INDEX es_projections_source_idx"))
        connection.execute(text("CREATE INDEX foreign_idx ON es_projections (version)"))

    refused = project.alembic("check", fails=True)

    assert refused.count("es_projections_source_idx") == refused.count("foreign_idx") > 0


@quiet_alembic
def test_what_the_host_notes_on_other_indexes_of_that_table_is_there_for_its_filters(make_project: MakeProject) -> None:
    hook = """
from sqlalchemy import Index
Index("mine", schema.projections.c.version, info={"by hand": True})

def include_object(object_, name, type_, reflected, compare_to):
    return type_ != "index" or not object_.info.get("by hand")
"""
    project = make_project("sqlite", models=INDEXED + ONE + hook, configure="include_object=include_object")
    env = project.folder / "migrations" / "env.py"
    env.write_text("from models import include_object\n" + env.read_text())

    project.in_turn("revision --autogenerate -m first", "upgrade head", "check")


@quiet_alembic
def test_on_sqlite_there_is_no_index_and_nothing_to_do(make_project: MakeProject) -> None:
    project = make_project("sqlite", models=INDEXED + ONE + ANOTHER)

    project.in_turn("revision --autogenerate -m first", "upgrade head", "check")

    assert "create_index" not in "".join(line for line in project.newest().splitlines() if "es_projections" in line)


@pytest.mark.parametrize("schema", ["audit"])
def test_an_index_in_a_schema_of_the_event_stores_own(make_project: MakeProject, schema: str) -> None:
    models = INDEXED.replace("schema=None", f"schema={schema!r}")
    project = make_project("postgresql+psycopg", models=models + ONE, configure="include_schemas=True")

    project.in_turn("revision --autogenerate -m first", "upgrade head", "check")

    assert f"schema='{schema}'" in project.newest()
    assert len(indexes(project)) == 1

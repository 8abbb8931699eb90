"""After the first revision: newer releases, drift, and imports that got lost, seen through Alembic's command."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect, text

from eventstore_sa import EventSerialisationGuarantee, EventStoreSchema, NewEvent, SyncEventStore, verify_schema
from tests.migrations.conftest import MakeProject
from tests.migrations.projects import IMPORTS, MODELS, Project
from tests.migrations.structure import structure_of
from tests.preloaded import run_preloaded

NEWER = "NEWER_RELEASE"
# The models of a host after `pip install --upgrade`, when the variable says so.
UPGRADABLE = f"""\
import os
if os.environ.get("{NEWER}"):
    from tests.migrations.next_version import install
    install()
{MODELS.format(prefix="es_", schema=None)}"""
ATTACH = "schema = EventStoreSchema(Base.metadata"

# What is the same on both: on one of them in every run, on the other with the tests that take long.
on_postgresql = pytest.mark.parametrize(
    "driver", ["postgresql+psycopg", pytest.param("sqlite", marks=pytest.mark.long)]
)
on_sqlite = pytest.mark.parametrize("driver", ["sqlite", pytest.param("postgresql+psycopg", marks=pytest.mark.long)])


def installed(make_project: MakeProject, driver: str = "sqlite", **options: object) -> Project:
    """Make a host that has made its first revision, and upgraded to it."""
    project = make_project(driver, **options)
    project.in_turn("revision --autogenerate -m first", "upgrade head")
    return project


def execute(project: Project, *statements: str) -> None:
    with project.engine().begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@on_postgresql
def test_a_newer_release_is_named_by_check_and_installed_by_the_next_revision(
    driver: str, make_project: MakeProject
) -> None:
    project = installed(make_project, driver, models=UPGRADABLE)
    engine = project.engine()
    stream = SyncEventStore(engine).stream(category="orders", stream="1")
    stored = stream.publish(events=[NewEvent(name="placed", payload={})])
    before = structure_of(engine)
    project.environment[NEWER] = "yes"

    refused = project.alembic("check", fails=True)
    assert "eventstore_migrate(from_version=1, to_version=3)" in refused
    project.in_turn("revision --autogenerate -m second", "upgrade head", "check")
    assert project.newest().splitlines() == [
        "def upgrade() -> None:",
        "    eventstore_migrate(from_version=1, to_version=3)",
        "def downgrade() -> None:",
        "    eventstore_migrate(from_version=3, to_version=1)",
    ]
    assert inspect(engine).has_table("es_notes")
    assert stream.read() == stored

    project.alembic("downgrade", "-1")
    assert structure_of(engine) == before
    assert stream.read() == stored


def test_an_older_release_says_that_the_database_is_newer(make_project: MakeProject) -> None:
    project = installed(make_project)
    execute(project, "UPDATE es_schema SET version = 7")

    said = project.alembic("check", fails=True)

    assert "version 7, and this version of the library supports only 1" in said
    assert "Traceback" not in said


def test_edited_functions_and_dropped_triggers_are_found_and_repaired(make_project: MakeProject) -> None:
    project = installed(make_project, "postgresql+psycopg")
    whole = structure_of(project.engine())
    execute(
        project,
        "DROP TRIGGER es_events_forbid_change ON es_events",
        "DROP FUNCTION es_watermark_v1()",
        "CREATE OR REPLACE FUNCTION es_fence_v1() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    )

    refused = project.alembic("check", fails=True)
    assert "eventstore_repair(version=1)" in refused
    assert "function es_fence_v1 was changed" in refused
    project.in_turn("revision --autogenerate -m second", "upgrade head", "check", "downgrade -1")
    assert project.newest().splitlines() == [
        "def upgrade() -> None:",
        "    eventstore_repair(version=1)",
        "def downgrade() -> None:",
        "    eventstore_repair(version=1)",
    ]
    assert structure_of(project.engine()) == whole


def test_a_dropped_trigger_is_repaired_on_sqlite(make_project: MakeProject) -> None:
    project = installed(make_project)
    whole = structure_of(project.engine())
    execute(project, "DROP TRIGGER es_events_forbid_delete")

    project.in_turn("revision --autogenerate -m second", "upgrade head", "check")

    newest = project.newest(comments=True)
    assert "    eventstore_repair(version=1)" in newest
    assert "    # trigger es_events_forbid_delete is missing" in newest
    assert structure_of(project.engine()) == whole


def test_drift_of_tables_is_left_to_alembic(make_project: MakeProject) -> None:
    project = installed(make_project)
    execute(project, "DROP INDEX es_events_category_idx")

    revision = project.autogenerate()

    assert "op.create_index(op.f('es_events_category_idx'), 'es_events'" in revision
    assert "eventstore_" not in revision


@on_sqlite
def test_without_the_import_in_env_the_event_store_goes_on_being_compared(
    driver: str, make_project: MakeProject
) -> None:
    project = installed(make_project, driver)
    (project.folder / "migrations" / "env.py").write_text(
        (project.folder / "migrations" / "env.py").read_text().replace("import eventstore_sa.migrations\n", "")
    )

    project.alembic("check")

    trigger = "es_events_forbid_change ON es_events" if driver != "sqlite" else "es_events_forbid_delete"
    execute(project, f"DROP TRIGGER {trigger}")
    assert "eventstore_repair(version=1)" in project.alembic("check", fails=True)


def test_an_event_store_that_is_attached_to_nothing_is_not_dropped(make_project: MakeProject) -> None:
    project = installed(make_project)
    models = project.folder / "models.py"
    models.write_text(
        models.read_text()
        .replace(ATTACH, "schema = EventStoreSchema(None")
        .replace("ForeignKey(schema.events.c.id), ", "Uuid, ")
        .replace("import ForeignKey, ", "import Uuid, ")
    )
    project.engine().dispose()

    outcome = project.run("revision", "--autogenerate", "-m", "second")

    assert outcome.returncode == 0, outcome.stderr
    newest = project.newest()
    assert "drop_table" not in newest
    assert "es_events_category_idx" not in newest
    tables = ", ".join(table.name for table in EventStoreSchema().tables)
    assert f"the event store with the tables {tables} is in the database" in outcome.stderr
    assert "import the module that creates its EventStoreSchema in env.py" in outcome.stderr


@pytest.mark.parametrize(
    ("driver", "schema", "line"),
    [
        ("sqlite", None, "eventstore_migrate(from_version=1, to_version=0, prefix='audit_')"),
        (
            "postgresql+psycopg",
            "archive",
            "eventstore_migrate(from_version=1, to_version=0, prefix='audit_', schema='archive')",
        ),
    ],
)
def test_the_line_recommended_for_an_unattached_event_store_drops_that_one_and_no_other(
    driver: str, schema: str | None, line: str, make_project: MakeProject
) -> None:
    project = make_project(driver, configure="include_schemas=True")
    unattached = EventStoreSchema(prefix="audit_", schema=schema)
    if schema is not None:
        execute(project, f"CREATE SCHEMA {schema}")
    engine = project.engine()
    unattached.metadata.create_all(engine)
    project.in_turn("revision --autogenerate -m first", "upgrade head")

    said = project.run("revision", "--autogenerate", "-m", "second").stderr
    assert f"write {line} into a revision" in said
    newest = max(project.revisions(), key=lambda path: path.stat().st_mtime_ns)
    newest.write_text(
        newest.read_text().replace("def upgrade() -> None:", f"def upgrade() -> None:\n    {line}\n    return")
        + "\n\nfrom eventstore_sa.migrations import eventstore_migrate\n"
    )
    project.alembic("upgrade", "head")

    assert not [name for name in inspect(engine).get_table_names(schema=schema) if name.startswith("audit_")]
    with engine.connect() as connection:
        verify_schema(connection)
    engine.dispose()


def test_tables_that_plain_alembic_made_are_recognised(make_project: MakeProject) -> None:
    """What comes of a first revision without the import: tables, but neither functions nor a version."""
    project = make_project(imports=IMPORTS)
    execute(project, "CREATE TABLE es_schema (version INTEGER PRIMARY KEY, locking VARCHAR(20))")

    said = project.alembic("check", fails=True)

    assert "`import eventstore_sa.migrations`" in said
    assert "Traceback" not in said


def test_autogenerate_without_the_import_says_what_is_missing(make_project: MakeProject) -> None:
    project = make_project(imports=IMPORTS.replace("import eventstore_sa.migrations\n", ""))

    said = project.alembic("revision", "--autogenerate", "-m", "first", fails=True)

    assert "add `import eventstore_sa.migrations` to env.py" in said
    assert not list((project.folder / "migrations" / "versions").glob("*.py"))


def test_a_revision_refuses_a_database_that_did_not_come_by_it(make_project: MakeProject) -> None:
    project = make_project()
    project.alembic("revision", "--autogenerate", "-m", "first")
    with SyncEventStore(project.engine()) as store:
        store.create_schema()

    said = project.alembic("upgrade", "head", fails=True)

    assert "found the event store's schema at version 1" in said
    assert "`alembic stamp`" in said


@on_postgresql
def test_how_writers_lock_is_migrated_too(driver: str, make_project: MakeProject) -> None:
    by_row = ', locking="row", serialisation_guarantee=EventSerialisationGuarantee.CATEGORY)'
    models = MODELS.format(prefix="es_", schema=None).replace(
        "import Event", "import EventSerialisationGuarantee, Event"
    )
    by_row_models = models.replace("schema=None)", f"schema=None{by_row}")
    project = installed(make_project, driver, models=by_row_models)
    engine = project.engine()
    schema = EventStoreSchema(locking="row", serialisation_guarantee=EventSerialisationGuarantee.CATEGORY)
    SyncEventStore(engine, schema=schema).stream(category="orders", stream="1").publish(
        events=[NewEvent(name="placed", payload={})]
    )
    assert "eventstore_migrate(from_version=0, to_version=1, locking='row/category')" in project.newest()
    assert "eventstore_migrate(from_version=1, to_version=0)" in project.newest()
    project.alembic("check")
    (project.folder / "models.py").write_text(models)

    refused = project.alembic("check", fails=True)
    project.in_turn("revision --autogenerate -m second", "upgrade head", "check")

    assert "eventstore_change_locking(from_locking='row/category', to_locking='fence')" in refused
    assert project.newest().splitlines() == [
        "def upgrade() -> None:",
        "    eventstore_change_locking(from_locking='row/category', to_locking='fence')",
        "def downgrade() -> None:",
        "    eventstore_change_locking(from_locking='fence', to_locking='row/category')",
    ]
    assert "End every process that publishes" in project.newest(comments=True)
    with engine.connect() as connection:
        verify_schema(connection)
        assert connection.scalar(text("SELECT count(*) FROM es_locks")) == 0
    execute(project, "UPDATE es_schema SET locking = 'advisory/log'")
    assert "found locking 'advisory/log'" in project.alembic("downgrade", "-1", fails=True)


def test_a_revision_refuses_a_locking_that_there_is_not(make_project: MakeProject) -> None:
    project = make_project()
    project.alembic("revision", "--autogenerate", "-m", "first")
    (revision,) = project.revisions()
    revision.write_text(revision.read_text().replace("to_version=1)", "to_version=1, locking='row')"))

    said = project.alembic("upgrade", "head", fails=True)

    assert "there is no locking 'row': use one of 'fence', 'advisory/log'" in said


def test_an_alembic_that_is_too_old_is_named_by_the_import() -> None:
    older = "import importlib.metadata as m; m.version = lambda name: '1.15.2'; import eventstore_sa.migrations"

    said = run_preloaded("-c", older).stderr

    assert "needs Alembic 1.16 or newer, but 1.15.2 is installed" in said

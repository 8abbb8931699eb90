"""Hosts that migrate their event store with Alembic, from the first revision on: folders, and the command itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from eventstore_sa import EventStoreSchema, NewEvent, SyncEventStore, verify_schema
from tests.migrations.conftest import MakeProject
from tests.migrations.structure import structure_of
from tests.project import PACKAGE

NAMES = {"default": ("es_", None), "named schema": ("es_", "events"), "custom prefix": ("audit_", None)}


class Combination(NamedTuple):
    template: str
    driver: str
    names: str


COMBINATIONS = [
    Combination(template, driver, names)
    for template, driver in [
        ("generic", "sqlite"),
        ("async", "sqlite+aiosqlite"),
        ("generic", "postgresql+psycopg"),
        ("async", "postgresql+psycopg"),
        ("async", "postgresql+asyncpg"),
        ("generic", "postgresql+psycopg2"),
    ]
    for names in NAMES
    # SQLite has no schemas, only other files.
    if not (driver.startswith("sqlite") and names == "named schema")
]
# Every template with every driver, every way of naming with every template and with every database.
SAMPLE = {
    Combination("generic", "sqlite", "default"),
    Combination("async", "sqlite+aiosqlite", "custom prefix"),
    Combination("generic", "postgresql+psycopg", "custom prefix"),
    Combination("async", "postgresql+psycopg", "named schema"),
    Combination("async", "postgresql+asyncpg", "default"),
    Combination("generic", "postgresql+psycopg2", "named schema"),
}


@pytest.mark.parametrize(
    "combination",
    [pytest.param(one, id="-".join(one), marks=[] if one in SAMPLE else [pytest.mark.long]) for one in COMBINATIONS],
)
def test_a_host_installs_checks_removes_and_installs_again(combination: Combination, make_project: MakeProject) -> None:
    prefix, schema = NAMES[combination.names]
    store = EventStoreSchema(prefix=prefix, schema=schema)
    project = make_project(combination.driver, template=combination.template, schema=store)
    library = set(PACKAGE.rglob("*.py"))

    project.in_turn("revision --autogenerate -m first", "upgrade head", "check")

    (revision,) = project.revisions()
    lines = revision.read_text().splitlines()
    naming = "".join(f", {name}={value!r}" for name, value in _named(prefix, schema).items())
    assert [line.strip() for line in lines if "eventstore_" in line] == [
        "from eventstore_sa.migrations import eventstore_migrate",
        f"eventstore_migrate(from_version=0, to_version=1{naming})",
        f"eventstore_migrate(from_version=1, to_version=0{naming})",
    ]
    assert lines.index(f"    eventstore_migrate(from_version=0, to_version=1{naming})") < _line(lines, "create_table")
    assert lines.index(f"    eventstore_migrate(from_version=1, to_version=0{naming})") > _line(lines, "drop_table")
    assert f"'{prefix}events'" not in revision.read_text()
    assert set(PACKAGE.rglob("*.py")) == library
    engine = project.engine()
    with engine.connect() as connection:
        verify_schema(connection, schema=store)

    _publish_with_receipt(engine, store)

    printed = project.in_turn("upgrade head --sql", "downgrade base", "upgrade head", "check", "downgrade base")
    assert "No new upgrade operations detected" in printed
    script = printed[printed.index("CREATE TABLE alembic_version") :]
    assert script.count("CREATE TABLE") == len(EventStoreSchema().tables) + 2  # the host's, and Alembic's
    assert "INSERT INTO" in script
    with engine.connect() as connection:
        names = "sqlite_master" if engine.dialect.name == "sqlite" else "pg_proc"
        column = "name" if engine.dialect.name == "sqlite" else "proname"
        assert connection.scalars(text(f"SELECT {column} FROM {names} WHERE {column} LIKE '{prefix}%'")).all() == []


def _named(prefix: str, schema: str | None) -> dict[str, str]:
    return {**({} if prefix == "es_" else {"prefix": prefix}), **({} if schema is None else {"schema": schema})}


def _line(lines: list[str], word: str) -> int:
    return next(number for number, line in enumerate(lines) if word in line)


def _publish_with_receipt(engine: object, store: EventStoreSchema) -> None:
    """Publish, and store a row of the host's that refers to the event."""
    (event,) = (
        SyncEventStore(engine, schema=store)  # type: ignore[arg-type]
        .stream(category="orders", stream="1")
        .publish(events=[NewEvent(name="placed", payload={})])
    )
    with engine.begin() as connection:  # type: ignore[attr-defined]
        connection.execute(
            text("INSERT INTO receipts (number, customer, event_id) VALUES (1, 'c', :id)"),
            {"id": event.id.hex if engine.dialect.name == "sqlite" else event.id},  # type: ignore[attr-defined]
        )


@pytest.mark.parametrize("driver", ["sqlite", "postgresql+psycopg"])
def test_comparing_types_and_defaults_finds_nothing(driver: str, make_project: MakeProject) -> None:
    project = make_project(driver, configure="compare_type=True, compare_server_default=True, include_schemas=True")

    project.in_turn("revision --autogenerate -m first", "upgrade head", "check")

    (revision,) = project.revisions()
    assert revision.read_text().count("create_table") == 1


@pytest.mark.parametrize("driver", ["sqlite", "postgresql+psycopg2"])
def test_offline_scripts_make_what_migrations_make(driver: str, make_project: MakeProject) -> None:
    project = make_project(driver)
    script = project.in_turn("revision --autogenerate -m first", "upgrade head", "upgrade head --sql")
    script = script[script.index("CREATE TABLE alembic_version") :]
    engine = project.engine()
    migrated = structure_of(engine)
    project.alembic("downgrade", "base")

    with engine.begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
        driver_connection: Any = connection.connection.driver_connection
        if engine.dialect.name == "sqlite":
            driver_connection.executescript(script)
        else:
            driver_connection.execute(script.rsplit("COMMIT;", 1)[0])

    assert structure_of(engine) == migrated


def test_a_host_of_dataclasses_installs(make_project: MakeProject) -> None:
    models = """\
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column
from eventstore_sa import EventStoreSchema

class Base(MappedAsDataclass, DeclarativeBase):
    pass

class Receipt(Base):
    __tablename__ = "receipts"
    number: Mapped[int] = mapped_column(primary_key=True, init=False)
    customer: Mapped[str] = mapped_column(default="")

schema = EventStoreSchema(Base.metadata)
"""
    project = make_project(models=models)

    project.in_turn("revision --autogenerate -m first", "upgrade head", "check")

    assert structure_of(project.engine())["rows of es_schema"] == [(1,)]


def test_two_event_stores_of_one_host_are_migrated_side_by_side(make_project: MakeProject) -> None:
    models = """\
from sqlalchemy import MetaData
from eventstore_sa import EventStoreSchema

class Base:
    metadata = MetaData()

EventStoreSchema(Base.metadata)
EventStoreSchema(Base.metadata, prefix="audit_")
"""
    project = make_project(models=models)

    project.in_turn("revision --autogenerate -m first", "upgrade head", "check")

    (revision,) = project.revisions()
    upgrade = revision.read_text().split("def downgrade")[0]
    assert [line.strip() for line in upgrade.splitlines() if "(" in line and "def" not in line] == [
        "eventstore_migrate(from_version=0, to_version=1)",
        "eventstore_migrate(from_version=0, to_version=1, prefix='audit_')",
    ]


@pytest.mark.parametrize("schema", ["app", "public"])
@pytest.mark.parametrize("configure", ["", "include_schemas=True"])
def test_an_event_store_follows_the_schema_of_the_metadata(
    schema: str, configure: str, make_project: MakeProject
) -> None:
    models = f"""\
from sqlalchemy import MetaData
from eventstore_sa import EventStoreSchema

class Base:
    metadata = MetaData(schema={schema!r})

EventStoreSchema(Base.metadata)
"""
    project = make_project("postgresql+psycopg", models=models, configure=configure)

    printed = project.in_turn("revision --autogenerate -m first", "upgrade head", "check", "downgrade base")

    assert "No new upgrade operations detected" in printed
    upgrade, downgrade = project.newest().split("def downgrade")
    assert [line.strip() for line in upgrade.splitlines() if "op." in line or "eventstore_migrate(" in line] == [
        f"eventstore_migrate(from_version=0, to_version=1, schema={schema!r})"
    ]
    assert [line.strip() for line in downgrade.splitlines() if "op." in line or "eventstore_migrate(" in line] == [
        f"eventstore_migrate(from_version=1, to_version=0, schema={schema!r})"
    ]


def test_a_host_may_leave_the_event_store_to_others(make_project: MakeProject) -> None:
    configure = "include_object=lambda thing, name, kind, *_: not (kind == 'table' and name.startswith('es_'))"
    project = make_project(configure=configure)

    assert "eventstore_migrate" not in project.autogenerate()


@pytest.mark.long
def test_the_library_has_no_revisions_of_its_own_in_the_host(make_project: MakeProject) -> None:
    project = make_project()

    project.in_turn("revision --autogenerate -m first", "upgrade head", "revision --autogenerate -m second")

    assert [path.parent for path in project.revisions()] == [Path(project.folder, "migrations", "versions")] * 2

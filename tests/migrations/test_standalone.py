"""The folder `alembic/` of a clone: `alembic -x url=... upgrade head` sets up an event store without a host."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import URL, NullPool, create_engine, make_url

from eventstore_sa import EventStoreSchema, verify_schema
from eventstore_sa.errors import SchemaError
from eventstore_sa.persistence.schema import SCHEMA_VERSION
from tests.migrations.projects import IN_TURN
from tests.preloaded import run_preloaded
from tests.project import run_python


def alembic(*commands: str, **environment: str) -> str:
    arguments = json.dumps([shlex.split(command) for command in commands])
    outcome = run_preloaded("-c", IN_TURN, arguments, environment=environment)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("postgresql+asyncpg", {"schema": "events", "locking": "row/log"}),
        pytest.param("sqlite+aiosqlite", {"prefix": "audit_"}, marks=pytest.mark.long),
        pytest.param("postgresql+psycopg2", {}, marks=pytest.mark.long),
    ],
)
def test_a_clone_sets_up_and_removes_an_event_store(
    driver: str, options: dict[str, str], postgres_url: Callable[..., URL], tmp_path: Path
) -> None:
    url = make_url(f"{driver}:///{tmp_path}/e.db") if driver.startswith("sqlite") else postgres_url(driver[11:])
    given = " ".join(f"-x {name}={value}" for name, value in options.items())
    variables = {"EVENTSTORE_SA_URL": url.render_as_string(hide_password=False)}
    sync_driver = "sqlite" if driver.startswith("sqlite") else "postgresql+psycopg"
    engine = create_engine(url.set(drivername=sync_driver), poolclass=NullPool)

    schema = EventStoreSchema(**{**options, "locking": options.get("locking", "fence").partition("/")[0]})  # type: ignore[arg-type]

    said = alembic(f"{given} upgrade head", f"{given} check", f"{given} upgrade head --sql", **variables)
    with engine.connect() as connection:
        verify_schema(connection, schema=schema)
    # The URL may be given in the call as well.
    alembic(f"{given} -x url={variables['EVENTSTORE_SA_URL']} downgrade base", EVENTSTORE_SA_URL="")

    assert "No new upgrade operations" in said
    assert "CREATE TABLE" in said
    with engine.connect() as connection, pytest.raises(SchemaError, match="are missing"):
        verify_schema(connection, schema=schema)


def test_the_newest_revision_leads_to_the_newest_version() -> None:
    assert alembic("heads").split()[0] == f"v{SCHEMA_VERSION}"


def test_without_a_url_it_says_how_to_give_one() -> None:
    outcome = run_python("-m", "alembic", "upgrade", "head", environment={"EVENTSTORE_SA_URL": ""})

    assert "alembic -x url=URL" in outcome.stderr

"""The optional indexes of `inspection_index`, seen through Alembic's command."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect

from tests.migrations.conftest import MakeProject
from tests.migrations.projects import MODELS, Project

PLAIN = MODELS.format(prefix="es_", schema=None)
DECLARED = f"""\
from eventstore_sa.inspection import inspection_index

{PLAIN}
for field in ("correlation", "time"):
    inspection_index(field, schema=schema)
"""
OPTIONAL = {"es_events_correlation_idx", "es_events_observed_at_idx"}


def optional_indexes(project: Project) -> set[str]:
    with project.engine().connect() as connection:
        return {str(index["name"]) for index in inspect(connection).get_indexes("es_events")} & OPTIONAL


@pytest.mark.parametrize("driver", ["sqlite", "postgresql+psycopg"])
def test_they_are_created_when_they_are_declared_and_stay_when_they_are_not(
    make_project: MakeProject, driver: str
) -> None:
    project = make_project(driver, models=PLAIN)
    project.in_turn("revision --autogenerate -m first", "upgrade head", "check")

    (project.folder / "models.py").write_text(DECLARED)
    project.in_turn("revision --autogenerate -m second", "upgrade head", "check")
    assert optional_indexes(project) == (OPTIONAL if driver != "sqlite" else set())

    (project.folder / "models.py").write_text(PLAIN)
    project.alembic("check")
    project.alembic("downgrade", "-1")
    assert optional_indexes(project) == set()

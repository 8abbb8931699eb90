"""The rules of `examples/boundaries.py` hold, whoever is late, on SQLite and between connections to PostgreSQL."""

from __future__ import annotations

from tests.hosts import Host, each_driver
from tests.preloaded import run_preloaded
from tests.project import ROOT

OUTCOMES = """\
the last place: the late one was refused: course history is full
places in two courses: both were stored
a user name: the late one was refused: 'ada' is taken
invoice numbers: the late one decided again, and was stored
a token: the late one was not stored, because it is a repetition
a price that changes: the late one was refused: the price of tea is 5, not 4
a price that holds: both were stored
"""


@each_driver("sqlite", "postgresql+psycopg")
def test_rules_across_streams_hold_when_two_decide_at_once(host: Host) -> None:
    url = host.ground.url(host.driver).render_as_string(hide_password=False)

    outcome = run_preloaded(str(ROOT / "examples" / "boundaries.py"), url, environment={"PYTHONPATH": str(ROOT)})

    assert outcome.stderr == ""
    assert outcome.stdout == OUTCOMES

"""The command that says what is wrong, for people and for monitoring."""

from __future__ import annotations

from typing import Any, Final

import click

from eventstore_sa.cli.opening import NOT_SO, OpenStore, on_database
from eventstore_sa.cli.options import json_option
from eventstore_sa.cli.output import print_json, print_line, visible
from eventstore_sa.persistence.inspection.health import Severity, diagnose

__all__ = ["doctor"]

_COLOURS: Final = {Severity.PROBLEM: "red", Severity.WARNING: "yellow", Severity.HINT: "blue"}


@click.command()
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too, not for problems alone.")
@json_option
@on_database
def doctor(open_store: OpenStore, *, strict: bool, as_json: bool) -> None:
    """Print what is wrong with the event store and the server, each with its remedy; exit with 1 if there are problems.

    It only reads, and sees more of other transactions with the role pg_read_all_stats.
    """
    options: dict[str, Any] = {}
    if open_store.engine.dialect.name == "postgresql":
        # Another default is one of the findings, and would keep the watermark from being asked for.
        options["isolation_level"] = "READ COMMITTED"
    with open_store.engine.connect() as connection:
        findings = diagnose(connection.execution_options(**options), schema=open_store.schema)
    for each in findings:
        if as_json:
            print_json(each)
            continue
        print_line(
            f"{click.style(each.severity.value, fg=_COLOURS[each.severity])} ({each.subject}): {visible(each.problem)}"
        )
        print_line(f"    {visible(each.remedy)}")
    if not findings and not as_json:
        print_line("Nothing is wrong.")
    failing = (Severity.PROBLEM, Severity.WARNING) if strict else (Severity.PROBLEM,)
    if any(each.severity in failing for each in findings):
        raise SystemExit(NOT_SO)

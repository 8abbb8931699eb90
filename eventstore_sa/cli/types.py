"""Commands about event types: how they change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import click

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.importing import imported
from eventstore_sa.types import EventTypes
from eventstore_sa.types.type_history import described, incompatible_changes

__all__ = ["types"]

_WRONG: Final = 1


@click.group()
def types() -> None:
    """Check how event types change."""


@types.command(name="check")
@click.argument("where", metavar="MODULE:NAME")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("event-types.json"),
    show_default=True,
    help="Where the types are described as they were; keep it with the code.",
)
@click.option(
    "--update", is_flag=True, help="Write the types to the file if they are compatible with it, or it is new."
)
@click.pass_context
def check_types(context: click.Context, *, where: str, file: Path, update: bool) -> None:
    """Check that the EventTypes at MODULE:NAME have not changed incompatibly without a new version."""
    now = described(_event_types(where))
    try:
        before: Any = json.loads(file.read_text(encoding="utf-8") if file.exists() else "{}")
        problems = incompatible_changes(before, now)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise click.UsageError(f"{file} does not hold the description of event types: {error!r}") from error
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        click.echo("Give these types a new version and an upcast, or undo the change.", err=True)
    elif update and before != now:
        file.write_text(json.dumps(now, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        click.echo(f"{file} is up to date now.")
        return
    elif before != now:
        click.echo(f"The types have changed compatibly, but {file} does not say so: run this with --update.", err=True)
    else:
        click.echo("The event types are as the file says.")
        return
    context.exit(_WRONG)


def _event_types(where: str) -> EventTypes[Any]:
    try:
        found = imported(where)
    except ConfigurationError as error:
        raise click.UsageError(error.message) from error
    if not isinstance(found, EventTypes):
        raise click.UsageError(f"{where!r} is of type {type(found).__name__}, not EventTypes")
    types: EventTypes[Any] = found  # pyright: ignore[reportUnknownVariableType]
    return types

"""Options that several commands have: which event store, and how its writers lock."""

from __future__ import annotations

from typing import Final

import click

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema.locking import FENCE, RecordedLocking, recorded_locking_mode

__all__ = ["json_option", "locking_option", "prefix_option", "schema_option"]


def _checked_locking(_: click.Context, __: click.Parameter, locking: str) -> RecordedLocking:
    try:
        return recorded_locking_mode(locking).recorded
    except ConfigurationError as error:
        raise click.BadParameter(error.message) from error


json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
prefix_option: Final = click.option(
    "--prefix", default="es_", show_default=True, help="The prefix of the names of its tables."
)
schema_option: Final = click.option("--schema", help="Its database schema. [default: determined by the search path]")
locking_option: Final = click.option(
    "--locking",
    callback=_checked_locking,
    default=FENCE.recorded,
    show_default=True,
    help="How its writers exclude each other, at which level, and which tags are labels: 'fence', 'advisory/log', "
    "'fence labels=tenant:'.",
)

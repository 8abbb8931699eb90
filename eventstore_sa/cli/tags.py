"""The command that adds tags to stored events."""

from __future__ import annotations

from typing import Any

import click

from eventstore_sa.cli.opening import OpenStore, on_store
from eventstore_sa.cli.output import print_line
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.importing import imported
from eventstore_sa.store import SyncEventStore, TagBackfill
from eventstore_sa.types import EventTypes

__all__ = ["backfill_tags"]


@click.command(name="backfill-tags")
@click.argument("where", metavar="MODULE:NAME")
@click.option("--after", type=click.IntRange(min=0), default=0, show_default=True, help="Begin after this number.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="How many events to read at a time.",
)
@on_store
def backfill_tags(open_store: OpenStore, *, where: str, after: int, batch_size: int) -> None:
    """Add tags to events that were stored without them.

    MODULE:NAME is a function of a stored event that returns its tags, or the EventTypes whose classes declare them.
    """
    try:
        found = imported(where)
    except ConfigurationError as error:
        raise click.BadParameter(error.message, param_hint="MODULE:NAME") from error
    store, tags_of = open_store.store, found
    if isinstance(found, EventTypes):
        types: EventTypes[Any] = found  # pyright: ignore[reportUnknownVariableType]
        store, tags_of = SyncEventStore(open_store.store.adapter, types=types), None
    given: Any = tags_of
    store.backfill_tags(given, after=after, batch_size=batch_size, on_progress=_show)


def _show(progress: TagBackfill) -> None:
    print_line(f"up to {progress.up_to}: {progress.changed} of {progress.looked_at} events changed")

"""Commands about stored projections: which there are, and rebuilding them."""

from __future__ import annotations

from typing import Any

import click
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore_sa.cli.opening import OpenStore, on_store
from eventstore_sa.cli.options import json_option
from eventstore_sa.cli.output import print_json, print_line, print_table, progress_bar
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.importing import imported
from eventstore_sa.persistence.inspection.projections import stored_projections
from eventstore_sa.persistence.sqlalchemy_internals import await_in_greenlet
from eventstore_sa.projection import Projector, RebuildProgress, TableProjection, rebuild, rebuild_sync
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.types import CategoryIdentifier

__all__ = ["projections"]


@click.group()
def projections() -> None:
    """List stored projections, and rebuild them from their events."""


@projections.command(name="list")
@json_option
@on_store
def list_command(open_store: OpenStore, *, as_json: bool) -> None:
    """Print how many projections of each name are stored, and how far rebuilds have come that have not ended.

    Rows of table projections are not counted: only your application knows which tables they are in.
    """
    with open_store.engine.connect() as connection:
        found = stored_projections(connection, schema=open_store.schema)
    if as_json:
        for each in found:
            print_json(each)
        return
    rows = [
        (
            each.name,
            each.projections,
            "-" if each.last_sequence_number is None else each.last_sequence_number,
            "-" if each.rebuilt_up_to is None else each.rebuilt_up_to,
        )
        for each in found
    ]
    print_table(("projection", "stored", "last event", "rebuilt up to"), rows, right=(1, 2, 3))


@projections.command(name="rebuild")
@click.argument("where", metavar="MODULE:PROJECTOR")
@click.option("--category", help="Read the events of this category. [default: that of the projector, or the log]")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=500, show_default=True, help="Events in a transaction."
)
@json_option
@on_store
def rebuild_command(open_store: OpenStore, *, where: str, category: str | None, batch_size: int, as_json: bool) -> None:
    """Rebuild all stored projections of a projector while they are read and updated.

    What was interrupted is resumed by the same command. If the projector handles event types, name the store of your
    application with --url module:store, so that they are known.
    """
    projector = _projector(where)
    source = None if category is None else CategoryIdentifier(category)
    with progress_bar("rebuilding", open_store.store.watermark().sequence_number) as advance:

        def progress(done: RebuildProgress) -> None:
            advance(done.sequence_number)

        options: dict[str, Any] = {"source": source, "progress": progress, "batch_size": batch_size}
        known: dict[str, Any] = {"schema": open_store.schema, "types": open_store.types}
        if open_store.engine.dialect.is_async:
            asynchronous: EventStore[Any] = EventStore(AsyncEngine(open_store.engine), **known)
            count = await_in_greenlet(rebuild(projector, store=asynchronous, **options))
        else:
            synchronous: SyncEventStore[Any] = SyncEventStore(open_store.engine, **known)
            count = rebuild_sync(projector, store=synchronous, **options)
    if as_json:
        print_json({"projections": count})
    else:
        print_line(f"{count} projections")


def _projector(where: str) -> Projector[Any, Any, Any]:
    try:
        found = imported(where)
    except ConfigurationError as error:
        raise click.UsageError(error.message) from error
    of_rows: type[Any] = found if isinstance(found, type) else type(found)
    if issubclass(of_rows, TableProjection):
        raise click.UsageError(
            f"{where} is a table projection, whose rows belong to your application, and are not deleted by this command: "
            "delete them yourself and apply all events, in one transaction and while nothing is published, as "
            "docs/table-projections.md shows"
        )
    kind = type(found).__name__
    if isinstance(found, type) and issubclass(found, Projector):
        made: Projector[Any, Any, Any] = found()  # pyright: ignore[reportUnknownVariableType]
        return made
    if not isinstance(found, Projector):
        raise click.UsageError(f"{where} is of type {kind}, not a Projector")
    projector: Projector[Any, Any, Any] = found  # pyright: ignore[reportUnknownVariableType]
    return projector

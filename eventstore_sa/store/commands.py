"""The command that adds tags to stored events, for the command line.

It needs click; only `cli` imports this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from eventstore_sa.errors import ConfigurationError, EventStoreError
from eventstore_sa.importing import imported
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.locking import FENCE, EventSerialisationGuarantee, recorded_locking_mode
from eventstore_sa.store.backfilling import TagBackfill
from eventstore_sa.store.event_store import EventStore, SyncEventStore
from eventstore_sa.types import EventTypes

try:
    import click
except ImportError as _error:
    raise ImportError("the command line needs click: install it with the extra 'eventstore-sa[cli]'") from _error

__all__ = ["backfill_tags_command"]


@click.command(name="backfill-tags")
@click.argument("url")
@click.argument("where", metavar="MODULE:NAME")
@click.option("--after", type=click.IntRange(min=0), default=0, show_default=True, help="Begin after this number.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="How many events to read at a time.",
)
@click.option("--prefix", default="es_", show_default=True, help="The prefix of the names of its tables.")
@click.option("--schema", help="Its database schema. [default: determined by the search path]")
@click.option("--locking", default=FENCE.recorded, show_default=True, help="As the database records it.")
def backfill_tags_command(
    *, url: str, where: str, after: int, batch_size: int, prefix: str, schema: str | None, locking: str
) -> None:
    """Add tags to the events in the database at URL that were stored without them.

    MODULE:NAME is a function of a stored event that returns its tags, or the EventTypes whose classes declare them.
    """
    options: dict[str, Any] = {"after": after, "batch_size": batch_size, "on_progress": _print}
    try:
        types, tags_of = _types_or_function(imported(where))
        mode = recorded_locking_mode(locking)
        tables = EventStoreSchema(
            prefix=prefix,
            schema=schema,
            locking=mode.locking,
            serialisation_guarantee=EventSerialisationGuarantee(mode.level),
            labels=mode.labels,
        )
        if make_url(url).get_dialect().is_async:
            asyncio.run(_with_asyncio(url, tables, types, tags_of, options))
            return
        with SyncEventStore(url, schema=tables, types=types) as store:
            store.backfill_tags(tags_of, **options)
    except ArgumentError:
        # It is not shown: it may contain a password.
        raise click.UsageError("URL is not a valid SQLAlchemy URL") from None
    except ConfigurationError as error:
        raise click.UsageError(error.message) from error
    except (EventStoreError, SQLAlchemyError, OSError) as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        raise SystemExit(3) from error


async def _with_asyncio(
    url: str, tables: EventStoreSchema, types: EventTypes[Any] | None, tags_of: Callable[..., Any], options: Any
) -> None:
    async with EventStore(url, schema=tables, types=types) as store:
        await store.backfill_tags(tags_of, **options)


def _types_or_function(found: object) -> tuple[EventTypes[Any] | None, Any]:
    if isinstance(found, EventTypes):
        types: EventTypes[Any] = found  # pyright: ignore[reportUnknownVariableType]
        return types, None
    return None, found


def _print(progress: TagBackfill) -> None:
    click.echo(f"up to {progress.up_to}: {progress.changed} of {progress.looked_at} events changed")

"""Commands that move events between stores: export, and import."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
from sqlalchemy import Engine

from eventstore_sa.cli.opening import NOT_SO, OpenStore, engine_of_url, on_store
from eventstore_sa.cli.options import json_option
from eventstore_sa.cli.output import complain, note, print_json, print_line, progress_bar
from eventstore_sa.errors import (
    BrokenExportError,
    DuplicateEventError,
    SerialisationError,
    UnmetWriteConditionError,
)
from eventstore_sa.transfer import (
    FOREIGN_STORES,
    ExportProgress,
    ForeignStore,
    ImportResult,
    export_events,
    foreign_events,
    import_events,
    read_export,
    verify_export,
)
from eventstore_sa.types import AnyStoredEvent

__all__ = ["export", "import_command"]


@click.command()
@click.argument("file", default="-")
@click.option("--category", help="Only events of this category.")
@json_option
@on_store
def export(open_store: OpenStore, *, file: str, category: str | None, as_json: bool) -> None:
    """Write all events to FILE, or to standard output: a line of JSON for each, and a trailer with their count and hash.

    What was interrupted is resumed by the same command. With --json, a summary is printed.
    """
    if file == "-" and as_json:
        raise click.UsageError("--json needs a FILE: events are written to standard output")
    where: Path | BinaryIO = sys.stdout.buffer if file == "-" else Path(file)
    written = 0

    def show(progress: ExportProgress) -> None:
        nonlocal written
        written += 1
        advance(progress.sequence_number)

    with _failures(), progress_bar("exporting", open_store.store.watermark().sequence_number) as advance:
        trailer = export_events(open_store.store, where, category=category, progress=show)
    if trailer.events and not written:
        note("the file had all events of this export already: for those that came since, export to another file")
    if as_json:
        print_json(trailer)
    else:
        note(f"{trailer.events} events, sha256 {trailer.sha256}")


@click.command(name="import")
@click.argument("source", metavar="FILE|URL")
@click.option(
    "--from",
    "kind",
    type=click.Choice(FOREIGN_STORES),
    help="The other event store whose database is at URL; without it, FILE is an export, and - standard input.",
)
@click.option("--keep-numbers", is_flag=True, help="Keep the numbers of events: into an empty store, by its owner.")
@click.option("--from-table", help="The table of the other event store, if it has another name than usual.")
@click.option("--from-schema", help="The database schema of that table.")
@click.option("--category", help="With --from eventsourcing, which has none: the category of all events.")
@json_option
@on_store
def import_command(
    open_store: OpenStore,
    *,
    source: str,
    kind: ForeignStore | None,
    keep_numbers: bool,
    from_table: str | None,
    from_schema: str | None,
    category: str | None,
    as_json: bool,
) -> None:
    """Store the events of an export, or of the tables of another event store, with their ids, times and positions.

    Events that are stored already are passed over, so an import that was interrupted is resumed by the same command.
    Projections are not updated: rebuild them.
    """
    if kind is None and (from_table or from_schema or category):
        raise click.UsageError("--from-table, --from-schema and --category need --from")
    if kind == "eventsourcing" or category is None:
        engine = None if kind is None else _source(source)
    else:
        raise click.UsageError("--category is for --from eventsourcing: other stores have categories of their own")
    with _failures(), _importing(source, engine) as (lines, total):
        if engine is not None and kind is not None:
            found = foreign_events(engine, kind, table=from_table, schema=from_schema, category=category)
            result = _import(open_store, found, None, keep_numbers=keep_numbers)
        else:
            assert lines is not None  # noqa: S101 - there is an engine or a file
            result = _import(open_store, read_export(lines), total, keep_numbers=keep_numbers)
    if as_json:
        print_json(result)
    else:
        print_line(f"{result.events} events, {result.stored} of them new")


def _import(
    open_store: OpenStore, events: Iterator[AnyStoredEvent], total: int | None, *, keep_numbers: bool
) -> ImportResult:
    with progress_bar("importing", total) as advance:
        return import_events(
            open_store.store, events, keep_numbers=keep_numbers, progress=lambda done: advance(done.events)
        )


@contextmanager
def _importing(source: str, engine: Engine | None) -> Generator[tuple[BinaryIO | None, int | None]]:
    """Open what is imported; of a file, verify it as a whole before an event of it is stored."""
    if engine is not None:
        try:
            yield None, None
        finally:
            engine.dispose()
    elif source == "-":
        yield sys.stdin.buffer, None
    else:
        path = Path(source)
        with path.open("rb") as file:
            with progress_bar("verifying", path.stat().st_size) as advance:
                trailer = verify_export(file, progress=advance)
            file.seek(0)
            yield file, trailer.events


def _source(url: str) -> Engine:
    engine = engine_of_url(url, hint="URL")
    if engine.dialect.is_async:
        raise click.BadParameter("the other store is read without asyncio: use postgresql+psycopg://", param_hint="URL")
    return engine


@contextmanager
def _failures() -> Generator[None]:
    """Say what is wrong with what was to be moved."""
    try:
        yield
    except KeyboardInterrupt:
        complain("interrupted: the same command goes on from here")
        raise
    except (BrokenExportError, UnmetWriteConditionError, DuplicateEventError, SerialisationError) as error:
        complain(error.message)
        raise SystemExit(NOT_SO) from error

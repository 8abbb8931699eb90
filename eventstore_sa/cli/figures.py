"""Commands about the store as a whole: categories, streams, statistics, the watermark."""

from __future__ import annotations

import click

from eventstore_sa.cli.opening import OpenStore, on_store
from eventstore_sa.cli.options import json_option
from eventstore_sa.cli.output import moment, note, print_json, print_line, print_table, size

__all__ = ["categories", "stats", "streams", "watermark"]

_after = click.option(
    "--after", help="Only names above this one, in code-point order: the last one of the page before."
)
_limit = click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="At most so many."
)


@click.command()
@_after
@_limit
@json_option
@on_store
def categories(open_store: OpenStore, *, after: str | None, limit: int, as_json: bool) -> None:
    """Print the categories, with their last events."""
    found = open_store.inspection.categories(after=after, limit=limit)
    if as_json:
        for each in found:
            print_json(each)
        return
    rows = [(each.category, each.last_sequence_number, moment(each.last_observed_at)) for each in found]
    print_table(("category", "last number", "last event"), rows, right=(1,))
    if len(found) == limit:
        note("There may be more: see --limit and --after.")


@click.command()
@click.option("--category", help="Only those of this category.")
@_after
@_limit
@json_option
@on_store
def streams(open_store: OpenStore, *, category: str | None, after: str | None, limit: int, as_json: bool) -> None:
    """Print the streams of a category or of all of them, with how many events they have; --after needs --category."""
    if category is None and after is not None:
        raise click.UsageError("--after needs --category: names of streams are in the order of their category")
    names = [category] if category is not None else (each.category for each in open_store.store.categories())
    rows: list[tuple[object, ...]] = []
    left = limit
    for name in names:
        found = open_store.inspection.streams(category=name, after=after, limit=left)
        left -= len(found)
        for each in found:
            if as_json:
                print_json(each)
            else:
                rows.append((each.category, each.stream, each.events, each.last_name, moment(each.last_observed_at)))
        if left == 0:
            break
    if not as_json:
        print_table(("category", "stream", "events", "last event", "observed at"), rows, right=(2,))
        if left == 0:
            note("There may be more: see --limit, --category and --after.")


@click.command()
@click.option("--exact", is_flag=True, help="Count all events, instead of estimates.")
@click.option(
    "--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many categories and streams."
)
@json_option
@on_store
def stats(open_store: OpenStore, *, exact: bool, top: int, as_json: bool) -> None:
    """Print how many events there are and where, how fast they come, and what they take on disk."""
    found = open_store.inspection.statistics(exact=exact, top=top)
    if as_json:
        print_json(found)
        return
    about = "" if found.is_exact else "about "
    print_line(f"{about}{found.events} events, the last one {found.last_sequence_number}, in {size(found.total_bytes)}")
    print_line(f"from {moment(found.first_observed_at)} to {moment(found.last_observed_at)}")
    print_line()
    rows = [(name, each.events, f"{each.events_per_s:.3g}") for name, each in found.growth.items()]
    print_table(("in the last", f"{about}events", "a second"), rows, right=(1, 2))
    print_line()
    print_table(("category", f"{about}events"), [(each.category, each.events) for each in found.categories], right=(1,))
    print_line()
    longest = [(each.category, each.stream, each.events) for each in found.streams]
    print_table(("category", "stream", "events"), longest, right=(2,))
    if found.sizes:
        print_line()
        sizes = [(each.table, size(each.table_bytes), size(each.index_bytes)) for each in found.sizes]
        print_table(("table", "rows", "indexes"), sizes, right=(1, 2))
    if not found.is_exact:
        note("Counts are estimates, and a long stream may be missing: --exact counts.")


@click.command()
@json_option
@on_store
def watermark(open_store: OpenStore, *, as_json: bool) -> None:
    """Print how far the log can be read, and which open transactions hold readers back."""
    found = open_store.inspection.watermark()
    if as_json:
        print_json(found)
        return
    print_line(
        f"The log can be read up to {found.sequence_number}; the last number that was drawn is {found.last_number}."
    )
    if found.holders:
        print_line()
        rows = [
            (
                each.sequence_number,
                "prepared" if each.pid is None else each.pid,
                each.application_name or "-",
                each.user or "-",
                each.state or "-",
                moment(each.since),
            )
            for each in found.holders
        ]
        print_table(("holds at", "process", "application", "role", "state", "since"), rows, right=(0, 1))

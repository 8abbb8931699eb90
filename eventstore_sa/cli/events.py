"""Commands that show events: the end of the log, one event, a stream, what belongs together."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final
from uuid import UUID

import click

from eventstore_sa.cli.opening import NOT_SO, OpenStore, on_store
from eventstore_sa.cli.options import json_option
from eventstore_sa.cli.output import (
    complain,
    event_line,
    nested_json,
    note,
    print_json,
    print_line,
    progress_bar,
    visible,
)
from eventstore_sa.errors import SerialisationError
from eventstore_sa.sources.constraints import (
    QueryConstraint,
    category_in,
    name_in,
    observed_between,
    sequence_number_after,
    sequence_number_before,
)
from eventstore_sa.types import AnyStoredEvent, EventQuery, StreamIdentifier
from eventstore_sa.types.json import is_mapping

__all__ = ["show", "stream", "tail", "trace"]

_MOST_DIGITS: Final = 30
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _moment(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    """Read a moment: a time in ISO 8601, in UTC if it has no zone, or how long ago."""
    if text is None:
        return None
    ago = re.fullmatch(r"(\d+)([smhdw])", text)
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS_S[ago[2]])
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        message = f"{text!r} is neither a time such as 2026-01-31T12:00 nor an age such as 90s, 10m, 2h, 3d"
        raise click.BadParameter(message) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is published, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True, help="How many of the last.")
@click.option("--category", help="Only events of this category.")
@click.option("--name", "names", multiple=True, help="Only events with this name; may be given several times.")
@click.option("--tag", "tags", multiple=True, help="Only events with this tag; several: with all of them.")
@click.option("--since", callback=_moment, metavar="TIME", help="All recorded since then, instead of the last ones.")
@click.option(
    "--interval", "interval_s", type=click.FloatRange(min=0.05), default=1.0, show_default=True, help="In seconds."
)
@json_option
@on_store
def tail(
    open_store: OpenStore,
    *,
    follow: bool,
    lines: int,
    category: str | None,
    names: Sequence[str],
    tags: Sequence[str],
    since: datetime | None,
    interval_s: float,
    as_json: bool,
) -> None:
    """Print the last events, in the order of the log; with -f, also those to come: none is missed, none comes twice."""
    source, constraints = _chosen(open_store, category, names, tags)
    # What follows is read from here on, so it is looked up first.
    done = open_store.store.watermark().sequence_number if follow else None
    until: set[QueryConstraint] = set() if done is None else {sequence_number_before(done + 1)}
    if since is not None:
        first = open_store.inspection.first_since(since)
        if first is not None:
            bounds: set[QueryConstraint] = {sequence_number_after(first - 1), observed_between(since, None)}
            _print_events(source.iterate(constraints=constraints | bounds | until), as_json=as_json)
    elif lines > 0:
        last = source.read(constraints=constraints | until, limit=lines, backwards=True)
        _print_events(reversed(last), as_json=as_json)
    while done is not None:
        now = open_store.store.watermark().sequence_number
        if now > done:
            bounds = {sequence_number_after(done), sequence_number_before(now + 1)}
            _print_events(source.iterate(constraints=constraints | bounds), as_json=as_json)
            done = now
        time.sleep(interval_s)


def _chosen(
    open_store: OpenStore, category: str | None, names: Sequence[str], tags: Sequence[str]
) -> tuple[Any, frozenset[QueryConstraint]]:
    """Return the source that an index serves, and what else is demanded of its events."""
    constraints: set[QueryConstraint] = {name_in(names)} if names else set()
    try:
        if tags:
            if category is not None:
                constraints.add(category_in([category]))
            return open_store.store.query(EventQuery.tagged(*tags)), frozenset(constraints)
        if category is not None:
            return open_store.store.category(category=category), frozenset(constraints)
    except SerialisationError as error:
        raise click.UsageError(error.message) from error
    return open_store.store.log(), frozenset(constraints)


@click.command()
@click.argument("event", metavar="EVENT_ID")
@json_option
@on_store
def show(open_store: OpenStore, *, event: str, as_json: bool) -> None:
    """Print the event with an id, or with a sequence number, and all there is to know about it."""
    found = _find(open_store, event)
    if found is None:
        complain(f"there is no event {event}")
        raise SystemExit(NOT_SO)
    if as_json:
        print_json(found.serialise())
        return
    facts = {
        "id": str(found.id),
        "name": found.name,
        "stream": f"{found.category}/{found.stream}",
        "position": str(found.position),
        "sequence number": str(found.sequence_number),
        "observed at": found.observed_at.isoformat(),
        "occurred at": found.occurred_at.isoformat(),
        "tags": ", ".join(sorted(found.tags)),
        "version": str(found.version),
    }
    for key, value in facts.items():
        print_line(f"{click.style(f'{key:>15}', bold=True)}  {visible(value)}")
    for key, value in (("metadata", found.metadata), ("payload", found.payload)):
        print_line(click.style(f"{key:>15}", bold=True))
        for line in nested_json(value):
            print_line(f"{'':15}  {line}")


def _find(open_store: OpenStore, event: str) -> AnyStoredEvent | None:
    if event.isascii() and event.isdigit() and len(event) > _MOST_DIGITS:
        return None
    if event.isascii() and event.isdigit():
        number = int(event)
        found = open_store.store.log().read(
            constraints={sequence_number_after(number - 1), sequence_number_before(number + 1)}, limit=1
        )
        return next(iter(found), None)
    try:
        return open_store.inspection.find(UUID(event))
    except ValueError:
        raise click.BadParameter(f"{event!r} is neither a UUID nor a number", param_hint="EVENT_ID") from None


@click.command()
@click.argument("where", metavar="CATEGORY/STREAM")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--backwards", is_flag=True, help="Last to first.")
@json_option
@on_store
def stream(open_store: OpenStore, *, where: str, limit: int | None, backwards: bool, as_json: bool) -> None:
    """Print the events of a stream, in order."""
    identifier = _stream(open_store, where)
    if identifier is None:
        complain(f"there is no stream {where}")
        raise SystemExit(NOT_SO)
    events = open_store.store.stream(category=identifier.category, stream=identifier.stream)
    _print_events(events.iterate(limit=limit, backwards=backwards), as_json=as_json)


def _stream(open_store: OpenStore, where: str) -> StreamIdentifier | None:
    """Return the stream that is meant: names may have slashes themselves."""
    places = [place for place, character in enumerate(where) if character == "/"]
    named = [(where[:place], where[place + 1 :]) for place in places]
    if not any(category and name for category, name in named):
        raise click.BadParameter("write the category, a slash, and the stream", param_hint="CATEGORY/STREAM")
    for category, name in named:
        try:
            if category and name and open_store.store.stream(category=category, stream=name).latest() is not None:
                return StreamIdentifier(category, name)
        except SerialisationError as error:
            raise click.BadParameter(error.message, param_hint="CATEGORY/STREAM") from error
    return None


@click.command()
@click.argument("correlation_id")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=10_000, show_default=True, help="At most so many.")
@json_option
@on_store
def trace(open_store: OpenStore, *, correlation_id: str, limit: int, as_json: bool) -> None:
    """Print what belongs together: the events with a correlation id, or with that of the event with this id.

    Without the optional index (see `doctor`), it goes through all of the log.
    """
    root = _root(open_store, correlation_id)
    wanted = correlation_id if root is None else _correlation_id(root) or correlation_id
    if root is not None and wanted != str(root.id):
        root = _root(open_store, wanted)
    found: dict[int, AnyStoredEvent] = {}
    if root is not None:
        found[root.sequence_number] = root
    before: int | None = None
    with progress_bar("searching", None) as advance:
        for searched in count(1):
            part = open_store.inspection.trace(wanted, before=before, limit=min(limit, 1000))
            found |= {event.sequence_number: event for event in part.events}
            before = part.next_before
            if before is None or len(found) >= limit:
                break
            advance(searched)
    if not found:
        complain(f"there is no event with the correlation id {correlation_id}")
        raise SystemExit(NOT_SO)
    events = [found[number] for number in sorted(found)]
    if before is not None:
        note(f"there may be more than these {len(events)} events: see --limit")
    if as_json:
        _print_events(events, as_json=True)
        return
    for depth, event in _tree(events):
        print_line(f"{'  ' * depth}{event_line(event)}")


def _root(open_store: OpenStore, text: str) -> AnyStoredEvent | None:
    try:
        return open_store.inspection.find(UUID(text))
    except ValueError:
        return None


def _metadata(event: AnyStoredEvent, key: str) -> str | None:
    metadata: object = event.metadata
    found: object = metadata.get(key) if is_mapping(metadata) else None
    return found if isinstance(found, str) else None


def _correlation_id(event: AnyStoredEvent) -> str | None:
    return _metadata(event, "correlation_id")


def _tree(events: Sequence[AnyStoredEvent]) -> Iterable[tuple[int, AnyStoredEvent]]:
    """Yield events, each after the one that caused it, with how deep it is below the first."""
    known = {str(event.id) for event in events}
    caused: dict[str | None, list[AnyStoredEvent]] = {}
    for event in events:
        cause = _metadata(event, "causation_id")
        caused.setdefault(cause if cause in known and cause != str(event.id) else None, []).append(event)
    waiting = [(0, event) for event in reversed(caused.pop(None, []))]
    while waiting:
        depth, event = waiting.pop()
        yield depth, event
        waiting += [(depth + 1, each) for each in reversed(caused.pop(str(event.id), []))]
    # Whoever writes metadata can let events cause each other.
    yield from ((0, event) for rest in caused.values() for event in rest)


def _print_events(events: Iterable[AnyStoredEvent], *, as_json: bool) -> None:
    for event in events:
        if as_json:
            print_json(event.serialise())
        else:
            print_line(event_line(event))

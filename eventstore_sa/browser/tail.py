"""The live tail: events as they come, each exactly once, as server-sent events.

A chunk holds everything between a place and the watermark, and ends with an id: the place up to which everything was
sent, also where filters left events out. A browser that connects again with `Last-Event-ID` continues right there. A chunk
takes connections for its reads; none is held while nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from htpy import Node
from msgspec import Struct

from eventstore_sa.browser.filters import Filters
from eventstore_sa.browser.layout import event_row, unreadable_row
from eventstore_sa.browser.reads import EventPage, Target, place_of
from eventstore_sa.browser.requests import BrowserRequest, number_of
from eventstore_sa.browser.site import Site
from eventstore_sa.sources.constraints import sequence_number_before
from eventstore_sa.steps import Steps
from eventstore_sa.types import StreamIdentifier, encode_json

__all__ = ["Chunk", "chunk", "start_of"]

_SIZE: Final = 100


class Chunk(Struct, frozen=True):
    """A part of a tail.

    Attributes:
        text: Messages in the format of server-sent events.
        after: The place that the next part begins after.
        is_end: Whether everything up to the watermark has been sent.
    """

    text: str
    after: int
    is_end: bool


def start_of(request: BrowserRequest, filters: Filters) -> int:
    """Return the place after which a tail begins: a sequence number, or a position in a stream.

    Raises:
        BadRequestError: If it is not a number.
    """
    last = request.headers.get("last-event-id")
    place = number_of(last, "Last-Event-ID") if last else request.number("after")
    if place is not None:
        return place
    return -1 if isinstance(filters.target, StreamIdentifier) else 0


def chunk(site: Site, request: BrowserRequest, filters: Filters, after: int) -> Steps[Chunk]:
    """Return what filters take of the events after a place, up to the watermark, or the first of them."""
    target = filters.target
    if isinstance(target, StreamIdentifier):
        # Complete as it stands, and in the order of positions.
        page: EventPage = yield site.run(site.reads.page, target, after=after, size=_SIZE)
        end = after
    else:
        end = yield site.run(site.reads.end)
        if end <= after:
            return Chunk("", after, is_end=True)
        page = yield site.run(
            site.reads.page, target, after=after, size=_SIZE, constraints=[sequence_number_before(end + 1)]
        )
    reached = max(_places(target, page), default=end)
    if not page.more:
        reached = max(reached, end)
    by_position = isinstance(target, StreamIdentifier)
    text = "".join(
        _message("event", event_row(request, event, redaction=site.redaction, by_position=by_position))
        for event in page.events[::-1]
        if filters.matches(event) and filters.takes(event, site.redaction)
    )
    text += "".join(_message("unreadable", unreadable_row(error)) for error in page.unreadable)
    if reached > after:
        # At the end: a part of it that is lost on the way comes again as a whole, and its rows are known by their ids.
        text += f"id: {reached}\n\n"
    return Chunk(text, reached, is_end=not page.more)


def _places(target: Target, page: EventPage) -> Iterator[int]:
    yield from (place_of(target, event) for event in page.events)
    for error in page.unreadable:
        place = error.position if isinstance(target, StreamIdentifier) else error.sequence_number
        if place is not None:
            yield place


def _message(kind: str, row: Node) -> str:
    # JSON has no line breaks. It is written of plain text only, and the row is text of a kind of its own.
    text = str(row).encode().decode()
    return f"event: {kind}\ndata: {encode_json({'row': text}).decode()}\n\n"

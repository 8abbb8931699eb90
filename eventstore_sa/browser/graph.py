"""Causes and effects as a picture: a tree from left to right, drawn as SVG, and the same as nested lists.

An event that names a cause which is not earlier than itself has none here, so there are no circles.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from htpy import Element, Node, a, div, li, span, svg, ul
from htpy import title as title_element
from msgspec import Struct

from eventstore_sa.browser.filters import causation_of
from eventstore_sa.browser.layout import event_link, stream_link
from eventstore_sa.browser.redaction import Redaction
from eventstore_sa.browser.requests import BrowserRequest
from eventstore_sa.browser.text import printable
from eventstore_sa.types import AnyStoredEvent

__all__ = ["Forest", "forest_of", "outline", "picture"]

_WIDTH: Final = 188
_HEIGHT: Final = 46
_GAP_X: Final = 34
_GAP_Y: Final = 14
_MARGIN: Final = 6

_circle, _path, _rect, _text = (Element(name) for name in ("circle", "path", "rect", "text"))


class Forest(Struct, frozen=True):
    """Events, and which caused which.

    Attributes:
        roots: Those whose cause is not among them, in order.
        effects: By the id of an event, those that it caused, in order.
    """

    roots: Sequence[AnyStoredEvent]
    effects: Mapping[UUID, Sequence[AnyStoredEvent]]


def forest_of(events: Sequence[AnyStoredEvent], redaction: Redaction) -> Forest:
    """Return how events caused each other."""
    by_id = {event.id: event for event in events}
    roots: list[AnyStoredEvent] = []
    effects: dict[UUID, list[AnyStoredEvent]] = {}
    for event in sorted(by_id.values(), key=lambda each: each.sequence_number):
        cause = causation_of(event, redaction)
        known = None if cause is None else by_id.get(cause)
        if known is None or known.sequence_number >= event.sequence_number:
            roots.append(event)
        else:
            effects.setdefault(known.id, []).append(event)
    return Forest(roots, effects)


def picture(request: BrowserRequest, forest: Forest, here: UUID) -> Node:
    """Return the picture, in which one event stands out."""
    places = _places(forest)
    depth = max(column for column, _ in places.values())
    rows = max(row for _, row in places.values())
    width = _MARGIN * 2 + (depth + 1) * _WIDTH + depth * _GAP_X
    height = round(_MARGIN * 2 + rows * (_HEIGHT + _GAP_Y) + _HEIGHT)
    events = {event.id: event for event in _all(forest)}
    edges = [
        _path(".edge", d=_curve(places[cause], places[effect.id]))
        for cause, effects in forest.effects.items()
        for effect in effects
    ]
    boxes = [_box(request, events[id], *places[id], is_here=id == here) for id in places]  # noqa: A001
    return div(".graph", tabindex="0", role="group", aria_label="Causes and effects, drawn")[
        svg(viewBox=f"0 0 {width} {height}", width=str(width), height=str(height))[edges, boxes]
    ]


def outline(request: BrowserRequest, forest: Forest, here: UUID) -> Node:
    """Return the same as nested lists."""

    def listed(events: Sequence[AnyStoredEvent]) -> Node:
        return ul(".outline")[
            (
                li[
                    span(".muted")[f"{event.sequence_number} "],
                    event_link(request, event),
                    " in ",
                    stream_link(request, event.category, event.stream),
                    event.id == here and span(".muted")[" (this event)"],
                    listed(forest.effects[event.id]) if event.id in forest.effects else None,
                ]
                for event in events
            )
        ]

    return listed(forest.roots)


def _all(forest: Forest) -> list[AnyStoredEvent]:
    return [*forest.roots, *(event for events in forest.effects.values() for event in events)]


def _places(forest: Forest) -> dict[UUID, tuple[int, float]]:
    """Return the column and the row of each event: effects in rows of their own, a cause in the middle of its effects."""
    places: dict[UUID, tuple[int, float]] = {}
    row = 0

    def place(event: AnyStoredEvent, column: int) -> float:
        nonlocal row
        effects = forest.effects.get(event.id, ())
        if effects:
            rows = [place(effect, column + 1) for effect in effects]
            at = (rows[0] + rows[-1]) / 2
        else:
            at = float(row)
            row += 1
        places[event.id] = (column, at)
        return at

    for root in forest.roots:
        place(root, 0)
    return places


def _corner(column: int, row: float) -> tuple[int, int]:
    return _MARGIN + column * (_WIDTH + _GAP_X), round(_MARGIN + row * (_HEIGHT + _GAP_Y))


def _curve(cause: tuple[int, float], effect: tuple[int, float]) -> str:
    x, y = _corner(*cause)
    to_x, to_y = _corner(*effect)
    x, y, to_y, middle = x + _WIDTH, y + _HEIGHT // 2, to_y + _HEIGHT // 2, _GAP_X // 2
    return f"M{x} {y}C{x + middle} {y} {to_x - middle} {to_y} {to_x} {to_y}"


def _box(request: BrowserRequest, event: AnyStoredEvent, column: int, row: float, *, is_here: bool) -> Node:
    x, y = _corner(column, row)
    name, stream = str(event.name), f"{event.category}/{event.stream}"
    colour = zlib.crc32(name.encode(errors="replace")) % 8
    return a(".here" if is_here else "", href=request.url(f"/event/{event.sequence_number}"))[
        title_element[printable(f"{event.sequence_number} {name} in {stream}", 300)],
        _rect(".box", x=str(x), y=str(y), width=str(_WIDTH), height=str(_HEIGHT), rx="8"),
        _circle(f".fill{colour}", cx=str(x + 16), cy=str(y + 17), r="4"),
        _text(".label", x=str(x + 27), y=str(y + 21))[printable(name, 21)],
        _text(".sub", x=str(x + 27), y=str(y + 37))[printable(f"{event.sequence_number} · {stream}", 22)],
    ]

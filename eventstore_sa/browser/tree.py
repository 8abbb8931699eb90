"""JSON as a tree that can be folded, however large, deep or odd it is: what is not shown has a link to where it is.

A value within another is named by the places of the values on the way, counted from 0: an address stays short whatever
the names of members are. Nodes, depth and the length of texts are bounded on every page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

from htpy import Node, a, details, div, li, span, summary, ul

from eventstore_sa.browser.json_text import is_array
from eventstore_sa.browser.redaction import HIDDEN, Redaction
from eventstore_sa.browser.text import plural, printable, shortened, size, visible
from eventstore_sa.types.json import is_dict

__all__ = ["NO_SUCH_PLACE", "Place", "TreeLinks", "children_of", "preview", "tree", "walk_to"]

Place: TypeAlias = tuple[int, ...]
TreeLinks: TypeAlias = Callable[[Place, int], str]
"""Returns the address of the page of a value within, from its n-th part on."""

NO_SUCH_PLACE: Final = object()

_MOST_NODES: Final = 1_500
_MOST_CHILDREN: Final = 100
_DEEPEST: Final = 24
_OPEN_DEPTH: Final = 3
_LONGEST_TEXT: Final = 600
_LONGEST_KEY: Final = 120
_LONGEST_PAGE_OF_TEXT: Final = 20_000


def is_container(value: Any) -> bool:
    """Return whether a value is an array or an object."""
    return is_dict(value) or is_array(value)


def children_of(value: Any, start: int = 0) -> Iterator[tuple[str | int, Any]]:
    """Yield the members or items of a value, from the n-th on, by name or index."""
    if is_dict(value):
        yield from islice(value.items(), start, None)
    elif is_array(value):
        yield from islice(enumerate(value), start, None)


def walk_to(value: Any, place: Place, redaction: Redaction) -> tuple[tuple[str | int, ...], Any]:
    """Return the path and the value at a place; NO_SUCH_PLACE if there is none, or something on the way is hidden."""
    path: list[str | int] = []
    for step in place:
        found = next(children_of(value, step), None)
        if found is None:
            return (), NO_SUCH_PLACE
        path.append(found[0])
        value = found[1]
        if redaction.is_active and redaction.hides(tuple(path), value):
            return (), NO_SUCH_PLACE
    return tuple(path), value


def tree(
    value: Any,
    *,
    redaction: Redaction,
    links: TreeLinks | None,
    path: tuple[str | int, ...] = (),
    place: Place = (),
    start: int = 0,
) -> Node:
    """Return a value as a tree.

    Args:
        value: JSON.
        redaction: What is hidden in it.
        links: Leads to what is left out; None: only says that it is.
        path: The path of the value within a whole.
        place: The same as a place.
        start: Begin with the n-th part of it.
    """
    return div(".tree")[_Tree(redaction, links).whole(value, path, place, start)]


class _Tree:
    def __init__(self, redaction: Redaction, links: TreeLinks | None) -> None:
        self._redaction = redaction
        self._links = links
        self._left = _MOST_NODES

    def whole(self, value: Any, path: tuple[str | int, ...], place: Place, start: int) -> Node:
        if is_container(value):
            return [self._size_of(value), self._children(value, path, place, start, 0)]
        if isinstance(value, str):
            end = start + _LONGEST_PAGE_OF_TEXT
            rest = len(value) - end
            return [
                span(".string.long")[visible(value[start:end])],
                rest > 0 and self._more(place, end, f"{size(rest)} more"),
            ]
        return _scalar(value)

    def _size_of(self, value: Any) -> Node:
        count = len(value)
        what = plural(count, "member") if is_dict(value) else plural(count, "item")
        return span(".count")[what]

    def _children(self, value: Any, path: tuple[str | int, ...], place: Place, start: int, depth: int) -> Node:
        rows: list[Node] = []
        shown = start
        for name, child in islice(children_of(value, start), _MOST_CHILDREN):
            if self._left <= 0:
                break
            self._left -= 1
            rows.append(li[self._child(name, child, (*path, name), (*place, shown), depth)])
            shown += 1
        rest = len(value) - shown
        return [
            ul[rows] if rows else None,
            rest > 0 and self._more(place, shown, f"{plural(rest, 'more', 'more')} of {len(value):,}"),
        ]

    def _child(self, name: str | int, value: Any, path: tuple[str | int, ...], place: Place, depth: int) -> Node:
        key = span(".index" if isinstance(name, int) else ".key", title=_hint(name))[
            str(name) if isinstance(name, int) else visible(name, _LONGEST_KEY)
        ]
        if self._redaction.hides(path, value):
            return [key, " ", span(".hidden", title="Hidden by the application")[HIDDEN]]
        if not is_container(value):
            return [key, " ", self._leaf(value, place)]
        if not value:
            return [key, " ", span(".count")["{}" if is_dict(value) else "[]"]]
        if depth + 1 >= _DEEPEST:
            return [key, " ", self._size_of(value), " ", self._more(place, 0, "deeper")]
        return details(open=depth < _OPEN_DEPTH)[
            summary[key, " ", self._size_of(value)], self._children(value, path, place, 0, depth + 1)
        ]

    def _leaf(self, value: Any, place: Place) -> Node:
        if not isinstance(value, str) or len(value) <= _LONGEST_TEXT:
            return _scalar(value)
        rest = len(value) - _LONGEST_TEXT
        return [span(".string")['"', visible(value[:_LONGEST_TEXT])], " ", self._more(place, 0, f"{size(rest)} more")]

    def _more(self, place: Place, start: int, what: str) -> Node:
        if self._links is None:
            return span(".more")["… ", what]
        return a(".more", href=self._links(place, start))["… ", what]


def _hint(name: str | int) -> str | None:
    return printable(name, 2000) if isinstance(name, str) and len(name) > _LONGEST_KEY else None


def _scalar(value: Any) -> Node:
    match value:
        case None | True | False:
            return span(".literal")[json.dumps(value)]
        case int() | float():
            return span(".number")[shortened(_number(value), _LONGEST_TEXT)]
        case _:
            return span(".string")['"', visible(str(value), _LONGEST_TEXT), '"']


def _number(value: float) -> str:
    try:
        return json.dumps(value)
    except ValueError:  # an integer with more digits than Python prints
        return "a very large integer"


def preview(value: Any, redaction: Redaction, longest: int = 160) -> str:
    """Return the beginning of a value as one line of JSON."""
    parts: list[str] = []
    left = longest
    for part in _tokens(value, redaction, (), 0):
        parts.append(part)
        left -= len(part)
        if left < 0:
            break
    return shortened("".join(parts), longest)


def _tokens(value: Any, redaction: Redaction, path: tuple[str | int, ...], depth: int) -> Iterator[str]:
    if not is_container(value):
        yield json.dumps(shortened(value, 200), ensure_ascii=False) if isinstance(value, str) else _shown(value)
        return
    opening, closing = "{}" if is_dict(value) else "[]"
    if depth > _OPEN_DEPTH and value:
        yield f"{opening}…{closing}"
        return
    yield opening
    for number, (name, child) in enumerate(children_of(value)):
        if number:
            yield ", "
        if isinstance(name, str):
            yield f"{shortened(name, 60)}: "
        if redaction.hides((*path, name), child):
            yield HIDDEN
        else:
            yield from _tokens(child, redaction, (*path, name), depth + 1)
    yield closing


def _shown(value: Any) -> str:
    return _number(value) if isinstance(value, int | float) else json.dumps(value)


def place_of_text(text: str | None) -> Place | None:
    """Return the place that a text such as "0.3.1" names; None if it names none."""
    if not text:
        return ()
    steps: Sequence[str] = text.split(".")
    if not all(step.isascii() and step.isdecimal() and len(step) < 10 for step in steps):
        return None
    return tuple(map(int, steps))


def text_of_place(place: Place) -> str:
    """Return a place as text."""
    return ".".join(map(str, place))

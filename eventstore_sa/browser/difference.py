"""What is different between two JSON values: what was added, what was removed, and where.

Pure Python; arrays are compared by what they have in common at their beginning and end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct
from msgspec.json import encode

from eventstore_sa.browser.json_text import is_array
from eventstore_sa.types.json import is_dict

__all__ = ["Change", "differences"]


class Change(Struct, frozen=True):
    """Something that is in one of two values only.

    Attributes:
        kind: In which.
        path: Where.
        value: What.
    """

    kind: Literal["added", "removed"]
    path: tuple[str | int, ...]
    value: Any


def differences(before: Any, after: Any) -> Iterator[Change]:
    """Yield what has to be removed from a value, and what added, to get another; a replaced value is both."""
    waiting: list[tuple[Any, Any, tuple[str | int, ...]]] = [(before, after, ())]
    while waiting:
        old, new, path = waiting.pop()
        if _same(old, new):
            continue
        if is_dict(old) and is_dict(new):
            members, others = old, new
            yield from (Change("removed", (*path, name), members[name]) for name in members if name not in others)
            yield from (Change("added", (*path, name), others[name]) for name in others if name not in members)
            waiting += [(members[name], others[name], (*path, name)) for name in reversed(members) if name in others]
        elif is_array(old) and is_array(new):
            items, instead = old, new
            start, end, new_end = _unlike(items, instead)
            if end - start == new_end - start:
                waiting += [(items[index], instead[index], (*path, index)) for index in reversed(range(start, end))]
            else:
                yield from (Change("removed", (*path, index), items[index]) for index in range(start, end))
                yield from (Change("added", (*path, index), instead[index]) for index in range(start, new_end))
        else:
            yield Change("removed", path, old)
            yield Change("added", path, new)


def _unlike(items: list[Any], instead: list[Any]) -> tuple[int, int, int]:
    """Return where two arrays begin to differ, and where each of them ceases to."""
    start, end, new_end = 0, len(items), len(instead)
    while start < min(end, new_end) and _same(items[start], instead[start]):
        start += 1
    while start < min(end, new_end) and _same(items[end - 1], instead[new_end - 1]):
        end, new_end = end - 1, new_end - 1
    return start, end, new_end


def _same(one: Any, other: Any) -> bool:
    # As they are written: in Python, True is 1 and 1 is 1.0.
    if (is_dict(one) and is_dict(other)) or (is_array(one) and is_array(other)):
        return len(one) == len(other) and _text_of(one) == _text_of(other)
    return type(one) is type(other) and bool(one == other)


def _text_of(value: Any) -> bytes:
    return encode(value, order="sorted")

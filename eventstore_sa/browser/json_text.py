"""Reading stored JSON for the pages, also where it is nested more deeply than the ordinary reader goes.

Publishing refuses such JSON; other SQL can store it. Without recursion, nothing but its length limits what is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from json import decoder
from typing import Any, Final

from typing_extensions import TypeIs

from eventstore_sa.errors import SerialisationError
from eventstore_sa.types import decode_json
from eventstore_sa.types.json import is_dict

__all__ = ["is_array", "parsed"]

_DEEP_JSON_LIMIT: Final = 4_000_000
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SCALAR: Final = re.compile(r"(null|true|false)|(-?\d{1,4000})(\.\d+)?([eE][-+]?\d+)?")
# The part of the standard library's reader that reads a string.
_scan_string: Final[Callable[[str, int, bool], tuple[str, int]]] = vars(decoder)["scanstring"]
_NAMES: Final[dict[str, Any]] = {"null": None, "true": True, "false": False}


def is_array(value: object) -> TypeIs[list[Any]]:
    """Return whether a value is a list, of whatever."""
    return isinstance(value, list)


def parsed(text: str | bytes) -> Any:
    """Return the value that a stored text holds.

    Raises:
        SerialisationError: If it is not JSON, or too much of it is nested too deeply.
    """
    try:
        return decode_json(text)
    except SerialisationError as error:
        if not isinstance(error.__cause__, RecursionError) or len(text) > _DEEP_JSON_LIMIT:
            raise
        try:
            return _parsed_without_recursion(text.decode() if isinstance(text, bytes) else text)
        except (ValueError, IndexError):
            raise error from error.__cause__


def _parsed_without_recursion(text: str) -> Any:
    whole: list[Any] = []
    # Containers that are not complete.
    within: list[Any] = [whole]
    index = _skipped(text, 0)
    while within:
        container = within.pop()
        name = ""
        if container is not whole and text[index] == ("}" if is_dict(container) else "]"):
            index = _after_value(text, index + 1, within)
            continue
        if is_dict(container):
            if text[index] != '"':
                raise ValueError(index)
            name, index = _scan_string(text, index + 1, True)
            index = _skipped(text, index)
            if text[index] != ":":
                raise ValueError(index)
            index = _skipped(text, index + 1)
        value, index, is_open = _begun(text, index)
        if is_dict(container):
            container[name] = value
        else:
            container.append(value)
        if container is not whole:
            within.append(container)
        if is_open:
            within.append(value)
            index = _skipped(text, index)
        else:
            index = _after_value(text, index, within)
    if index != len(text):
        raise ValueError(index)
    return whole[0]


def _begun(text: str, index: int) -> tuple[Any, int, bool]:
    """Read a value, or the beginning of one; return it, where it ends, and whether more of it follows."""
    match text[index]:
        case "{":
            return {}, index + 1, True
        case "[":
            return [], index + 1, True
        case '"':
            string, end = _scan_string(text, index + 1, True)
            return string, end, False
        case _:
            found = _SCALAR.match(text, index)
            if found is None:
                raise ValueError(index)
            name, whole, fraction, exponent = found.groups()
            if name is not None:
                return _NAMES[name], found.end(), False
            return (float(found[0]) if fraction or exponent else int(whole)), found.end(), False


def _after_value(text: str, index: int, within: list[Any]) -> int:
    """Return where the next value or the end of its container begins."""
    index = _skipped(text, index)
    if not within:
        return index
    if text[index] == ",":
        return _skipped(text, index + 1)
    if text[index] not in "]}":
        raise ValueError(index)
    return index


def _skipped(text: str, index: int) -> int:
    found = _SPACE.match(text, index)
    return index if found is None else found.end()

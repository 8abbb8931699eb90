"""How large a JSON text becomes as jsonb, and whether PostgreSQL takes it: found out before anything is sent.

A jsonb value has at most 256 MB less a byte, a parameter 1 GB less a byte. JSON that is too large makes its statement fail,
and with it the transaction of a host; a message that is too large breaks the connection.
"""

from __future__ import annotations

import re
from typing import Final

from eventstore_sa.errors import SerialisationError

__all__ = ["check_jsonb", "jsonb_size"]

MAX_JSONB_BYTES: Final = 2**28 - 1
MAX_PARAMETER_BYTES: Final = 2**30 - 1
# An array with more cannot be built up in memory; that they might be in several is not looked at.
MAX_JSONB_VALUES: Final = 2**24
# `1,` becomes an entry of 4 bytes and a number of 8; nothing grows more.
_LARGEST_GROWTH: Final = 6
_LONGEST_CHARACTER: Final = 4
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')


def check_jsonb(text: str, what: str) -> None:
    """Refuse JSON that PostgreSQL would refuse for its size; costs nothing where that is far away.

    Args:
        text: JSON as `encode_json` writes it.
        what: What it is, for the message, in the plural.

    Raises:
        SerialisationError: It is too large.
    """
    if len(text) * _LONGEST_CHARACTER * _LARGEST_GROWTH <= MAX_JSONB_BYTES:
        return
    written = text.encode()
    if len(written) <= MAX_PARAMETER_BYTES:
        size, values = jsonb_size(written)
        if size <= MAX_JSONB_BYTES and values <= MAX_JSONB_VALUES:
            return
    raise SerialisationError(
        f"{what} are {len(written):,} bytes of JSON, and PostgreSQL takes about {MAX_JSONB_BYTES:,} at once, of which "
        f"short numbers count for six, with at most {MAX_JSONB_VALUES:,} values: store fewer in one call, or smaller ones"
    )


def jsonb_size(text: bytes) -> tuple[int, int]:
    """Return about how many bytes a JSON text, as `encode_json` writes it, has as jsonb, and how many values are in it.

    There is an entry of 4 bytes for each value and each key, and a header of 4 bytes for each container; strings are kept
    as they are, numbers as groups of four decimal digits. Numbers count for their average; padding is left out.
    """
    skeleton = _STRING.sub(b'"', text)
    strings = skeleton.count(b'"')
    characters = len(text) - len(skeleton) - strings
    escapes = text.count(b"\\") - text.count(b"\\\\") + 4 * text.count(b"\\u00")

    commas, keys = skeleton.count(b","), skeleton.count(b":")
    containers = skeleton.count(b"[") + skeleton.count(b"{")
    values = commas + containers - skeleton.count(b"[]") - skeleton.count(b"{}")
    words = {word: skeleton.count(word[:1]) for word in (b"true", b"false", b"null")}
    numbers = max(0, values + keys - strings - sum(words.values()) - max(0, containers - 1))
    digits = len(skeleton) - commas - keys - 2 * containers - strings - sum(len(word) * n for word, n in words.items())
    structure = 4 + 4 * (values + keys + containers)
    return structure + characters - escapes + 8 * numbers + max(0, digits - 4 * numbers) // 2, values

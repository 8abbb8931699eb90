"""How large a JSON text becomes as jsonb, and whether PostgreSQL accepts it; determined before anything is sent.

A jsonb value has at most 256 MB less a byte, a parameter 1 GB less a byte. JSON that is too large makes its statement fail,
and with it the transaction of a host; a message that is too large breaks the connection.
"""

from __future__ import annotations

from typing import Final

from eventstore_sa.errors import SerialisationError

__all__ = ["check_jsonb", "jsonb_size"]

MAX_JSONB_BYTES: Final = 2**28 - 1
MAX_PARAMETER_BYTES: Final = 2**30 - 1
# PostgreSQL cannot build an array with more in memory. Whether they are spread over several arrays is not considered.
MAX_JSONB_VALUES: Final = 2**24
# `1,` becomes an entry of 4 bytes and a number of 8; nothing grows more.
_LARGEST_GROWTH: Final = 6
_LONGEST_CHARACTER: Final = 4
_PIECE: Final = 2**20
_DIGITS: Final = bytes.maketrans(b"123456789", b"0" * 9)


def check_jsonb(text: str, what: str) -> None:
    """Refuse JSON that PostgreSQL would refuse for its size; the check costs nothing if the limit is far away.

    Args:
        text: JSON as `encode_json` writes it.
        what: What it is, for the message, in the plural.

    Raises:
        SerialisationError: If it is too large.
    """
    if len(text) * _LONGEST_CHARACTER * _LARGEST_GROWTH <= MAX_JSONB_BYTES:
        return
    written = text.encode()
    if len(written) > MAX_PARAMETER_BYTES:
        raise SerialisationError(
            f"{what} are {len(written):,} bytes of JSON, but PostgreSQL accepts at most {MAX_PARAMETER_BYTES:,} in a "
            "parameter: store fewer in one call, or smaller ones"
        )
    size, values = jsonb_size(written)
    if size > MAX_JSONB_BYTES or values > MAX_JSONB_VALUES:
        raise SerialisationError(
            f"{what} are {len(written):,} bytes of JSON, which become up to {size:,} bytes of jsonb with {values:,} values, "
            f"but PostgreSQL accepts at most {MAX_JSONB_BYTES:,} bytes with {MAX_JSONB_VALUES:,} values at once: store "
            "fewer in one call, or smaller ones"
        )


def jsonb_size(text: bytes) -> tuple[int, int]:
    """Return the largest size in bytes that a JSON text, as `encode_json` writes it, has as jsonb, and its number of values.

    There is an entry of 4 bytes for each value and each key, and a header of 4 bytes for each container. Strings are kept
    as they are. A number has a header of 6 bytes, 8 if it is long, and 2 bytes for each group of four decimal digits, which
    are counted from the point. Numbers and containers begin at multiples of 4; see PostgreSQL's `utils/jsonb.h` and
    `numeric.c`.
    """
    skeleton, characters = _without_strings(text)
    strings = skeleton.count(b'"')
    commas, keys = skeleton.count(b","), skeleton.count(b":")
    objects = skeleton.count(b"{") - skeleton.count(b"{}")
    containers = skeleton.count(b"[") + skeleton.count(b"{")
    values = commas + containers - skeleton.count(b"[]") - skeleton.count(b"{}")
    # Keys are strings too, and all containers but the first are values.
    trues, falses, nulls = (skeleton.count(word) for word in (b"t", b"f", b"n"))
    numbers = values + keys - strings - trues - falses - nulls - containers + 1

    exponents = skeleton.count(b"e") - trues - falses
    groups = _groups_of_digits(skeleton)
    # A long header is for exponents, and for more than 63 digits after the point or some 250 before it.
    of_numbers = 6 * numbers + 2 * groups + 2 * exponents + 2 * (groups // 16)
    # A number of an even number of groups leaves 2 bytes over. The keys of an object are stored one behind the other.
    padding = 2 * min(numbers, groups - numbers) + 3 * min(strings - keys + objects, numbers + containers)
    return 12 + 4 * (values + keys + containers) + characters + of_numbers + padding, values


def _without_strings(text: bytes) -> tuple[bytes, int]:
    """Return a JSON text with a quotation mark for each string, and how many bytes the strings have."""
    backslashes = quotes = shortened = 0
    if b"\\" in text:
        backslashes = text.count(b"\\\\")
        text = text.replace(b"\\\\", b"")
        quotes = text.count(b'\\"')
        text = text.replace(b'\\"', b"")
        # What is left stands for one byte each, and is written as \n or \u001f.
        shortened = text.count(b"\\") + 4 * text.count(b"\\u")
    outside: list[bytes] = []
    within = False
    # Piece by piece, for a list of all strings would take many times their size.
    for start in range(0, len(text), _PIECE):
        parts = text[start : start + _PIECE].split(b'"')
        outside.append(b'"'.join(parts[within::2]))
        ends_within = within ^ (len(parts) % 2 == 0)
        if ends_within and len(parts) > 1:
            outside.append(b'"')
        within = ends_within
    skeleton = b"".join(outside)
    strings = skeleton.count(b'"')
    return skeleton, len(text) - len(skeleton) - strings - shortened + backslashes + quotes


def _groups_of_digits(skeleton: bytes) -> int:
    digits = skeleton.translate(_DIGITS)
    whole = digits.count(b"0000")
    return whole + digits.replace(b"0000", b"").replace(b"000", b"0").replace(b"00", b"0").count(b"0")

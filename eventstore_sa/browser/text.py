"""How text, numbers and times look on a page: shortened, and with nothing in them that cannot be seen.

Whatever a payload holds is a node of htpy, which escapes it. Characters that turn the direction of text around, or that
have no shape, are shown as their code points.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from htpy import Node, bdi, span, time

__all__ = ["ago", "duration", "moment", "plural", "printable", "shortened", "size", "visible"]

_UNSEEN: Final = re.compile(
    "[\x00-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\uffff\U000e0000-\U000e0fff\ud800-\udfff]"
)
_MARKED: Final = {"\n": "↵", "\t": "⇥", "\r": "␍"}


def visible(text: str, longest: int | None = None) -> Node:
    """Return a text, up to so many characters, in which every character can be seen."""
    cut = text if longest is None else shortened(text, longest)
    if not _UNSEEN.search(cut):
        return bdi[cut]
    parts: list[Node] = []
    start = 0
    for found in _UNSEEN.finditer(cut):
        parts.append(cut[start : found.start()])
        character = found[0]
        code = f"U+{ord(character):04X}"
        parts.append(span(".unseen", title=code)[_MARKED.get(character, code)])
        start = found.end()
    return bdi[parts, cut[start:]]


def printable(text: str, longest: int) -> str:
    """Return a text, up to so many characters, with code points instead of characters that cannot be seen."""
    return _UNSEEN.sub(lambda found: f"<{ord(found[0]):04X}>", shortened(text, longest))


def shortened(text: str, longest: int) -> str:
    """Return a text, or its beginning and an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def moment(value: datetime) -> Node:
    """Return a time in UTC, with its day less prominent than its hour."""
    utc = value.astimezone(UTC)
    rest = f"{utc:%H:%M:%S}.{utc.microsecond // 1000:03}"
    return time(datetime=utc.isoformat().replace("+00:00", "Z"), title=f"{utc.isoformat(sep=' ')}")[
        span(".day")[f"{utc.year:04}-{utc:%m-%d}"], " ", rest
    ]


def duration(seconds: float) -> str:
    """Return a length of time in its largest two units."""
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))} ms"
    left = round(seconds)
    parts: list[str] = []
    for length, unit in units:
        count, left = divmod(left, length)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def ago(value: datetime, now: datetime) -> str:
    """Return how long ago a time was."""
    return f"{duration((now - value).total_seconds())} ago"


def size(count: int) -> str:
    """Return a number of bytes or characters in a readable unit."""
    for unit, length in (("MB", 1_000_000), ("kB", 1_000)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"

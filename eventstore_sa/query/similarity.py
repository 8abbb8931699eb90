"""The similarity of texts, as pg_trgm defines it."""

from __future__ import annotations

import re
from struct import pack, unpack

__all__ = ["FOLDED", "SEPARATORS", "UNFOLDED", "similarity", "trigrams"]

SEPARATORS = r"[\x01-\x2f:-@\[-`{-\x7f]+"
"""What words end at: ASCII that is neither letter nor digit."""

UNFOLDED = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FOLDED = UNFOLDED.lower()

_FOLDING = str.maketrans(UNFOLDED, FOLDED)
_SEPARATORS = re.compile(SEPARATORS)


def trigrams(text: str) -> frozenset[str]:
    """Return all that stands in three places next to each other, in words with two spaces before and one behind."""
    words = (f"  {word} " for word in _SEPARATORS.split(text.translate(_FOLDING)) if word)
    return frozenset(word[at : at + 3] for word in words for at in range(len(word) - 2))


def similarity(left: str, right: str) -> float:
    """Return the share of trigrams that two texts have in common, as a number of 32 bits; 0 when there are none."""
    ours, theirs = trigrams(left), trigrams(right)
    every = len(ours | theirs)
    share: float = unpack("f", pack("f", len(ours & theirs) / every))[0] if every else 0.0
    return share

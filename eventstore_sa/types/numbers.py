"""What counts: page sizes, numbers of tries and the like, checked in one way wherever they are given.

Numbers that are compared with stored ones, as positions and versions are, may be of any size: none is stored that is larger
than databases can count, so the answer is known.
"""

from __future__ import annotations

from eventstore_sa.errors import ConfigurationError

__all__ = ["LARGEST_NUMBER", "checked_count"]

LARGEST_NUMBER = 2**63 - 1
"""What databases count to."""


def checked_count(what: str, given: object, *, least: int = 1) -> int:
    """Refuse what is not a number of something.

    Args:
        what: What is counted, as the caller knows it.
        given: The number.
        least: The smallest that makes sense.

    Raises:
        ConfigurationError: It is no integer, or too small or large.
    """
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= LARGEST_NUMBER:
        raise ConfigurationError(f"{what} is an integer from {least} to {LARGEST_NUMBER}; got {given!r}")
    return given

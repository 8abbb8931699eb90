"""What counts and what measures: page sizes, numbers of tries, times to wait, checked in one way wherever they are given.

Numbers that are compared with stored ones, as positions and versions are, may be of any size: none is stored that is larger
than databases can count, so the answer is known.
"""

from __future__ import annotations

from math import isnan

from eventstore_sa.errors import ConfigurationError

__all__ = ["LARGEST_NUMBER", "checked_count", "checked_seconds"]

LARGEST_NUMBER = 2**63 - 1
"""What databases count to."""


def checked_count(what: str, given: object, *, least: int = 1) -> int:
    """Refuse what is not a number of something.

    Args:
        what: What is counted, as the caller knows it.
        given: The number.
        least: The smallest that makes sense.

    Raises:
        ConfigurationError: It is not an integer, or too small or large.
    """
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= LARGEST_NUMBER:
        raise ConfigurationError(f"{what} is an integer from {least} to {LARGEST_NUMBER}; got {given!r}")
    return given


def checked_seconds(what: str, given: object) -> float:
    """Refuse what is not a time to wait; `math.inf` is one.

    Args:
        what: What takes that time, as the caller knows it.
        given: The seconds.

    Raises:
        ConfigurationError: It is not a number, or negative.
    """
    if not isinstance(given, int | float) or isinstance(given, bool) or isnan(given) or given < 0:
        raise ConfigurationError(f"{what} is a number of seconds from 0; got {given!r}")
    return given

"""Checks of counts and times: page sizes, numbers of tries, seconds to wait, wherever they are passed.

Numbers that are compared with stored ones, such as positions and versions, may be of any size: no stored number is larger
than databases can count, so the answer is known.
"""

from __future__ import annotations

from math import isnan

from eventstore_sa.errors import ConfigurationError

__all__ = ["LARGEST_NUMBER", "checked_count", "checked_seconds"]

LARGEST_NUMBER = 2**63 - 1
"""What databases count to."""


def checked_count(what: str, given: object, *, least: int = 1) -> int:
    """Return a count; refuse anything else.

    Args:
        what: What is counted, as the caller knows it.
        given: The number.
        least: The smallest that makes sense.

    Raises:
        ConfigurationError: If it is not an integer, or too small or too large.
    """
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= LARGEST_NUMBER:
        raise ConfigurationError(f"{what} is an integer from {least} to {LARGEST_NUMBER}; got {given!r}")
    return given


def checked_seconds(what: str, given: object) -> float:
    """Return a time to wait, which may be `math.inf`; refuse anything else.

    Args:
        what: What takes that time, as the caller knows it.
        given: The seconds.

    Raises:
        ConfigurationError: If it is not a number, or negative.
    """
    if not isinstance(given, int | float) or isinstance(given, bool) or isnan(given) or given < 0:
        raise ConfigurationError(f"{what} is a number of seconds from 0; got {given!r}")
    return given

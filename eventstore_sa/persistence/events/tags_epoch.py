"""The epoch of tags, as far as this process has to ask for it: it changes whenever tags are added to stored events.

Most stores never do that. So a process asks once, and remembers that the epoch is still the first. If it is not any more,
the database refuses what was decided under it, and the process asks again.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FIRST_EPOCH", "KnownEpoch"]

FIRST_EPOCH: Final = ""
"""The epoch of a store in which tags have never been added to stored events."""


class KnownEpoch:
    """Whether the epoch is known to be the first; otherwise it has to be asked for each time.

    Another epoch is not remembered, because the search path may lead each session to another tenant. Of tenants that all
    are in the first one, this does not matter; and if one is not, the first is refused there.
    """

    def __init__(self) -> None:
        self.is_first: bool = False

    def learn(self, epoch: str) -> None:
        """Note what the database says."""
        self.is_first = epoch == FIRST_EPOCH

    def doubt(self) -> None:
        """Ask again next time: something was refused."""
        self.is_first = False

"""How long tests wait for what must happen.

Longer than any machine needs, however busy: it ends hangs alone, and no outcome of a test depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["PATIENCE_S", "wait_until"]

PATIENCE_S: Final = 180.0


def wait_until(condition: Callable[[], object], what: str, *, interval_s: float = 0.005) -> None:
    """Wait until a condition holds; `what` says what that would mean."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to this in {PATIENCE_S:.0f} s: {what}"
        time.sleep(interval_s)

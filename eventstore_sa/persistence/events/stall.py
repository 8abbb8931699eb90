"""Noticing that the watermark stands still, because a forgotten open transaction holds all readers of the log back."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["StallWatch"]


class StallWatch:
    """Watches successive watermarks for one that lags for too long.

    Args:
        warn_after_s: For how many seconds a watermark may lag before it is reported, and reported again.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, warn_after_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._warn_after_s = warn_after_s
        self._clock = clock
        self._watermark: int | None = None
        self._since = 0.0
        self._reported_at = 0.0

    def observe(self, *, last_number: int, watermark: int) -> float | None:
        """Note a watermark; return for how many seconds it has stood still if that is to be reported now."""
        if watermark >= last_number:
            self._watermark = None
            return None
        now = self._clock()
        if watermark != self._watermark:
            self._watermark, self._since, self._reported_at = watermark, now, now
        if now - self._reported_at < self._warn_after_s:
            return None
        self._reported_at = now
        return now - self._since

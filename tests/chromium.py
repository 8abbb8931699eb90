"""Where a Chromium of this machine is, for tests of pages in a real browser. `python -m tests.chromium` prints it."""

from __future__ import annotations

import shutil
import sys

__all__ = ["CHROMIUM"]

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
        if (found := shutil.which(name)) is not None
    ),
    None,
)
"""Its path; None: there is none."""

if __name__ == "__main__":
    print(CHROMIUM or "there is no Chromium")
    sys.exit(CHROMIUM is None)

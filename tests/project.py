"""Where the parts of the project lie, and how to run Python apart from the suite."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "eventstore_sa"
SQL = PACKAGE / "persistence" / "schema" / "sql"


def module_name(path: Path) -> str:
    """Return the dotted name of a module of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> list[Path]:
    """Return every module of the package, in a fixed order."""
    return sorted(PACKAGE.rglob("*.py"))


def run_python(
    *arguments: str, cwd: Path = ROOT, timeout_s: float = 600.0, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter of this environment in which every warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )

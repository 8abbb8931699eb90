"""Rules for the tests themselves."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.project import ROOT


def test_tests_look_at_their_own_database_only() -> None:
    """Several processes share the suite, and may share a server: its views show the locks and sessions of all of them."""
    offenders = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path != Path(__file__) and "pg_" in (source := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if any(f"{way} {view}" in node.value for way in ("FROM", "JOIN") for view in ("pg_locks", "pg_stat_activity"))
        if "current_database()" not in node.value and "pid = pg_backend_pid()" not in node.value
    ]

    assert offenders == []

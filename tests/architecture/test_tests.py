"""Rules for the tests themselves."""

from __future__ import annotations

import ast
import re
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
        if re.search(r"(FROM|JOIN) (pg_locks|pg_prepared_xacts|pg_stat_activity)\b", node.value)
        if "current_database()" not in node.value and "pid = pg_backend_pid()" not in node.value
    ]

    assert offenders == []

"""Each row of the table of failures is tested, and each test of a row has its row."""

from __future__ import annotations

import ast
import re

from tests.project import ROOT

PAGE = (ROOT / "docs" / "subscriptions.md").read_text(encoding="utf-8")


def rows() -> list[str]:
    """Return the first columns of the table."""
    section = PAGE.split("\n## What happens when\n")[1].split("\n## ")[0]
    return re.findall(r"^\| (.+?) \|", section, re.MULTILINE)[1:]


def marked() -> set[str]:
    """Return what tests say that they test."""
    return {
        str(ast.literal_eval(argument))
        for module in (ROOT / "tests" / "integration").glob("test_*.py")
        if "failure_table" in (source := module.read_text(encoding="utf-8"))
        for test in ast.parse(source).body
        if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef)
        for decorator in test.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "row"
        for argument in decorator.args
    }


def test_the_rows_are_what_is_tested() -> None:
    assert len(rows()) > 10
    assert set(rows()) == marked()

"""Every module says what it is for, and documents what it offers to users."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from eventstore_sa.testing.cases.tables import in_turn
from tests.architecture.test_public_names import PUBLIC
from tests.project import ROOT, SQL, modules

MODULES = modules()


@in_turn("path", MODULES)
def test_module_says_what_it_is_for(path: Path) -> None:
    assert _docstring(path), "say in a few lines what lives here, what does not, and who may import it"


def test_no_two_modules_say_the_same() -> None:
    docstrings = Counter(docstring for path in MODULES if (docstring := _docstring(path)))

    assert [docstring for docstring, number in docstrings.items() if number > 1] == []


@in_turn("name", list(PUBLIC))
def test_what_users_import_is_documented(name: str) -> None:
    module = importlib.import_module(name)

    undocumented = [
        f"{exported}{'.' if member else ''}{member}"
        for exported in module.__all__
        for member, value in _documentable(getattr(module, exported))
        if not inspect.getdoc(value)
    ]

    assert undocumented == []


def test_sql_files_hold_no_percent_sign() -> None:
    """They reach some drivers through string formatting, others not: neither `%` nor `%%` would suit both."""
    offenders = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted(SQL.rglob("*.sql"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if "%" in line
    ]

    assert offenders == []


def test_there_are_sql_files_to_look_at() -> None:
    assert list(SQL.rglob("*.sql"))


def test_pages_and_docstrings_name_files_that_exist() -> None:
    parts = ("eventstore_sa", "tests", "examples", "benchmarks", "docs")
    existing = [
        "/" + each.relative_to(ROOT).as_posix()
        for each in (*ROOT.iterdir(), *(path for part in parts for path in (ROOT / part).rglob("*")))
    ]
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *MODULES]
    named = {
        (page.name, name)
        for page in pages
        for name in re.findall(r"`([\w/]+/[\w/]*(?:\.py|\.sql)?)`", page.read_text(encoding="utf-8"))
        if name.endswith((".py", ".sql", "/")) and not name.startswith("psycopg/")
    }

    assert len(named) > 30
    assert [
        each for each in sorted(named) if not any(path.endswith("/" + each[1].rstrip("/")) for path in existing)
    ] == []


def _docstring(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def _documentable(exported: object) -> Iterator[tuple[str, object]]:
    """Yield what should have a docstring, with its name within what is exported.

    Methods may inherit theirs; the names of tests are sentences that need none.
    """
    if inspect.isfunction(exported):
        yield "", exported
    elif inspect.isclass(exported):
        yield "", exported
        for name, _ in inspect.getmembers(exported, _is_method_or_property):
            if not name.startswith(("_", "test_")) and _is_ours(exported, name):
                yield name, inspect.getattr_static(exported, name)


def _is_method_or_property(value: object) -> bool:
    return inspect.isroutine(value) or isinstance(value, property)


def _is_ours(owner: type, name: str) -> bool:
    definer = next(base for base in inspect.getmro(owner) if name in vars(base))
    return definer.__module__.startswith("eventstore_sa")

"""The page on errors tells of every exception that there is, and of no other; the list of pages is whole."""

from __future__ import annotations

import re

from eventstore_sa import errors
from eventstore_sa.testing.cases.tables import in_turn
from tests.project import PACKAGE, ROOT, module_name

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
CLASSES = {name: getattr(errors, name) for name in errors.__all__}


def drawn(tree: str) -> dict[str, int]:
    """Return the classes of a drawn tree with their depths."""
    lines = re.findall(r"^ *((?:[| ]   )*(?:[|`]-- )?)(\w+Error)\b", tree, re.MULTILINE)
    return {name: len(indent) // 4 for indent, name in lines}


def depth(kind: type[errors.EventStoreError]) -> int:
    return sum(issubclass(base, errors.EventStoreError) for base in kind.__mro__) - 1


def test_sections_are_the_classes_of_the_module() -> None:
    assert [name for name in SECTIONS if name != "Logging"] == [
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    assert set(CLASSES) == set(SECTIONS) - {"Logging"}


@in_turn("name", list(CLASSES))
def test_every_section_says_what_to_do(name: str) -> None:
    assert "*What to do:*" in SECTIONS[name]
    assert CLASSES[name].__doc__


@in_turn("tree", {"page": PAGE.split("```")[1], "module": errors.__doc__})
def test_trees_are_drawn_as_the_classes_derive(tree: str) -> None:
    assert drawn(tree) == {
        name: depth(kind) for name, kind in CLASSES.items() if issubclass(kind, errors.EventStoreError)
    }


def test_every_logger_is_on_the_page() -> None:
    used = {
        module_name(path) if given == "__name__" else given.strip('"')
        for path in PACKAGE.rglob("*.py")
        for given in re.findall(r"getLogger\(([^)]+)\)", path.read_text(encoding="utf-8"))
    }

    assert used == set(re.findall(r"^\| `(eventstore_sa[\w.]*)`", SECTIONS["Logging"], re.MULTILINE))


def test_every_error_is_in_the_table() -> None:
    table = PAGE.partition("## At a glance")[2].partition("\n## ")[0]

    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(CLASSES) - {"EventStoreError"}


def test_every_page_is_listed() -> None:
    listed = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")

    folder = ROOT / "docs"
    pages = {page.relative_to(folder).as_posix() for page in folder.rglob("*.md")} - {"index.md"}
    assert pages - set(re.findall(r"\(([\w/-]+\.md)\)", listed)) == set()

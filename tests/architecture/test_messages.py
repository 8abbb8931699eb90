"""How messages are written: what no message should have, found in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from eventstore_sa.testing.cases.tables import in_turn
from tests.project import ROOT, modules

ARTICLE = re.compile(r"\b[Aa]n? $")
ARTICLE_BEFORE_FIELD = re.compile(r"\b[Aa]n? \{\w*\}")


def articles_before_values(code: str) -> Iterator[str]:
    """Yield where "a" or "an" stands before a value, whose first letter nobody knows."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.JoinedStr):
            # Literals that follow each other are one.
            for text, value in zip(node.values, node.values[1:], strict=False):
                is_inserted = isinstance(text, ast.Constant) and isinstance(value, ast.FormattedValue)
                if is_inserted and ARTICLE.search(str(text.value)):
                    yield f"{value.lineno}: {text.value}{ast.unparse(value.value)}"
        elif isinstance(node, ast.Constant) and ARTICLE_BEFORE_FIELD.search(str(node.value)):
            yield f"{node.lineno}: {node.value}"


def test_no_message_has_an_article_before_a_name_that_it_inserts() -> None:
    """Not "got a EventStore": write "got EventStore", "is of type int", or another sentence without an article."""
    paths = [*modules(), ROOT / "pytest_eventstore_sa.py"]

    found = {path: [*articles_before_values(path.read_text(encoding="utf-8"))] for path in paths}

    assert {path: places for path, places in found.items() if places} == {}


@in_turn(
    "code",
    [
        'f"got a {type(given).__name__}"',
        'f"one; got an " f"{kind}"',
        '"a {} cannot be read".format(kind)',
        '"A {kind} cannot be read"',
    ],
)
def test_articles_before_values_are_found(code: str) -> None:
    assert [*articles_before_values(code)]

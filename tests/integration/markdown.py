"""Runs the Python blocks of a Markdown file, in order, as one program: `python markdown.py FILE`.

A block below `<!-- not run: reason -->` is left out, and so is one below `<!-- file: name.py -->`: it is a file for pytest,
see `files`. A page may say that it is about another library, `<!-- needs: module -->`; see `needed`.

`await` may stand at the top level, and all blocks of a file share one event loop and one namespace, which is a real module
so that annotations in it can be resolved. Tracebacks name the lines of the Markdown file.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

__all__ = ["Block", "blocks", "files", "needed", "run"]

_FENCE = re.compile(
    r"^(?P<indent>[ ]*)```python\b[^\n]*\n(?P<code>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_NOT_RUN = re.compile(r"<!-- (?:not run|file): [^\n]*\S -->\s*\Z")
_NEEDS = re.compile(r"^<!-- needs: ([\w, ]+) -->$", re.MULTILINE)
_FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\s*\Z")


class Block(NamedTuple):
    """Python code, and the line of the file on which it starts."""

    line: int
    code: str


def blocks(text: str) -> list[Block]:
    """Return the blocks of a Markdown text that are to be run."""
    return [
        Block(line=text.count("\n", 0, fence.start("code")), code=textwrap.dedent(fence["code"]))
        for fence in _FENCE.finditer(text)
        if not _NOT_RUN.search(text, 0, fence.start())
    ]


def files(text: str) -> dict[str, str]:
    """Return the blocks of a Markdown text that are files, by their names."""
    found: dict[str, str] = {}
    for fence in _FENCE.finditer(text):
        name = _FILE.search(text, 0, fence.start())
        if name is not None:
            found[name["name"]] = found.get(name["name"], "") + textwrap.dedent(fence["code"])
    return found


def needed(text: str) -> list[str]:
    """Return the modules of other libraries that a page is about; deprecations among them are not this project's."""
    return [module.strip() for found in _NEEDS.findall(text) for module in found.split(",")]


def run(path: Path) -> None:
    """Run the blocks of a file; the first that raises ends it."""
    program = sys.modules["__markdown__"] = ModuleType("__markdown__")
    with asyncio.Runner() as runner:
        for block in blocks(path.read_text(encoding="utf-8")):
            code = compile(
                "\n" * block.line + block.code,
                str(path),
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
                dont_inherit=True,
            )
            outcome = eval(code, vars(program))
            if inspect.iscoroutine(outcome):
                runner.run(outcome)


if __name__ == "__main__":
    run(Path(sys.argv[1]))

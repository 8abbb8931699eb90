"""Whatever the documentation shows in Python runs as it stands."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

import pytest

from tests.integration import markdown
from tests.preloaded import run_preloaded
from tests.project import ROOT, run_python

RUNNER = Path(markdown.__file__)
README = ROOT / "README.md"
PAGES = [
    page
    for page in [README, *sorted((ROOT / "docs").rglob("*.md"))]
    if markdown.blocks(page.read_text(encoding="utf-8"))
]


@cache
def outcome_of(page: Path) -> CompletedProcess[str]:
    """Run a page in an empty folder. The README and what is about other libraries run with nothing imported before."""
    others = markdown.needed(page.read_text(encoding="utf-8"))
    ignored = ("-W", "ignore::DeprecationWarning") if others else ()
    run = run_python if others or page == README else run_preloaded
    with TemporaryDirectory() as folder:
        return run(*ignored, str(RUNNER), str(page), cwd=Path(folder))


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_python_in_documentation_runs(page: Path) -> None:
    others = markdown.needed(page.read_text(encoding="utf-8"))
    for module in others:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")

    outcome = outcome_of(page)

    assert outcome.returncode == 0, outcome.stderr
    assert others or outcome.stderr == ""  # other libraries may log


def test_readme_shows_python_that_runs() -> None:
    assert README in PAGES


def test_web_applications_of_the_first_page_answer() -> None:
    outcome = outcome_of(ROOT / "docs" / "getting-started.md")

    assert {"invoice 2", "article bolts"} <= set(outcome.stdout.splitlines())


def test_blocks_of_a_page_are_one_program_and_may_await(tmp_path: Path) -> None:
    page = _page(
        tmp_path,
        "```python\nfrom asyncio import get_running_loop, sleep\nawait sleep(0)\nloop = get_running_loop()\n```",
        "1. in a list:\n\n   ```python\n   if await sleep(0, True):\n       same = loop is get_running_loop()\n   ```",
        "```python\nprint(same)\n```",
    )

    outcome = run_preloaded(str(RUNNER), str(page), cwd=tmp_path)

    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "True\n", "")


def test_failing_block_is_reported_at_its_line(tmp_path: Path) -> None:
    page = _page(tmp_path, "# Title", "```python\nassert 1 == 1\nassert 1 == 2\n```")

    outcome = run_preloaded(str(RUNNER), str(page), cwd=tmp_path)

    assert outcome.returncode == 1
    assert f'File "{page}", line 5' in outcome.stderr


def test_only_a_reason_keeps_a_block_from_running() -> None:
    unreasoned = "<!-- not run: -->\n```python\none\n```"
    reasoned = "<!-- not run: needs a server -->\n\n```python\ntwo\n```"
    other = "```sql\nthree\n```\n\n```pycon\nfour\n```"

    found = markdown.blocks(f"{unreasoned}\n\n{reasoned}\n\n{other}\n")

    assert [block.code for block in found] == ["one\n"]


def _page(folder: Path, *parts: str) -> Path:
    page = folder / "page.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page

"""Builds the documentation as a site: `make docs`, or `python docs/site/build.py [FOLDER]`.

The pages are those of docs/, in the order of docs/index.md, whose sections are the navigation. Added are a page for each
example, CONTRIBUTING.md and CHANGELOG.md, and the reference, with one page for each public module and every public name on
exactly one of them. The build fails for a link that leads nowhere, a page that index.md does not list, and a public name
without a place in the reference.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent
ROOT = DOCS.parent

# A name is documented on the page of the first of these modules that has it in `__all__`.
PUBLIC_MODULES = {
    "eventstore_sa": "What most applications import.",
    "eventstore_sa.store": "Stores, streams, categories, the log; decisions; retries.",
    "eventstore_sa.conditions": "Write conditions, and what custom ones are made of.",
    "eventstore_sa.sources.constraints": "Constraints on reads.",
    "eventstore_sa.session": "Business transactions.",
    "eventstore_sa.projection": "Projectors, table projections, the stores of projections and of snapshots, rebuilding.",
    "eventstore_sa.query": "Searching projections.",
    "eventstore_sa.subscriptions": "Handing events to handlers.",
    "eventstore_sa.inspection": "Questions about a store as a whole, and what is wrong with it.",
    "eventstore_sa.browser": "Web pages over a store.",
    "eventstore_sa.transfer": "Exports and imports.",
    "eventstore_sa.telemetry": "OpenTelemetry.",
    "eventstore_sa.types": "Events, identifiers, values, event types, pipelines.",
    "eventstore_sa.errors": "Exceptions.",
    "eventstore_sa.testing": "Testing applications and adapters.",
    "eventstore_sa.testing.postgres": "Throwaway servers.",
    "eventstore_sa.migrations": "Alembic.",
    "eventstore_sa.store.adapters": "Where events are kept; for adapters of your own.",
    "eventstore_sa.projection.adapters": "Where projections and snapshots are kept.",
}
OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(?<=\]\()([^)\s:]+?)(#[^)\s]*)?(?=\))")


def main() -> int:
    """Write the sources, build the site from them, and look for what is missing."""
    parser = argparse.ArgumentParser(prog="python docs/site/build.py", description="Build the documentation as a site.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "docs", help="where to put it")
    folder: Path = parser.parse_args().folder
    if find_spec("zensical") is None:
        print("Zensical builds the site: pip install 'eventstore-sa[docs]', or make docs", file=sys.stderr)
        return 2

    workshop = folder.resolve()
    shutil.rmtree(workshop, ignore_errors=True)
    pages = workshop / "pages"
    copy_pages(pages)
    examples = write_examples(pages / "examples")
    places = write_reference(pages / "reference")
    write_configuration(workshop, [*navigation(), {"Examples": examples}, {"Reference": list_reference()}])
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", "zensical.toml"]
    plain = {**os.environ, "NO_COLOR": "1"}
    built = subprocess.run(command, cwd=workshop, env=plain, check=False, capture_output=True, text=True)
    if built.returncode != 0:
        print(built.stdout, built.stderr.partition("Traceback")[0], sep="\n", file=sys.stderr)
        return built.returncode

    faults = [
        f"{name} is public and has no place in the reference"
        for name, page in places.items()
        if f'id="{name}"' not in read(workshop / "site" / page)
    ]
    listed = read(workshop / "zensical.toml")
    found = [page.relative_to(pages).as_posix() for page in sorted(pages.rglob("*.md"))]
    faults += [f"docs/{page} is not listed in docs/index.md" for page in found if f'"{page}"' not in listed]
    print("\n".join(faults) or f"{len(places)} public names, {len(found)} pages: {workshop / 'site' / 'index.html'}")
    return 1 if faults else 0


def copy_pages(pages: Path) -> None:
    """Copy docs/ and the pages beside it, with links that lead to where things are on the site."""
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("site", "*.py"))
    for name, page in OUTSIDE.items():
        (pages / page).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    for page in pages.rglob("*.md"):
        original = ROOT / next((name for name, copy in OUTSIDE.items() if pages / copy == page), "docs/page.md")
        text = page.read_text(encoding="utf-8")
        origin = original.parent if original.name in OUTSIDE else DOCS / page.relative_to(pages).parent

        def relink(link: re.Match[str], page: Path = page, origin: Path = origin) -> str:
            return place_of(origin / link[1], page.relative_to(pages).parent) + (link[2] or "") if link[1] else link[0]

        page.write_text(_LINK.sub(relink, text), encoding="utf-8")


def place_of(target: Path, page_folder: Path) -> str:
    """Return a link from a folder of the site to where a file of the repository is on it."""
    up = "../" * len(page_folder.parts)
    path = target.resolve()
    if not path.exists() or path == ROOT / "README.md":
        return f"{up}index.md" if path.exists() else str(target)  # what does not exist is left for the strict build
    relative = path.relative_to(ROOT)
    if path.is_relative_to(DOCS):
        return up + path.relative_to(DOCS).as_posix()
    if relative.parts[0] == "examples":
        return up + ("examples/index.md" if relative == Path("examples") else example_page(relative))
    return up + OUTSIDE[relative.as_posix()]


def example_page(path: Path) -> str:
    """Return the page of an example: of the program, or of the folder that it is in."""
    return f"examples/{(path if len(path.parts) == 2 else Path(*path.parts[:2])).stem}.md"


def write_examples(folder: Path) -> list[object]:
    """Write a page for each example, and return their navigation."""
    folder.mkdir()
    index = ["# Examples", "", "Programs that run as they are; the tests run them.", ""]
    items: list[object] = [{"Overview": "examples/index.md"}]
    for path in sorted((ROOT / "examples").iterdir()):
        files = [path] if path.suffix == ".py" else sorted(path.rglob("*.py")) if path.is_dir() else []
        if not any(read(file) for file in files):
            continue
        first = next(docstring for file in files if (docstring := _docstring(read(file))))
        text = [f"# {path.name}", ""]
        for file in files:
            if len(files) > 1:
                text += [f"## {file.relative_to(path)}", ""]
            text += ["```python", read(file).rstrip(), "```", ""]
        (folder / f"{path.stem}.md").write_text("\n".join(text), encoding="utf-8")
        index.append(f"- [{path.name}]({path.stem}.md): {first}")
        items.append({path.name: f"examples/{path.stem}.md"})
    (folder / "index.md").write_text("\n".join(index) + "\n", encoding="utf-8")
    return items


def write_reference(folder: Path) -> dict[str, str]:
    """Write a page for each public module, and return the page of each public name."""
    folder.mkdir()
    places: dict[str, str] = {}
    documented: list[object] = []
    for module_name, summary in PUBLIC_MODULES.items():
        module = importlib.import_module(module_name)
        text = [f"# {module_name}", "", summary, ""]
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, ModuleType) or any(value is other for other in documented):
                continue
            if hasattr(value, "__qualname__"):  # constants may be equal by chance
                documented.append(value)
            places[f"{module_name}.{name}"] = f"reference/{module_name}/index.html"
            text += [f"::: {module_name}.{name}", ""]
        (folder / f"{module_name}.md").write_text("\n".join(text), encoding="utf-8")
    return places


def list_reference() -> list[object]:
    """Return the navigation of the reference."""
    return [{name: f"reference/{name}.md"} for name in PUBLIC_MODULES]


def navigation() -> list[object]:
    """Return the sections of index.md with their pages, whose titles are those of the links."""
    sections: list[object] = [{"Home": "index.md"}]
    for section in re.split(r"^## ", (DOCS / "index.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        links = [(name, target) for name, target in re.findall(r"^- \[(.+?)\]\((\S+?)\)", text, re.MULTILINE)]
        pages = [{name: place_of(DOCS / target, Path())} for name, target in links if target != "../examples"]
        sections.append({title: pages})
    return sections


def write_configuration(workshop: Path, navigated: list[object]) -> None:
    """Write the configuration of the site, which is this project's but for the navigation."""
    text = (HERE / "zensical.toml").read_text(encoding="utf-8")
    text = text.replace("nav = []", f"nav = {''.join(_toml(navigated))}").replace('"ROOT"', json.dumps(str(ROOT)))
    (workshop / "zensical.toml").write_text(text, encoding="utf-8")


def read(path: Path) -> str:
    """Return the text of a file."""
    return path.read_text(encoding="utf-8")


def _docstring(source: str) -> str:
    found = re.match(r'"""(.+?)(?:\n\n|""")', source, re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def _toml(value: object) -> Iterator[str]:
    if isinstance(value, list):
        yield "["
        for item in value:
            yield from _toml(item)
            yield ","
        yield "]"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{{{json.dumps(key)} = "
            yield from _toml(item)
            yield "}"
    else:
        yield json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())

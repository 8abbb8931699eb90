"""Runs the suite over the Pythons, SQLAlchemys and PostgreSQLs that are supported: `make matrix`.

The order soak, which checks the invariant of the fence, runs apart from it for a while with every SQLAlchemy on every
PostgreSQL: what it looks for is rare, and depends on the server.

Each pair of Python and SQLAlchemy gets an environment of its own below `.venv-matrix/`, which is removed when its runs have
passed; a log of each run stays. What this machine does not have is left out, and said to be. The row "lowest" installs
every dependency in the lowest version that pyproject.toml allows.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from eventstore_sa.testing.postgres import URL_VARIABLE, find_postgres_binaries, temporary_postgres
from tests.project import ROOT

WORKSHOP = ROOT / ".venv-matrix"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SQLALCHEMYS = {"2.0": "SQLAlchemy>=2.0.38,<2.1", "2.1": "SQLAlchemy>=2.1,<2.2"}
LOWEST = "lowest"
SOAK_SECONDS = 60
SOAK_FENCES = 100_000


class Run(NamedTuple):
    """One run: of the suite, or of the order soak."""

    python: str
    sqlalchemy: str
    postgres: str
    part: str = "suite"

    @property
    def environment(self) -> Path:
        return WORKSHOP / f"{self.python}-{self.sqlalchemy}"

    @property
    def log(self) -> Path:
        return WORKSHOP / f"{self.python}-{self.sqlalchemy}-{self.postgres}-{self.part}.log"


class Result(NamedTuple):
    """What came of it, as a row of the table that is printed."""

    python: str
    sqlalchemy: str
    postgres: str
    part: str
    outcome: str
    duration_s: int
    passed: bool


def find_python(version: str) -> str | None:
    """Return an interpreter of that version: from PATH, or else from where pyenv keeps them."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    kept = sorted(pyenv.glob(f"versions/{version}.*/bin/python"), key=lambda path: int(path.parts[-3].split(".")[2]))
    for candidate in (shutil.which(f"python{version}"), *map(str, reversed(kept))):
        # A shim on PATH may stand for a version that is not active, so only running it tells.
        if candidate and _output(candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])") == version:
            return candidate
    return None


def planned(pythons: Sequence[str], postgreses: Sequence[str], *, full: bool) -> list[Run]:
    """Return the runs: all pairs, or a sample in which everything occurs and the ends meet each other."""
    oldest, newest = pythons[0], pythons[-1]
    lowest = [Run(oldest, LOWEST, postgreses[0])]
    if full:
        pairs = [Run(p, s, d) for p in pythons for s in SQLALCHEMYS for d in postgreses]
    else:
        earlier, latest = SQLALCHEMYS
        pairs = [
            Run(oldest, earlier, postgreses[0]),
            *(Run(python, latest, postgreses[0]) for python in pythons[1:]),
            Run(newest, earlier, postgreses[0]),
            *(Run(oldest, latest, postgres) for postgres in postgreses[1:]),
        ]
    ends = zip((oldest, newest), SQLALCHEMYS, strict=True)
    soaks = [Run(python, sqlalchemy, postgres, "soak") for python, sqlalchemy in ends for postgres in postgreses]
    return list(dict.fromkeys(lowest + pairs + soaks))


def lower_bounds() -> Iterator[str]:
    """Yield the lowest allowed version of everything that the suite needs, as constraints for pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *(r for name in extras if name != "dev" for r in extras[name])]:
        if bound := re.match(r"([\w.-]+)(?:\[[^]]*\])?>=([\w.]+)", requirement):
            yield f"{bound[1]}=={bound[2]}"


def prepare(run: Run, interpreter: str) -> None:
    """Make the environment of a run."""
    subprocess.run([interpreter, "-m", "venv", "--clear", str(run.environment)], check=True)
    constraints = run.environment / "constraints.txt"
    wanted = lower_bounds() if run.sqlalchemy == LOWEST else [SQLALCHEMYS[run.sqlalchemy]]
    constraints.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    pip = [_python_of(run), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--editable", ".[suite]", "--constraint", str(constraints)], check=True, cwd=ROOT)


def carry_out(run: Run, arguments: Sequence[str]) -> Result:
    """Run the suite or the soak in its environment, on its PostgreSQL."""
    started = time.monotonic()
    with ExitStack() as stack:
        environment = {key: value for key, value in os.environ.items() if key not in {URL_VARIABLE, "VIRTUAL_ENV"}}
        if run.postgres == "system" and run.part == "suite":
            server = stack.enter_context(temporary_postgres(source="system"))
            environment[URL_VARIABLE] = server.url.render_as_string(hide_password=False)
        log = stack.enter_context(run.log.open("w", encoding="utf-8"))
        pytest = ["pytest", "-n", "2", "--dist", "loadscope", "-p", "no:cacheprovider", "--color=no", *arguments]
        extent = ["--seconds", str(SOAK_SECONDS), "--fences", str(SOAK_FENCES)]
        soak = ["tests.soak", *extent, "--source", run.postgres, "--not-durable"]
        command = [_python_of(run), "-m", *(pytest if run.part == "suite" else soak)]
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    lines = run.log.read_text(encoding="utf-8").splitlines()
    return Result(
        python=_output(_python_of(run), "-c", "import platform; print(platform.python_version())"),
        sqlalchemy=_output(_python_of(run), "-c", "import sqlalchemy; print(sqlalchemy.__version__)"),
        postgres=_postgres_version(run),
        part=run.part,
        outcome=lines[-1].strip("= ") if lines else f"nothing was printed, exit status {ended.returncode}",
        duration_s=round(time.monotonic() - started),
        passed=ended.returncode == 0,
    )


def main() -> int:
    """Run what was asked for, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description="Run the suite over what is supported.")
    parser.add_argument("extent", choices=["sample", "full"], nargs="?", default="sample")
    parser.add_argument("--only", default="", help="only runs with this in their name, such as 3.12, 3.11-2.0 or soak")
    parser.add_argument("--list", action="store_true", help="only show what would be run")
    options, pytest_arguments = parser.parse_known_args()

    interpreters = {version: found for version in PYTHONS if (found := find_python(version))}
    postgreses = sorted({found.source for found in find_postgres_binaries()}, reverse=True)
    for version in PYTHONS:
        if version not in interpreters:
            print(f"Python {version} is not on this machine: left out")
    if not interpreters or not postgreses:
        print("There is nothing to run the suite on.", file=sys.stderr)
        return 2
    runs = planned(list(interpreters), postgreses, full=options.extent == "full")
    runs = sorted((run for run in runs if options.only in run.log.stem), key=lambda run: run.environment)
    if options.list:
        print("\n".join(run.log.stem for run in runs))
        return 0

    WORKSHOP.mkdir(exist_ok=True)
    results = list(_results(runs, interpreters, pytest_arguments))
    _print_table(results)
    return 0 if results and all(result.passed for result in results) else 1


def _results(runs: Sequence[Run], interpreters: dict[str, str], arguments: Sequence[str]) -> Iterator[Result]:
    for environment in dict.fromkeys(run.environment for run in runs):
        here = [run for run in runs if run.environment == environment]
        passed = True
        for number, run in enumerate(here):
            print(f"== {run.log.stem} ...", flush=True)
            try:
                if number == 0:
                    prepare(run, interpreters[run.python])
                result = carry_out(run, arguments)
            except subprocess.CalledProcessError as error:
                result = Result(*run, outcome=f"no environment: {error}", duration_s=0, passed=False)
            passed = passed and result.passed
            print(f"   {result.outcome}{'' if result.passed else f' (see {run.log.relative_to(ROOT)})'}", flush=True)
            yield result
        if passed:
            shutil.rmtree(environment)


def _print_table(results: Sequence[Result]) -> None:
    head = ("Python", "SQLAlchemy", "PostgreSQL", "What", "How", "Result")
    rows = [
        (
            *(r.python, r.sqlalchemy, r.postgres, r.part),
            *("passed" if r.passed else "FAILED", f"{r.outcome} ({r.duration_s} s)"),
        )
        for r in results
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    print()
    for row in (head, tuple("-" * width for width in widths), *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def _postgres_version(run: Run) -> str:
    program = (
        "import sys; from eventstore_sa.testing.postgres import find_postgres_binaries as find;"
        "print(next(f'{b.version[0]}.{b.version[1]}' for b in find() if b.source == sys.argv[1]))"
    )
    return f"{_output(_python_of(run), '-c', program, run.postgres)} ({run.postgres})"


def _python_of(run: Run) -> str:
    return str(run.environment / "bin" / "python")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())

"""The command line: `python -m benchmarks [names]`; exits with 1 when a floor is not reached."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import sqlalchemy

from benchmarks import plots, report
from benchmarks.databases import Setting, server_clock
from benchmarks.harness import Outcome, run
from benchmarks.workloads import SUITES
from eventstore_sa.testing.postgres import PostgresServer, temporary_postgres

__all__ = ["main"]

_ROUNDS = {"full": 5, "quick": 3, "tiny": 1}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run workloads, print the outcomes and write what was asked for."""
    options = _parser().parse_args(arguments)
    known = [workload.name for suite in SUITES for workload in suite.workloads]
    unknown = [name for name in options.names if name not in known]
    if unknown:
        print(f"there is no workload {unknown[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    names = options.names or known
    with temporary_postgres(durable=options.size != "tiny") as server:
        if options.size == "full":
            # What is missing or broken shows now, and not after twenty minutes.
            rehearsal = argparse.Namespace(**vars(options) | {"size": "tiny", "rounds": None})
            asyncio.run(_run(rehearsal, names, server))
        outcomes, circumstances = asyncio.run(_run(options, names, server))
    print(report.table(outcomes, judged=options.size != "tiny"))
    if options.results is not None and not options.names:
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / "rates.svg").write_text(plots.rates(outcomes), encoding="utf-8")
        (options.results / "growth.svg").write_text(plots.growth(outcomes), encoding="utf-8")
        page = report.page(outcomes, circumstances=circumstances, note=options.note)
        (options.results / "RESULTS.md").write_text(page, encoding="utf-8")
    missed = any(outcome.verdict not in {"", "OK"} for outcome in outcomes)
    return 1 if missed and options.size == "full" else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="which workloads to run, such as W1 W4; by default all")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick",
        dest="size",
        action="store_const",
        const="quick",
        help="three short rounds, in less than three minutes",
    )
    size.add_argument(
        "--tiny", dest="size", action="store_const", const="tiny", help="next to nothing, to see that everything runs"
    )
    parser.set_defaults(size="full")
    parser.add_argument("--rounds", type=int, help="how often each side is measured (default: 5, or 3 with --quick)")
    parser.add_argument("--no-peers", action="store_true", help="leave out other event stores, installed or not")
    parser.add_argument(
        "--synchronous-commit",
        choices=["on", "off"],
        default="on",
        help="whether commits wait for the disk (default: on)",
    )
    parser.add_argument("--results", type=Path, help="the folder to write RESULTS.md and the plots to, if all are run")
    parser.add_argument("--note", default="", help="a sentence about this run for the top of RESULTS.md")
    return parser


async def _run(
    options: argparse.Namespace, names: Collection[str], server: PostgresServer
) -> tuple[list[Outcome], str]:
    setting = Setting(
        server=server,
        server_time=await server_clock(server),
        rounds=options.rounds or _ROUNDS[options.size],
        size=options.size,
        with_peers=not options.no_peers,
        synchronous_commit=options.synchronous_commit,
    )
    circumstances = _circumstances(setting)
    print("A rehearsal, which measures nothing:" if setting.is_tiny else circumstances, flush=True)
    outcomes: list[Outcome] = []
    for suite in SUITES:
        chosen = [workload for workload in suite.workloads if workload.name in names]
        if not chosen:
            continue
        start = time.perf_counter()
        async with suite.opened(setting) as opened:
            start = _done(f"prepared {', '.join(workload.name for workload in chosen)}", start)
            for workload in chosen:
                outcomes.append(await run(workload, workload.sides(opened, setting), setting))
                start = _done(workload.name, start)
    return outcomes, circumstances


def _done(what: str, start: float) -> float:
    now = time.perf_counter()
    print(f"  {what}: {now - start:.0f} s", file=sys.stderr, flush=True)
    return now


def _circumstances(setting: Setting) -> str:
    version = ".".join(map(str, setting.server.version))
    fsync = "off" if setting.is_tiny else "on"
    return (
        f"PostgreSQL {version} with its default settings, fsync {fsync}, synchronous_commit {setting.synchronous_commit}, "
        f"on the same machine as the client; Python {platform.python_version()}, SQLAlchemy {sqlalchemy.__version__}; "
        f"{os.cpu_count()} cores; medians of {setting.rounds} interleaved rounds."
    )


if __name__ == "__main__":
    raise SystemExit(main())

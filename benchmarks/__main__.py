"""The command line: `python -m benchmarks [names] [--quick]`; exits with 1 when a floor is not reached."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import sqlalchemy

from benchmarks import elsewhere, projecting, projections, publishing, reading, snapshots, staging, typed_events
from benchmarks.databases import Setting
from benchmarks.harness import Benchmark, Outcome, run, table
from eventstore_sa.testing.postgres import PostgresServer, temporary_postgres

__all__ = ["BENCHMARKS", "main"]

BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    value.name: value
    for module in (publishing, staging, reading, projecting, projections, snapshots, typed_events, elsewhere)
    for value in vars(module).values()
    if isinstance(value, Benchmark)
}
"""All benchmarks by name, in the order of the table."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run benchmarks and print the table of outcomes."""
    options = _parser().parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    names = options.names or list(BENCHMARKS)
    with temporary_postgres(durable=not options.quick) as server:
        setting = Setting(
            server=server,
            rounds=1 if options.quick else options.rounds,
            quick=options.quick,
            synchronous_commit=options.synchronous_commit,
        )
        print(_circumstances(server, setting), flush=True)
        outcomes = asyncio.run(_run_all(names, setting))
    print(table(outcomes, judged=not options.quick))
    missed = any(outcome.verdict not in {"", "OK"} for outcome in outcomes)
    return 1 if missed and not options.quick else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which to run, by default all: {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--quick", action="store_true", help="one round of next to nothing, to see that all of them run"
    )
    parser.add_argument("--rounds", type=int, default=9, help="how often each side is measured (default: 9)")
    parser.add_argument(
        "--synchronous-commit",
        choices=["on", "off"],
        help="whether commits wait for the disk, in all benchmarks; by default only where that is the point",
    )
    return parser


def _circumstances(server: PostgresServer, setting: Setting) -> str:
    version = ".".join(map(str, server.version))
    waiting = setting.synchronous_commit or "on for writers at once, else off"
    return (
        f"PostgreSQL {version}, fsync {'off' if setting.quick else 'on'}, synchronous_commit {waiting}; "
        f"Python {platform.python_version()}, SQLAlchemy {sqlalchemy.__version__}; {os.cpu_count()} cores; "
        f"medians of {setting.rounds} interleaved rounds"
    )


async def _run_all(names: Sequence[str], setting: Setting) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for name in names:
        print(f"  {name} ...", file=sys.stderr, flush=True)
        outcomes.append(await run(BENCHMARKS[name], setting))
    return outcomes


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m tests.soak --seconds 60`: a soak on a durable PostgreSQL of its own; ends with 1 when anything is wrong."""

from __future__ import annotations

import argparse
import secrets
import sys

from eventstore_sa.testing.postgres import temporary_postgres
from tests.soak.run import Size, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long (default 60)")
    parser.add_argument("--writers", type=int, default=5, help="processes that write (default 5)")
    parser.add_argument("--workers", type=int, default=4, help="writers in each of them (default 4)")
    parser.add_argument("--readers", type=int, default=2, help="processes that read (default 2)")
    parser.add_argument("--seed", type=int, default=None, help="of the random choices (default: a new one)")
    parser.add_argument("--fences", type=int, default=0, help="raise fences without a rest, until so many were checked")
    parser.add_argument("--source", choices=["wheel", "system"], help="which PostgreSQL to start (default: the first)")
    parser.add_argument("--not-durable", action="store_true", help="on a server that never waits for the disk")
    arguments = parser.parse_args()
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    size = Size(
        seconds=arguments.seconds,
        writers=arguments.writers,
        workers=arguments.workers,
        readers=arguments.readers,
        leisure_of_fences=0.0 if arguments.fences else 3.0,
        fences=arguments.fences,
    )
    with temporary_postgres(durable=not arguments.not_durable, source=arguments.source) as server:
        database, version = server.create_database(), ".".join(map(str, server.version))
        report = soak(lambda driver: server.url_for(database, driver), size, seed=seed)
    print(f"PostgreSQL {version}: {report.summary}")
    for finding in report.findings:
        print(f"WRONG: {finding}")
    if not report.findings:
        print("Nothing lost, nothing doubled, everything in order.")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())

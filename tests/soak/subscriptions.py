"""`python -m tests.soak.subscriptions --seconds 600`: nodes run a subscription while they are killed, stopped and added.

Rounds of 20,000 events by 16 writers, on a durable PostgreSQL of its own. After each, every event must have its effect
exactly once, and those of each stream in order. It ends with an error when they have not, and prints the seed.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import time

from eventstore_sa import SyncEventStore
from eventstore_sa.testing.postgres import temporary_postgres
from tests.clusters import Cluster, disturbed


def main() -> int:
    """Run rounds until the time is over; at least one."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.subscriptions", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long (default 60)")
    parser.add_argument("--nodes", type=int, default=4, help="processes that run the subscription (default 4)")
    parser.add_argument("--partitions", type=int, default=8, help="of the subscription (default 8)")
    parser.add_argument("--writers", type=int, default=16, help="threads that write (default 16)")
    parser.add_argument("--events", type=int, default=20_000, help="in each round (default 20,000)")
    parser.add_argument("--seed", type=int, default=None, help="of the random choices (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    until, chance, rounds = time.monotonic() + options.seconds, random.Random(seed), 0
    with temporary_postgres(durable=True) as server:
        database = server.create_database()
        with SyncEventStore(server.url_for(database, "psycopg")) as store:
            store.create_schema()
        cluster = Cluster(lambda driver: server.url_for(database, driver), partitions=options.partitions)
        try:
            while not rounds or time.monotonic() < until:
                disturbed(
                    cluster,
                    writers=options.writers,
                    events=options.events,
                    disturbances=max(2, options.events // 1000),
                    nodes=options.nodes,
                    chance=chance,
                )
                rounds += 1
                print(
                    f"round {rounds}: {cluster.one('SELECT count(*) FROM effects')} effects, each once and in order",
                    flush=True,
                )
        finally:
            cluster.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A cluster of processes that run one subscription, on PostgreSQL, while others write and nodes are killed and stopped.

For a test of a few seconds, and for a soak of as many as are asked for: `python -m tests.soak.subscriptions`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.orm import Session

from eventstore_sa import NewEvent, SyncEventStore
from eventstore_sa.subscriptions import SyncSubscription
from eventstore_sa.testing.postgres import PostgresDriver
from tests.patience import wait_until
from tests.preloaded import PreloadedProcess
from tests.subscribing import CREATE_EFFECTS, start_node

__all__ = ["LEASE_S", "Cluster", "disturbed"]

LEASE_S: Final = 1.8


class Cluster:
    """Nodes that run one subscription, writers, and what came of it."""

    def __init__(self, url_for: Callable[[PostgresDriver], URL], *, partitions: int) -> None:
        self.url = url_for("asyncpg")
        self.engine: Engine = create_engine(url_for("psycopg"), pool_size=20)
        self.store = SyncEventStore(self.engine)
        self.partitions = partitions
        self.nodes: list[PreloadedProcess] = []
        with self.engine.begin() as connection:
            connection.execute(text(CREATE_EFFECTS))
            connection.execute(text("CREATE TABLE rows (what text)"))
        self.subscription = SyncSubscription(
            "billing", self.store.category(category="orders"), lambda event: None, partitions=partitions
        )

    def start(self) -> PreloadedProcess:
        """Start a node, and wait until it has begun."""
        node = start_node(self.url, "billing", partitions=self.partitions, lease_s=LEASE_S)
        self.nodes.append(node)
        return node

    def end(self) -> None:
        """Kill all nodes."""
        for node in self.nodes:
            with contextlib.suppress(ProcessLookupError):
                node.send_signal(signal.SIGCONT)
                node.kill()
            node.wait()
            assert node.stdout is not None
            node.stdout.close()
        self.engine.dispose()

    def alive(self) -> list[PreloadedProcess]:
        """Return the nodes that have not ended."""
        return [node for node in self.nodes if node.poll() is None]

    def write(self, seed: float, count: int) -> None:
        """Publish at once, and in business transactions; some of these are rolled back."""
        chance = random.Random(seed)
        for number in range(count):
            stream = self.store.stream(category="orders", stream=str(chance.randrange(40)))
            events = [NewEvent(name="placed", payload=number)]
            if chance.random() < 0.5:
                stream.publish(events=events)
                continue
            with Session(self.engine) as session:
                session.execute(text("INSERT INTO rows VALUES ('row')"))
                within = self.store.within(session).stream(category="orders", stream=stream.identifier.stream)
                if chance.random() < 0.5:
                    within.publish(events=events)
                else:
                    within.stage(events=events)
                if chance.random() < 0.1:
                    session.rollback()
                else:
                    session.commit()

    def one(self, sql: str) -> Any:
        """Return what a query returns."""
        with self.engine.connect() as connection:
            return connection.execute(text(sql)).scalar_one()

    def rows(self, sql: str) -> list[Any]:
        """Return the rows of a query."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]

    def owners(self) -> list[int]:
        """Return how many partitions each live node holds, in order."""
        held: dict[str, int] = {}
        for status in self.subscription.status():
            if status.owner is not None:
                held[status.owner] = held.get(status.owner, 0) + 1
        return sorted(held.values())

    def is_caught_up(self) -> bool:
        """Return whether every event has its effect."""
        missing = (
            "SELECT count(*) FROM es_events e WHERE category = 'orders' "
            "AND NOT EXISTS (SELECT 1 FROM effects WHERE number = e.sequence_number)"
        )
        return self.one(missing) == 0

    def check(self) -> None:
        """Every effect is there once, and those of each stream are in order."""
        assert self.rows("SELECT number FROM effects GROUP BY number HAVING count(*) > 1") == []
        assert self.one("SELECT count(*) FROM effects") == self.one("SELECT count(*) FROM es_events")
        out_of_order = (
            "SELECT count(*) FROM (SELECT position, lag(position) OVER (PARTITION BY stream ORDER BY ctid_order) AS before "
            "FROM (SELECT *, row_number() OVER (ORDER BY at) AS ctid_order FROM effects) e) o WHERE position <> before + 1"
        )
        assert self.one(out_of_order) == 0


def disturbed(
    cluster: Cluster, *, writers: int, events: int, disturbances: int, nodes: int, chance: random.Random
) -> None:
    """Write while nodes are killed, stopped and added; then wait until everything is handled, and check it."""
    for _ in range(nodes - len(cluster.alive())):
        cluster.start()
    with ThreadPoolExecutor(writers) as pool:
        written = [pool.submit(cluster.write, chance.random(), events // writers) for _ in range(writers)]
        for number in range(disturbances):
            time.sleep(chance.uniform(0.1, 0.6))
            victim = chance.choice(cluster.alive())
            if number % 2:
                victim.kill()
                victim.wait()
                cluster.start()
            else:
                os.kill(victim.pid, signal.SIGSTOP)
                # Which does nothing if it has been killed meanwhile.
                threading.Timer(LEASE_S * 1.5, victim.send_signal, (signal.SIGCONT,)).start()
        for each in written:
            each.result()
    wait_until(cluster.is_caught_up, "all events are handled", interval_s=0.1)
    cluster.check()

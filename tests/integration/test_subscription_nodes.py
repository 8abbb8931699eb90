"""Subscriptions on many nodes: real processes, which are killed, stopped past their lease, resumed, and added."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from eventstore_sa import NewEvent, SyncEventStore
from eventstore_sa.subscriptions import SyncSubscription
from eventstore_sa.testing.postgres import PostgresServer
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.patience import wait_until
from tests.preloaded import PreloadedProcess
from tests.stores import install_schema
from tests.subscribing import CREATE_EFFECTS, start_node

LEASE_S = 1.8


class Cluster:
    """Nodes that run one subscription, writers, and what came of it."""

    def __init__(self, database: PostgresDatabase, *, partitions: int) -> None:
        self.url = database.url("asyncpg")
        self.engine: Engine = create_engine(database.url("psycopg"), pool_size=20)
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
        node = start_node(self.url, "billing", partitions=self.partitions, lease_s=LEASE_S)
        self.nodes.append(node)
        return node

    def end(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(ProcessLookupError):
                node.send_signal(signal.SIGCONT)
                node.kill()
            node.wait()
            assert node.stdout is not None
            node.stdout.close()
        self.engine.dispose()

    def write(self, writer: int, count: int) -> None:
        """Publish at once, and in business transactions; some of these are rolled back."""
        chance = random.Random(writer)
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
        with self.engine.connect() as connection:
            return connection.execute(text(sql)).scalar_one()

    def rows(self, sql: str) -> list[Any]:
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


@pytest.fixture
def cluster(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[Cluster]:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_schema)) as database:
        cluster = Cluster(database, partitions=4)
        try:
            yield cluster
        finally:
            cluster.end()


def disturbed(cluster: Cluster, *, writers: int, events: int, disturbances: int, nodes: int) -> None:
    """Write while nodes are killed, stopped and added; then wait until everything is handled."""
    chance = random.Random(4)
    for _ in range(nodes):
        cluster.start()
    with ThreadPoolExecutor(writers) as pool:
        written = [pool.submit(cluster.write, writer, events // writers) for writer in range(writers)]
        for number in range(disturbances):
            time.sleep(chance.uniform(0.1, 0.6))
            victim = chance.choice([node for node in cluster.nodes if node.poll() is None])
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


def test_every_effect_happens_once_while_nodes_are_killed_and_stopped(cluster: Cluster) -> None:
    disturbed(cluster, writers=3, events=200, disturbances=2, nodes=2)


@pytest.mark.long
def test_every_effect_happens_once_at_full_size(
    postgres_server: PostgresServer, postgres_templates: PostgresTemplates
) -> None:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_schema)) as database:
        cluster = Cluster(database, partitions=8)
        try:
            disturbed(cluster, writers=16, events=20_000, disturbances=20, nodes=4)
        finally:
            cluster.end()


def test_nodes_that_join_and_leave_share_the_partitions(cluster: Cluster) -> None:
    cluster.start()
    wait_until(lambda: cluster.owners() == [4], "one node holds all")
    second = cluster.start()
    began = time.monotonic()
    wait_until(lambda: cluster.owners() == [2, 2], "they share")
    assert time.monotonic() - began < 2 * LEASE_S + 5

    second.terminate()
    assert second.wait() == 0
    # At once: whoever left holds nothing, and the rest is taken by the next look.
    wait_until(lambda: cluster.owners() == [4], "the one that is left holds all")

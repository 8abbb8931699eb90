"""Subscriptions on many nodes: real processes, which are killed, stopped past their lease, resumed, and added."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from eventstore_sa.testing.postgres import PostgresServer
from tests.clusters import LEASE_S, Cluster, disturbed
from tests.databases import PostgresTemplates, fresh_database
from tests.failure_table import row
from tests.patience import wait_until
from tests.stores import install_schema


@pytest.fixture
def cluster(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[Cluster]:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_schema)) as database:
        cluster = Cluster(database.url, partitions=4)
        try:
            yield cluster
        finally:
            cluster.end()


@row("a process is killed", "a process is stopped, and resumed after its lease")
def test_every_effect_happens_once_while_nodes_are_killed_and_stopped(cluster: Cluster) -> None:
    disturbed(cluster, writers=3, events=200, disturbances=2, nodes=2, chance=random.Random(4))


@pytest.mark.long
def test_every_effect_happens_once_at_full_size(
    postgres_server: PostgresServer, postgres_templates: PostgresTemplates
) -> None:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_schema)) as database:
        cluster = Cluster(database.url, partitions=8)
        try:
            disturbed(cluster, writers=16, events=20_000, disturbances=20, nodes=4, chance=random.Random(4))
        finally:
            cluster.end()


@row("a process joins", "a process ends gracefully")
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

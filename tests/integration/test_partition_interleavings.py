"""Partitions are read up to the watermark, like the log: an event that is committed late is never skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from eventstore_sa.errors import WaitTimeoutError
from eventstore_sa.types import (
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    LogPartitionIdentifier,
    StreamNamePrefixPartitionIdentifier,
)
from tests.databases import PostgresDatabase
from tests.interleaving import Stage, install_schema, names, open_stage
from tests.patience import PATIENCE_S

PARTS: list[EventPartitionIdentifier] = [
    LogPartitionIdentifier(0, 1),
    CategoryPartitionIdentifier("orders", 0, 1),
    StreamNamePrefixPartitionIdentifier("orders", "order-"),
]


@pytest.fixture
def stage(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Stage]:
    with open_stage(make_postgres_database(prepared_by=install_schema)) as stage:
        yield stage


@pytest.mark.parametrize("part", PARTS)
def test_a_partition_ends_where_an_open_transaction_has_drawn_a_number(
    stage: Stage, part: EventPartitionIdentifier
) -> None:
    partition, late = stage.store.partition(part), stage.writer()
    stage.publish("first", stream="order-1")
    late.publish("second", stream="order-2")
    third = stage.publish("third", stream="order-3")

    latest = partition.latest()
    assert (names(partition.iterate()), latest and latest.name) == (["first"], "first")
    with pytest.raises(WaitTimeoutError):
        partition.read(wait_for=third, timeout_s=0)

    late.session.commit()

    assert [event.name for event in partition.read(wait_for=third, timeout_s=PATIENCE_S)] == [
        "first",
        "second",
        "third",
    ]
    assert names(partition.iterate(backwards=True)) == ["third", "second", "first"]


@pytest.mark.parametrize("part", PARTS)
def test_within_a_transaction_a_partition_is_what_the_transaction_sees(
    stage: Stage, part: EventPartitionIdentifier
) -> None:
    writer, other = stage.writer(), stage.writer()
    other.publish("hidden", stream="order-1")

    writer.publish("own", stream="order-2")

    assert names(writer.store.partition(part).iterate()) == ["own"]

"""Which partitions nodes take and give up: simulated, with all of them looking in turn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from msgspec.structs import replace

from eventstore_sa.contracts.subscriptions import Node, PartitionRecord, PartitionState, Survey
from eventstore_sa.subscriptions.balance import balanced
from eventstore_sa.testing.cases.tables import in_turn

NOW = datetime.now(UTC)


def nodes(*counts: str) -> list[Node]:
    """Make a node for each text, which names its subscriptions by letters."""
    return [Node(UUID(int=number * 7919 + 1), str(number), frozenset(names)) for number, names in enumerate(counts)]


def partitions(name: str, count: int, *, owner: UUID | None = None) -> list[PartitionRecord]:
    return [
        PartitionRecord(
            name,
            number,
            count,
            1,
            0,
            0,
            PartitionState.RUNNING,
            owner,
            None,
            owner is None,
            None,
            None,
            0,
            0.0,
            NOW,
            None,
        )
        for number in range(count)
    ]


def turned(me: Node, records: list[PartitionRecord], alive: Sequence[Node]) -> bool:
    """Let a node look once, and do what it decides; return whether it did anything."""
    take, give_up = balanced(me, Survey(list(records), alive))
    for record in take:
        records[records.index(record)] = replace(record, owner=me.id, expired=False)
    for record in give_up:
        records[records.index(record)] = replace(record, owner=None, expired=True)
    return bool(take or give_up)


def settled(records: list[PartitionRecord], alive: Sequence[Node]) -> int:
    """Let all nodes look until none of them does anything; return how many rounds that took."""
    for round_ in range(50):
        if not [each for each in alive if turned(each, records, alive)]:
            return round_
    raise AssertionError("it never comes to rest")


def loads(records: Sequence[PartitionRecord], alive: Sequence[Node]) -> list[int]:
    return [sum(record.owner == node.id for record in records) for node in alive]


@in_turn("count", {"few": 1, "as many": 4, "more": 8, "odd": 11})
def test_nodes_share_evenly_whenever_they_join(count: int) -> None:
    records = partitions("a", count)
    everyone = nodes("a", "a", "a", "a")
    for number in range(1, 5):
        alive = everyone[:number]
        settled(records, alive)
        held = loads(records, alive)
        assert sum(held) == count
        assert max(held) - min(held) <= 1


def test_what_a_node_leaves_behind_is_taken() -> None:
    records = partitions("a", 8)
    everyone = nodes("a", "a", "a")
    settled(records, everyone)

    records = [
        replace(record, owner=None, expired=True) if record.owner == everyone[0].id else record for record in records
    ]
    rounds = settled(records, everyone[1:])

    assert loads(records, everyone[1:]) == [4, 4]
    assert rounds <= 3


def test_a_node_takes_only_what_it_can_do() -> None:
    records = [*partitions("a", 4), *partitions("b", 4)]
    alive = nodes("a", "ab")

    settled(records, alive)

    assert {record.name for record in records if record.owner == alive[0].id} == {"a"}
    assert loads(records, alive) == [4, 4]


def test_many_subscriptions_of_one_partition_are_shared_too() -> None:
    names = "abcdefghij"
    records = [record for name in names for record in partitions(name, 1)]
    alive = nodes(names, names)

    settled(records, alive)

    assert loads(records, alive) == [5, 5]


def test_nothing_moves_between_nodes_that_are_even() -> None:
    records = partitions("a", 5)
    alive = nodes("a", "a")
    settled(records, alive)
    before = list(records)

    assert settled(records, alive) == 0
    assert records == before


def test_what_is_paused_stopped_or_drained_is_left_alone() -> None:
    (me,) = nodes("a")
    halted = [replace(each, state=PartitionState.PAUSED) for each in partitions("a", 1)]
    stopped = [replace(each, state=PartitionState.STOPPED) for each in partitions("a", 1)]
    drained = [replace(each, drain_to=0) for each in partitions("a", 1)]

    assert balanced(me, Survey([*halted, *stopped, *drained], [me])) == ([], [])

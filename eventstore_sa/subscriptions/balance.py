"""Which partitions a node takes, and which it gives up: each node decides for itself, from what all of them see.

A node takes what is free if no other node has less to do, and gives up what another could do that has clearly less: so the
nodes converge, and nothing moves between nodes that are even.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from eventstore_sa.contracts.subscriptions import Node, PartitionRecord, Survey

__all__ = ["balanced"]


def balanced(node: Node, survey: Survey) -> tuple[list[PartitionRecord], list[PartitionRecord]]:
    """Return the partitions that a node takes now, and those that it gives up.

    Args:
        node: The node.
        survey: The partitions of all subscriptions, also of those that it does not run: others have to process them.
    """
    me = node.id
    load: Counter[UUID] = Counter({each.id: 0 for each in survey.nodes})
    load.setdefault(me, 0)
    for record in survey.partitions:
        if record.owner is not None and not record.expired:
            load[record.owner] += 1
    return _taken(node, survey, load), _given_up(me, survey, load)


def _taken(node: Node, survey: Survey, load: Counter[UUID]) -> list[PartitionRecord]:
    me = node.id
    taken: list[PartitionRecord] = []
    free = [record for record in survey.partitions if record.is_free and record.name in node.subscriptions]
    # Each node begins elsewhere, so that they do not all reach for the same partition.
    start = me.int % len(free) if free else 0
    for record in (*free[start:], *free[:start]):
        if all(load[me] <= load[other] for other in _others(me, record.name, survey)):
            taken.append(record)
            load[me] += 1
    return taken


def _given_up(me: UUID, survey: Survey, load: Counter[UUID]) -> list[PartitionRecord]:
    given_up: list[PartitionRecord] = []
    for record in reversed(survey.partitions):
        others = _others(me, record.name, survey)
        if record.owner != me or not others:
            continue
        least = min(others, key=lambda other: load[other])
        if load[me] - load[least] >= 2:
            given_up.append(record)
            load[me] -= 1
            load[least] += 1
    return given_up


def _others(me: UUID, name: str, survey: Survey) -> Sequence[UUID]:
    return [node.id for node in survey.nodes if node.id != me and name in node.subscriptions]

"""What mypy --strict and pyright strict must infer about decisions. Never run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_type

from eventstore_sa import EventQuery, EventStore, NewEvent, Projector, StreamIdentifier, SyncEventStore
from eventstore_sa.conditions import WriteCondition, no_event_matches, stream_is_empty
from eventstore_sa.store import Decision, DecisionUpdate
from eventstore_sa.types import AnyStoredEvent


async def the_state_is_that_of_the_projector(
    store: EventStore, query: EventQuery, projector: Projector[EventQuery, int, None]
) -> None:
    decision = await store.decide(query, projector)
    assert_type(decision, Decision[int])
    assert_type(decision.state, int)
    condition: WriteCondition = decision.unchanged() & stream_is_empty() & no_event_matches(query)
    await store.stream(category="a", stream="b").publish(events=[], condition=condition)
    assert_type(await store.decide({"one": (query, projector)}), Decision[dict[str, Any]])
    await store.decide(query)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def what_is_decided_is_published_by_streams(
    store: EventStore, query: EventQuery, projector: Projector[EventQuery, int, None]
) -> None:
    def decide(state: int) -> Mapping[StreamIdentifier, Any]:
        return {StreamIdentifier("a", "b"): {"events": [NewEvent(name="x", payload=state)]}}

    update = await store.update_decision(query, projector, decide=decide)
    assert_type(update, DecisionUpdate[int])
    assert_type(update.events, Mapping[StreamIdentifier, Sequence[AnyStoredEvent]])


def the_same_without_asyncio(
    store: SyncEventStore, query: EventQuery, projector: Projector[EventQuery, int, None]
) -> None:
    assert_type(store.decide(query, projector), Decision[int])
    assert_type(store.decide({"one": (query, projector)}), Decision[dict[str, Any]])
    update = store.update_decision(query, projector, decide=lambda state: {})
    assert_type(update, DecisionUpdate[int])

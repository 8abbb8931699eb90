"""Projecting: batches of events into the projection store, against statements by hand; and in memory, per event."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

import asyncpg

from benchmarks.databases import Setting, database
from benchmarks.harness import Contest, benchmark, rate
from eventstore_sa import NewEvent, ProjectionStore
from eventstore_sa.projection import Projector
from eventstore_sa.sources import SyncInMemoryEventSource
from eventstore_sa.types import StoredEvent, StreamIdentifier

__all__: list[str] = []

BATCH = 500

_numbers = count(1)


class OrderSummaryProjector(Projector[StreamIdentifier, dict[str, Any], None]):
    """How many items an order has, and what they cost."""

    def initial_state_factory(self) -> dict[str, Any]:
        return {"items": 0, "total": 0, "status": "open"}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
        return source.stream

    def item_added(self, state: dict[str, Any], event: StoredEvent[Any, Any, Any]) -> dict[str, Any]:
        state["items"] += 1
        state["total"] += event.payload["price"]
        return state


def _events(amount: int, streams: int) -> list[StoredEvent[Any, Any, Any]]:
    """Make events of streams that take turns."""
    now = datetime.now(UTC)
    return [
        StoredEvent(
            uuid4(),
            "item-added",
            f"order-{number % streams}",
            "orders",
            number // streams,
            number + 1,
            {"sku": f"sku-{number % 89}", "price": number % 50},
            None,
            now,
            now,
        )
        for number in range(amount)
    ]


@benchmark(
    "project-batches",
    f"project 50,000 events of 5,000 streams in batches of {BATCH}, against a batched upsert by hand (asyncpg)",
    unit="events/s",
    floor=0.6,
)
async def project_batches(setting: Setting) -> AsyncIterator[Contest]:
    """Hold the projection store against a select and an upsert with arrays, for each batch."""
    amount = setting.sized(50_000, 1000)
    events = _events(amount, streams=amount // 10)
    batches = [events[start : start + BATCH] for start in range(0, amount, BATCH)]
    async with database(setting) as db:
        store = await db.store()
        projections = ProjectionStore(store)
        connection = await db.raw()
        await connection.execute(
            "CREATE TABLE summaries (name text, id text, state jsonb NOT NULL, sequence_number bigint NOT NULL, "
            "PRIMARY KEY (name, id))"
        )

        async def ours(projector: OrderSummaryProjector) -> None:
            for batch in batches:
                await projections.project(projector, events=batch)

        def new_projector() -> OrderSummaryProjector:
            # Of another name in each round, because what is applied already is left out.
            projector = OrderSummaryProjector()
            projector.name = f"summary-{next(_numbers)}"
            return projector

        yield Contest(
            rate(amount, ours, new_projector),
            rate(amount, partial(_by_hand, connection, batches), lambda: f"summary-{next(_numbers)}"),
        )


async def _by_hand(
    connection: asyncpg.Connection[Any], batches: Sequence[Sequence[StoredEvent[Any, Any, Any]]], name: str
) -> None:
    for batch in batches:
        ids = list({event.stream for event in batch})
        async with connection.transaction():
            rows = await connection.fetch(
                "SELECT id, state FROM summaries WHERE name = $1 AND id = ANY ($2::text[]) ORDER BY id FOR UPDATE",
                name,
                ids,
            )
            states: dict[str, Any] = {row["id"]: json.loads(row["state"]) for row in rows}
            for event in batch:
                state = states.setdefault(event.stream, {"items": 0, "total": 0, "status": "open"})
                state["items"] += 1
                state["total"] += event.payload["price"]
            keys = sorted(states)
            await connection.execute(
                "INSERT INTO summaries SELECT $1, id, state, $4 FROM unnest($2::text[], $3::jsonb[]) AS item(id, state) "
                "ON CONFLICT (name, id) DO UPDATE SET state = excluded.state, sequence_number = excluded.sequence_number",
                name,
                keys,
                [json.dumps(states[key]) for key in keys],
                batch[-1].sequence_number,
            )


@benchmark(
    "project-memory",
    "project events in memory: microseconds for each above the handler itself, against one",
    unit="µs",
    ceiling=1.5,
)
async def project_memory(setting: Setting) -> AsyncIterator[Contest]:
    """Take from the time of projecting a stream the time that calling its handlers in a loop takes."""
    amount = setting.sized(100_000, 1000)
    source = SyncInMemoryEventSource(_events(amount, streams=1), StreamIdentifier("orders", "order-0"))
    events, projector = list(source), OrderSummaryProjector()

    async def overhead() -> float:
        gc.collect()
        begin = time.perf_counter()
        projected = projector.project_sync(source=source)
        between = time.perf_counter()
        state = projector.initial_state_factory()
        for event in events:
            state = projector.item_added(state, event)
        end = time.perf_counter()
        if projected.state != state:
            raise AssertionError("both do the same")
        return ((between - begin) - (end - between)) / amount * 1e6

    async def one() -> float:
        return 1.0

    yield Contest(overhead, one)


@benchmark(
    "publish-inline",
    "publish one event and update an inline projection of its stream, against the publish alone",
    unit="publishes/s",
)
async def publish_inline(setting: Setting) -> AsyncIterator[Contest]:
    """Hold a transaction of publish, load and save against the one statement of a publish."""
    times = setting.sized(300, 5)
    async with database(setting) as db:
        store = await db.store()
        projecting = store.with_projections(OrderSummaryProjector())

        async def publish(target: Any, _: None) -> None:
            for number in range(times):
                stream = target.stream(category="orders", stream=f"order-{number % 20}")
                await stream.publish(events=[NewEvent(name="item-added", payload={"sku": "sku-1", "price": 5})])

        yield Contest(rate(times, partial(publish, projecting)), rate(times, partial(publish, store)))

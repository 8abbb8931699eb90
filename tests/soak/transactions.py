"""Transactions of a host, with publishes and rows of its own in them, and every way to end.

What is in a savepoint that is rolled back is never noted; should it be stored all the same, `verdict` finds an event
that nobody tried to store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import uuid4

from eventstore_sa import EventStoreSchema, NewEvent, StoredEvent
from eventstore_sa.conditions import position_is
from eventstore_sa.errors import TransactionError, UnmetWriteConditionError
from eventstore_sa.store import EventStore
from tests.soak.clients import Client, Transaction, trouble
from tests.soak.journal import Journal, Noted, Prepared, Stored, Tried, Wrong, note
from tests.soak.plan import HOST_CATEGORY, Plan, tags_of

__all__ = ["CREATE_HOST_TABLE", "HostTransactions"]

CREATE_HOST_TABLE = "CREATE TABLE soak_host (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text NOT NULL)"

_BULK = 1000

_HOST_INSERT = """
INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at)
SELECT CAST(:id AS uuid), CAST(:category AS text), CAST(:stream AS text), coalesce(max(position), -1) + 1,
       'of-the-host', '{}', now(), now()
FROM es_events WHERE category = :category AND stream = :stream
RETURNING position, sequence_number
"""

PublishSomewhere = Callable[[EventStore], Awaitable[list[StoredEvent[Any, Any, Any]]]]
Step = Callable[[Transaction], Awaitable[list[Noted]]]


class HostTransactions:
    """The transactions of one worker."""

    def __init__(
        self,
        client: Client,
        journal: Journal,
        plan: Plan,
        random: Random,
        schema: EventStoreSchema,
        publish_somewhere: PublishSomewhere,
    ) -> None:
        self._client = client
        self._journal = journal
        self._plan = plan
        self._random = random
        self._schema = schema
        self._publish_somewhere = publish_somewhere

    async def run(self) -> None:
        """Run one transaction and commit it, or roll it back."""
        async with self._client.transaction() as transaction:
            events = await self._steps(transaction)
            await self._pause()
            if self._random.random() < 0.15:
                await transaction.rollback()
                self._journal.count("rollback")
                return
            self._journal.write(Tried(events))
            await transaction.commit()
            self._journal.write(Stored(events))

    async def run_in_bulk(self) -> None:
        """Publish a thousand events in one transaction, and think better of it most of the time."""
        async with self._client.transaction() as transaction:
            stream = self._random.choice(self._plan.streams_of(self._random.choice(self._plan.categories)))
            source = transaction.store.stream(category=stream.category, stream=stream.stream)
            tags = tags_of(stream.category, stream.stream)
            stored = await source.publish(
                events=[NewEvent(name="in-bulk", payload=number, tags=tags) for number in range(_BULK)]
            )
            if self._random.random() < 0.8:
                await transaction.rollback()
                self._journal.count("bulk rolled back")
                return
            events = note(stored)
            self._journal.write(Tried(events))
            await transaction.commit()
            self._journal.write(Stored(events))

    async def prepare(self) -> None:
        """Run one transaction and prepare it; the parent process decides what becomes of it."""
        async with self._client.transaction() as transaction:
            events = await self._steps(transaction)
            gid = f"soak-{uuid4()}"
            self._journal.write(Prepared(gid, events))
            await transaction.execute(f"PREPARE TRANSACTION '{gid}'")

    async def _steps(self, transaction: Transaction) -> list[Noted]:
        # A transaction id that is older than those of later publishers who commit earlier.
        if self._random.random() < 0.4:
            await self._write_a_row(transaction)
        steps: dict[Step, int] = {
            self._publish: 8,
            self._publish_and_release: 3,
            self._publish_and_roll_back: 3,
            self._publish_nested: 1,
            self._publish_in_vain: 2,
            self._insert: 2,
            self._insert_mapped: 1,
        }
        events: list[Noted] = []
        for _ in range(self._random.choices((1, 2, 4), (5, 3, 1))[0]):
            (step,) = self._random.choices(list(steps), list(steps.values()))
            events += await step(transaction)
            if self._random.random() < 0.2:
                await self._pause()
        if self._random.random() < 0.2:
            await self._write_a_row(transaction)
        return events

    async def _publish(self, transaction: Transaction) -> list[Noted]:
        try:
            stored = await self._publish_somewhere(transaction.store)
        except TransactionError as error:
            # A deadlock, or a lock that could not be acquired, costs this publish, not the transaction.
            expected = trouble(error)
            if expected not in {"deadlock", "lock timeout"}:
                raise
            self._journal.count(expected)
            await transaction.execute("SELECT 1")
            return []
        if self._random.random() < 0.1:
            await self._see_own(transaction, stored[-1])
        return note(stored)

    async def _publish_and_release(self, transaction: Transaction) -> list[Noted]:
        savepoint = await transaction.savepoint()
        events = await self._publish(transaction)
        await savepoint.commit()
        return events

    async def _publish_and_roll_back(self, transaction: Transaction) -> list[Noted]:
        savepoint = await transaction.savepoint()
        await self._publish(transaction)
        await self._pause()
        await savepoint.rollback()
        self._journal.count("savepoint rolled back")
        return []

    async def _publish_nested(self, transaction: Transaction) -> list[Noted]:
        outer = await transaction.savepoint()
        events = await self._publish(transaction)
        inner = await transaction.savepoint()
        await self._publish(transaction)
        await inner.rollback()
        self._journal.count("savepoint rolled back")
        events += await self._publish(transaction)
        await outer.commit()
        return events

    async def _publish_in_vain(self, transaction: Transaction) -> list[Noted]:
        stream = transaction.store.stream(category=self._random.choice(self._plan.categories), stream="0")
        try:
            await stream.publish(events=[NewEvent(name="in-vain", payload=None)], condition=position_is(10**12))
        except UnmetWriteConditionError:
            self._journal.count("unmet condition")
        else:
            self._journal.write(Wrong("a publish was stored although its condition was not met"))
        await transaction.execute("SELECT 1")
        return []

    async def _insert(self, transaction: Transaction) -> list[Noted]:
        stream = await self._host_stream(transaction)
        new_id = str(uuid4())
        parameters = {"id": new_id, "category": HOST_CATEGORY, "stream": stream}
        ((position, number),) = await transaction.execute(_HOST_INSERT, parameters)
        return [Noted(new_id, HOST_CATEGORY, stream, position, number)]

    async def _insert_mapped(self, transaction: Transaction) -> list[Noted]:
        stream = await self._host_stream(transaction)
        latest = await transaction.store.stream(category=HOST_CATEGORY, stream=stream).latest()
        now = datetime.now(UTC)
        record: Any = self._schema.EventRecord()
        record.id, record.name, record.payload = uuid4(), "mapped", {}
        record.category, record.stream = HOST_CATEGORY, stream
        record.position = 0 if latest is None else latest.position + 1
        record.observed_at = record.occurred_at = now
        await transaction.add(record)
        return [Noted(str(record.id), HOST_CATEGORY, stream, record.position, record.sequence_number)]

    async def _host_stream(self, transaction: Transaction) -> str:
        """Choose a stream of the host's category; nobody else writes to it until the transaction ends."""
        number = self._random.randrange(self._plan.streams)
        await transaction.execute("SELECT pg_advisory_xact_lock(:key)", {"key": number})
        return str(number)

    async def _see_own(self, transaction: Transaction, event: StoredEvent[Any, Any, Any]) -> None:
        stream = transaction.store.stream(category=event.category, stream=event.stream)
        if await stream.latest() != event:
            self._journal.write(Wrong(f"a transaction does not see its own event {event.sequence_number}"))
        events = [seen async for seen in transaction.store.log().iterate(backwards=True, limit=20)]
        if event not in events and len(events) < 20:
            self._journal.write(Wrong(f"a transaction does not find its own event {event.sequence_number} in the log"))

    async def _write_a_row(self, transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO soak_host (note) VALUES (:note)", {"note": "a row of the host"})

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.random() * self._plan.longest_pause_s)

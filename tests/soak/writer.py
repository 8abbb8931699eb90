"""A process full of writers: `python -m tests.soak.writer FOLDER NAME DRIVER WORKERS`; it ends when its stdin does.

Every worker draws acts at random until then, and notes in the journal what it knows of each. If the name of the driver ends
in `+coalescing`, the workers share a store that coalesces their publishes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

from eventstore_sa import EventStoreSchema, NewEvent, StoredEvent, StreamIdentifier
from eventstore_sa.conditions import WriteCondition, position_is, stream_exists, stream_is_empty
from eventstore_sa.store import EventStore, StreamPublishDefinition
from tests.soak.clients import AsyncClient, Client, SyncClient, trouble
from tests.soak.journal import Journal, Noted, Refused, Stored, Tried, Wrong, note
from tests.soak.plan import PREFIX_OF_WRITERS, Plan, tags_of
from tests.soak.transactions import HostTransactions

Definitions = dict[StreamIdentifier, StreamPublishDefinition[Any, Any, Any]]
AnyStoredEvent = StoredEvent[Any, Any, Any]

SCHEMA = EventStoreSchema()


class Worker:
    """One writer."""

    def __init__(self, client: Client, journal: Journal, plan: Plan, random: Random, ended: threading.Event) -> None:
        self._client = client
        self._journal = journal
        self._plan = plan
        self._random = random
        self._ended = ended
        self._transactions = HostTransactions(client, journal, plan, random, SCHEMA, self.publish_somewhere)

    async def run(self) -> None:
        """Draw acts until the end."""
        acts: dict[Callable[[], Awaitable[None]], int] = {
            self.publish_alone: 100,
            self.publish_on_condition: 40,
            self.publish_widely: 1,
            self._transactions.run: 150,
            self._transactions.run_in_bulk: 2,
        }
        if self._plan.two_phase:
            acts[self._transactions.prepare] = 8
        while not self._ended.is_set():
            (act,) = self._random.choices(list(acts), list(acts.values()))
            try:
                await act()
            except Exception as error:
                expected = trouble(error)
                if expected:
                    self._journal.count(expected)
                else:
                    self._journal.write(Wrong(f"{act.__name__}: {type(error).__name__}: {error}"))
            # Synchronous workers never wait for anything else here, and asyncio must look at its other tasks.
            await asyncio.sleep(0)

    async def publish_alone(self) -> None:
        """Publish to one stream, to some of a category, or to some of any categories."""
        await self._publish_alone(self._definitions())

    async def publish_widely(self) -> None:
        """Publish to so many streams that the whole category is locked instead of each of them."""
        category = self._plan.categories[-1]
        await self._publish_alone(
            {
                stream: {"events": self._events(stream, 1)}
                for stream in (StreamIdentifier(category, f"wide-{number}") for number in range(40))
            }
        )

    async def publish_on_condition(self) -> None:
        """Publish on a condition that others may make untrue at any time."""
        stream = self._random.choice(self._plan.streams_of(self._random.choice(self._plan.categories)))
        condition: WriteCondition
        match self._random.randrange(4):
            case 0:
                condition = stream_is_empty()
            case 1:
                condition = stream_exists()
            case _:
                latest = await self._client.store.stream(category=stream.category, stream=stream.stream).latest()
                condition = position_is(None if latest is None else latest.position)
        await self._publish_alone({stream: {"events": self._events(stream), "condition": condition}})

    async def publish_somewhere(self, store: EventStore) -> list[AnyStoredEvent]:
        """Publish as one act of a transaction."""
        return await publish(store, self._definitions(), self._random)

    async def _publish_alone(self, definitions: Definitions) -> None:
        tried = [
            Noted(str(event.id), stream.category, stream.stream)
            for stream, definition in definitions.items()
            for event in definition["events"]
        ]
        self._journal.write(Tried(tried))
        while True:
            try:
                stored = await publish(self._client.store, definitions, self._random)
            except Exception as error:
                if trouble(error) != "lost connection":
                    self._journal.write(Refused(tried))
                    raise
                if self._random.random() < 0.5:
                    raise
                # The other half finds out: the same events again, with the same ids.
                self._journal.count("repetition")
            else:
                self._journal.write(Stored(note(stored)))
                return

    def _definitions(self) -> Definitions:
        categories = self._plan.categories
        if self._random.random() < 0.8:
            categories = (self._random.choice(categories),)
        streams = [stream for category in categories for stream in self._plan.streams_of(category)]
        amount = self._random.choices((1, 2, 4), (8, 2, 1))[0]
        return {stream: {"events": self._events(stream)} for stream in self._random.sample(streams, amount)}

    def _events(self, stream: StreamIdentifier, amount: int | None = None) -> list[NewEvent[str, Any, Any]]:
        if amount is None:
            amount = self._random.choices((1, 2, 5), (8, 2, 1))[0]
        tags = tags_of(stream.category, stream.stream)
        return [NewEvent(id=uuid4(), name="soaked", payload={"number": number}, tags=tags) for number in range(amount)]


async def publish(store: EventStore, definitions: Definitions, random: Random) -> list[AnyStoredEvent]:
    """Publish through a stream, a category or the log, whichever fits."""
    categories = {stream.category for stream in definitions}
    if len(definitions) == 1:
        ((stream, definition),) = definitions.items()
        source = store.stream(category=stream.category, stream=stream.stream)
        return list(await source.publish(**definition))
    if len(categories) == 1 and random.random() < 0.7:
        (category,) = categories
        by_name = {stream.stream: definition for stream, definition in definitions.items()}
        of_category = await store.category(category=category).publish(streams=by_name)
        return [event for events in of_category.values() for event in events]
    of_log = await store.publish(streams=definitions)
    return [event for events in of_log.values() for event in events]


def end_with_stdin() -> threading.Event:
    """Return an event that is set when stdin ends: by the parent's will, or by its death."""
    ended = threading.Event()

    def wait() -> None:
        while os.read(0, 1024):
            pass
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended


def main(folder: str, name: str, driver: str, workers: str) -> None:
    """Run the workers of one process."""
    plan = Plan.load(folder)
    ended = end_with_stdin()
    journal = Journal(Path(folder, f"{name}-{os.getpid()}.journal"))
    driver, _, coalescing = driver.partition("+")
    url = plan.urls[driver.removesuffix("-async")]
    asynchronous = driver == "asyncpg" or driver.endswith("-async")
    amount = int(workers)

    def client(name: str, users: int) -> Client:
        make = AsyncClient if asynchronous else SyncClient
        return make(url, f"{PREFIX_OF_WRITERS}-{name}", users=users, coalesce=bool(coalescing))

    # Those whose publishes travel together have one store.
    shared = client(name, amount) if coalescing else None

    async def run(number: int) -> None:
        own = shared or client(f"{name}-{number}", 1)
        await Worker(own, journal, plan, plan.random(name, os.getpid(), number), ended).run()
        if own is not shared:
            await own.close()

    async def run_together() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(amount):
                group.create_task(run(number))
        if shared is not None:
            await shared.close()

    if asynchronous:
        asyncio.run(run_together())
    else:
        threads = [threading.Thread(target=asyncio.run, args=(run(number),)) for number in range(amount)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if shared is not None:
            asyncio.run(shared.close())
    journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

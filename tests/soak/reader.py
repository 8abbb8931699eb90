"""A process full of readers: `python -m tests.soak.reader FOLDER NAME DRIVER`.

Each pages through the log, a category or the streams by a cursor that only goes forward, and remembers what it saw. When
stdin ends, nobody writes any more: whatever a reader has not seen by its next empty page, it has missed.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore_sa import EventStore, EventStoreSchema, SyncEventStore
from eventstore_sa.errors import StorageError
from eventstore_sa.persistence.events.reads import Wanted
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.sources.constraints import sequence_number_after
from eventstore_sa.store.adapters import SQLAlchemyEventStorageAdapter, SyncSQLAlchemyEventStorageAdapter
from eventstore_sa.store.adapters.event_contract import AwaitableEventStorageAdapter
from eventstore_sa.types import CategoryIdentifier, EventQuery, LogIdentifier, QueryItem, StreamIdentifier
from tests.soak.clients import trouble
from tests.soak.journal import Noted, note
from tests.soak.plan import PREFIX_OF_READERS, TAGS, Plan
from tests.soak.writer import end_with_stdin

__all__ = ["Seen"]

Target = LogIdentifier | CategoryIdentifier | StreamIdentifier | EventQuery
Page = tuple[list[Noted], int]
"""What a read returned, and the cursor for the next."""

ReadAfter = Callable[[int, int], Awaitable[Page]]

_QUERIES: tuple[Target, ...] = (
    *map(EventQuery.tagged, TAGS.values()),
    EventQuery(QueryItem(tags=[tag]) for tag in TAGS.values()),
)
"""What is read of tags: one is complete as it stands, several are complete up to the watermark."""

_SMALL_PAGE = 7
_IDLE_S = 0.02
_IDLE_PER_TARGET_S = 0.002


class Seen(msgspec.Struct):
    """What one reader saw, in the order in which it did.

    Attributes:
        reader: Its name.
        category: Of what it read; None: of the log.
        stream: Of what it read; None: of all of the category.
        tags: Only events with one of these; none: all.
        events: What it saw.
        pages: How often it asked.
    """

    reader: str
    category: str | None
    stream: str | None
    tags: frozenset[str] = frozenset()
    events: list[Noted] = []
    pages: int = 0


class Follower:
    """Reads one target on and on."""

    def __init__(self, reader: str, target: Target, read: ReadAfter, random: Random) -> None:
        match target:
            case StreamIdentifier(category, stream):
                self.seen = Seen(reader, category, stream)
            case CategoryIdentifier(category):
                self.seen = Seen(reader, category, None)
            case EventQuery(items):
                self.seen = Seen(reader, None, None, frozenset(tag for item in items for tag in item.tags))
            case LogIdentifier():
                self.seen = Seen(reader, None, None)
        self._read = read
        self._random = random
        self._cursor = 0

    async def advance(self) -> bool:
        """Read one page; tell whether there was anything."""
        limit = self._random.choice((1, 3, 20, 50, 200))
        try:
            events, self._cursor = await self._read(self._cursor, limit)
        except StorageError as error:
            if trouble(error) != "lost connection":
                raise
            return True
        self.seen.pages += 1
        self.seen.events += events
        return bool(events)


async def follow(followers: Sequence[Follower], ended: threading.Event) -> None:
    """Let followers take turns until the end, and then until each has found nothing more."""
    while True:
        finishing = ended.is_set()
        found = [await follower.advance() for follower in followers]
        if not any(found):
            if finishing:
                return
            await asyncio.sleep(_IDLE_S + _IDLE_PER_TARGET_S * len(followers))


def through(store: EventStore, target: Target) -> ReadAfter:
    """Read through the public API."""
    source: Any
    match target:
        case LogIdentifier():
            source = store.log()
        case CategoryIdentifier(category):
            source = store.category(category=category)
        case StreamIdentifier(category, stream):
            source = store.stream(category=category, stream=stream)
        case EventQuery():
            source = store.query(target)

    async def read(cursor: int, limit: int) -> Page:
        scan = source.iterate(constraints={sequence_number_after(cursor)}, limit=limit)
        events = note([event async for event in scan])
        return events, _last(events, cursor)

    return read


def through_sql(engine: Any) -> ReadAfter:
    """Read the log as clients without the library do."""

    async def read(cursor: int, limit: int) -> Page:
        call = text("SELECT id, category, stream, position, sequence_number FROM es_read_log_v1(:cursor, :limit)")
        try:
            with engine.connect() as connection:
                rows = connection.execute(call, {"cursor": cursor, "limit": limit}).all()
        except Exception as error:
            if trouble(error) != "lost connection":
                raise
            raise StorageError("the connection to the database was lost") from error
        events = [Noted(str(row.id), *row[1:]) for row in rows]
        return events, _last(events, cursor)

    return read


def too_late(engine: Any, target: Target) -> ReadAfter:
    """Make the mistake: read the page first, then the watermark, and believe that all up to it has been seen."""
    repository = EventRepository(EventStoreSchema(), "postgresql")

    async def read(cursor: int, limit: int) -> Page:
        with engine.connect() as connection:
            wanted = Wanted(target, limit, low=cursor, high=2**62)
            page = repository.page(connection, wanted).checked_events()
            _, watermark = repository.dialect.complete_up_to(connection)
        events = note(event for event in page if event.sequence_number <= watermark)
        return events, _last(events, cursor) if len(page) == limit else max(cursor, watermark)

    return read


def _last(events: Sequence[Noted], cursor: int) -> int:
    return events[-1].sequence_number or cursor if events else cursor


def main(folder: str, name: str, driver: str) -> None:
    """Run the readers of one process and write down what they saw."""
    plan = Plan.load(folder)
    ended = end_with_stdin()
    application = f"{PREFIX_OF_READERS}-{name}"
    targets: list[Target] = [LogIdentifier(), *map(CategoryIdentifier, plan.all_categories)]
    streams = [stream for category in plan.all_categories for stream in plan.streams_of(category)]

    def followers(reads: Mapping[Target, ReadAfter], kind: str) -> list[Follower]:
        return [
            Follower(f"{name} {kind}", target, read, plan.random(name, kind, target)) for target, read in reads.items()
        ]

    if driver == "asyncpg":
        groups = asyncio.run(_read_async(plan, application, targets, streams, followers, ended))
    else:
        groups = asyncio.run(_read_sync(plan, driver, application, targets, streams, followers, ended))
    seen = [follower.seen for group in groups for follower in group]
    Path(folder, f"{name}.seen.json").write_bytes(msgspec.json.encode(seen))


Followers = Callable[[Mapping[Target, ReadAfter], str], list[Follower]]


async def _read_async(
    plan: Plan,
    application: str,
    targets: Sequence[Target],
    streams: Sequence[StreamIdentifier],
    followers: Followers,
    ended: threading.Event,
) -> list[list[Follower]]:
    engine = create_async_engine(
        plan.urls["asyncpg"], connect_args={"server_settings": {"application_name": application}}
    )
    store = EventStore(engine)
    by_small_pages = EventStore(SQLAlchemyEventStorageAdapter(engine, page_size=_SMALL_PAGE))
    groups = [
        followers({target: through(store, target) for target in targets}, "pages"),
        followers({LogIdentifier(): through(by_small_pages, LogIdentifier())}, "small pages"),
        followers({stream: through(store, stream) for stream in streams}, "streams"),
        followers({query: through(by_small_pages, query) for query in _QUERIES}, "tags"),
    ]
    async with asyncio.TaskGroup() as tasks:
        for group in groups:
            tasks.create_task(follow(group, ended))
    await engine.dispose()
    return groups


async def _read_sync(
    plan: Plan,
    driver: str,
    application: str,
    targets: Sequence[Target],
    streams: Sequence[StreamIdentifier],
    followers: Followers,
    ended: threading.Event,
) -> list[list[Follower]]:
    engine = create_engine(plan.urls[driver], connect_args={"application_name": application})
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    if plan.late_watermark:
        groups = [followers({target: too_late(autocommit, target) for target in targets}, "late watermark")]
    else:
        by_small_pages = SyncSQLAlchemyEventStorageAdapter(engine, page_size=_SMALL_PAGE)
        own = EventStore(AwaitableEventStorageAdapter(SyncEventStore(engine).adapter))
        small = EventStore(AwaitableEventStorageAdapter(by_small_pages))
        groups = [
            followers({LogIdentifier(): through(own, LogIdentifier())}, "pages"),
            followers({target: through(small, target) for target in targets[1:]}, "small pages"),
            followers({LogIdentifier(): through_sql(autocommit)}, "SQL function"),
            followers({query: through(own, query) for query in _QUERIES}, "tags"),
        ]
    threads = [threading.Thread(target=asyncio.run, args=(follow(group, ended),)) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    return groups


if __name__ == "__main__":
    main(*sys.argv[1:])

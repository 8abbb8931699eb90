"""Logging: cheap when nobody listens, and silent about what events hold. The page `docs/errors.md` lists the loggers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventstore_sa import EventStore, StreamIdentifier, SyncEventStore
from eventstore_sa.conditions import ConditionScope, WriteCondition, stream_is_empty
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.testing.cases.tables import in_turn
from tests.awaiting import settled
from tests.hosts import Host, each_driver, each_kind_of_driver, new_event

SECRET = "hunter2"


class Counting:
    """A payload that counts how often it is turned into JSON."""

    def __init__(self) -> None:
        self.serialisations = 0

    def serialise(self) -> dict[str, str]:
        self.serialisations += 1
        return {"card": SECRET}


class Always(WriteCondition, frozen=True):
    scope = ConditionScope.CATEGORY

    def to_expression(self, context: Any) -> bool:
        return True


PUBLISHES: dict[str, Callable[[Any, Any], Any]] = {
    "to a stream": lambda store, event: store.stream(category="orders", stream="1").publish(
        events=[event], condition=stream_is_empty()
    ),
    "to a category": lambda store, event: store.category(category="orders").publish(
        streams={"1": {"events": [event], "condition": stream_is_empty()}, "2": {"events": [new_event()]}}
    ),
    "to the log": lambda store, event: store.publish(streams={StreamIdentifier("orders", "1"): {"events": [event]}}),
    "with a condition of the application's own": lambda store, event: store.stream(
        category="orders", stream="1"
    ).publish(events=[event], condition=Always() & stream_is_empty()),
}


@pytest.fixture(params=[logging.CRITICAL, logging.DEBUG], ids=["off", "on"])
def records(request: pytest.FixtureRequest) -> Iterator[list[logging.LogRecord]]:
    """The records of the library, with logging turned off or on."""
    seen: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    logger = logging.getLogger("eventstore_sa")
    handler, level = Handler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(request.param)
    yield seen
    logger.setLevel(level)
    logger.removeHandler(handler)


@in_turn("publish", PUBLISHES)
@each_kind_of_driver()
async def test_a_publish_serialises_each_payload_and_metadata_once(
    host: Host, publish: Callable[[Any, Any], Any], records: list[logging.LogRecord]
) -> None:
    host.ground.empty()
    payload, metadata, within_session, staged = Counting(), Counting(), Counting(), Counting()

    await settled(publish(host.store, new_event(payload=payload, metadata=metadata)))
    async with host.caller() as (session, store):
        await settled(store.stream(category="orders", stream="3").publish(events=[new_event(payload=within_session)]))
        store.stream(category="orders", stream="4").stage(events=[new_event(payload=staged)])
        await settled(session.commit())

    counted = [counting.serialisations for counting in (payload, metadata, within_session, staged)]
    assert counted == [1, 1, 1, 1]
    assert SECRET not in "".join(record.getMessage() + repr(record.__dict__) for record in records)


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_publish_in_memory_serialises_once_too(asynchronous: bool, records: list[logging.LogRecord]) -> None:
    adapter = InMemoryEventStorageAdapter()
    store = EventStore(adapter) if asynchronous else SyncEventStore(adapter)
    payload = Counting()

    await settled(PUBLISHES["to a category"](store, new_event(payload=payload)))

    assert payload.serialisations == 1


@each_driver("sqlite", "postgresql+asyncpg")
async def test_nothing_is_formatted_until_somebody_wants_it(host: Host, records: list[logging.LogRecord]) -> None:
    await host.publish(host.store)

    enabled = logging.getLogger("eventstore_sa.store").isEnabledFor(logging.DEBUG)
    assert [(record.name, record.msg, record.args) for record in records] == (
        [("eventstore_sa.store", "stored %d events in %d streams", (1, 1))] if enabled else []
    )

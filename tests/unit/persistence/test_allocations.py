"""How many objects are kept for an event that is read or published: counts, which do not depend on the machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from eventstore_sa import NewEvent, StreamIdentifier
from eventstore_sa.persistence.events.document import publish_document
from eventstore_sa.persistence.events.hydration import hydrated
from eventstore_sa.publishing import publications

COUNT = 1000


@contextmanager
def without_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def kept_per_event(make: Callable[[], object]) -> float:
    """Return how many blocks of memory are in use because of what was made, for each event."""
    make()  # whatever is made once
    with without_collection():
        before = sys.getallocatedblocks()
        made = make()
        blocks = sys.getallocatedblocks() - before
    assert made
    return blocks / COUNT


def read_time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_event_that_is_read_is_four_objects_besides_its_payload() -> None:
    when = "2026-01-02 03:04:05.000006"
    rows: list[Any] = [
        (f"{number:032x}", "placed", "1", "orders", 0, 1, "1", None, when, when, None, 1, 0) for number in range(COUNT)
    ]

    kept = kept_per_event(lambda: hydrated(rows, read_time))

    # The event, its id, the number in that, and the time of observation, which is that of occurrence as well.
    assert kept < 4.1


def test_event_to_publish_is_three_objects_besides_the_document() -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    events = [
        NewEvent(name="placed", payload=1, id=UUID(int=number), observed_at=when, occurred_at=when)
        for number in range(COUNT)
    ]

    def document() -> object:
        parts = publications(target=StreamIdentifier("orders", "1"), events=events)
        made = publish_document(parts)
        return parts, made, made.text

    kept = kept_per_event(document)

    # What is stored of it, and its payload as JSON, which is copied into the document.
    assert kept < 3.1

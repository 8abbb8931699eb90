"""Metadata that blocks add to the events that are published inside of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec.structs import replace

from eventstore_sa import NewEvent, SyncEventStore, event_metadata
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.testing import StoredEventBuilder
from eventstore_sa.types import with_ambient_metadata


def published(metadata: Any = None) -> Any:
    stream = SyncEventStore(InMemoryEventStorageAdapter()).stream(category="orders", stream="1")
    stream.publish(events=[NewEvent(name="placed", payload=None, metadata=metadata)])
    return stream.read()[0].metadata


def test_metadata_is_added_inside_of_the_block_only() -> None:
    with event_metadata(actor="ada", correlation_id="7"):
        assert published() == {"actor": "ada", "correlation_id": "7"}
    assert published() is None


def test_all_else_that_an_event_has_stays() -> None:
    event = NewEvent(name="order-placed", payload={"total": 12}, tags={"customer:ada"}, version=2)
    with event_metadata(actor="ada"):
        with_metadata = with_ambient_metadata(event)
    assert replace(with_metadata, metadata=None) == event


def test_inner_blocks_and_metadata_of_the_event_win() -> None:
    with event_metadata(actor="ada", tenant="a"), event_metadata(actor="grace"):
        assert published({"tenant": "b"}) == {"actor": "grace", "tenant": "b"}


def test_metadata_that_is_no_mapping_stays_as_it_is() -> None:
    with event_metadata(actor="ada"):
        assert published(["a", "list"]) == ["a", "list"]


def test_cause_gives_causation_and_correlation() -> None:
    first = StoredEventBuilder().with_metadata(None).build()
    with event_metadata(caused_by=first):
        assert published() == {"causation_id": str(first.id), "correlation_id": str(first.id)}
    second = StoredEventBuilder().with_metadata({"correlation_id": "7"}).build()
    with event_metadata(caused_by=second, correlation_id="explicit"):
        assert published() == {"causation_id": str(second.id), "correlation_id": "explicit"}
    with event_metadata(caused_by=second):
        assert published()["correlation_id"] == "7"


def test_other_threads_do_not_see_it() -> None:
    with event_metadata(actor="ada"), ThreadPoolExecutor() as threads:
        assert threads.submit(published).result() is None

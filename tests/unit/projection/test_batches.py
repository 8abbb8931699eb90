"""Applying batches of events to stored projections: what handlers may change, what errors say, and how much work it is."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from eventstore_sa.contracts.projection_records import ProjectionRecord, projection_text
from eventstore_sa.errors import SerialisationError
from eventstore_sa.projection import Projector
from eventstore_sa.projection.batches import Batch
from eventstore_sa.publishing import own_copy
from eventstore_sa.testing import StoredEventBuilder
from eventstore_sa.types import AnyStoredEvent, StoredEvent, StreamIdentifier

STREAMS = 50


class Totals(Projector[StreamIdentifier, dict[str, Any], None]):
    """Adds up what was ordered."""

    def initial_state_factory(self) -> dict[str, Any]:
        return {"total": 0}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
        return source.stream

    def order_placed(self, state: dict[str, Any], event: StoredEvent[str, dict[str, Any]]) -> dict[str, Any]:
        return {"total": state["total"] + event.payload["total"]}


def order(number: int) -> AnyStoredEvent:
    lines = [{"sku": "pen", "quantity": quantity} for quantity in range(3)]
    return (
        StoredEventBuilder()
        .with_name("order-placed")
        .with_category("orders")
        .with_stream(f"order-{number}")
        .with_payload({"total": number, "currency": "EUR", "lines": lines})
        .with_sequence_number(number + 1)
        .build()
    )


def test_copy_of_an_event_shares_no_dict_and_no_list_with_it() -> None:
    event = order(1)

    copy = own_copy(event)
    assert copy == event
    copy.payload["lines"][0]["sku"] = "changed"
    copy.payload["lines"].append("added")
    copy.payload["added"] = True

    assert event.payload == order(1).payload


def test_event_without_containers_is_not_copied() -> None:
    event = StoredEventBuilder().with_payload(17).with_metadata(None).build()

    assert own_copy(event) is event


def test_state_that_cannot_be_stored_is_named_with_its_projection() -> None:
    with pytest.raises(SerialisationError) as caught:
        projection_text("state", {"total": [float("nan")]}, name="{totals}", id="order-1")

    assert caught.value.message.startswith(
        "state of projection '{totals}' with id 'order-1' cannot be stored: state.total[0] is NaN"
    )


def test_applying_an_event_to_a_stored_projection_takes_few_calls() -> None:
    events = [order(number) for number in range(STREAMS)]
    source = '{"type": "stream", "stream": "order-%d", "category": "orders"}'
    stored = {
        f"order-{number}": ProjectionRecord(
            "totals", f"order-{number}", source % number, '{"total": 1}', "null", version=1, sequence_number=0
        )
        for number in range(STREAMS)
    }
    calls = 0

    def note(_frame: Any, kind: str, _: object) -> None:
        nonlocal calls
        calls += kind == "call"

    def apply() -> list[ProjectionRecord]:
        return Batch(Totals(), events).reduced_sync(stored, again=True)

    apply()
    sys.setprofile(note)
    try:
        records = apply()
    finally:
        sys.setprofile(None)

    assert [record.state for record in records] == [f'{{"total":{number + 1}}}' for number in range(STREAMS)]
    # They were 78 when labels were written before they were needed, and each string of a payload was copied by a call.
    assert calls / STREAMS < 50

"""Matchers and `assert_published`: what matches, and what a failing test says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest.mock import ANY

import pytest

from eventstore_sa import EventStore, NewEvent, SyncEventStore
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.testing import assert_published, matching
from eventstore_sa.testing.cases.tables import in_turn

PAYLOAD = {"total": 12, "lines": [{"sku": "bolts", "pieces": 2.5}], "note": None}


@dataclass
class Note:
    text: str


@in_turn(
    "payload",
    [
        {},
        {"total": 12},
        {"total": ANY, "note": None},
        {"lines": [{"sku": "bolts"}]},
        {"lines": ({"pieces": pytest.approx(2.5)},)},
        PAYLOAD,
        ANY,
    ],
)
def test_parts_match(payload: Any) -> None:
    assert NewEvent(name="placed", payload=PAYLOAD) == matching("placed", payload=payload)


@in_turn(
    "payload, difference",
    [
        ({"total": 13}, "payload.total is 12, expected 13"),
        ({"who": 1}, "payload.who is missing, expected 1"),
        ({"lines": []}, 'payload.lines is [{"pieces": 2.5, "sku": "bolts"}], expected []'),
        ({"lines": [{"sku": "nuts"}]}, 'payload.lines[0].sku is "bolts", expected "nuts"'),
        ({"lines": [{"pieces": pytest.approx(3)}]}, "payload.lines[0].pieces is 2.5, expected 3 ±"),
        ({"total": {"net": 1}}, 'payload.total is 12, expected {"net": 1}'),
        (None, "payload is {"),
    ],
)
def test_differences_have_a_place(payload: Any, difference: str) -> None:
    (found,) = matching("placed", payload=payload).differences(NewEvent(name="placed", payload=PAYLOAD))

    assert found.startswith(difference)


def test_objects_match_what_is_stored_of_them() -> None:
    event = NewEvent(name="noted", payload=Note("hi"))

    assert event == matching("noted", payload={"text": "hi"})
    assert event == matching("noted", payload=Note("hi"))
    assert NewEvent(name="noted", payload={"text": "hi"}) == matching("noted", payload=Note("hi"))
    assert event != matching("noted", payload=Note("ho"))


def test_names_metadata_and_streams_are_compared() -> None:
    event = NewEvent(name="placed", payload=None, metadata={"by": "ada", "at": 1})

    assert event == matching("placed", metadata={"by": "ada"})
    assert event != matching("paid")
    assert event != matching("placed", metadata={"by": "eve"})
    assert event != matching("placed", category="orders")
    assert event != matching("placed", stream="42")
    assert matching("placed") != "placed"


def test_a_matcher_shows_what_it_looks_for() -> None:
    matcher = matching("placed", payload={"a": 1}, stream="42")

    assert repr(matcher) == "matching('placed', payload={'a': 1}, stream='42')"


@pytest.fixture
def store() -> SyncEventStore:
    store = SyncEventStore(InMemoryEventStorageAdapter())
    order = store.stream(category="orders", stream="42")
    order.publish(events=[NewEvent(name="placed", payload=PAYLOAD), NewEvent(name="paid", payload={"by": "card"})])
    customer = store.stream(category="customers", stream="ada")
    customer.publish(events=[NewEvent(name="told", payload=None, metadata={"of": "order"})])
    return store


def test_published_events_are_found_in_their_order(store: SyncEventStore) -> None:
    order = store.stream(category="orders", stream="42")

    assert_published(store, "placed")
    assert_published(store, "placed", matching("told", category="customers", stream="ada"))
    assert_published(store, NewEvent(name="placed", payload=PAYLOAD), "paid", "told", only=True)
    assert_published(order, "placed", "paid", only=True)
    assert_published(order.read(), "paid")
    assert_published(store.stream(category="orders", stream="43"), only=True)


async def test_asyncio_stores_and_sources_are_awaited(store: SyncEventStore) -> None:
    async_store = EventStore(InMemoryEventStorageAdapter(store.adapter._storage))  # type: ignore[attr-defined]

    await assert_published(async_store, "placed", "paid", "told", only=True)
    await assert_published(async_store.category(category="customers"), "told", only=True)
    with pytest.raises(AssertionError, match="matching\\('shipped'\\) was not published"):
        await assert_published(async_store, "shipped")


def test_a_missing_event_is_shown_beside_those_that_there_are(store: SyncEventStore) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_published(store, "placed", matching("paid", payload={"by": "cash"}))

    assert str(caught.value).splitlines() == [
        "matching('paid', payload={'by': 'cash'}) was not published after event 1",
        '  event 2: payload.by is "card", expected "cash"',
        "  event 3: the name is 'told', expected 'paid'; payload is null, expected {\"by\": \"cash\"}",
        "the events are:",
        '  1. placed in orders/42: {"lines": [{"pieces": 2.5, "sku": "bolts"}], "note": null, "total": 12}',
        '  2. paid in orders/42: {"by": "card"}',
        '  3. told in customers/ada: null metadata {"of": "order"}',
    ]


@in_turn(
    "expected, message",
    [
        (["paid", "placed"], "matching\\('placed'\\) was not published after event 2"),
        (["placed", "placed"], "matching\\('placed'\\) was not published after event 1"),
        ([NewEvent(name="placed", payload={"total": 12})], "payload.lines is .*, expected none"),
    ],
)
def test_order_number_and_whole_payloads_count(expected: list[Any], message: str) -> None:
    published = [NewEvent(name="placed", payload=PAYLOAD), NewEvent(name="paid", payload=None)]

    with pytest.raises(AssertionError, match=message):
        assert_published(published, *expected)


@in_turn("expected, numbers", [([], "1, 2, 3"), (["paid"], "1"), (["placed", "told"], "2"), (["placed"], "2, 3")])
def test_events_that_are_not_expected_are_numbered(expected: list[str], numbers: str) -> None:
    published = [NewEvent(name=name, payload=None) for name in ("placed", "paid", "told")]

    with pytest.raises(AssertionError, match=f"events that are not expected: {numbers}\nthe events are:"):
        assert_published(published, *expected, only=True)


def test_a_check_that_cannot_fail_is_refused(store: SyncEventStore) -> None:
    with pytest.raises(ConfigurationError, match="pass only=True"):
        assert_published(store)
    with pytest.raises(ConfigurationError, match="got int"):
        assert_published(3, "placed")  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="got int"):
        assert_published(store, 3)  # type: ignore[arg-type]

"""The events that are published, and the documents that the raw driver sends in their place."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec

from eventstore_sa import NewEvent
from eventstore_sa.types import JsonValue
from eventstore_sa.types.uuid7 import uuid7

__all__ = ["append_document", "new_events", "new_stream", "order_placed"]

_streams = count()


def new_stream() -> str:
    """Return the name of a stream that nobody has published to."""
    return f"order-{next(_streams)}"


def order_placed(number: int) -> dict[str, JsonValue]:
    """Return a payload of about 200 bytes."""
    return {
        "order_id": f"order-{number}",
        "customer": f"customer-{number % 997}",
        "total": number * 0.01,
        "currency": "EUR",
        "lines": [
            {"sku": f"sku-{number % 89}", "quantity": 1 + number % 5, "price": 3.5},
            {"sku": f"sku-{number % 83}", "quantity": 1 + number % 3, "price": 17.25},
        ],
    }


def new_events(size: int) -> list[NewEvent[str, Any, Any]]:
    """Return new events."""
    return [
        NewEvent(name="order-placed", payload=order_placed(number), metadata={"user": f"user-{number % 31}"})
        for number in range(size)
    ]


def append_document(stream: str, size: int, *, after: int = -1) -> str:
    """Write the document of a publish of new events, as one would without this library.

    Args:
        stream: The name of the stream.
        size: The number of events.
        after: Where the condition demands the stream to be; -1: empty.
    """
    document = [
        {"category": "orders", "stream": stream, "allowed": [[after, after]], "events": list(_plain_events(size))}
    ]
    return msgspec.json.encode(document).decode()


def _plain_events(size: int) -> Iterator[dict[str, Any]]:
    for number in range(size):
        now = datetime.now(UTC)
        yield {
            "id": uuid7(),
            "name": "order-placed",
            "payload": order_placed(number),
            "metadata": {"user": f"user-{number % 31}"},
            "observed_at": now,
            "occurred_at": now,
        }

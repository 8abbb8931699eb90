"""The events that all sides store: the same payload of about 200 bytes, as each of them wants it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from sqlalchemy import text

from eventstore_sa import NewEvent
from eventstore_sa.types import JsonValue

__all__ = [
    "CREATE_ORDERS",
    "INSERT_ORDER",
    "METADATA",
    "NAME",
    "STATUSES",
    "changed",
    "new_events",
    "new_stream",
    "order_placed",
    "order_summary",
    "stored_summaries",
]

NAME = "order-placed"
METADATA: dict[str, JsonValue] = {"user": "user-17"}

CREATE_ORDERS = "CREATE TABLE orders (id bigint PRIMARY KEY, customer text NOT NULL, total numeric NOT NULL)"
"""The table of a business, beside which events are stored."""

INSERT_ORDER = text("INSERT INTO orders (id, customer, total) VALUES (:id, 'customer-17', 12.5)")

STATUSES = ("open", "paid", "sent", "done")

_streams = count(1)


def new_stream() -> int:
    """Return the number of a stream that nobody has published to."""
    return next(_streams)


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
    """Return new events, as this library wants them."""
    return [NewEvent(name=NAME, payload=order_placed(number), metadata=METADATA) for number in range(size)]


def changed(state: dict[str, Any], payload: Any) -> dict[str, Any]:
    """Apply an event to the state of its stream, in catching up."""
    return {"changes": state["changes"] + 1, "total": round(state["total"] + payload["total"], 2)}


def order_summary(number: int) -> dict[str, JsonValue]:
    """Return the state of a projection of about 130 bytes."""
    return {
        "status": STATUSES[number % 4],
        "total": number * 7919 % 100_003 / 4,
        "customer": f"customer-{number % 997}",
        "lines": [{"sku": f"sku-{number % 89}", "quantity": 1 + number % 5, "price": 3.5}],
    }


def stored_summaries(table: str, *, more: Mapping[str, str] | None = None) -> str:
    """Return a statement that fills a table of projections with as many states as its parameter says.

    Args:
        table: The name of the table.
        more: Further columns, and expressions for them in which `i` is the number of the projection.
    """
    columns = "".join(f", {column}" for column in more or {})
    values = "".join(f", {expression}" for expression in (more or {}).values())
    return f"""
        INSERT INTO {table} (name, id, source, state, metadata{columns})
        SELECT
          'orders', 'order-' || i, jsonb_build_object('type', 'stream', 'category', 'orders', 'stream', 'order-' || i),
          jsonb_build_object(
            'status', ('{{open,paid,sent,done}}'::text[])[1 + i % 4], 'total', (i * 7919 % 100003) / 4.0,
            'customer', 'customer-' || i % 997,
            'lines', jsonb_build_array(jsonb_build_object('sku', 'sku-' || i % 89, 'quantity', 1 + i % 5, 'price', 3.5))
          ),
          'null'{values}
        FROM generate_series(0, $1::bigint - 1) i
    """

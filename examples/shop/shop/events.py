"""What can happen in the shop. These names and fields are stored for ever; see `docs/evolving-events.md` to change them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from eventstore_sa import EventTypes, event


@event("order-placed")
@dataclass(frozen=True)
class OrderPlaced:
    customer: str
    total: int


@event("order-paid")
@dataclass(frozen=True)
class OrderPaid:
    customer: str
    total: int
    method: str


@event("order-cancelled")
@dataclass(frozen=True)
class OrderCancelled:
    customer: str
    reason: str


ShopEvent: TypeAlias = OrderPlaced | OrderPaid | OrderCancelled
EVENTS: EventTypes[ShopEvent] = EventTypes(OrderPlaced, OrderPaid, OrderCancelled)

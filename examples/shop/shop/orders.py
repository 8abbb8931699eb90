"""Orders: rows that record what happens to them."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from eventstore_sa import RecordsEvents
from shop.database import Base
from shop.events import EVENTS, OrderCancelled, OrderPaid, OrderPlaced


class NotPossibleError(Exception):
    """An order is not in a state for what was asked."""


class Order(RecordsEvents, Base):
    __tablename__ = "orders"
    __event_types__ = EVENTS
    __event_version__ = "version"  # of two requests that change an order at the same time, one fails

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    total: Mapped[int]
    state: Mapped[str] = mapped_column(default="placed")
    version: Mapped[int] = mapped_column(default=0)

    def __init__(self, customer: str, total: int) -> None:
        super().__init__(customer=customer, total=total, state="placed")
        self.record(OrderPlaced(customer, total))

    def pay(self, method: str) -> None:
        self._require("placed")
        self.state = "paid"
        self.record(OrderPaid(self.customer, self.total, method))

    def cancel(self, reason: str) -> None:
        self._require("placed")
        self.state = "cancelled"
        self.record(OrderCancelled(self.customer, reason))

    def _require(self, state: str) -> None:
        if self.state != state:
            raise NotPossibleError(f"order {self.id} is {self.state}")

"""What follows from events: a table of what customers have bought, and mails. `eventstore-sa run` runs `SUBSCRIPTIONS`."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Mapped, mapped_column

from eventstore_sa import StoredEvent
from eventstore_sa.projection import TableProjection, project
from eventstore_sa.subscriptions import FailurePolicy, Subscription
from shop.database import Base, sessions, store
from shop.events import OrderCancelled, OrderPaid, OrderPlaced, ShopEvent

logging.basicConfig(level=logging.INFO)
mails = logging.getLogger("shop.mails")


class Customer(Base):
    __tablename__ = "customers"
    name: Mapped[str] = mapped_column(primary_key=True)
    orders: Mapped[int] = mapped_column(default=0)
    spent: Mapped[int] = mapped_column(default=0)


@project(Customer)
class CustomerProjection(TableProjection):
    categories = ("orders",)

    def key(self, event: StoredEvent[str, ShopEvent]) -> str:
        return event.payload.customer

    def place(self, row: Customer, placed: OrderPlaced) -> None:
        row.orders += 1

    def pay(self, row: Customer, paid: OrderPaid) -> None:
        row.spent += paid.total

    def cancel(self, row: Customer, cancelled: OrderCancelled) -> None:
        row.orders -= 1


async def send_mail(event: StoredEvent[str, ShopEvent]) -> None:
    if isinstance(event.payload, OrderPaid):
        mails.info(
            "to %s: we have your money. (%s)", event.payload.customer, event.id
        )  # the id is there for repetitions


ORDERS = store.category(category="orders")
CUSTOMERS = Subscription("customers", ORDERS, CustomerProjection(), sessions=sessions)
MAILS = Subscription("mails", ORDERS, send_mail, on_failure=FailurePolicy(retries=3, then="park"))
SUBSCRIPTIONS = [CUSTOMERS, MAILS]

"""Projectors that several test modules use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eventstore_sa.projection import MissingHandlerBehaviour, Projector
from eventstore_sa.types import AnyStoredEvent, StreamIdentifier

__all__ = ["CustomerProjector", "OrderProjector"]


class OrderProjector(Projector[StreamIdentifier, dict[str, Any], None]):
    """The names of the events of each order, and the sum of their payloads."""

    name = "order"
    categories = ("orders",)
    missing_handler_behaviour = MissingHandlerBehaviour.IGNORE

    def initial_state_factory(self) -> dict[str, Any]:
        return {"names": [], "sum": 0}

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
        return source.stream

    def something_happened(self, state: dict[str, Any], event: AnyStoredEvent) -> dict[str, Any]:
        state["names"].append(event.name)
        state["sum"] += event.payload or 0
        return state

    def forbidden(self, state: dict[str, Any], event: AnyStoredEvent) -> dict[str, Any]:
        raise ValueError("this is not to be")


class CustomerProjector(OrderProjector):
    """The sums of the payloads of all orders and payments, by customer: the part of the stream in front of a dash."""

    name = "customer"
    categories = ("orders", "payments")

    def ids(self, event: AnyStoredEvent) -> Iterable[str]:
        return [event.stream.partition("-")[0]]

    def something_happened(self, state: dict[str, Any], event: AnyStoredEvent) -> dict[str, Any]:
        return {**state, "sum": state["sum"] + (event.payload or 0)}

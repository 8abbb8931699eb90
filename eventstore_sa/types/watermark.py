"""How far the log can be read without missing an event, and what holds it back."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

__all__ = ["Watermark", "WatermarkHolder"]


class WatermarkHolder(Struct, frozen=True):
    """The open transaction that holds the watermark back.

    Attributes:
        pid: The process id of its database connection; None for a prepared transaction, which has no connection.
        application_name: The application_name of its connection; for a prepared transaction, its name.
        since: When the transaction began, or was prepared; None if the role is not allowed to see it.
    """

    pid: int | None
    application_name: str
    since: datetime | None


class Watermark(Struct, frozen=True):
    """Every event up to `sequence_number` that will ever be stored can be seen; later ones may still appear.

    Attributes:
        sequence_number: The highest such number; 0 before the first event.
        holder: The open transaction that keeps it from rising; None if there is none.
    """

    sequence_number: int
    holder: WatermarkHolder | None = None

"""What can be looked at in an event store besides its events, and the storage that answers: what memory and databases share.

Everything here only reads. Lists come in pages that begin beyond a name or number, so that no page is more expensive than
another; figures are estimates of the server unless exact ones are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from eventstore_sa.types import AnyStoredEvent

__all__ = [
    "CategoryCount",
    "CategorySummary",
    "Growth",
    "HeldBack",
    "InspectionStorage",
    "Statistics",
    "StreamSummary",
    "TableSize",
    "TraceSlice",
    "WatermarkReport",
    "growth_since",
]


class CategorySummary(Struct, frozen=True):
    """A category, and where it ends.

    Attributes:
        category: Its name.
        last_sequence_number: The number of its last event.
        last_observed_at: When that was recorded.
    """

    category: str
    last_sequence_number: int
    last_observed_at: datetime


class StreamSummary(Struct, frozen=True):
    """A stream, and where it ends.

    Attributes:
        category: Its category.
        stream: Its name.
        events: How many events it has.
        last_sequence_number: The number of the last one.
        last_name: The name of the last one.
        last_observed_at: When that was recorded.
    """

    category: str
    stream: str
    events: int
    last_sequence_number: int
    last_name: str
    last_observed_at: datetime


class TraceSlice(Struct, frozen=True):
    """Some of the events that belong together, found by going backwards through a part of the log.

    Attributes:
        events: Those that were found, last to first.
        next_before: Where the search goes on: below this number; None: it has reached the beginning.
    """

    events: Sequence[AnyStoredEvent]
    next_before: int | None


class HeldBack(Struct, frozen=True):
    """An open transaction that has published, and how far it lets readers of the log read.

    Attributes:
        sequence_number: Readers get no further than this number as long as it is open.
        pid: The process id of its database connection; None for a prepared transaction.
        application_name: The application_name of its connection; for a prepared transaction, its name.
        user: The role of its connection; None if the role that asks may not see it.
        state: What its connection does, in the words of the server, such as "idle in transaction"; None likewise.
        since: When the transaction began, or was prepared; None likewise.
    """

    sequence_number: int
    pid: int | None
    application_name: str
    user: str | None
    state: str | None
    since: datetime | None


class WatermarkReport(Struct, frozen=True):
    """How far the log can be read, how far it goes, and who makes the difference.

    Attributes:
        sequence_number: The watermark: everything up to it that will ever be stored can be seen.
        last_number: The last number that was drawn.
        holders: The open transactions that hold readers back, the one that does so most first.
    """

    sequence_number: int
    last_number: int
    holders: Sequence[HeldBack]


class TableSize(Struct, frozen=True):
    """The size of a table on disk.

    Attributes:
        table: Its name.
        table_bytes: What its rows take, with long values that are stored aside.
        index_bytes: What its indexes take.
        dead_rows: How many rows wait to be cleaned up, as the server estimates; None: it does not say.
        live_rows: How many rows there are, as the server estimates; None: it does not say.
    """

    table: str
    table_bytes: int
    index_bytes: int
    live_rows: int | None = None
    dead_rows: int | None = None


class CategoryCount(Struct, frozen=True):
    """How many events a category has.

    Attributes:
        category: Its name.
        events: How many: exact or estimated, as the statistics say.
    """

    category: str
    events: int


class Growth(Struct, frozen=True):
    """How many events were recorded since a moment.

    Attributes:
        since: The moment.
        events: How many: exact or estimated, as the statistics say.
        events_per_s: How many each second since then.
    """

    since: datetime
    events: int
    events_per_s: float


def growth_since(since: datetime, events: int, now: datetime) -> Growth:
    """Return how many events were recorded since a moment, with their rate."""
    seconds = (now - since).total_seconds()
    return Growth(since, events, events / seconds if seconds > 0 else 0.0)


class Statistics(Struct, frozen=True):
    """Figures about an event store.

    Attributes:
        is_exact: Whether all events were counted. If not, the counts are estimates: of the server, of a sample of events,
            and, for growth, of a search for the moment that takes times to grow with the numbers of events.
        events: How many events there are.
        last_sequence_number: The highest number of an event; 0 if there is none.
        first_observed_at: When the first event of the log was recorded.
        last_observed_at: When the last event of the log was recorded.
        growth: How many events were recorded since some moments.
        categories: The categories with most events, largest first.
        streams: The streams with most events, longest first. How many events a stream has is exact; without counting, a
            long stream may be missing.
        sizes: What the tables take on disk; empty where that is not known.
        total_bytes: What all of that takes; of SQLite, the whole database; None where that is not known.
    """

    is_exact: bool
    events: int
    last_sequence_number: int
    first_observed_at: datetime | None
    last_observed_at: datetime | None
    growth: Mapping[str, Growth]
    categories: Sequence[CategoryCount]
    streams: Sequence[StreamSummary]
    sizes: Sequence[TableSize]
    total_bytes: int | None


class InspectionStorage(Protocol):
    """What an event store can be asked; the names of parameters and results are explained in `eventstore_sa.inspection`."""

    def find_all(self, ids: Sequence[UUID]) -> Mapping[UUID, AnyStoredEvent]:
        """Return those events with some ids that are stored."""
        ...

    def categories(self, *, after: str | None, limit: int) -> Sequence[CategorySummary]:
        """Return some categories, those above a name, in code-point order."""
        ...

    def streams(self, *, category: str, after: str | None, limit: int) -> Sequence[StreamSummary]:
        """Return some streams of a category, those above a name, in code-point order."""
        ...

    def trace(self, correlation_id: str, *, before: int | None, limit: int, within: int) -> TraceSlice:
        """Return some of the events with a correlation id."""
        ...

    def first_since(self, moment: datetime) -> int | None:
        """Return the lowest number of an event that was recorded at a moment or later."""
        ...

    def watermark(self) -> WatermarkReport:
        """Return how far the log can be read, and who holds readers back."""
        ...

    def statistics(self, *, exact: bool, top: int, moments: Mapping[str, datetime]) -> Statistics:
        """Return figures."""
        ...

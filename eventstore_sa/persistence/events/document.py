"""The JSON document of a publish: everything that the database needs to know of it, in one parameter.

The same text serves PostgreSQL and SQLite; its shape is described in `schema/sql/postgresql/append_v1.sql`. Publishing by
row locks takes its parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

from msgspec import Struct

from eventstore_sa.conditions import (
    ANY_POSITION,
    ConditionScope,
    PositionRanges,
    WriteCondition,
    allowed_positions,
    custom_conditions,
)
from eventstore_sa.publishing import PreparedEvent, StreamPublication
from eventstore_sa.types import encode_json
from eventstore_sa.types.numbers import LARGEST_NUMBER

__all__ = ["DocumentStream", "PublishDocument", "publish_document"]


class DocumentStream(Struct, frozen=True, omit_defaults=True):
    """The events for one stream, and what its last position must be."""

    category: str
    stream: str
    events: Sequence[PreparedEvent]
    allowed: PositionRanges | None = None
    scope: str | None = None
    serialise: str | None = None


class PublishDocument:
    """A publish: its streams, and the number of events of each."""

    def __init__(self, streams: Sequence[DocumentStream]) -> None:
        self.streams: Final = streams
        self.counts: Final = [len(stream.events) for stream in streams]

    @cached_property
    def text(self) -> str:
        """The streams as JSON text."""
        return encode_json(self.streams).decode()


def publish_document(
    parts: Sequence[StreamPublication],
    *,
    conditions: Sequence[WriteCondition] | None = None,
    serialise: str | None = None,
) -> PublishDocument:
    """Make the document of a publish.

    Args:
        parts: The publish.
        conditions: What is to be checked of each part, when it is not the part's own condition.
        serialise: "log" or "category": publishes exclude each other there.

    Raises:
        SerialisationError: An event cannot be stored exactly.
        ConfigurationError: A condition is none that a database can check.
    """
    streams = [
        DocumentStream(
            part.stream.category,
            part.stream.stream,
            part.prepared,
            _storable_ranges(allowed_positions(part.condition if conditions is None else conditions[item])),
            _scope(part.condition),
            serialise,
        )
        for item, part in enumerate(parts)
    ]
    return PublishDocument(streams)


def _scope(condition: WriteCondition) -> str | None:
    scopes = {custom.scope for custom in custom_conditions(condition)}
    for scope in (ConditionScope.LOG, ConditionScope.CATEGORY):
        if scope in scopes:
            return str(scope.value)
    return None


def _storable_ranges(ranges: PositionRanges) -> PositionRanges | None:
    """Leave out what no position can be in: databases have 64 bits for it. None: any position will do."""
    if ranges == ANY_POSITION:
        return None
    return tuple(
        (low, None if high is None or high > LARGEST_NUMBER else high) for low, high in ranges if low <= LARGEST_NUMBER
    )

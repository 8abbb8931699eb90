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
        conditions: What is to be checked of each part instead of its own condition, which has members that only the
            application can check.
        serialise: "log" or "category": publishes exclude each other there.

    Raises:
        SerialisationError: If an event cannot be stored exactly.
        ConfigurationError: If a condition cannot be checked by a database.
    """
    streams: list[DocumentStream] = []
    for part, condition in zip(parts, conditions or [part.condition for part in parts], strict=True):
        allowed = allowed_positions(condition)
        streams.append(
            DocumentStream(
                part.stream.category,
                part.stream.stream,
                part.prepared,
                None if allowed == ANY_POSITION else allowed,
                None if conditions is None else _scope(part.condition),
                serialise,
            )
        )
    return PublishDocument(streams)


def _scope(condition: WriteCondition) -> str | None:
    scopes = {custom.scope for custom in custom_conditions(condition)}
    for scope in (ConditionScope.LOG, ConditionScope.CATEGORY):
        if scope in scopes:
            return str(scope.value)
    return None

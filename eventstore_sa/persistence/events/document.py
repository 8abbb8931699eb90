"""The JSON document of a publish: everything that the database needs to know of it, in one parameter.

The same text serves PostgreSQL and SQLite; its shape is described in `schema/sql/postgresql/append_v1.sql`. Publishing by
row locks takes its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from eventstore_sa.conditions import (
    ANY_POSITION,
    Alternative,
    ConditionScope,
    NoEventMatchesCondition,
    PositionRanges,
    WriteCondition,
    alternatives,
    custom_conditions,
    decided,
)
from eventstore_sa.persistence.schema.locking import FENCE, LockingMode
from eventstore_sa.publishing import PreparedEvent, StreamPublication
from eventstore_sa.types import encode_json
from eventstore_sa.types.numbers import LARGEST_NUMBER

__all__ = ["DocumentStream", "PublishDocument", "holding_document", "publish_document"]


class AbsentEvents(Struct, frozen=True, omit_defaults=True):
    """Events that must not be there, and what must still be true of what was known of them."""

    after: int
    names: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    last_id: UUID | None = None
    epoch: str | None = None


class DocumentAlternative(Struct, frozen=True, omit_defaults=True):
    """One way to meet a condition that looks at events of other streams."""

    absent: Sequence[AbsentEvents]
    allowed: PositionRanges | None = None


class DocumentStream(Struct, frozen=True, omit_defaults=True):
    """The events for one stream, what its last position must be, and what must be true besides."""

    category: str
    stream: str
    events: Sequence[PreparedEvent]
    allowed: PositionRanges | None = None
    scope: str | None = None
    serialise: str | None = None
    alternatives: Sequence[DocumentAlternative] | None = None
    written_tags: Sequence[str] | None = None
    read_tags: Sequence[str] | None = None


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
    mode: LockingMode = FENCE,
    locks_only: bool = False,
) -> PublishDocument:
    """Make the document of a publish.

    Args:
        parts: The publish.
        conditions: What is to be checked of each part instead of its own condition, which has members that only the
            application can check.
        mode: How publishes exclude each other.
        locks_only: Whether nothing is to be checked and stored, but everything to be locked that the publish needs.

    Raises:
        SerialisationError: If an event cannot be stored exactly.
        ConfigurationError: If a condition cannot be checked by a database.
    """
    serialise = mode.serialise
    streams: list[DocumentStream] = []
    for part, condition in zip(parts, conditions or [part.condition for part in parts], strict=True):
        ways = alternatives(condition)
        absent = {each for way in ways for each in way.absent}
        mode.check_queries(depends_on_events=bool(absent))
        written = mode.boundary_of({tag for event in part.prepared for tag in event.tags} | part.tags)
        read, in_log = _read_tags(absent, written, mode)
        streams.append(
            DocumentStream(
                part.stream.category,
                part.stream.stream,
                () if locks_only else part.prepared,
                None if absent or locks_only else _allowed(ways),
                "log" if in_log else None if conditions is None else _scope(part.condition),
                serialise,
                [_document_alternative(way, mode) for way in ways] if absent and not locks_only else None,
                sorted(written) or None,
                sorted(read) or None,
            )
        )
    return PublishDocument(streams)


def holding_document(parts: Sequence[StreamPublication], *, mode: LockingMode = FENCE) -> PublishDocument:
    """Make the document that locks what a publish writes, and the tags that it depends on as if it wrote them.

    Whoever holds these locks can be told nothing new about the streams and tags of the publish. What is wider, a category or
    the log, is left to the publish.
    """
    assumed = [decided(part.condition, lambda _: True) for part in parts]
    document = publish_document(parts, conditions=assumed, mode=mode, locks_only=True)
    return PublishDocument(
        [
            replace(
                each,
                scope=None,
                written_tags=sorted({*(each.written_tags or ()), *(each.read_tags or ())}) or None,
                read_tags=None,
            )
            for each in document.streams
        ]
    )


def _read_tags(
    absent: Iterable[NoEventMatchesCondition], written: AbstractSet[str], mode: LockingMode
) -> tuple[set[str], bool]:
    """Return a tag of each item that the publish depends on and does not write, and whether an item has none.

    An event that matches an item has all of its tags, so whoever stores one needs the lock of each.
    """
    read: set[str] = set()
    in_log = False
    for each in absent:
        tags = mode.boundary_of(each.item.tags)
        if not tags:
            in_log = True
        elif tags.isdisjoint(written):
            read.add(min(tags))
    return read, in_log


def _allowed(ways: Sequence[Alternative]) -> PositionRanges | None:
    allowed = ways[0].allowed if ways else ()
    return None if allowed == ANY_POSITION else allowed


def _document_alternative(way: Alternative, mode: LockingMode) -> DocumentAlternative:
    absent: list[AbsentEvents] = []
    for each in way.absent:
        # The entries of the first are looked through, and labels have many.
        first = sorted(mode.boundary_of(each.item.tags))
        tags = [*first, *sorted(each.item.tags.difference(first))]
        absent.append(
            AbsentEvents(
                min(each.after, LARGEST_NUMBER),
                sorted(each.item.names) or None,
                tags or None,
                each.last_id,
                each.tags_epoch,
            )
        )
    return DocumentAlternative(absent, None if way.allowed == ANY_POSITION else way.allowed)


def _scope(condition: WriteCondition) -> str | None:
    scopes = {custom.scope for custom in custom_conditions(condition)}
    for scope in (ConditionScope.LOG, ConditionScope.CATEGORY):
        if scope in scopes:
            return str(scope.value)
    return None

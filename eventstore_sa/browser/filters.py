"""Which events a page of the log is about: the filters of its address, and what reads answer them.

A stream, a category, a tag, and numbers are found by an index. Names without a tag, times and text are looked for on the way
backwards; `needs_search` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from eventstore_sa.browser.json_text import parsed
from eventstore_sa.browser.reads import Keep, Target
from eventstore_sa.browser.redaction import Redaction
from eventstore_sa.browser.requests import BadRequestError, BrowserRequest
from eventstore_sa.errors import ConfigurationError, SerialisationError
from eventstore_sa.sources.constraints import (
    QueryConstraint,
    category_in,
    correlation_is,
    name_in,
    observed_between,
    payload_contains,
)
from eventstore_sa.types import (
    AnyStoredEvent,
    CategoryIdentifier,
    EventQuery,
    LogIdentifier,
    QueryItem,
    StreamIdentifier,
    encode_json,
)
from eventstore_sa.types.json import is_dict

__all__ = ["FIELDS", "Filters", "causation_of", "correlation_of"]

_LONGEST_ID: Final = 1000

FIELDS: Final = ("category", "stream", "name", "tag", "from", "to", "text", "correlation")
"""The fields of an address that choose events."""


class Filters(Struct, frozen=True):
    """What events must be like; None: however they are."""

    category: str | None = None
    stream: str | None = None
    name: str | None = None
    tag: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    text: str | None = None
    correlation: str | None = None

    @classmethod
    def of(cls, request: BrowserRequest) -> Filters:
        """Return the filters of a request.

        Raises:
            BadRequestError: If one of them is none.
        """
        category, stream = request.text("category"), request.text("stream")
        if stream is not None and category is None:
            raise BadRequestError("A stream is named together with its category.")
        found = cls(
            category,
            stream,
            request.text("name"),
            request.text("tag"),
            request.moment("from"),
            request.moment("to"),
            request.text("text"),
            request.text("correlation"),
        )
        try:
            _ = found.target, [*found.constraints(Redaction(None))]
        except (SerialisationError, ConfigurationError) as error:
            raise BadRequestError(error.message) from error
        return found

    @property
    def target(self) -> Target:
        """What an index leads to."""
        if self.category is not None and self.stream is not None:
            return StreamIdentifier(self.category, self.stream)
        if self.tag is not None:
            names = [] if self.name is None else [self.name]
            return EventQuery([QueryItem(names=names, tags=[self.tag])])
        if self.category is not None:
            return CategoryIdentifier(self.category)
        return LogIdentifier()

    @property
    def needs_search(self) -> bool:
        """Whether there is more to events than an index knows."""
        by_tag = isinstance(self.target, EventQuery)
        return (
            (self.name is not None and not by_tag)
            or (self.category is not None and by_tag)
            or (self.tag is not None and not by_tag)
            or any(each is not None for each in (self.start, self.end, self.text, self.correlation))
        )

    def constraints(self, redaction: Redaction) -> Iterator[QueryConstraint]:
        """Yield what the database looks for on the way."""
        by_tag = isinstance(self.target, EventQuery)
        if self.name is not None and not by_tag:
            yield name_in([self.name])
        if self.category is not None and by_tag:
            yield category_in([self.category])
        if self.start is not None or self.end is not None:
            yield observed_between(self.start, self.end)
        if self.text is not None:
            yield payload_contains(self.text)
        if self.correlation is not None:
            yield correlation_is(self.correlation)

    def keep(self, redaction: Redaction) -> Keep | None:
        """Return what else is asked of events that the database has found; None: nothing."""
        if self.text is None and self.correlation is None and (self.tag is None or self.stream is None):
            return None
        text = None if self.text is None else encode_json(self.text).decode()[1:-1]

        def kept(event: AnyStoredEvent) -> bool:
            if self.tag is not None and self.tag not in event.tags:
                return False
            if self.correlation is not None and correlation_of(event, redaction) != self.correlation:
                return False
            # What is hidden must not be found either.
            return text is None or not redaction.is_active or text in _shown_text(event.payload, redaction)

        return kept

    def takes(self, event: AnyStoredEvent, redaction: Redaction) -> bool:
        """Return whether an event, with JSON text as its payload, is one of these."""
        keep = self.keep(redaction)
        if keep is not None and not keep(event):
            return False
        if self.text is not None and not redaction.is_active:
            payload = event.payload if isinstance(event.payload, str) else event.payload.decode()
            return encode_json(self.text).decode()[1:-1] in payload
        return True

    def matches(self, event: AnyStoredEvent) -> bool:
        """Return whether name, tag, stream and time of an event are as they must be."""
        return (
            (self.category is None or event.category == self.category)
            and (self.stream is None or event.stream == self.stream)
            and (self.name is None or event.name == self.name)
            and (self.tag is None or self.tag in event.tags)
            and (self.start is None or event.observed_at >= self.start)
            and (self.end is None or event.observed_at < self.end)
        )


def correlation_of(event: AnyStoredEvent, redaction: Redaction) -> str | None:
    """Return the correlation id of an event, if its metadata have one that may be shown."""
    return _id_in("correlation_id", event, redaction)


def causation_of(event: AnyStoredEvent, redaction: Redaction) -> UUID | None:
    """Return the id of the event that caused another, if its metadata have one that may be shown."""
    found = _id_in("causation_id", event, redaction)
    try:
        return None if found is None else UUID(found)
    except ValueError:
        return None


def _id_in(key: str, event: AnyStoredEvent, redaction: Redaction) -> str | None:
    metadata: object = event.metadata
    found: object = metadata.get(key) if is_dict(metadata) else None
    if not isinstance(found, str) or not 0 < len(found) <= _LONGEST_ID or redaction.hides((key,), found):
        return None
    return found


def _shown_text(payload: str | bytes, redaction: Redaction) -> str:
    try:
        return encode_json(redaction.applied(parsed(payload))).decode()
    except SerialisationError:
        return ""

"""The record of a stored projection: its JSON as text, and its version.

All storages save and return records; stores convert them from and to projections.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from eventstore_sa.errors import ProjectionVersionError, SerialisationError
from eventstore_sa.query.evaluation import Document
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventQuery,
    EventSourceIdentifier,
    JsonObject,
    LogIdentifier,
    LogPartitionIdentifier,
    Projection,
    QueryPartitionIdentifier,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
    event_source_identifier,
)
from eventstore_sa.types.codec import decode_json, encode_json, to_json

__all__ = ["ProjectionRecord", "projection_text", "record_of", "source_hash", "source_text_hash", "unexpected_version"]

# Streams are projected again and again.
_REMEMBERED_SOURCES: Final = 16_384
# What `event_source_identifier` makes.
_SOURCES: Final = frozenset(
    {
        LogIdentifier,
        CategoryIdentifier,
        StreamIdentifier,
        LogPartitionIdentifier,
        CategoryPartitionIdentifier,
        StreamNamePrefixPartitionIdentifier,
        EventQuery,
        QueryPartitionIdentifier,
    }
)


class ProjectionRecord(Struct, frozen=True, gc=False):
    """A projection as it is stored.

    Attributes:
        name: With `id`, its key.
        id: With `name`, its key.
        source: The source of its events, as JSON text.
        state: JSON text.
        metadata: JSON text.
        version: How often it has been saved.
        sequence_number: The sequence number of the last event that was applied to it; None if it was saved by hand.
        source_hash: The `source_hash` of its source, if it is already known.
    """

    name: str
    id: str
    source: str
    state: str
    metadata: str
    version: int
    sequence_number: int | None = None
    source_hash: int | None = None

    def document(self) -> Document:
        """Return the document that filters and sorting are evaluated on."""
        return {
            "id": self.id,
            "name": self.name,
            "source": decode_json(self.source),
            "state": decode_json(self.state),
            "metadata": decode_json(self.metadata),
        }

    def projection(self) -> Projection[Any, Any]:
        """Return the projection, its state and metadata as JSON.

        Raises:
            SerialisationError: If other SQL has stored a value that Python cannot represent.
        """
        try:
            return Projection(
                id=self.id,
                name=self.name,
                source=_source_of(self.source),
                state=decode_json(self.state),
                metadata=decode_json(self.metadata),
                version=self.version,
            )
        except SerialisationError as error:
            raise SerialisationError(
                f"projection {self.name!r} with id {self.id!r} cannot be read: {error}; delete it, or save it again"
            ) from error


def record_of(projection: Projection[Any, Any]) -> ProjectionRecord:
    """Return the record of a projection; the storage determines its version.

    Raises:
        SerialisationError: If a part of it cannot be stored exactly.
    """
    return ProjectionRecord(
        projection.name,
        projection.id,
        _source_text(projection.source),
        projection_text("state", projection.state, name=projection.name, id=projection.id),
        projection_text("metadata", projection.metadata, name=projection.name, id=projection.id),
        version=0,
    )


@lru_cache(maxsize=_REMEMBERED_SOURCES)
def _source_of(text: str) -> EventSourceIdentifier:
    return event_source_identifier(decode_json(text))


def source_hash(source: JsonObject) -> int:
    """Return the 64-bit number by which projections of a serialised source are found; the same in every process."""
    return source_text_hash(_canonical(source))


@lru_cache(maxsize=_REMEMBERED_SOURCES)
def source_text_hash(text: str) -> int:
    """Return the `source_hash` for the source of a new record."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


@lru_cache(maxsize=_REMEMBERED_SOURCES)
def _source_text(source: EventSourceIdentifier) -> str:
    if type(source) not in _SOURCES:
        raise SerialisationError(
            f"the source of a projection must be the log, a category, a stream or a partition of them, not "
            f"{type(source).__name__!r}, which cannot be read back from its JSON"
        )
    return _canonical(source.serialise())


def _canonical(source: JsonObject) -> str:
    return msgspec.json.encode(source, order="sorted").decode()


def projection_text(field: str, value: object, *, name: str, id: str) -> str:
    """Return the state or metadata of a projection as it is stored.

    Raises:
        SerialisationError: If it cannot be stored exactly.
    """
    if value is None:
        return "null"
    label = ("{} of projection {!r} with id {!r}", field, name, id)
    return encode_json(to_json(value, label=label), label=label).decode()


def unexpected_version(record: ProjectionRecord, *, expected: int, actual: int) -> ProjectionVersionError:
    """Return the error for a projection that is at another version."""
    return ProjectionVersionError(
        f"projection {record.name!r} with id {record.id!r} is "
        f"{f'at version {actual}' if actual else 'not stored'}, expected {f'version {expected}' if expected else 'none'}: "
        "load it again, apply the change to it, and save it with the version that was loaded",
        expected_version=expected,
        actual_version=actual,
    )

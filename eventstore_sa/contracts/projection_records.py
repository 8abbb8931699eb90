"""A stored projection, the same in every storage: its JSON as text, and its version.

Storage makes records of projections and gives records back; stores turn them into projections again.
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
    EventSourceIdentifier,
    JsonObject,
    LogIdentifier,
    LogPartitionIdentifier,
    Projection,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
    event_sequence_identifier,
)
from eventstore_sa.types.codec import decode_json, encode_json, to_json

__all__ = ["ProjectionRecord", "projection_text", "record_of", "source_hash", "source_text_hash", "unexpected_version"]

# Streams are projected again and again.
_REMEMBERED_SOURCES: Final = 16_384
# What `event_sequence_identifier` makes.
_SOURCES: Final = frozenset(
    {
        LogIdentifier,
        CategoryIdentifier,
        StreamIdentifier,
        LogPartitionIdentifier,
        CategoryPartitionIdentifier,
        StreamNamePrefixPartitionIdentifier,
    }
)


class ProjectionRecord(Struct, frozen=True, gc=False):
    """A projection as it is kept.

    Attributes:
        name: With `id` its key.
        id: With `name` its key.
        source: What was projected, as JSON text.
        state: JSON text.
        metadata: JSON text.
        version: How often it was saved.
        sequence_number: That of the last event that was applied to it; None where it was saved by hand.
        source_hash: The `source_hash` of its source, where that is known already.
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
        """Return it as filters and sorting see it."""
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
            SerialisationError: Other SQL than a save has stored what Python cannot hold.
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
                f"projection {self.name!r} with id {self.id!r} cannot be read: {error}; delete it, or save it anew"
            ) from error


def record_of(projection: Projection[Any, Any]) -> ProjectionRecord:
    """Return what to store for a projection; its version there is for the storage to say.

    Raises:
        SerialisationError: Something of it cannot be stored exactly.
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
    return event_sequence_identifier(decode_json(text))


def source_hash(source: JsonObject) -> int:
    """Return a number to find projections of a serialised source by: 64 bits, the same in every process."""
    return source_text_hash(_canonical(source))


@lru_cache(maxsize=_REMEMBERED_SOURCES)
def source_text_hash(text: str) -> int:
    """Return the `source_hash` for the source of a new record."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


@lru_cache(maxsize=_REMEMBERED_SOURCES)
def _source_text(source: EventSourceIdentifier) -> str:
    if type(source) not in _SOURCES:
        raise SerialisationError(
            f"the source of a projection cannot be read back from its JSON: it is a {type(source).__name__}, and "
            "should be the log, a category, a stream, or a partition of them"
        )
    return _canonical(source.serialise())


def _canonical(source: JsonObject) -> str:
    return msgspec.json.encode(source, order="sorted").decode()


def projection_text(field: str, value: object, *, name: str, id: str) -> str:
    """Return the state or metadata of a projection as it is stored.

    Raises:
        SerialisationError: It cannot be stored exactly.
    """
    if value is None:
        return "null"
    label = f"{field} of projection {name!r} with id {id!r}"
    return encode_json(to_json(value, label=label), label=label).decode()


def unexpected_version(record: ProjectionRecord, *, expected: int, actual: int) -> ProjectionVersionError:
    """Say that another writer was faster."""
    return ProjectionVersionError(
        f"projection {record.name!r} with id {record.id!r} is "
        f"{f'at version {actual}' if actual else 'not there'}, expected {f'version {expected}' if expected else 'none'}: "
        "load it again, apply the change to it, and save it with the version that was loaded",
        expected_version=expected,
        actual_version=actual,
    )

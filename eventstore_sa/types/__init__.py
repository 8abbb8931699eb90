"""The values that everything else is made of: events, identifiers, projections, clocks and their conversion to JSON.

Pure Python: nothing here knows SQLAlchemy or any database. Import from this package; its modules are not public.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventstore_sa.replacements import replaced
from eventstore_sa.types.ambient_metadata import event_metadata, with_ambient_metadata
from eventstore_sa.types.clock import (
    Clock,
    StaticClock,
    SystemClock,
    TimezoneRequiredStaticClock,
)
from eventstore_sa.types.codec import (
    EARLIEST_TIME,
    LATEST_TIME,
    MAX_DEPTH,
    SerialisationFallback,
    decode_json,
    encode_json,
    stored_time,
    to_json,
)
from eventstore_sa.types.conversion import (
    DeserialisationFallback,
    JsonLoggable,
    JsonPersistable,
    StringLoggable,
    StringPersistable,
    default_deserialisation_fallback,
    default_serialisation_fallback,
    deserialise_from_json_value,
    deserialise_from_string,
    raising_deserialisation_fallback,
    raising_serialisation_fallback,
    serialise_to_json_value,
    serialise_to_string,
    str_serialisation_fallback,
)
from eventstore_sa.types.encryption import Encryption
from eventstore_sa.types.event import Event
from eventstore_sa.types.event_declaration import event  # after the module of that name, see there
from eventstore_sa.types.event_query import (
    MAX_QUERY_ITEMS,
    MAX_QUERY_NAMES,
    EventQuery,
    QueryIdentifier,
    QueryItem,
    QueryPartitionIdentifier,
    TaggedEvent,
    event_source_identifier,
    is_complete_as_it_stands,
    query_of,
)
from eventstore_sa.types.event_types import EventTypes
from eventstore_sa.types.events import (
    AnyNewEvent,
    AnyStoredEvent,
    NewEvent,
    StoredEvent,
)
from eventstore_sa.types.identifiers import (
    MAX_NAME_BYTES,
    CategoryIdentifier,
    CategoryIdentifierDict,
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    EventSequenceIdentifier,
    EventSequenceIdentifierDict,
    EventSourceIdentifier,
    Identifier,
    LogIdentifier,
    LogIdentifierDict,
    LogPartitionIdentifier,
    PartitionIdentifier,
    StreamIdentifier,
    StreamIdentifierDict,
    StreamNamePrefixPartitionIdentifier,
    event_sequence_identifier,
    partition_of,
    stream_hash,
    target,
)
from eventstore_sa.types.json import (
    JsonArray,
    JsonObject,
    JsonPrimitive,
    JsonValue,
    JsonValueConvertible,
    JsonValueDeserialisable,
    JsonValueSerialisable,
    JsonValueType,
    StringConvertible,
    StringDeserialisable,
    StringSerialisable,
    is_json_array,
    is_json_object,
    is_json_primitive,
    is_json_value,
)
from eventstore_sa.types.payload_pipeline import Compression, PayloadContext, PayloadTransform
from eventstore_sa.types.projection import (
    Projectable,
    Projection,
    deserialise_projection,
    serialise_projection,
)
from eventstore_sa.types.snapshot import Snapshot, SnapshotKey, Snapshots, SyncSnapshots
from eventstore_sa.types.tags import MAX_TAGS, NO_TAGS, checked_tags
from eventstore_sa.types.uuid7 import (
    uuid7,
)
from eventstore_sa.types.watermark import Watermark, WatermarkHolder

__all__ = [
    "EARLIEST_TIME",
    "LATEST_TIME",
    "MAX_DEPTH",
    "MAX_NAME_BYTES",
    "MAX_QUERY_ITEMS",
    "MAX_QUERY_NAMES",
    "MAX_TAGS",
    "NO_TAGS",
    "AnyNewEvent",
    "AnyStoredEvent",
    "CategoryIdentifier",
    "CategoryIdentifierDict",
    "CategoryPartitionIdentifier",
    "Clock",
    "Compression",
    "DeserialisationFallback",
    "Encryption",
    "Event",
    "EventPartitionIdentifier",
    "EventQuery",
    "EventSequenceIdentifier",
    "EventSequenceIdentifierDict",
    "EventSourceIdentifier",
    "EventTypes",
    "Identifier",
    "JsonArray",
    "JsonLoggable",
    "JsonObject",
    "JsonPersistable",
    "JsonPrimitive",
    "JsonValue",
    "JsonValueConvertible",
    "JsonValueDeserialisable",
    "JsonValueSerialisable",
    "JsonValueType",
    "LogIdentifier",
    "LogIdentifierDict",
    "LogPartitionIdentifier",
    "NewEvent",
    "PartitionIdentifier",
    "PayloadContext",
    "PayloadTransform",
    "Projectable",
    "Projection",
    "QueryIdentifier",
    "QueryItem",
    "QueryPartitionIdentifier",
    "SerialisationFallback",
    "Snapshot",
    "SnapshotKey",
    "Snapshots",
    "StaticClock",
    "StoredEvent",
    "StreamIdentifier",
    "StreamIdentifierDict",
    "StreamNamePrefixPartitionIdentifier",
    "StringConvertible",
    "StringDeserialisable",
    "StringLoggable",
    "StringPersistable",
    "StringSerialisable",
    "SyncSnapshots",
    "SystemClock",
    "TaggedEvent",
    "TimezoneRequiredStaticClock",
    "Watermark",
    "WatermarkHolder",
    "checked_tags",
    "decode_json",
    "default_deserialisation_fallback",
    "default_serialisation_fallback",
    "deserialise_from_json_value",
    "deserialise_from_string",
    "deserialise_projection",
    "encode_json",
    "event",
    "event_metadata",
    "event_sequence_identifier",
    "event_source_identifier",
    "is_complete_as_it_stands",
    "is_json_array",
    "is_json_object",
    "is_json_primitive",
    "is_json_value",
    "partition_of",
    "query_of",
    "raising_deserialisation_fallback",
    "raising_serialisation_fallback",
    "serialise_projection",
    "serialise_to_json_value",
    "serialise_to_string",
    "stored_time",
    "str_serialisation_fallback",
    "stream_hash",
    "target",
    "to_json",
    "uuid7",
    "with_ambient_metadata",
]

if not TYPE_CHECKING:
    __getattr__ = replaced(
        __name__,
        {
            "Applier": "a function: adapters register those for conditions, constraints and queries of your own",
            "Converter": "a function: adapters register those for conditions, constraints and queries of your own",
        },
    )

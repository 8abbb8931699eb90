"""Identifiers, under the path that `logicblocks.event.store` has: everything is in `eventstore_sa.types`."""

from eventstore_sa.types.identifiers import (
    CategoryIdentifier,
    CategoryIdentifierDict,
    CategoryPartitionIdentifier,
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
    target,
)

__all__ = [
    "CategoryIdentifier",
    "CategoryIdentifierDict",
    "CategoryPartitionIdentifier",
    "EventSequenceIdentifier",
    "EventSequenceIdentifierDict",
    "EventSourceIdentifier",
    "Identifier",
    "LogIdentifier",
    "LogIdentifierDict",
    "LogPartitionIdentifier",
    "PartitionIdentifier",
    "StreamIdentifier",
    "StreamIdentifierDict",
    "StreamNamePrefixPartitionIdentifier",
    "event_sequence_identifier",
    "target",
]

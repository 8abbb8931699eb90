"""The write conditions, under the name that the store's users look for them."""

from eventstore_sa.conditions import (
    AndCondition,
    EmptyStreamCondition,
    NoCondition,
    OrCondition,
    PositionIsCondition,
    StreamExistsCondition,
    WriteCondition,
    position_is,
    stream_exists,
    stream_is_empty,
)

__all__ = [
    "AndCondition",
    "EmptyStreamCondition",
    "NoCondition",
    "OrCondition",
    "PositionIsCondition",
    "StreamExistsCondition",
    "WriteCondition",
    "position_is",
    "stream_exists",
    "stream_is_empty",
]

"""The write conditions of `eventstore_sa.conditions` again, where users of a store look for them."""

from eventstore_sa.conditions import (
    AndCondition,
    EmptyStreamCondition,
    NoCondition,
    NoEventMatchesCondition,
    OrCondition,
    PositionIsCondition,
    StreamExistsCondition,
    WriteCondition,
    no_event_matches,
    position_is,
    stream_exists,
    stream_is_empty,
)

__all__ = [
    "AndCondition",
    "EmptyStreamCondition",
    "NoCondition",
    "NoEventMatchesCondition",
    "OrCondition",
    "PositionIsCondition",
    "StreamExistsCondition",
    "WriteCondition",
    "no_event_matches",
    "position_is",
    "stream_exists",
    "stream_is_empty",
]

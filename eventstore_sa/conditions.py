"""Write conditions: what must be true of a stream for a publish to be stored.

Conditions are values: they compare, hash and combine with `&` and `|`, and do no I/O. Every combination of the built-in
ones says no more than "the position of the last event lies in these ranges"; `allowed_positions` computes them, and
that is all that a storage adapter has to check. Pure Python: SQLAlchemy is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import ClassVar, Final, TypeAlias

from msgspec import Struct

from eventstore_sa.errors import ConfigurationError, UnmetWriteConditionError
from eventstore_sa.types import StreamIdentifier
from eventstore_sa.types.numbers import LARGEST_NUMBER

__all__ = [
    "ANY_POSITION",
    "EMPTY_STREAM_POSITION",
    "AndCondition",
    "ConditionScope",
    "EmptyStreamCondition",
    "NoCondition",
    "OrCondition",
    "PositionIsCondition",
    "PositionRanges",
    "StreamExistsCondition",
    "WriteCondition",
    "allowed_positions",
    "custom_conditions",
    "decided",
    "position_is",
    "stream_exists",
    "stream_is_empty",
    "unmet_condition_error",
]

EMPTY_STREAM_POSITION: Final = -1
"""The position of the last event of a stream that has none, in ranges and on the wire."""

PositionRanges: TypeAlias = tuple[tuple[int, int | None], ...]
"""Closed, disjoint, ascending ranges of last positions; an upper end of None is open; no range at all: never met."""

ANY_POSITION: Final[PositionRanges] = ((EMPTY_STREAM_POSITION, None),)
"""The ranges of a condition that is always met."""


class ConditionScope(Enum):
    """What a condition depends on: no other writer may publish there while it is checked."""

    STREAM = "stream"
    CATEGORY = "category"
    LOG = "log"


class WriteCondition(Struct, frozen=True):
    """The base of all conditions. `a & b` needs both, `a | b` needs one of them.

    A condition of the application's own is a subclass with fields for what it needs to know, and a `scope`. How it is
    checked is said by a method `to_expression(context)`, or registered with the adapter.

    Attributes:
        scope: What the condition looks at: events of its stream only (the default), of the stream's category, or of the
            whole log. The wider it is, the more publishes must wait for one another.
    """

    scope: ClassVar[ConditionScope] = ConditionScope.STREAM

    def __and__(self, other: WriteCondition) -> AndCondition:
        return AndCondition.of(self, other)

    def __or__(self, other: WriteCondition) -> OrCondition:
        return OrCondition.of(self, other)

    def describe(self) -> str:
        """Say what the condition demands, to follow "expected" in an error message."""
        return repr(self)


class NoCondition(WriteCondition, frozen=True):
    """Always met."""

    def describe(self) -> str:
        return "any position"


class PositionIsCondition(WriteCondition, frozen=True):
    """Met when the last event of the stream is at `position`; None: when the stream is empty."""

    position: int | None

    def __post_init__(self) -> None:
        position: object = self.position
        if position is None:
            return
        if not isinstance(position, int) or isinstance(position, bool) or position < 0:
            raise ConfigurationError(
                f"position_is takes an integer of 0 or more, or None for an empty stream; got {position!r}"
            )

    def describe(self) -> str:
        return "an empty stream" if self.position is None else f"position {self.position}"


class EmptyStreamCondition(WriteCondition, frozen=True):
    """Met when the stream has no events."""

    def describe(self) -> str:
        return "an empty stream"


class StreamExistsCondition(WriteCondition, frozen=True):
    """Met when the stream has at least one event."""

    def describe(self) -> str:
        return "a stream with events"


class AndCondition(WriteCondition, frozen=True):
    """Met when all members are met. Nested ones are flattened; the order of members is of no importance."""

    conditions: frozenset[WriteCondition]

    @classmethod
    def of(cls, *conditions: WriteCondition) -> AndCondition:
        """Combine conditions; members that are AndConditions themselves give their members."""
        return cls(_flatten(AndCondition, conditions))

    def describe(self) -> str:
        return " and ".join(sorted(_describe_member(member) for member in self.conditions))


class OrCondition(WriteCondition, frozen=True):
    """Met when at least one member is met. Nested ones are flattened; the order of members is of no importance."""

    conditions: frozenset[WriteCondition]

    @classmethod
    def of(cls, *conditions: WriteCondition) -> OrCondition:
        """Combine conditions; members that are OrConditions themselves give their members."""
        return cls(_flatten(OrCondition, conditions))

    def describe(self) -> str:
        return " or ".join(sorted(_describe_member(member) for member in self.conditions))


_NEVER: Final = OrCondition(frozenset())


def position_is(position: int | None) -> PositionIsCondition:
    """Demand that the last event of the stream is at `position` (0-based); None demands an empty stream.

    Raises:
        ConfigurationError: The position is negative or not an integer.
    """
    return PositionIsCondition(position)


def stream_is_empty() -> EmptyStreamCondition:
    """Demand that the stream has no events yet."""
    return EmptyStreamCondition()


def stream_exists() -> StreamExistsCondition:
    """Demand that the stream has at least one event."""
    return StreamExistsCondition()


def allowed_positions(condition: WriteCondition) -> PositionRanges:
    """Reduce a condition to the ranges in which the position of the last event may lie.

    An empty stream counts as position -1 (`EMPTY_STREAM_POSITION`). No position is beyond 64 bits, as in databases.

    Raises:
        ConfigurationError: If the condition is neither a built-in one nor a combination of these.
    """
    match condition:
        case NoCondition():
            return ANY_POSITION
        case PositionIsCondition(position):
            only = EMPTY_STREAM_POSITION if position is None else position
            return ((only, only),) if only <= LARGEST_NUMBER else ()
        case EmptyStreamCondition():
            return ((EMPTY_STREAM_POSITION, EMPTY_STREAM_POSITION),)
        case StreamExistsCondition():
            return ((0, None),)
        case AndCondition(conditions):
            ranges = ANY_POSITION
            for member in conditions:
                ranges = _intersection(ranges, allowed_positions(member))
            return ranges
        case OrCondition(conditions):
            return _union(part for member in conditions for part in allowed_positions(member))
        case _:
            raise ConfigurationError(
                f"a {type(condition).__name__} cannot be checked: give it a method to_expression(context), or "
                "register how with adapter.register_condition(type, evaluate)"
            )


def custom_conditions(condition: WriteCondition) -> Iterator[WriteCondition]:
    """Yield the members of a condition that are none of the built-in ones, at any depth."""
    match condition:
        case AndCondition(conditions) | OrCondition(conditions):
            for member in conditions:
                yield from custom_conditions(member)
        case NoCondition() | PositionIsCondition() | EmptyStreamCondition() | StreamExistsCondition():
            pass
        case _:
            yield condition


def decided(condition: WriteCondition, verdict: Callable[[WriteCondition], bool]) -> WriteCondition:
    """Replace the members that are none of the built-in ones by what `verdict` says of them."""
    match condition:
        case AndCondition(conditions):
            return AndCondition(frozenset(decided(member, verdict) for member in conditions))
        case OrCondition(conditions):
            return OrCondition(frozenset(decided(member, verdict) for member in conditions))
        case NoCondition() | PositionIsCondition() | EmptyStreamCondition() | StreamExistsCondition():
            return condition
        case _:
            return NoCondition() if verdict(condition) else _NEVER


def unmet_condition_error(
    stream: StreamIdentifier, condition: WriteCondition, actual_position: int | None
) -> UnmetWriteConditionError:
    """Build the error that every adapter raises, so that all of them say the same."""
    where = "empty" if actual_position is None else f"at position {actual_position}"
    return UnmetWriteConditionError(
        f"stream {f'{stream.category}/{stream.stream}'!r} is {where}, expected {condition.describe()}: "
        "reload and retry (see retry_on_unmet_condition_error)",
        stream=stream,
        condition=condition,
        actual_position=actual_position,
    )


def _flatten(kind: type[AndCondition | OrCondition], conditions: Iterable[WriteCondition]) -> frozenset[WriteCondition]:
    members: set[WriteCondition] = set()
    for condition in conditions:
        checked: object = condition
        if isinstance(checked, kind):
            members |= checked.conditions
        elif isinstance(checked, WriteCondition):
            members.add(checked)
        else:
            raise ConfigurationError(f"conditions combine with conditions only; got a {type(checked).__name__}")
    return frozenset(members)


def _describe_member(condition: WriteCondition) -> str:
    description = condition.describe()
    return f"({description})" if isinstance(condition, AndCondition | OrCondition) else description


def _intersection(left: PositionRanges, right: PositionRanges) -> PositionRanges:
    common: list[tuple[int, int | None]] = []
    for left_low, left_high in left:
        for right_low, right_high in right:
            low = max(left_low, right_low)
            high = left_high if right_high is None else right_high if left_high is None else min(left_high, right_high)
            if high is None or low <= high:
                common.append((low, high))
    return tuple(sorted(common, key=_low))


def _union(ranges: Iterable[tuple[int, int | None]]) -> PositionRanges:
    merged: list[tuple[int, int | None]] = []
    for low, high in sorted(ranges, key=_low):
        if merged and (merged[-1][1] is None or low <= merged[-1][1] + 1):
            last_low, last_high = merged[-1]
            merged[-1] = (last_low, None if last_high is None or high is None else max(last_high, high))
        else:
            merged.append((low, high))
    return tuple(merged)


def _low(bounds: tuple[int, int | None]) -> int:
    return bounds[0]

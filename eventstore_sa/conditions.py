"""Write conditions: what must be true of a stream, or of events chosen by names and tags, for a publish to be stored.

Conditions are values: they compare, hash and combine with `&` and `|`, and do no I/O. Every combination of the built-in
ones on the stream says no more than "the position of the last event lies in these ranges". With conditions on events of
other streams among them, it says that in one of several alternatives, each with its ranges and with events that must not be
there. `alternatives` computes them, and that is all that a storage adapter has to check. Pure Python: SQLAlchemy is not
imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import ClassVar, Final, TypeAlias
from uuid import UUID

from msgspec import Struct

from eventstore_sa.errors import ConfigurationError, UnmetWriteConditionError
from eventstore_sa.types import EventQuery, QueryItem, StreamIdentifier
from eventstore_sa.types.numbers import LARGEST_NUMBER
from eventstore_sa.types.open_structs import OpenStructMeta

__all__ = [
    "ANY_POSITION",
    "EMPTY_STREAM_POSITION",
    "Alternative",
    "AndCondition",
    "ConditionScope",
    "EmptyStreamCondition",
    "NoCondition",
    "NoEventMatchesCondition",
    "OrCondition",
    "PositionIsCondition",
    "PositionRanges",
    "StreamExistsCondition",
    "WriteCondition",
    "alternatives",
    "custom_conditions",
    "decided",
    "no_event_matches",
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

_MOST_ALTERNATIVES: Final = 64


class ConditionScope(Enum):
    """What a condition depends on: no other writer may publish there while it is checked."""

    STREAM = "stream"
    CATEGORY = "category"
    LOG = "log"


class WriteCondition(Struct, metaclass=OpenStructMeta):
    """The base of all conditions. `a & b` needs both, `a | b` needs one of them.

    A condition of the application's own is a subclass with fields for what it needs to know, and a `scope`; it may be
    decorated with `@dataclass(frozen=True)`. How it is checked is said by a method `to_expression(context)`, or registered
    with the adapter.

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


class NoEventMatchesCondition(WriteCondition, frozen=True):
    """Met when no event of any stream that matches an item of a query has a sequence number above `after`.

    Attributes:
        item: Which events.
        after: The number of the last matching event that is known; 0: none is.
        last_id: The id of that event. If it is not stored with this number any more, the condition is not met: the
            savepoint in which it was read was rolled back, or the database has lost it.
        tags_epoch: What `tags_epoch` of the storage adapter returned before that event was read. If tags have been added
            to stored events since, the condition is not met: an earlier event may match now. None: not checked.
    """

    item: QueryItem
    after: int = 0
    last_id: UUID | None = None
    tags_epoch: str | None = None

    def __post_init__(self) -> None:
        after: object = self.after
        if not isinstance(after, int) or isinstance(after, bool) or after < 0:
            raise ConfigurationError(
                f"after is the sequence number of an event, or 0 to demand that no event matches; got {after!r}"
            )

    def describe(self) -> str:
        return f"no {self.item.describe()}" + (f" after number {self.after}" if self.after else "")


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
_BUILT_IN: Final = (
    NoCondition,
    PositionIsCondition,
    EmptyStreamCondition,
    StreamExistsCondition,
    NoEventMatchesCondition,
)


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


def no_event_matches(query: EventQuery, *, after: int | None = None) -> WriteCondition:
    """Demand that no event matches a query, in whatever stream, or none with a sequence number above `after`.

    For a decision that has read events, `decision.unchanged()` is this condition with the right number for each item.

    Args:
        query: Which events. Those of earlier publishes of the same transaction count, those that this publish stores itself
            do not.
        after: The number of the last event of this query that the decision took into account. It must be complete up to
            there: read the query from a store, not from a copy that may lag behind, and not before tags were added to
            stored events by `backfill_tags`.

    Raises:
        ConfigurationError: If it is not a query, the number is negative, or it is to serve several items: of these, one may
            be complete up to a number and another not. Give each its own: `no_event_matches(...) & no_event_matches(...)`.
    """
    checked: object = query
    if not isinstance(checked, EventQuery):
        raise ConfigurationError(f"no_event_matches takes an EventQuery; got {type(checked).__name__}")
    if len(query.items) == 1:
        return NoEventMatchesCondition(query.items[0], 0 if after is None else after)
    if after is not None:
        raise ConfigurationError(
            f"one number cannot serve {len(query.items)} items, because an event of one of them may be stored later with a "
            "lower number: give each item its own, no_event_matches(EventQuery([item]), after=...) & ..., or use "
            "decision.unchanged()"
        )
    return AndCondition(frozenset(map(NoEventMatchesCondition, query.items)))


class Alternative(Struct, frozen=True):
    """One way to meet a condition.

    Attributes:
        allowed: In these ranges the position of the last event of the stream must lie.
        absent: What must not be there; all of these must be met.
    """

    allowed: PositionRanges
    absent: frozenset[NoEventMatchesCondition] = frozenset()


def alternatives(condition: WriteCondition) -> tuple[Alternative, ...]:
    """Reduce a condition to alternatives, one of which must hold; none at all: it is never met.

    An empty stream counts as position -1 (`EMPTY_STREAM_POSITION`). No position is beyond 64 bits, as in databases.
    A combination of conditions on the stream alone has one alternative at most.

    Raises:
        ConfigurationError: If the condition is neither a built-in one nor a combination of these, or has too many
            alternatives.
    """
    return tuple(Alternative(allowed, absent) for absent, allowed in _ways(condition).items())


_Ways: TypeAlias = Mapping[frozenset[NoEventMatchesCondition], PositionRanges]


def _ways(condition: WriteCondition) -> _Ways:  # noqa: PLR0911 - a case a line
    """Return the allowed positions for each set of events whose absence goes with them; never an empty range."""
    match condition:
        case NoCondition():
            return {frozenset(): ANY_POSITION}
        case PositionIsCondition(position):
            only = EMPTY_STREAM_POSITION if position is None else position
            return {frozenset(): ((only, only),)} if only <= LARGEST_NUMBER else {}
        case EmptyStreamCondition():
            return {frozenset(): ((EMPTY_STREAM_POSITION, EMPTY_STREAM_POSITION),)}
        case StreamExistsCondition():
            return {frozenset(): ((0, None),)}
        case NoEventMatchesCondition():
            return {frozenset([condition]): ANY_POSITION}
        case AndCondition(conditions):
            ways: _Ways = {frozenset(): ANY_POSITION}
            for member in conditions:
                ways = _either(
                    (absent | also_absent, _intersection(allowed, also_allowed))
                    for also_absent, also_allowed in _ways(member).items()
                    for absent, allowed in ways.items()
                )
            return ways
        case OrCondition(conditions):
            return _either(way for member in conditions for way in _ways(member).items())
        case _:
            raise ConfigurationError(
                f"{type(condition).__name__} cannot be checked: give it a method to_expression(context), or "
                "register how with adapter.register_condition(type, evaluate)"
            )


def _either(ways: Iterable[tuple[frozenset[NoEventMatchesCondition], PositionRanges]]) -> _Ways:
    merged: dict[frozenset[NoEventMatchesCondition], PositionRanges] = {}
    for absent, allowed in ways:
        if allowed:
            merged[absent] = _union([*merged.get(absent, ()), *allowed])
            if len(merged) > _MOST_ALTERNATIVES:
                raise ConfigurationError(
                    f"a condition can be met in more than {_MOST_ALTERNATIVES} ways: combine fewer conditions on events by |"
                )
    return merged


def custom_conditions(condition: WriteCondition) -> Iterator[WriteCondition]:
    """Yield the members of a condition that are none of the built-in ones, at any depth."""
    match condition:
        case AndCondition(conditions) | OrCondition(conditions):
            for member in conditions:
                yield from custom_conditions(member)
        case _ if isinstance(condition, _BUILT_IN):
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
        case _ if isinstance(condition, _BUILT_IN):
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
            raise ConfigurationError(f"conditions combine with conditions only; got {type(checked).__name__}")
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

"""Query constraints: which events of a source a read returns.

A constraint is a value that decides for any stored event whether it is met; databases translate the built-in ones to
SQL (`persistence/events/constraints.py`). Constraints of one read are ANDed. Pure Python: SQLAlchemy is not imported here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, cast

from msgspec import Struct

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.types import StoredEvent, serialise_to_string
from eventstore_sa.types.codec import encode_json, text_problem, to_json
from eventstore_sa.types.event_declaration import names_of
from eventstore_sa.types.open_structs import OpenStructMeta

__all__ = [
    "CategoryInConstraint",
    "CorrelationIsConstraint",
    "NameInConstraint",
    "ObservedBetweenConstraint",
    "OccurredBetweenConstraint",
    "PositionAfterConstraint",
    "PositionBeforeConstraint",
    "QueryConstraint",
    "QueryConstraints",
    "SequenceNumberAfterConstraint",
    "SequenceNumberBeforeConstraint",
    "TextContainsConstraint",
    "category_in",
    "checked_constraints",
    "correlation_is",
    "metadata_contains",
    "name_in",
    "observed_between",
    "occurred_between",
    "order_range",
    "payload_contains",
    "position_after",
    "position_before",
    "sequence_number_after",
    "sequence_number_before",
]

# Each becomes a parameter of a statement, and drivers take about 32,000 of those.
_MAX_NAMES: Final = 10_000


class QueryConstraint(Struct, metaclass=OpenStructMeta):
    """The base of all constraints.

    A subclass of your own, which may be decorated with `@dataclass(frozen=True)`, works on events in memory as it is; for a
    SQL adapter, register how to translate it:
    `adapter.register_constraint(type, converter)`.
    """

    @abstractmethod
    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        """Tell whether a read with this constraint returns the event."""
        raise NotImplementedError


QueryConstraints: TypeAlias = AbstractSet[QueryConstraint]


class SequenceNumberAfterConstraint(QueryConstraint, frozen=True):
    """Met by events with a sequence number above `sequence_number`."""

    sequence_number: int

    def __post_init__(self) -> None:
        _check_integer("sequence_number_after", self.sequence_number)

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return event.sequence_number > self.sequence_number


class SequenceNumberBeforeConstraint(QueryConstraint, frozen=True):
    """Met by events with a sequence number below `sequence_number`."""

    sequence_number: int

    def __post_init__(self) -> None:
        _check_integer("sequence_number_before", self.sequence_number)

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return event.sequence_number < self.sequence_number


class PositionAfterConstraint(QueryConstraint, frozen=True):
    """Met by events with a position above `position`, each within its own stream."""

    position: int

    def __post_init__(self) -> None:
        _check_integer("position_after", self.position)

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return event.position > self.position


class PositionBeforeConstraint(QueryConstraint, frozen=True):
    """Met by events with a position below `position`, each within its own stream."""

    position: int

    def __post_init__(self) -> None:
        _check_integer("position_before", self.position)

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return event.position < self.position


class NameInConstraint(QueryConstraint, frozen=True):
    """Met by events with one of these names."""

    names: frozenset[str]

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        name: object = event.name
        return (name if type(name) is str else serialise_to_string(name)) in self.names


class CategoryInConstraint(QueryConstraint, frozen=True):
    """Met by events of one of these categories."""

    categories: frozenset[str]

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return event.category in self.categories


class CorrelationIsConstraint(QueryConstraint, frozen=True):
    """Met by events whose metadata has this text as its `correlation_id`."""

    correlation_id: str

    def __post_init__(self) -> None:
        if not isinstance(self.correlation_id, str):
            raise ConfigurationError(f"correlation_is takes a str; got {type(self.correlation_id).__name__}")

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        metadata: object = event.metadata
        if not isinstance(metadata, Mapping):
            return False
        found: object = cast("Mapping[str, Any]", metadata).get("correlation_id")
        return isinstance(found, str) and found == self.correlation_id


class OccurredBetweenConstraint(QueryConstraint, frozen=True):
    """Met by events that occurred at `start` or later, and before `end`; None: no such bound."""

    start: datetime | None
    end: datetime | None

    def __post_init__(self) -> None:
        _check_moments("occurred_between", self.start, self.end)

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return _lies_between(event.occurred_at, self.start, self.end)


class ObservedBetweenConstraint(QueryConstraint, frozen=True):
    """Met by events that were observed at `start` or later, and before `end`; None: no such bound."""

    start: datetime | None
    end: datetime | None

    def __post_init__(self) -> None:
        _check_moments("observed_between", self.start, self.end)

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return _lies_between(event.observed_at, self.start, self.end)


class TextContainsConstraint(QueryConstraint, frozen=True):
    """Met by events whose payload or metadata contain a text, written as JSON; see `payload_contains`."""

    field: Literal["payload", "metadata"]
    text: str

    def __post_init__(self) -> None:
        problem = text_problem(self.text) if type(self.text) is str else f"is of type {type(self.text).__name__}"
        if problem is None and not self.text:
            problem = "is empty, which every text contains"
        if problem is not None:
            raise ConfigurationError(f"{self.field}_contains takes a text to look for; {self.text!r:.60} {problem}")

    @property
    def json_text(self) -> str:
        """The text as it stands within a string of JSON."""
        return encode_json(self.text).decode()[1:-1]

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        value: object = event.payload if self.field == "payload" else event.metadata
        if value is None and self.field == "metadata":
            # That is no metadata; a payload is always something.
            return False
        return self.json_text in encode_json(to_json(value, exact_floats=False)).decode()


# By exact type: a subclass may say something else in its `met_by`.
_BOUNDS: Final[dict[bool, frozenset[type[QueryConstraint]]]] = {
    False: frozenset({SequenceNumberAfterConstraint, SequenceNumberBeforeConstraint}),
    True: frozenset({PositionAfterConstraint, PositionBeforeConstraint}),
}


def sequence_number_after(sequence_number: int) -> SequenceNumberAfterConstraint:
    """Return only events with a sequence number above the given one (exclusive).

    Raises:
        ConfigurationError: If it is not an integer.
    """
    return SequenceNumberAfterConstraint(sequence_number)


def sequence_number_before(sequence_number: int) -> SequenceNumberBeforeConstraint:
    """Return only events with a sequence number below the given one (exclusive).

    Raises:
        ConfigurationError: If it is not an integer.
    """
    return SequenceNumberBeforeConstraint(sequence_number)


def position_after(position: int) -> PositionAfterConstraint:
    """Return only events with a position above the given one (exclusive), each within its own stream.

    Raises:
        ConfigurationError: If it is not an integer.
    """
    return PositionAfterConstraint(position)


def position_before(position: int) -> PositionBeforeConstraint:
    """Return only events with a position below the given one (exclusive), each within its own stream.

    Raises:
        ConfigurationError: If it is not an integer.
    """
    return PositionBeforeConstraint(position)


def name_in(names: Iterable[object]) -> NameInConstraint:
    """Return only events with one of these names; none at all when there are no names.

    Args:
        names: Strings, or what may stand for the name of a `NewEvent`, such as members of an enum; or classes decorated
            with `event`, for all names of their events. At most 10,000.

    Raises:
        ConfigurationError: If it is a single string, or there are too many.
    """
    if isinstance(names, str | bytes):
        raise ConfigurationError(f"name_in takes names, not one name: write name_in([{names!r}])")
    texts = frozenset(text for name in names for text in names_of(name))
    if len(texts) > _MAX_NAMES:
        raise ConfigurationError(
            f"name_in takes at most {_MAX_NAMES} names, not {len(texts)}: read all events and filter them"
        )
    return NameInConstraint(texts)


def category_in(categories: Iterable[str]) -> CategoryInConstraint:
    """Return only events of these categories; none at all when there are no categories.

    To read a single category, read it as such: `store.category(category=...)` goes through an index.

    Args:
        categories: Their names; at most 10,000.

    Raises:
        ConfigurationError: If it is a single string, or there are too many.
    """
    if isinstance(categories, str | bytes):
        raise ConfigurationError(f"category_in takes names, not one name: write category_in([{categories!r}])")
    names = frozenset(categories)
    if len(names) > _MAX_NAMES:
        raise ConfigurationError(
            f"category_in takes at most {_MAX_NAMES} categories, not {len(names)}: read all events and filter them"
        )
    return CategoryInConstraint(names)


def correlation_is(correlation_id: str) -> CorrelationIsConstraint:
    """Return only events whose metadata has this text as its `correlation_id`, as `event_metadata(caused_by=...)` gives it.

    Without an index for it, all events of the read are looked at; see `inspection_index`.

    Raises:
        ConfigurationError: If it is not a string.
    """
    return CorrelationIsConstraint(correlation_id)


def occurred_between(start: datetime | None, end: datetime | None) -> OccurredBetweenConstraint:
    """Return only events that occurred at `start` or later, and before `end`.

    Args:
        start: An aware datetime (inclusive); None: however early.
        end: An aware datetime (exclusive); None: however late.

    Raises:
        ConfigurationError: If one is naive, not a datetime, or outside the years 1 to 9999 in UTC.
    """
    return OccurredBetweenConstraint(start, end)


def observed_between(start: datetime | None, end: datetime | None) -> ObservedBetweenConstraint:
    """Return only events that were observed at `start` or later, and before `end`; see `occurred_between`."""
    return ObservedBetweenConstraint(start, end)


def payload_contains(text: str) -> TextContainsConstraint:
    """Return only events whose payload contains a text, in upper and lower case as given.

    No index serves it: the database looks at every payload in the range of the read, so bound it by other constraints.

    Args:
        text: A part of a string, of the name of a member, or of a number. How databases write numbers, and what stands
            between values, differs.

    Raises:
        ConfigurationError: If it is empty, not a string, or a text that cannot be stored.
    """
    return TextContainsConstraint("payload", text)


def metadata_contains(text: str) -> TextContainsConstraint:
    """Return only events whose metadata contain a text; see `payload_contains`."""
    return TextContainsConstraint("metadata", text)


def checked_constraints(constraints: object) -> frozenset[QueryConstraint]:
    """Return a copy of a set of constraints.

    Raises:
        ConfigurationError: If it is not a set, or holds something other than constraints.
    """
    if not isinstance(constraints, AbstractSet):
        raise ConfigurationError(
            "constraints must be a set, such as {name_in(['order-placed'])}; got a " + type(constraints).__name__
        )
    members = frozenset(cast("AbstractSet[QueryConstraint]", constraints))
    for member in members:
        checked: object = member
        if not isinstance(checked, QueryConstraint):
            raise ConfigurationError(
                "constraints must be QueryConstraints, such as sequence_number_after(3); the set contains "
                f"{type(checked).__name__}"
            )
    return members


def order_range(
    constraints: Iterable[QueryConstraint], *, by_position: bool
) -> tuple[int | None, int | None, list[QueryConstraint]]:
    """Merge the bounds that constraints set on the order of a read, so that an index can be entered and left there.

    Args:
        constraints: What the read is constrained by.
        by_position: Whether it is ordered by position, and not by sequence number.

    Returns:
        An exclusive lower and an inclusive upper bound, None: none; and the other constraints.
    """
    low: int | None = None
    high: int | None = None
    others: list[QueryConstraint] = []
    for constraint in constraints:
        bounds = _bounds_of(constraint, by_position=by_position)
        if bounds is None:
            others.append(constraint)
            continue
        after, up_to = bounds
        if after is not None:
            low = after if low is None else max(low, after)
        if up_to is not None:
            high = up_to if high is None else min(high, up_to)
    return low, high, others


def _check_integer(factory: str, number: object) -> None:
    if not isinstance(number, int) or isinstance(number, bool):
        raise ConfigurationError(f"{factory} takes an integer; got {type(number).__name__}")


def _check_moments(factory: str, *moments: object) -> None:
    for moment in moments:
        if moment is None:
            continue
        if not isinstance(moment, datetime):
            raise ConfigurationError(f"{factory} takes datetimes, or None for no bound; got {type(moment).__name__}")
        if moment.utcoffset() is None:
            raise ConfigurationError(
                f"{factory} was given the naive datetime {moment.isoformat()}, which could be in any time zone: add "
                "one, as in moment.replace(tzinfo=UTC)"
            )
        try:
            moment.astimezone(UTC)
        except OverflowError as error:
            raise ConfigurationError(
                f"{factory} was given {moment.isoformat()}, which is outside the years 1 to 9999 in UTC: pass None for "
                "no bound"
            ) from error


def _lies_between(moment: datetime, start: datetime | None, end: datetime | None) -> bool:
    return (start is None or start <= moment) and (end is None or moment < end)


def _bounds_of(constraint: QueryConstraint, *, by_position: bool) -> tuple[int | None, int | None] | None:
    """Return an exclusive lower and an inclusive upper bound; None when it is no bound of this order."""
    if type(constraint) not in _BOUNDS[by_position]:
        return None
    match constraint:
        case SequenceNumberAfterConstraint(bound) | PositionAfterConstraint(bound):
            return bound, None
        case SequenceNumberBeforeConstraint(bound) | PositionBeforeConstraint(bound):
            return None, bound - 1
        case _:
            return None

"""Query constraints as SQLAlchemy expressions on the table of events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import Boolean, Column, ColumnElement, Table, Text, and_, cast, false, literal, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema.correlation import correlates_with
from eventstore_sa.sources.constraints import (
    CategoryInConstraint,
    CorrelationIsConstraint,
    NameInConstraint,
    ObservedBetweenConstraint,
    OccurredBetweenConstraint,
    PositionAfterConstraint,
    PositionBeforeConstraint,
    QueryConstraint,
    SequenceNumberAfterConstraint,
    SequenceNumberBeforeConstraint,
    TextContainsConstraint,
)
from eventstore_sa.types.codec import text_problem
from eventstore_sa.types.numbers import LARGEST_NUMBER

__all__ = ["ConstraintConverter", "ConstraintConverters", "clamped"]

C = TypeVar("C", bound=QueryConstraint)

ConstraintConverter: TypeAlias = Callable[[C, Table], ColumnElement[bool]]
"""Turns a constraint into a condition on the rows of the table of events."""

_BUILT_IN: Final = frozenset(
    {
        SequenceNumberAfterConstraint,
        SequenceNumberBeforeConstraint,
        PositionAfterConstraint,
        PositionBeforeConstraint,
        CategoryInConstraint,
        CorrelationIsConstraint,
        NameInConstraint,
        OccurredBetweenConstraint,
        ObservedBetweenConstraint,
        TextContainsConstraint,
    }
)

_LAST_BUT_ONE: Final = datetime.max.replace(tzinfo=UTC) - timedelta(microseconds=1)


class ConstraintConverters:
    """The constraints that an adapter can translate to SQL: the built-in ones, and those that are registered.

    Examples:
        >>> class AboutCustomer(QueryConstraint, frozen=True):
        ...     customer: str
        ...
        ...     def met_by(self, *, event):
        ...         return event.payload["customer"] == self.customer
        >>> converters = ConstraintConverters()
        >>> converters.register(
        ...     AboutCustomer, lambda about, events: events.c.payload["customer"].as_string() == about.customer
        ... )
    """

    def __init__(self) -> None:
        self._converters: dict[type[QueryConstraint], ConstraintConverter[Any]] = {}

    def register(self, constraint_type: type[C], converter: ConstraintConverter[C]) -> None:
        """Say how constraints of a type, and of its subclasses, are translated; the last one registered counts.

        Raises:
            ConfigurationError: If the type is not a constraint, or is a built-in one.
        """
        kind: object = constraint_type
        if not isinstance(kind, type) or not issubclass(kind, QueryConstraint) or kind in _BUILT_IN:
            raise ConfigurationError(
                f"converters are registered for your own subclasses of QueryConstraint, and {kind!r} is not one"
            )
        self._converters[constraint_type] = converter

    def expression(self, constraint: QueryConstraint, events: Table) -> ColumnElement[bool]:
        """Turn a constraint into a condition on rows of the table of events.

        Raises:
            ConfigurationError: If no converter is registered for it.
        """
        kind = type(constraint)
        # By exact type: a subclass may say something else in its `met_by`.
        if kind in _BUILT_IN:
            return _built_in(constraint, events)
        for base in kind.__mro__:
            converter = self._converters.get(base)
            if converter is not None:
                return converter(constraint, events)
        raise ConfigurationError(
            f"this adapter cannot translate {kind.__name__} to SQL: register a converter with adapter.register_constraint("
            f"{kind.__name__}, lambda constraint, events: events.c.name == ...)"
        )


def clamped(number: int) -> int:
    """Return the nearest number that a row can have: databases compare 64 bits."""
    return min(max(number, -(2**63)), LARGEST_NUMBER)


def _built_in(constraint: QueryConstraint, events: Table) -> ColumnElement[bool]:  # noqa: PLR0911 - a case a line
    c = events.c
    match constraint:
        case SequenceNumberAfterConstraint(number):
            return c.sequence_number > clamped(number)
        case SequenceNumberBeforeConstraint(number):
            return c.sequence_number <= clamped(number - 1)
        case PositionAfterConstraint(position):
            return c.position > clamped(position)
        case PositionBeforeConstraint(position):
            return c.position <= clamped(position - 1)
        case NameInConstraint(names):
            # What cannot be stored cannot be sent either, and no event is called so.
            known = sorted(name for name in names if text_problem(name) is None)
            return c.name.in_(known) if known else false()
        case CategoryInConstraint(categories):
            known = sorted(name for name in categories if text_problem(name) is None)
            return c.category.in_(known) if known else false()
        case CorrelationIsConstraint(correlation_id):
            if text_problem(correlation_id) is not None:
                return false()
            return correlates_with(events, correlation_id)
        case OccurredBetweenConstraint(start, end):
            return _between(c.occurred_at, start, end)
        case ObservedBetweenConstraint(start, end):
            return _between(c.observed_at, start, end)
        case TextContainsConstraint(field, _):
            return _Contains(cast(c[field], Text), literal(constraint.json_text, Text()))
        case _:
            raise TypeError(constraint)


class _Contains(FunctionElement[bool]):
    """Whether a text contains another, with the same letters in upper and lower case."""

    type = Boolean()
    inherit_cache = True


@compiles(_Contains)
def _contains(element: _Contains, compiler: Any, **options: Any) -> str:
    return f"(instr({compiler.process(element.clauses, **options)}) > 0)"


@compiles(_Contains, "postgresql")
def _contains_on_postgresql(element: _Contains, compiler: Any, **options: Any) -> str:
    return f"(pg_catalog.strpos({compiler.process(element.clauses, **options)}) > 0)"


@compiles(_Contains, "mariadb")
@compiles(_Contains, "mysql")
def _contains_on_mariadb(element: _Contains, compiler: Any, **options: Any) -> str:
    # Of bytes, because collations take upper and lower case for the same.
    whole, part = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(instr(BINARY {whole}, BINARY {part}) > 0)"


def _between(column: Column[datetime], start: datetime | None, end: datetime | None) -> ColumnElement[bool]:
    bounds: list[ColumnElement[bool]] = []
    # In UTC, because on SQLite the text of a time is stored and compared without its zone. The last moment of all times
    # is not sent: asyncpg takes it for "infinity".
    if start is not None:
        first = start.astimezone(UTC)
        bounds.append(column > _LAST_BUT_ONE if first > _LAST_BUT_ONE else column >= first)
    if end is not None:
        after = end.astimezone(UTC)
        bounds.append(column <= _LAST_BUT_ONE if after > _LAST_BUT_ONE else column < after)
    return and_(*bounds) if bounds else true()

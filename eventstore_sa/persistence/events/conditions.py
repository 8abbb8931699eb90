"""Conditions of the application's own: how they are registered, and evaluated while the locks are held.

An evaluator is given the condition and a `ConditionContext`, and returns a SQL expression or a bool. All expressions of a
publish are evaluated by one statement.

Conditions on rows of the application (`exists_row`) are evaluated before that: the rows are locked before any stream is.
That order is the same for all publishes; the other way round two of them could wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Select, Table, select

from eventstore_sa.conditions import WriteCondition, custom_conditions, decided
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.reads import Wanted
from eventstore_sa.persistence.events.repository import EventRepository
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.types import AnyStoredEvent, StreamIdentifier

__all__ = [
    "ConditionContext",
    "ConditionEvaluator",
    "ConditionEvaluators",
    "RowExistsCondition",
    "exists_row",
    "verdicts_on_rows",
]


class ConditionContext:
    """What an evaluator may look at. No other transaction publishes within the condition's scope meanwhile.

    Attributes:
        connection: The connection of the publish, in its transaction; for reading only.
        events: The table of events.
        stream: The stream that is published to.
    """

    def __init__(
        self, connection: Connection, events: Table, stream: StreamIdentifier, repository: EventRepository
    ) -> None:
        self.connection: Connection = connection
        self.events: Table = events
        self.stream: StreamIdentifier = stream
        self._repository = repository

    @property
    def latest(self) -> AnyStoredEvent | None:
        """The last event of the stream, read at each access; None when the stream is empty."""
        page = self._repository.page(self.connection, Wanted(self.stream, 1, backwards=True))
        return next(iter(page.checked_events()), None)


ConditionEvaluator: TypeAlias = Callable[[Any, ConditionContext], ColumnElement[bool] | bool]
"""Takes a condition and its context; returns whether it is met, as a bool or a SQL expression."""


class ConditionEvaluators:
    """The evaluators of one adapter, by type of condition."""

    def __init__(self) -> None:
        self._evaluators: dict[type[WriteCondition], ConditionEvaluator] = {}

    def register(self, condition: type[WriteCondition], evaluate: ConditionEvaluator) -> None:
        """Say how conditions of exactly this type are evaluated."""
        self._evaluators[condition] = evaluate

    def __len__(self) -> int:
        return len(self._evaluators)

    def of(self, condition: WriteCondition) -> ConditionEvaluator:
        """Find the evaluator of a condition: the registered one, or its own method `to_expression`.

        Raises:
            ConfigurationError: If there is neither.
        """
        registered = self._evaluators.get(type(condition))
        if registered is not None:
            return registered
        own = getattr(type(condition), "to_expression", None)
        if own is None:
            raise ConfigurationError(
                f"{type(condition).__name__} cannot be checked: give it a method to_expression(context), or register an "
                "evaluator with adapter.register_condition(type, evaluate)"
            )
        return own  # type: ignore[no-any-return]

    def decide(
        self,
        connection: Connection,
        events: Table,
        parts: Sequence[StreamPublication],
        repository: EventRepository,
        known: Mapping[tuple[int, WriteCondition], bool],
    ) -> list[WriteCondition]:
        """Evaluate the custom members of all conditions; return the conditions with the verdicts instead of them.

        What is `known` of a part's condition already is not evaluated again.
        """
        verdicts = dict(known)
        open_questions: dict[tuple[int, WriteCondition], ColumnElement[bool]] = {}
        for item, part in enumerate(parts):
            for condition in custom_conditions(part.condition):
                if (item, condition) in verdicts:
                    continue
                context = ConditionContext(connection, events, part.stream, repository)
                answer = self.of(condition)(condition, context)
                if isinstance(answer, ColumnElement):
                    open_questions[item, condition] = answer
                else:
                    verdicts[item, condition] = bool(answer)
        if open_questions:
            answers = connection.execute(select(*open_questions.values())).one()
            # SQL's NULL is neither: the condition is not met.
            verdicts |= {question: bool(answer) for question, answer in zip(open_questions, answers, strict=True)}
        return [_decided(item, part.condition, verdicts) for item, part in enumerate(parts)]


def _decided(
    item: int, condition: WriteCondition, verdicts: Mapping[tuple[int, WriteCondition], bool]
) -> WriteCondition:
    return decided(condition, lambda member: verdicts[item, member])


class RowExistsCondition(WriteCondition, frozen=True, eq=False):
    """Met when a query finds a row."""

    query: Select[Any]

    def __post_init__(self) -> None:
        query: object = self.query
        if not isinstance(query, Select):
            raise ConfigurationError(f"exists_row takes a select(); got {type(query).__name__}")

    def describe(self) -> str:
        tables = ", ".join(sorted({str(table.description) for table in self.query.get_final_froms()}))
        return f"a row of {tables} that the query finds"


def exists_row(query: Select[Any]) -> RowExistsCondition:
    """Demand that a query of the application finds a row, and lock that row until the transaction ends.

    The row is locked with SELECT ... FOR UPDATE before any stream is; on SQLite, the publish is the only writer meanwhile.
    Within a session, flush first what the query has to see, unless the publish is staged.

    Args:
        query: A `select()` of tables that can be locked: no aggregates, no DISTINCT.

    Raises:
        ConfigurationError: If it is not a `select()`.

    Examples:
        >>> from sqlalchemy import column, select, table
        >>> account = table("account", column("id"), column("balance"))
        >>> exists_row(select(account).where(account.c.id == 1, account.c.balance >= 10)).describe()
        'a row of account that the query finds'
    """
    return RowExistsCondition(query)


def verdicts_on_rows(
    connection: Connection, parts: Sequence[StreamPublication]
) -> dict[tuple[int, WriteCondition], bool]:
    """Lock the rows that the conditions of a publish ask for; return which of them were found."""
    found: dict[WriteCondition, bool] = {}
    verdicts: dict[tuple[int, WriteCondition], bool] = {}
    for item, part in enumerate(parts):
        for condition in custom_conditions(part.condition):
            if isinstance(condition, RowExistsCondition):
                if condition not in found:
                    row = connection.execute(condition.query.with_for_update().limit(1)).first()
                    found[condition] = row is not None
                verdicts[item, condition] = found[condition]
    return verdicts

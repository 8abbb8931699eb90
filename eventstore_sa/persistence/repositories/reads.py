"""The statements that read events: a page of whatever a store can read, in order, up to where it is complete.

A page is a range of the order (position in a stream, sequence number elsewhere), so that an index leads to its first event,
however far in it is. The text of a statement depends on the kind of target and on which bounds there are, never on values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, select

from eventstore_sa.persistence.dialects import EventDialect
from eventstore_sa.persistence.queries import ConstraintConverters, storable
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.sources.constraints import QueryConstraint, order_range
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    EventSequenceIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
)

__all__ = ["EventReads", "is_by_position"]

_HASHES: Final = 2**32


class EventReads:
    """Pages of one event store on one kind of database.

    Args:
        schema: The tables.
        dialect: The database.
        converters: How constraints are translated.
    """

    def __init__(self, schema: EventStoreSchema, dialect: EventDialect, converters: ConstraintConverters) -> None:
        self._events = schema.events
        self._dialect = dialect
        self._converters = converters
        self._selects: dict[tuple[Any, ...], Select[Any]] = {}

    @cached_property
    def columns(self) -> Sequence[ColumnElement[Any]]:
        """What a read selects, in the order of the fields of StoredEvent; made only where something is read."""
        return self._dialect.event_columns()

    def page(
        self,
        connection: Connection,
        target: EventSequenceIdentifier | EventPartitionIdentifier,
        *,
        constraints: Iterable[QueryConstraint] = (),
        after: int | None = None,
        up_to: int | None = None,
        size: int,
        backwards: bool = False,
    ) -> list[Row[Any]]:
        """Read some rows of a target in order; parameters are those of `EventRepository.page`."""
        low, high, others = order_range(constraints, by_position=is_by_position(target))
        if after is not None and backwards:
            high = after - 1 if high is None else min(high, after - 1)
        elif after is not None:
            low = after if low is None else max(low, after)
        if up_to is not None:
            high = up_to if high is None else min(high, up_to)
        if low is not None and high is not None and low >= high:
            return []
        parameters = _parameters(target) | {"size": size}
        if low is not None:
            parameters["low"] = storable(low)
        if high is not None:
            parameters["high"] = storable(high)
        if isinstance(target, LogPartitionIdentifier | CategoryPartitionIdentifier):
            self._dialect.prepare_partitions(connection)
        statement = self._select(target, low=low is not None, high=high is not None, backwards=backwards)
        if others:
            statement = statement.where(*(self._converters.expression(other, self._events) for other in others))
        return list(connection.execute(statement, parameters).all())

    def _select(
        self,
        target: EventSequenceIdentifier | EventPartitionIdentifier,
        *,
        low: bool,
        high: bool,
        backwards: bool,
    ) -> Select[Any]:
        if isinstance(target, StreamNamePrefixPartitionIdentifier):
            # Which bounds a range of names has depends on the prefix.
            base = self._build_select(type(target), low, high, backwards)
            return base.where(self._dialect.stream_starts_with(target.prefix))
        key = (type(target), low, high, backwards)
        statement = self._selects.get(key)
        if statement is None:
            statement = self._selects[key] = self._build_select(*key)
        return statement

    def _build_select(self, target: type[Any], low: bool, high: bool, backwards: bool) -> Select[Any]:
        c = self._events.c
        order = c.position if target is StreamIdentifier else c.sequence_number
        statement = select(*self.columns).limit(bindparam("size"))
        if target not in (LogIdentifier, LogPartitionIdentifier):
            statement = statement.where(c.category == bindparam("of_category"))
        if target is StreamIdentifier:
            statement = statement.where(c.stream == bindparam("of_stream"))
        if target in (LogPartitionIdentifier, CategoryPartitionIdentifier):
            partitions = bindparam("partitions", type_=order.type)
            partition = bindparam("partition", type_=order.type)
            statement = statement.where(self._dialect.in_partition(partition, partitions))
        if low:
            statement = statement.where(order > bindparam("low", type_=order.type))
        if high:
            statement = statement.where(order <= bindparam("high", type_=order.type))
        return statement.order_by(order.desc() if backwards else order)


def is_by_position(target: EventSequenceIdentifier | EventPartitionIdentifier) -> bool:
    """Tell whether a target is read in the order of positions, and not of sequence numbers."""
    return isinstance(target, StreamIdentifier)


def _parameters(target: EventSequenceIdentifier | EventPartitionIdentifier) -> dict[str, Any]:
    match target:
        case LogIdentifier():
            return {}
        case CategoryIdentifier(category) | StreamNamePrefixPartitionIdentifier(category, _):
            return {"of_category": category}
        case StreamIdentifier(category, stream):
            return {"of_category": category, "of_stream": stream}
        case LogPartitionIdentifier(partition, partitions):
            return _parts(partition, partitions)
        case CategoryPartitionIdentifier(category, partition, partitions):
            return {"of_category": category} | _parts(partition, partitions)


def _parts(partition: int, partitions: int) -> dict[str, Any]:
    # With more parts than hashes each hash is a part of its own.
    return {"partition": storable(partition), "partitions": min(partitions, _HASHES)}

"""The statements that read events: a page of whatever a store can read, in order, up to where it is complete.

A page is a range of the order (position in a stream, sequence number elsewhere), so that an index leads to its first event,
however far in it is. It ends early where its events have become too many bytes (`page_bytes`). The text of a statement
depends on the kind of target and on which bounds there are, never on values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Any, Final
from uuid import UUID

from msgspec import Struct
from sqlalchemy import Column, ColumnElement, Connection, Row, Select, bindparam, false, select

from eventstore_sa.persistence.events.constraints import ConstraintConverters, storable
from eventstore_sa.persistence.events.dialects import EventDialect
from eventstore_sa.persistence.events.page_bytes import page_of_bytes
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.sources.constraints import QueryConstraint, QueryConstraints, order_range
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

__all__ = ["EventReads", "Wanted", "is_by_position"]

_HASHES: Final = 2**32


class Wanted(Struct, frozen=True):
    """What is to be read.

    Attributes:
        target: Of what: a stream is ordered by position, everything else by sequence number.
        size: At most so many events.
        constraints: Only events that meet all of them.
        after: Only those behind this position or number, in the direction of the read.
        up_to: Only those up to this position or number.
        backwards: Last to first.
    """

    target: EventSequenceIdentifier | EventPartitionIdentifier
    size: int
    constraints: QueryConstraints = frozenset()
    after: int | None = None
    up_to: int | None = None
    backwards: bool = False


class _Form(Enum):
    """What a statement returns: a page bounded by bytes, a single event, or only where events are."""

    PAGE = auto()
    SINGLE = auto()
    PLACES = auto()


class _Shape(Struct, frozen=True):
    """What the text of a statement depends on."""

    target: type[Any]
    low: bool
    high: bool
    backwards: bool
    form: _Form


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
        self._selects: dict[_Shape, Select[Any]] = {}

    def with_ids(self, ids: Sequence[UUID]) -> Select[Any]:
        """Select events by id, for `hydrated`."""
        columns = self._dialect.event_columns(self._events)
        return select(*columns, false()).where(self._events.c.id.in_(ids))

    def page(self, connection: Connection, wanted: Wanted) -> list[Row[Any]]:
        """Read some rows of a target in order, for `hydrated`; the last column tells whether they are enough bytes."""
        return self._rows(connection, wanted, _Form.SINGLE if wanted.size == 1 else _Form.PAGE)

    def places(self, connection: Connection, wanted: Wanted) -> list[tuple[int, int]]:
        """Read sequence numbers and positions only, of as many rows as are wanted."""
        return [(row.sequence_number, row.position) for row in self._rows(connection, wanted, _Form.PLACES)]

    def _rows(self, connection: Connection, wanted: Wanted, form: _Form) -> list[Row[Any]]:
        target, backwards, after = wanted.target, wanted.backwards, wanted.after
        low, high, others = order_range(wanted.constraints, by_position=is_by_position(target))
        if after is not None and backwards:
            high = after - 1 if high is None else min(high, after - 1)
        elif after is not None:
            low = after if low is None else max(low, after)
        if wanted.up_to is not None:
            high = wanted.up_to if high is None else min(high, wanted.up_to)
        if low is not None and high is not None and low >= high:
            return []
        parameters = _parameters(target) | {"size": wanted.size}
        if low is not None:
            parameters["low"] = storable(low)
        if high is not None:
            parameters["high"] = storable(high)
        if isinstance(target, LogPartitionIdentifier | CategoryPartitionIdentifier):
            self._dialect.prepare_partitions(connection)
        shape = _Shape(type(target), low is not None, high is not None, backwards, form)
        return list(connection.execute(self._select(target, shape, others), parameters).all())

    def _select(
        self,
        target: EventSequenceIdentifier | EventPartitionIdentifier,
        shape: _Shape,
        others: Sequence[QueryConstraint],
    ) -> Select[Any]:
        conditions = [self._converters.expression(other, self._events) for other in others]
        if isinstance(target, StreamNamePrefixPartitionIdentifier):
            # Which bounds a range of names has depends on the prefix.
            conditions.append(self._dialect.stream_starts_with(target.prefix))
        if conditions:
            return self._build_select(shape, conditions)
        statement = self._selects.get(shape)
        if statement is None:
            statement = self._selects[shape] = self._build_select(shape, ())
        return statement

    def _build_select(self, shape: _Shape, conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
        events, c = self._events, self._events.c
        order = c.position if shape.target is StreamIdentifier else c.sequence_number

        def rows(columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
            statement = select(*columns).where(*self._bounds(shape, order), *conditions)
            return statement.order_by(order.desc() if shape.backwards else order).limit(bindparam("size"))

        match shape.form:
            case _Form.PLACES:
                return rows([c.sequence_number, c.position])
            case _Form.SINGLE:
                return rows([*self._dialect.event_columns(events), false()])
            case _Form.PAGE:
                return page_of_bytes(
                    rows,
                    events,
                    order=[(order, shape.backwards)],
                    size=self._dialect.event_size(events),
                    columns=self._dialect.event_columns,
                    by_key=self._dialect.copies_values,
                )

    def _bounds(self, shape: _Shape, order: Column[Any]) -> Iterator[ColumnElement[bool]]:
        c, target = self._events.c, shape.target
        if target not in (LogIdentifier, LogPartitionIdentifier):
            yield c.category == bindparam("of_category")
        if target is StreamIdentifier:
            yield c.stream == bindparam("of_stream")
        if target in (LogPartitionIdentifier, CategoryPartitionIdentifier):
            partitions = bindparam("partitions", type_=order.type)
            partition = bindparam("partition", type_=order.type)
            yield self._dialect.in_partition(partition, partitions)
        if shape.low:
            yield order > bindparam("low", type_=order.type)
        if shape.high:
            yield order <= bindparam("high", type_=order.type)


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

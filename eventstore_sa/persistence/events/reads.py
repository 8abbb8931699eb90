"""The statements that read events: pages of a stream, a category, the log, a query or a partition.

A page is a range of the order (position in a stream, sequence number elsewhere), so that an index leads to its first event,
however far in it is. It ends early where its events have become too many bytes (`page_bytes`). The text of a statement
depends on the kind of target and on which bounds there are, never on values. How a query is looked up is in `matching.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Any, Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BindParameter, ColumnElement, Connection, Select, bindparam, false, select

from eventstore_sa.persistence.events.constraints import clamped
from eventstore_sa.persistence.events.dialects import EventDialect
from eventstore_sa.persistence.events.matching import ItemShape, Matching, query_parameters, query_shape
from eventstore_sa.persistence.page_bytes import page_of_bytes
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.prepared import PreparedStatement
from eventstore_sa.types import (
    AnyStoredEvent,
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventPartitionIdentifier,
    EventSequenceIdentifier,
    LogPartitionIdentifier,
    QueryIdentifier,
    QueryPartitionIdentifier,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
    query_of,
)

__all__ = ["EventReads", "Wanted"]

_HASHES: Final = 2**32
_HASHED: Final = (LogPartitionIdentifier, CategoryPartitionIdentifier, QueryPartitionIdentifier)
_CATEGORIES: Final = (CategoryIdentifier, CategoryPartitionIdentifier)
_MOST_STATEMENTS: Final = 1000


class Wanted(Struct, frozen=True):
    """What is to be read.

    Attributes:
        target: Of what: a stream is ordered by position, everything else by sequence number.
        size: At most so many events.
        low: Only those above this position or number.
        high: Only those up to this position or number.
        conditions: Only events that meet all of them.
        backwards: Last to first.
        as_text: Whether payloads remain JSON text.
    """

    target: EventSequenceIdentifier | EventPartitionIdentifier | QueryIdentifier
    size: int
    low: int | None = None
    high: int | None = None
    conditions: Sequence[ColumnElement[bool]] = ()
    backwards: bool = False
    as_text: bool = False

    @property
    def by_position(self) -> bool:
        """Whether the order is that of positions, and not of sequence numbers."""
        return isinstance(self.target, StreamIdentifier)

    def sized(self, size: int) -> Wanted:
        """Return the same, but at most so many events."""
        return self if size == self.size else replace(self, size=size)

    def up_to(self, end: int | None) -> Wanted:
        """Return the same, but nothing above this position or number."""
        if end is None or (self.high is not None and self.high <= end):
            return self
        return replace(self, high=end)

    def beyond(self, event: AnyStoredEvent) -> Wanted:
        """Return the same, but only what follows an event, in the direction of the read."""
        last = event.position if self.by_position else event.sequence_number
        return replace(self, high=last - 1) if self.backwards else replace(self, low=last)


class _Form(Enum):
    """What a statement returns: a page bounded by bytes, a single event, or only the numbers of events."""

    PAGE = auto()
    SINGLE = auto()
    NUMBERS = auto()


class _Shape(Struct, frozen=True):
    """What the text of a statement depends on."""

    target: type[Any]
    low: bool
    high: bool
    backwards: bool
    form: _Form
    items: tuple[ItemShape, ...] = ()


class EventReads:
    """Pages of one event store on one kind of database.

    Args:
        schema: The tables.
        dialect: The database.
    """

    def __init__(self, schema: EventStoreSchema, dialect: EventDialect) -> None:
        self._events = schema.events
        self._dialect = dialect
        self._matching = Matching(schema)
        self._statements: dict[_Shape, PreparedStatement] = {}

    def with_ids(self, ids: Sequence[UUID]) -> Select[Any]:
        """Select events by id, for `hydrated`."""
        columns = self._dialect.event_columns(self._events)
        return select(*columns, false()).where(self._events.c.id.in_(ids))

    def with_numbers(self, numbers: Sequence[int]) -> Select[Any]:
        """Select events by sequence number, for `hydrated`."""
        columns = self._dialect.event_columns(self._events)
        return select(*columns, false()).where(self._events.c.sequence_number.in_(map(clamped, numbers)))

    def locked_positions(self, stream: StreamIdentifier, low: int, high: int) -> Select[Any]:
        """Select the positions of a range of a stream that are stored now, whatever the snapshot shows."""
        c = self._events.c
        of_stream = select(c.position).where(c.category == stream.category, c.stream == stream.stream)
        return of_stream.where(c.position.between(low, high)).with_for_update(read=True)

    def page(self, connection: Connection, wanted: Wanted) -> Sequence[Sequence[Any]]:
        """Read some rows of a target in order, for `hydrated`; the last column is true when they are enough bytes."""
        return self._rows(connection, wanted, _Form.SINGLE if wanted.size == 1 else _Form.PAGE)

    def numbers(self, connection: Connection, wanted: Wanted) -> list[tuple[int, int]]:
        """Read only the sequence numbers and positions of as many events as are wanted."""
        return [(number, position) for number, position in self._rows(connection, wanted, _Form.NUMBERS)]

    def _rows(self, connection: Connection, wanted: Wanted, form: _Form) -> Sequence[Sequence[Any]]:
        target, low, high = wanted.target, wanted.low, wanted.high
        if low is not None and high is not None and low >= high:
            return []
        query = query_of(target)
        parameters = (_parameters(target) if query is None else query_parameters(query)) | {"size": wanted.size}
        if low is not None:
            parameters["low"] = clamped(low)
        if high is not None:
            parameters["high"] = clamped(high)
        if isinstance(target, _HASHED):
            parameters |= _parts(target.partition, target.partitions)
            self._dialect.prepare_partitions(connection)
        statement = self._statement(wanted, form)
        if isinstance(statement, PreparedStatement):
            return statement.rows(connection, parameters)
        return connection.execute(statement, parameters).all()

    def _statement(self, wanted: Wanted, form: _Form) -> PreparedStatement | Select[Any]:
        """Return the statement for a page, which is made once if its text does not depend on conditions."""
        target, conditions = wanted.target, wanted.conditions
        query = query_of(target)
        shape = _Shape(
            type(target),
            wanted.low is not None,
            wanted.high is not None,
            wanted.backwards,
            form,
            () if query is None else query_shape(query),
        )
        if isinstance(target, StreamNamePrefixPartitionIdentifier):
            # Which bounds a range of names has depends on the prefix.
            conditions = [*conditions, self._dialect.stream_starts_with(target.prefix)]
        if conditions:
            return self._build_select(shape, conditions)
        statement = self._statements.get(shape)
        if statement is None:
            if len(self._statements) >= _MOST_STATEMENTS:
                # There is no end of shapes of queries.
                self._statements.clear()
            statement = self._statements[shape] = PreparedStatement(self._build_select(shape, ()))
        return statement

    def _build_select(self, shape: _Shape, conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
        events, c = self._events, self._events.c
        order: Sequence[ColumnElement[Any]] = (
            [c.position]
            if shape.target is StreamIdentifier
            else self._dialect.category_order()
            if shape.target in _CATEGORIES
            else [c.sequence_number]
        )

        def rows(columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
            if shape.items:
                return self._matching.rows(
                    columns,
                    shape.items,
                    conditions=[*self._part(shape), *conditions],
                    bounds=lambda number: [*_within(shape, number)],
                    backwards=shape.backwards,
                )
            statement = select(*columns).where(*self._bounds(shape), *conditions)
            return statement.order_by(*(each.desc() if shape.backwards else each for each in order)).limit(
                bindparam("size")
            )

        match shape.form:
            case _Form.NUMBERS:
                return rows([c.sequence_number, c.position])
            case _Form.SINGLE:
                return rows([*self._dialect.event_columns(events), false()])
            case _Form.PAGE:
                return page_of_bytes(
                    rows,
                    events,
                    order=[(order[-1], shape.backwards)],
                    size=self._dialect.event_size(events),
                    columns=self._dialect.event_columns,
                    by_key=self._dialect.copies_values,
                )

    def _bounds(self, shape: _Shape) -> Iterator[ColumnElement[bool]]:
        c, target = self._events.c, shape.target
        category = bindparam("of_category", type_=c.category.type)
        if target in _CATEGORIES:
            yield from self._dialect.in_category(category, *_ends(shape, c.sequence_number))
        else:
            if target in (StreamIdentifier, StreamNamePrefixPartitionIdentifier):
                yield c.category == category
            if target is StreamIdentifier:
                yield c.stream == bindparam("of_stream")
            yield from _within(shape, c.position if target is StreamIdentifier else c.sequence_number)
        yield from self._part(shape)

    def _part(self, shape: _Shape) -> Iterator[ColumnElement[bool]]:
        if shape.target in _HASHED:
            number_type = self._events.c.sequence_number.type
            partitions = bindparam("partitions", type_=number_type)
            partition = bindparam("partition", type_=number_type)
            yield self._dialect.in_partition(partition, partitions)


def _ends(shape: _Shape, order: ColumnElement[Any]) -> tuple[BindParameter[Any] | None, BindParameter[Any] | None]:
    low = bindparam("low", type_=order.type) if shape.low else None
    high = bindparam("high", type_=order.type) if shape.high else None
    return low, high


def _within(shape: _Shape, order: ColumnElement[Any]) -> Iterator[ColumnElement[bool]]:
    low, high = _ends(shape, order)
    if low is not None:
        yield order > low
    if high is not None:
        yield order <= high


def _parameters(target: EventSequenceIdentifier | EventPartitionIdentifier | QueryIdentifier) -> dict[str, Any]:
    match target:
        case CategoryIdentifier(category) | StreamNamePrefixPartitionIdentifier(category, _):
            return {"of_category": category}
        case StreamIdentifier(category, stream):
            return {"of_category": category, "of_stream": stream}
        case CategoryPartitionIdentifier(category, _, _):
            return {"of_category": category}
        case _:
            return {}


def _parts(partition: int, partitions: int) -> dict[str, Any]:
    # With more parts than hashes each hash is a part of its own.
    return {"partition": clamped(partition), "partitions": min(partitions, _HASHES)}

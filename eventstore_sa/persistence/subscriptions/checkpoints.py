"""The statements on the tables of subscriptions and of their nodes. Transactions are neither begun nor ended here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Update,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)

from eventstore_sa.contracts.subscriptions import (
    Advance,
    Definition,
    Lease,
    Node,
    PartitionRecord,
    PartitionState,
    Survey,
)
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.dialects import event_dialect
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.subscriptions.dialects import SubscriptionDialect, subscription_dialect
from eventstore_sa.types.codec import decode_json, encode_json

__all__ = ["Checkpoints"]


class Checkpoints:
    """Reads and writes checkpoints and leases. All stores on a schema share one for each kind of database.

    Args:
        schema: The tables.
        database: SQLAlchemy's name for the database.

    Attributes:
        dialect: How this kind of database keeps subscriptions.

    Raises:
        ConfigurationError: If subscriptions cannot be kept there.
    """

    def __init__(self, schema: EventStoreSchema, database: str) -> None:
        self.dialect: SubscriptionDialect = subscription_dialect(database)
        self._table = schema.subscriptions
        self._nodes = schema.subscription_nodes
        self._events = schema.events
        self._streams = schema.parked_streams
        self._event_dialect = event_dialect(database, schema)

    def insert(self, connection: Connection, definition: Definition, *, generation: int = 1) -> bool:
        """Store the partitions of a subscription, unless it exists; return whether it did not."""
        values = {
            "name": definition.name,
            "partitions": definition.partitions,
            "generation": generation,
            "source": definition.source,
            "projection": definition.projection,
            "sequence_number": definition.start,
            "epoch": 0,
            "status": PartitionState.RUNNING.value,
            "handled": 0,
            "events_per_s": 0.0,
            "moved_at": self.dialect.now(),
            **self._event_at(definition.start),
        }
        # Of several processes that do this, all but one wait here, and then find that there is nothing to do.
        first = self.dialect.insert_or_ignore(self._table).values(partition=0, **values)
        if connection.execute(first.returning(self._table.c.partition)).first() is None:
            return False
        for partition in range(1, definition.partitions):
            connection.execute(insert(self._table).values(partition=partition, **values))
        return True

    def _event_at(self, number: ColumnElement[int] | int) -> dict[str, Any]:
        """Return values for the last event up to a number, which is compared when a checkpoint is used again."""
        c = self._events.c
        last = select(c.sequence_number, c.id).where(c.sequence_number <= number)
        last = last.order_by(c.sequence_number.desc()).limit(1)
        number_of, id_of = (last.with_only_columns(column).scalar_subquery() for column in (c.sequence_number, c.id))
        return {"event_number": number_of, "event_id": id_of}

    def locked(self, connection: Connection, name: str) -> list[Row[Any]]:
        """Return the rows of a subscription, locked until the end of the transaction."""
        self.dialect.limit_waits(connection)
        statement = select(self._table).where(self._table.c.name == name).order_by(self._table.c.partition)
        return list(connection.execute(statement.with_for_update()).all())

    def note_projection(self, connection: Connection, definition: Definition) -> None:
        """Store which projections it updates now."""
        table = self._table
        connection.execute(
            update(table).where(table.c.name == definition.name).values(projection=definition.projection)
        )

    def drain(self, connection: Connection, definition: Definition, rows: Sequence[Row[Any]]) -> None:
        """Begin to change the number of partitions: all come to the highest checkpoint of any of them, and end there.

        Whoever holds one loses it, or it would go beyond.
        """
        changing = definition.partitions != rows[0].partitions
        values: dict[str, Any] = {"drain_to": None, "next_partitions": None}
        if changing:
            drain_to = rows[0].drain_to or max(row.sequence_number for row in rows)
            values = {"drain_to": drain_to, "next_partitions": definition.partitions}
        self._change(connection, definition.name, values)

    def resplit(self, connection: Connection, name: str) -> bool:
        """Replace the partitions by their next number, if all are drained; return whether they were."""
        rows = self.locked(connection, name)
        if not rows or any(row.drain_to is None or row.sequence_number < row.drain_to for row in rows):
            return False
        first = rows[0]
        connection.execute(delete(self._table).where(self._table.c.name == name))
        definition = Definition(name, first.source, first.next_partitions, first.drain_to, first.projection)
        return self.insert(connection, definition, generation=first.generation + 1)

    def heartbeat(self, connection: Connection, node: Node, lease_s: float) -> None:
        """Say that a node is alive for some time to come."""
        values = {
            "id": node.id,
            "name": node.name,
            "subscriptions": encode_json(sorted(node.subscriptions)).decode(),
            "expires_at": self.dialect.now(lease_s),
        }
        connection.execute(self.dialect.upsert(self._nodes, values))

    def leave(self, connection: Connection, node: UUID) -> None:
        """Give back what a node holds, and forget the node."""
        connection.execute(
            update(self._table).where(self._table.c.owner == node).values(owner=None, epoch=self._table.c.epoch + 1)
        )
        connection.execute(delete(self._nodes).where(self._nodes.c.id == node))

    def forget_nodes(self, connection: Connection, older_s: float) -> None:
        """Forget nodes that have not been heard of for a while."""
        connection.execute(delete(self._nodes).where(self._nodes.c.expires_at < self.dialect.now(-older_s)))

    def survey(self, connection: Connection, names: Collection[str] | None) -> Survey:
        """Return the partitions of some subscriptions, and the nodes that are alive."""
        nodes: dict[UUID, Row[Any]] = {
            row.id: row
            for row in connection.execute(select(self._nodes).where(self._nodes.c.expires_at > self.dialect.now()))
        }
        statement = select(
            *(column for column in self._table.c if column.key != "moved_at"),
            self._event_dialect.time_column(self._table.c.moved_at).label("moved_at"),
        ).order_by(self._table.c.name, self._table.c.partition)
        if names is not None:
            statement = statement.where(self._table.c.name.in_(list(names)))
        rows: Any = connection.execute(statement).all()
        return Survey(
            [self._record(row, nodes) for row in rows],
            [_node(row) for row in nodes.values()],
        )

    def _record(self, row: Row[Any], nodes: dict[UUID, Row[Any]]) -> PartitionRecord:
        node = nodes.get(row.owner)
        return PartitionRecord(
            row.name,
            row.partition,
            row.partitions,
            row.generation,
            row.epoch,
            row.sequence_number,
            PartitionState(row.status),
            None if row.owner is None else UUID(bytes=row.owner.bytes),
            None if node is None else node.name,
            node is None,
            row.drain_to,
            row.next_partitions,
            row.handled,
            row.events_per_s,
            _read_time(self._event_dialect.read_time, row.moved_at),
            row.last_error,
        )

    def take(self, connection: Connection, node: UUID, record: PartitionRecord) -> Lease | None:
        """Take a partition that is free; None if it is no longer free, or whoever holds it is still at it."""
        c = self._table.c
        alive = exists().where(self._nodes.c.id == c.owner, self._nodes.c.expires_at > self.dialect.now())
        free = and_(
            c.name == record.name,
            c.partition == record.partition,
            c.epoch == record.epoch,
            c.status == PartitionState.RUNNING.value,
            or_(c.owner.is_(None), ~alive),
        )
        statement = select(c.name, c.partition).where(free).with_for_update(skip_locked=True)
        if connection.execute(statement).first() is None:
            return None
        connection.execute(update(self._table).where(self._is(record)).values(owner=node, epoch=c.epoch + 1))
        return self._lease(connection, self._is(record))

    def renewed(self, connection: Connection, lease: Lease) -> Lease | None:
        """Return a lease as it is stored now; None if it is lost."""
        return self._lease(connection, and_(self._is(lease), self._table.c.epoch == lease.epoch))

    def _lease(self, connection: Connection, condition: ColumnElement[bool]) -> Lease | None:
        c, events = self._table.c, self._events.c
        found = select(events.id).where(events.sequence_number == c.event_number).scalar_subquery()
        parked = exists().where(self._streams.c.subscription == c.name)
        row = connection.execute(
            select(self._table, found.label("found"), parked.label("has_parked")).where(condition)
        ).one_or_none()
        if row is None or row.owner is None:
            return None
        behind = row.event_id != row.found or self._event_dialect.last_number(connection) < row.sequence_number
        return Lease(
            row.name,
            row.partition,
            row.partitions,
            row.generation,
            UUID(bytes=row.owner.bytes),
            row.epoch,
            row.sequence_number,
            row.drain_to,
            behind,
            row.has_parked,
        )

    def advance(self, connection: Connection, lease: Lease, advance: Advance) -> bool:
        """Move a checkpoint; return False if the lease is lost, or the checkpoint is elsewhere."""
        parameters = {
            "of_name": lease.name,
            "of_partition": lease.partition,
            "of_epoch": lease.epoch,
            "since": advance.since,
            "to": advance.to,
            "count": advance.handled,
            "rate": advance.events_per_s,
        }
        return connection.execute(self._advance, parameters).rowcount == 1

    @cached_property
    def _advance(self) -> Update:
        c = self._table.c
        to = bindparam("to", type_=c.sequence_number.type)
        return (
            update(self._table)
            .where(
                c.name == bindparam("of_name", type_=c.name.type),
                c.partition == bindparam("of_partition", type_=c.partition.type),
                c.epoch == bindparam("of_epoch", type_=c.epoch.type),
                c.sequence_number == bindparam("since", type_=c.sequence_number.type),
            )
            .values(
                sequence_number=to,
                handled=c.handled + bindparam("count", type_=c.handled.type),
                events_per_s=bindparam("rate", type_=c.events_per_s.type),
                moved_at=self.dialect.now(),
                **self._event_at(to),
            )
        )

    def give_back(self, connection: Connection, lease: Lease, **values: object) -> bool:
        """Give a partition back with other changes, if it is still held; return whether it was."""
        return self._change_held(connection, lease, {"owner": None, "epoch": lease.epoch + 1, **values})

    def note_error(self, connection: Connection, lease: Lease, error: str) -> None:
        """Store an error of a handler that is tried again."""
        self._change_held(connection, lease, {"last_error": error})

    def set_state(self, connection: Connection, name: str, state: PartitionState) -> bool:
        """Pause or resume all partitions of a subscription."""
        self.dialect.limit_waits(connection)
        values: dict[str, Any] = {"status": state.value}
        if state is PartitionState.RUNNING:
            values["last_error"] = None
        return self._change(connection, name, values)

    def move(self, connection: Connection, name: str, sequence_number: int) -> bool:
        """Set the checkpoints of all partitions; a change of their number begins anew."""
        self.dialect.limit_waits(connection)
        values = {
            "sequence_number": sequence_number,
            "drain_to": None,
            "next_partitions": None,
            "moved_at": self.dialect.now(),
            **self._event_at(sequence_number),
        }
        return self._change(connection, name, values)

    def forget(self, connection: Connection, name: str) -> bool:
        """Delete the partitions of a subscription."""
        self.dialect.limit_waits(connection)
        return connection.execute(delete(self._table).where(self._table.c.name == name)).rowcount > 0

    def check_source(self, definition: Definition, row: Row[Any]) -> None:
        """Refuse a subscription that is stored with another source.

        Raises:
            ConfigurationError: If it is.
        """
        if row.source != definition.source:
            raise ConfigurationError(
                f"subscription {definition.name!r} is stored with the source {row.source}, and now reads "
                f"{definition.source}: its checkpoint means something else there. Give it another name, or forget the "
                "stored one first"
            )

    def _change(self, connection: Connection, name: str, values: dict[str, Any]) -> bool:
        c = self._table.c
        changed = update(self._table).where(c.name == name).values(owner=None, epoch=c.epoch + 1, **values)
        return connection.execute(changed).rowcount > 0

    def _change_held(self, connection: Connection, lease: Lease, values: dict[str, Any]) -> bool:
        held = and_(self._is(lease), self._table.c.epoch == lease.epoch)
        return connection.execute(update(self._table).where(held).values(values)).rowcount == 1

    def _is(self, partition: Lease | PartitionRecord) -> ColumnElement[bool]:
        return and_(self._table.c.name == partition.name, self._table.c.partition == partition.partition)


def _node(row: Row[Any]) -> Node:
    return Node(UUID(bytes=row.id.bytes), row.name, frozenset(decode_json(row.subscriptions)))


def _read_time(read: Any, value: Any) -> datetime:
    try:
        moment: datetime = read(value)
    except (ValueError, TypeError, OverflowError):
        # Informative only: other SQL may have changed it.
        return datetime.min.replace(tzinfo=UTC)
    return moment

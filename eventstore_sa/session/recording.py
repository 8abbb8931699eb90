"""`RecordsEvents`: mapped objects that record events, which are published in the transaction that stores the object.

An event is recorded on the object, and published to the object's stream when the session commits, after the flush has given
the object its key. Recording does no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import iscoroutine
from typing import Any, ClassVar

from sqlalchemy import Table, event, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session, object_session
from sqlalchemy.orm.attributes import flag_modified

from eventstore_sa.conditions import NoCondition, position_is
from eventstore_sa.contracts.inline_projections import InlineProjection, combined, typed_projections
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import EventStoreSchema, schema_or_default
from eventstore_sa.persistence.sqlalchemy_internals import is_flushing
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.session.bulk_operations import follow_bulk_operations
from eventstore_sa.session.business_transaction import (
    BusinessTransaction,
    Publish,
    SessionStorage,
    follow_sessions,
)
from eventstore_sa.session.unattached import Unattached, has_kept, keep, kept_in, take
from eventstore_sa.types import AnyNewEvent, EventTypes, NewEvent, StreamIdentifier, with_ambient_metadata

__all__ = ["RecordsEvents"]


class RecordsEvents:
    """A mixin for mapped classes whose objects record events.

    Events recorded on an object in a session are published when the session's transaction commits, and dropped when the
    transaction, or the savepoint in which they were recorded, is rolled back. Events recorded on an object outside of any
    session wait until it is added to one, or merged: then the copy publishes them. Bulk operations refuse to write such an
    object.

    Attributes:
        __event_category__: The category of the objects' streams; by default the name of the mapped table.
        __event_schema__: The event store to publish to; by default the one on the MetaData of the mapped table.
        __event_version__: The name of a mapped integer column that counts the events of the object's stream, from 0.
            `record` increments it, and the commit fails if another transaction has published to the stream meanwhile. By
            default there is no such column, and no condition.
        __event_projections__: Inline projections that are updated with the events; none by default.
        __event_types__: The types of the events, as those of a store: then objects of their classes can be recorded. By
            default there are none, and events are NewEvents.

    Examples:
        >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
        >>> from eventstore_sa import NewEvent
        >>> class Base(DeclarativeBase):
        ...     pass
        >>> class Order(RecordsEvents, Base):
        ...     __tablename__ = "orders"
        ...     id: Mapped[int] = mapped_column(primary_key=True)
        ...     state: Mapped[str] = mapped_column(default="placed")
        ...
        ...     def pay(self) -> None:
        ...         self.state = "paid"
        ...         self.record(NewEvent(name="order-paid", payload=None))
    """

    __event_category__: ClassVar[str | None] = None
    __event_schema__: ClassVar[EventStoreSchema | None] = None
    __event_version__: ClassVar[str | None] = None
    __event_projections__: ClassVar[Sequence[InlineProjection]] = ()
    __event_types__: ClassVar[EventTypes[Any] | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        follow_sessions()
        _follow_into_sessions()

    def record(self, *events: object) -> None:
        """Record events, to be published to the object's stream when its session commits.

        Args:
            events: NewEvents, or objects of the classes of `__event_types__`.

        Raises:
            ConfigurationError: If an argument is no event, or the object's class has no event store.
            SerialisationError: If a payload cannot be converted by its type.
            TransactionError: If the session's transaction accepts no more events.
        """
        new_events = [_new_event(self.__event_types__, event) for event in events]
        session = object_session(self)
        if session is None:
            keep(self).add(*new_events)
            return
        storage = _storage_for(session, self)
        for new in new_events:
            BusinessTransaction.of(session).stage(_Recorded(storage, self, new, flushing=is_flushing(session)))

    def event_stream(self) -> StreamIdentifier:
        """Return the stream of this object; called after the flush. Override it to name streams differently.

        By default the category is `__event_category__`, and the stream is the primary key: its values, joined by ":". An
        override has to return a `StreamIdentifier`; with anything else, such as a str, the commit fails.

        Raises:
            ConfigurationError: If the object has no primary key.
        """
        mapper = _mapper(type(self))
        identity = inspect(self).identity or mapper.primary_key_from_instance(self)
        if None in identity:
            raise ConfigurationError(
                f"{type(self).__name__} object that has recorded events has no primary key at the commit: add it to the "
                "session, or override event_stream()"
            )
        return StreamIdentifier(_category_of(type(self)), ":".join(map(str, identity)))


def _new_event(types: EventTypes[Any] | None, event: object) -> AnyNewEvent:
    if types is not None:
        return types.new_event(event)
    if isinstance(event, NewEvent):
        new: AnyNewEvent = event  # pyright: ignore[reportUnknownVariableType]
        return new
    raise ConfigurationError(
        f"events to record are NewEvents; got {type(event).__name__}: to record objects of event types, set "
        "__event_types__ = EventTypes(...)"
    )


def _storage_for(session: Session, entity: RecordsEvents) -> SessionStorage:
    """Return where an object's events go; check that they can be recorded before anything is changed."""
    kind = type(entity)
    storages = BusinessTransaction.of(session).storages
    storage = storages.get(kind)
    if storage is None:
        schema = schema_or_default(kind.__event_schema__ or _only_schema(kind))
        projections = typed_projections(kind.__event_projections__, kind.__event_types__)
        storage = storages[kind] = SessionStorage.of_schema(session, schema, combined(projections))
    storage.check_accepts_events()
    return storage


class _Recorded(Publish):
    """An event that an object has recorded; its stream is known once a flush has given the object its key."""

    def __init__(
        self,
        storage: SessionStorage,
        entity: RecordsEvents,
        event: AnyNewEvent,
        *,
        flushing: bool,
        kept: Unattached | None = None,
    ) -> None:
        """Take an event, and count it in the object's version.

        Args:
            storage: Where it goes.
            entity: The object.
            event: The event.
            flushing: Whether a flush is under way.
            kept: Where the event was kept while the object was in no session.
        """
        super().__init__(storage, subject=entity)
        self._entity = entity
        self._recorded = event
        self._event = with_ambient_metadata(event)
        self._kept = kept
        self._version = entity.__event_version__
        self._count = 0
        if self._version is not None:
            self._count = getattr(entity, self._version) or 0
            setattr(entity, self._version, self._count + 1)
        # A flush takes what is set while it runs for what the database has.
        self._restates_version = flushing

    def parts(self) -> Sequence[StreamPublication]:
        condition = NoCondition() if self._version is None else position_is(self._count - 1 if self._count else None)
        return (StreamPublication(_stream_of(self._entity), (self._event,), condition),)

    def before_flush(self) -> None:
        restates, self._restates_version = self._restates_version, False
        if restates and self._version is not None and inspect(self._entity).persistent:
            flag_modified(self._entity, self._version)

    def drop(self) -> None:
        super().drop()
        entity, kept = self._entity, self._kept
        # An object that is new again may be added again, and a merge be repeated: then the events have to be there.
        if inspect(entity).transient:
            keep(entity, kept).add(self._recorded)
            if self._version is not None:
                setattr(entity, self._version, min(getattr(entity, self._version), self._count))
        elif kept is not None:
            kept.add(self._recorded)


def _stream_of(entity: RecordsEvents) -> StreamIdentifier:
    stream: object = entity.event_stream()
    if isinstance(stream, StreamIdentifier):
        return stream
    if iscoroutine(stream):
        stream.close()
    wanted = f"a value of type {type(stream).__name__}: return a StreamIdentifier"
    if isinstance(stream, str):
        wanted = f"the str {stream!r}: return StreamIdentifier({_category_of(type(entity))!r}, {stream!r})"
    raise ConfigurationError(
        f"{type(entity).__name__}.event_stream() returned {wanted}. Nothing was stored: roll the session back"
    )


def _category_of(entity: type[RecordsEvents]) -> str:
    return entity.__event_category__ or str(_mapper(entity).local_table.description)


def _only_schema(entity: type[RecordsEvents]) -> EventStoreSchema:
    table = _mapper(entity).local_table
    schemas = EventStoreSchema.all_on(table.metadata) if isinstance(table, Table) else ()
    if len(schemas) != 1:
        how_many = "is no event store" if not schemas else f"are {len(schemas)} event stores"
        raise ConfigurationError(
            f"there {how_many} on the MetaData of {entity.__name__}: create one with EventStoreSchema(Base.metadata), or "
            f"set {entity.__name__}.__event_schema__"
        )
    return schemas[0]


def _mapper(entity: type[RecordsEvents]) -> Mapper[Any]:
    mapper: Mapper[Any] | None = inspect(entity, raiseerr=False)
    if mapper is None:
        raise ConfigurationError(f"{entity.__name__} records events, but is not mapped")
    return mapper


def _follow_into_sessions() -> None:
    if not event.contains(Session, "after_attach", _after_attach):
        event.listen(Session, "after_attach", _after_attach)
        event.listen(Session, "before_commit", _stage_merged)
        # At the commit alone would be too late: a session forgets what is flushed, and a savepoint may be rolled back.
        event.listen(Session, "before_flush", _stage_merged)
        event.listen(Session, "after_flush", _stage_merged)
        event.listen(Session, "after_rollback", _forget_merged)
        event.listen(Session, "pending_to_transient", _take_back)
    follow_bulk_operations()


def _after_attach(session: Session, instance: object) -> None:
    if isinstance(instance, RecordsEvents):
        _stage_kept(session, instance)


def _take_back(session: Session, instance: object) -> None:
    # It was expunged before it was stored. When a rollback makes it new again, its events are dropped with the rest.
    transaction = BusinessTransaction.find(session) if isinstance(instance, RecordsEvents) else None
    if transaction is not None:
        transaction.withdraw(instance)


def _stage_merged(session: Session, *_: object) -> None:
    """Stage the events of objects that were merged: the only sign of a merge is what it has copied."""
    for instance in kept_in(session):
        if isinstance(instance, RecordsEvents):
            _stage_kept(session, instance)


def _forget_merged(session: Session) -> None:
    """Leave events with the object on which they were recorded, where the rollback undoes its merge."""
    for instance in kept_in(session):
        take(inspect(instance, raiseerr=True))


def _stage_kept(session: Session, instance: RecordsEvents) -> None:
    state: InstanceState[Any] = inspect(instance)
    if not has_kept(state):
        return
    storage = _storage_for(session, instance)
    kept = take(state)
    events = () if kept is None else kept.take()
    for staged, new in enumerate(events, start=1):
        try:
            recorded = _Recorded(storage, instance, new, flushing=is_flushing(session), kept=kept)
            BusinessTransaction.of(session).stage(recorded)
        except BaseException:
            # This one is staged nevertheless: only writing it has failed.
            keep(instance, kept).add(*events[staged:])
            raise

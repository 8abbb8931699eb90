"""`RecordsEvents`: entities that record events, published in the transaction that stores the entity.

An event is recorded on the entity and published to the entity's stream when the session commits, after the flush has given
the entity its key. Recording does no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import iscoroutine
from typing import Any, ClassVar

from sqlalchemy import Table, event, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session, object_session
from sqlalchemy.orm.attributes import flag_modified

from eventstore_sa.conditions import NoCondition, WriteCondition, position_is
from eventstore_sa.contracts.inline_projections import InlineProjection, combined
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.sqlalchemy_internals import is_flushing
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.session.hooks import follow_sessions, staged_in
from eventstore_sa.session.hosted import SessionStorage
from eventstore_sa.session.unattached import Unattached, follow_bulk_operations, has_kept, keep, kept_in, take
from eventstore_sa.types import AnyNewEvent, NewEvent, StreamIdentifier, with_ambient_metadata

__all__ = ["RecordsEvents"]


class RecordsEvents:
    """A mixin for mapped classes whose objects record events.

    What is recorded on an object of a session is published when the session's transaction commits, and dropped when it, or
    the savepoint in which it was recorded, is rolled back. What is recorded on an object that is in no session waits until
    it is added to one, or merged: then the copy publishes it. Bulk operations refuse to write such an object.

    Attributes:
        __event_category__: The category of the objects' streams; by default the name of the mapped table.
        __event_schema__: The event store to publish to; by default the one on the MetaData of the mapped table.
        __event_version__: The name of a mapped integer column that counts the events of the object's stream, from 0.
            `record` advances it, and the publish demands that nobody else has published to the stream meanwhile. None:
            there is no such column, and no condition.
        __event_projections__: Inline projections that are updated with the events; none by default.

    Example:
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

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        follow_sessions()
        _follow_into_sessions()

    def record(self, *events: AnyNewEvent) -> None:
        """Record events, to be published to the object's stream when its session commits.

        Raises:
            ConfigurationError: Something else than a NewEvent is given.
        """
        for new in events:
            checked: object = new
            if not isinstance(checked, NewEvent):
                raise ConfigurationError(f"events to record are NewEvents; got a {type(checked).__name__}")
        session = object_session(self)
        if session is None:
            keep(self).add(*events)
            return
        storage = _storage_for(session, self)
        for new in events:
            _stage(storage, session, self, new)

    def event_stream(self) -> StreamIdentifier:
        """Return the stream of this object; called after the flush. Override it for other names.

        By default the category is `__event_category__`, and the stream is the primary key: its values, joined by ":". An
        override returns a `StreamIdentifier` too; anything else, such as a str, makes the commit fail.

        Raises:
            ConfigurationError: The object has no primary key.
        """
        mapper = _mapper(type(self))
        identity = inspect(self).identity or mapper.primary_key_from_instance(self)
        if None in identity:
            raise ConfigurationError(
                f"a {type(self).__name__} that has recorded events has no primary key at the commit: add it to the "
                "session, or override event_stream()"
            )
        return StreamIdentifier(_category_of(type(self)), ":".join(map(str, identity)))


def _storage_for(session: Session, entity: RecordsEvents) -> SessionStorage:
    """Return where an object's events go; whatever keeps them from being recorded is found before anything is changed."""
    schema = entity.__event_schema__ or _only_schema(type(entity))
    storage = SessionStorage.of_schema(session, schema, combined(entity.__event_projections__))
    storage.check_takes_events()
    return storage


def _stage(
    storage: SessionStorage,
    session: Session,
    entity: RecordsEvents,
    new: AnyNewEvent,
    *,
    kept_in: Unattached | None = None,
) -> None:
    condition: WriteCondition = NoCondition()
    column, count = entity.__event_version__, 0
    if column is not None:
        count = getattr(entity, column) or 0
        condition = position_is(count - 1 if count else None)
        setattr(entity, column, count + 1)

    published = with_ambient_metadata(new)

    def parts() -> tuple[StreamPublication, ...]:
        return (StreamPublication(_stream_of(entity), (published,), condition),)

    def give_back() -> None:
        # An object that is new again may be added again, and a merge be repeated: then the events have to be there.
        if inspect(entity).transient:
            keep(entity, kept_in).add(new)
            if column is not None:
                setattr(entity, column, min(getattr(entity, column), count))
        elif kept_in is not None:
            kept_in.add(new)

    def restate_version() -> None:
        # A flush takes what is set while it runs for what the database has.
        if column is not None and inspect(entity).persistent:
            flag_modified(entity, column)

    storage.record(
        parts,
        before_write=restate_version if column is not None and is_flushing(session) else None,
        on_drop=give_back,
        subject=entity,
    )


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
        how_many = "no event store" if not schemas else f"{len(schemas)} event stores"
        raise ConfigurationError(
            f"there is {how_many} on the MetaData of {entity.__name__}: make one there with "
            f"EventStoreSchema(Base.metadata), or name it in {entity.__name__}.__event_schema__"
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
        event.listen(Session, "before_flush", _around_flush)
        event.listen(Session, "after_flush", _around_flush)
        event.listen(Session, "after_rollback", _forget_merged)
        event.listen(Session, "pending_to_transient", _take_back)
    follow_bulk_operations()


def _after_attach(session: Session, instance: object) -> None:
    if isinstance(instance, RecordsEvents):
        _stage_kept(session, instance)


def _take_back(session: Session, instance: object) -> None:
    # It was expunged before it was stored. Where a rollback has made it new again, its events are dropped with the rest.
    staging = staged_in(session) if isinstance(instance, RecordsEvents) else None
    if staging is not None:
        staging.withdraw(instance)


def _around_flush(session: Session, *_: object) -> None:
    # At the commit would be too late: a session forgets what is flushed, and a savepoint may be rolled back.
    _stage_merged(session)


def _stage_merged(session: Session) -> None:
    """Stage the events of objects that were merged: nothing tells of a merge but what it has copied."""
    for instance in kept_in(session):
        if isinstance(instance, RecordsEvents):
            _stage_kept(session, instance)


def _forget_merged(session: Session) -> None:
    """Leave events with the object that they were recorded on, where the rollback undoes its merge."""
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
            _stage(storage, session, instance, new, kept_in=kept)
        except BaseException:
            # This one is staged all the same: writing it has failed.
            keep(instance, kept).add(*events[staged:])
            raise

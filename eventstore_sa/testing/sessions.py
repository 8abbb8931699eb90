"""What a session has staged and published; and sessions without a database, for tests of functions that stage."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from itertools import count
from typing import Any, Final, NoReturn, TypeVar, cast, overload

from msgspec import Struct
from sqlalchemy import Column, create_engine, event, inspect
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import InstanceState, Mapper, Session, scoped_session

from eventstore_sa.conditions import WriteCondition
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.publishing import stored_events
from eventstore_sa.session.business_transaction import KIND, BusinessTransaction, Publish
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent, StreamIdentifier

__all__ = ["FakeAsyncSession", "FakeSession", "StagedEvent", "published_in", "staged_in"]

Entity = TypeVar("Entity")


class StagedEvent(Struct, frozen=True):
    """An event that a session will store when it commits.

    Attributes:
        category: The category of the stream that it is staged for.
        stream: The name of that stream.
        event: The event.
        condition: The condition that the stream must meet.
    """

    category: str
    stream: str
    event: AnyNewEvent
    condition: WriteCondition

    @property
    def name(self) -> Any:
        """The name of the event."""
        return self.event.name

    @property
    def payload(self) -> Any:
        """The payload of the event."""
        return self.event.payload

    @property
    def metadata(self) -> Any:
        """The metadata of the event."""
        return self.event.metadata


def staged_in(
    session: Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any],
) -> Sequence[StagedEvent]:
    """Return the events that are staged in a session, or recorded on its objects, and not stored yet; no I/O.

    Args:
        session: The session.

    Returns:
        The events in the order of staging; none once they were stored by a commit or a flush of the store.

    Raises:
        ConfigurationError: If an object that has recorded events has no primary key yet: flush the session first.
    """
    transaction = BusinessTransaction.find(_plain(session))
    publishes = () if transaction is None else transaction.staged
    return [
        StagedEvent(part.stream.category, part.stream.stream, staged, part.condition)
        for publish in publishes
        for part in publish.parts()
        for staged in part.events
    ]


@overload
def published_in(
    session: Session | scoped_session[Any], *, schema: EventStoreSchema | None = None
) -> Sequence[AnyStoredEvent]: ...
@overload
def published_in(
    session: AsyncSession | async_scoped_session[Any], *, schema: EventStoreSchema | None = None
) -> Awaitable[Sequence[AnyStoredEvent]]: ...
def published_in(
    session: Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any],
    *,
    schema: EventStoreSchema | None = None,
) -> Sequence[AnyStoredEvent] | Awaitable[Sequence[AnyStoredEvent]]:
    """Return the events that the transaction of a session sees, its own uncommitted ones included.

    If the test began with an empty store, that is everything that was published in it: at once, by a commit, or by a flush
    of the store. What is only staged is not included; see `staged_in`.

    Args:
        session: The session; with an asyncio session, the call returns an awaitable.
        schema: The tables; by default those of `EventStoreSchema()`. Not needed for a `FakeSession`.

    Returns:
        The events in the order of the log.
    """
    plain = _plain(session)
    if isinstance(session, AsyncSession | async_scoped_session):
        if isinstance(plain, FakeSession):
            return _awaitable(plain.published)
        return EventStore(session, schema=schema).log().read()
    return plain.published if isinstance(plain, FakeSession) else SyncEventStore(plain, schema=schema).log().read()


class FakeSession(Session):
    """A session without a database, for unit tests of functions that change objects and stage events.

    It keeps the objects that are added to it, numbers those whose primary key is a single integer when it is flushed,
    and finds them by `get`. What is staged, or recorded on its objects, follows commits, rollbacks and savepoints as in
    any session; committed events get positions from 0 in each stream, and numbers from 1. Whatever needs SQL raises
    ConfigurationError: queries, and events that are published at once. Conditions are not checked, projections not updated,
    and a rollback does not restore objects.

    Args:
        objects: Objects that exist from the start.

    Examples:
        >>> from eventstore_sa import NewEvent, SyncEventStore
        >>> store, session = SyncEventStore("sqlite://"), FakeSession()
        >>> def place_order(session, number):
        ...     stream = store.within(session).stream(category="orders", stream=number)
        ...     stream.stage(events=[NewEvent(name="order-placed", payload=None)])
        >>> place_order(session, "42")
        >>> [event.name for event in staged_in(session)]
        ['order-placed']
    """

    def __init__(self, objects: Iterable[object] = (), **_: Any) -> None:
        engine = create_engine("sqlite://", creator=_refuse)
        super().__init__(engine, autoflush=False, expire_on_commit=False, info={KIND: _FakeTransaction})
        self._numbers = count(1)
        self._committed: dict[int, object] = {}  # by identity, since objects need not be hashable
        self._written: dict[Publish, None] = {}
        event.listen(self, "before_commit", FakeSession.flush)
        event.listen(self, "after_commit", FakeSession._keep)
        self.add_all(objects)
        self.commit()

    @property
    def published(self) -> Sequence[AnyStoredEvent]:
        """The events that were committed, or that a flush of the store has stored in the open transaction."""
        lasting = [publish for publish in self._written if publish.committed or (publish.owner and publish.written_in)]
        return [stored for publish in lasting for result in publish.results for stored in result]

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        """Give new objects what a flush would: numbers as primary keys, and the defaults of columns that Python knows."""
        for instance in self.new:
            state: InstanceState[Any] = inspect(instance)
            mapper, values = state.mapper, state.dict
            for attribute in mapper.column_attrs:
                columns = [column for column in attribute.columns if isinstance(column, Column)]
                value = values.get(attribute.key)
                if value is None and any(column is column.table.autoincrement_column for column in columns):
                    setattr(instance, attribute.key, self._unused_number(mapper.base_mapper.class_))
                elif attribute.key not in values and columns and columns[0].default is not None:
                    self._set_default(instance, attribute.key, columns[0].default)

    def refresh(self, instance: object, *_: Any, **__: Any) -> None:
        """Do nothing: there is nothing newer than the object."""

    def get(self, entity: type[Entity], ident: Any, **_: Any) -> Entity | None:  # type: ignore[override]
        """Return the object of a class with a primary key, or None if there is none among those that were added."""
        found = self._find(entity, ident)
        if found is not None:
            # A rollback removes all objects; those that were committed are still there.
            self.add(found)
        return found

    def get_one(self, entity: type[Entity], ident: Any, **_: Any) -> Entity:  # type: ignore[override]
        """Return the object of a class with a primary key.

        Raises:
            NoResultFound: If there is none among those that were added.
        """
        found = self.get(entity, ident)
        if found is None:
            raise NoResultFound(f"this FakeSession was given no {entity.__name__} with the primary key {ident!r}")
        return found

    def delete(self, instance: object) -> None:
        """Forget an object."""
        self._committed.pop(id(instance), None)
        self.expunge(instance)

    def take(self, publish: Publish) -> None:
        """Give the events of a publish their places behind those that are there; for the business transaction."""
        # A savepoint in which it was written before may have been rolled back.
        self._written.pop(publish, None)
        results: list[list[AnyStoredEvent]] = []
        for part in publish.parts():
            before = [*self.published, *(stored for result in results for stored in result)]
            streams = [StreamIdentifier(stored.category, stored.stream) for stored in before]
            number = len(before) + 1
            numbers = range(number, number + len(part.events))
            results.append(stored_events(part, first_position=streams.count(part.stream), sequence_numbers=numbers))
        publish.results = results
        publish.written_in = self.get_nested_transaction() or self.get_transaction()
        self._written[publish] = None

    def _find(self, entity: type[Entity], ident: Any) -> Entity | None:
        mapper: Mapper[Any] = inspect(entity)
        if not isinstance(ident, tuple):
            ident = (ident,)
        for instance in (self._committed | _by_identity(self.new)).values():
            if isinstance(instance, entity) and tuple(mapper.primary_key_from_instance(instance)) == ident:
                return instance
        return None

    def _unused_number(self, entity: type[Any]) -> int:
        return next(number for number in self._numbers if self._find(entity, number) is None)

    def _set_default(self, instance: object, key: str, default: Any) -> None:
        if default.is_scalar:
            setattr(instance, key, default.arg)
        elif default.is_callable:
            setattr(instance, key, default.arg(None))

    def _keep(self) -> None:
        if not self.in_nested_transaction():
            self._committed |= _by_identity(self.new)

    def _is_clean(self) -> bool:
        # Otherwise a commit would flush until no object is new any more.
        return True


class _FakeTransaction(BusinessTransaction):
    """What waits for the commit of a session that has no database to write it to."""

    def __init__(self, session: FakeSession) -> None:
        super().__init__(session)
        self._fake = session

    def write(self) -> None:
        self._fake.flush()
        for publish in self.staged:
            self._fake.take(publish)


class FakeAsyncSession(AsyncSession):
    """The twin of `FakeSession` for asyncio.

    Args:
        objects: Objects that exist from the start.
    """

    sync_session_class: type[Session] = FakeSession

    def __init__(self, objects: Iterable[object] = ()) -> None:
        super().__init__(objects=objects)
        bind: Any = self.sync_session.bind
        # So that functions that wait for a commit may be coroutine functions.
        bind.dialect.is_async = True


_NO_DATABASE: Final = (
    "this session has no database: a FakeSession stages events and keeps objects, but runs no SQL and publishes nothing at "
    "once; test this with a session on the fixture eventstore_sa_sqlite_engine"
)


def _refuse() -> NoReturn:
    raise ConfigurationError(_NO_DATABASE)


def _by_identity(objects: Iterable[object]) -> dict[int, object]:
    return {id(each): each for each in objects}


async def _awaitable(events: Sequence[AnyStoredEvent]) -> Sequence[AnyStoredEvent]:
    return events


def _plain(session: Any) -> Session:
    """Return the synchronous session behind any kind of session.

    Raises:
        ConfigurationError: If it is not a session.
    """
    # Not isinstance, which takes a mock with the spec of a session for one.
    found = session() if issubclass(type(session), scoped_session | async_scoped_session) else session
    plain = found.sync_session if issubclass(type(found), AsyncSession) else found
    if issubclass(type(plain), Session):
        return cast("Session", plain)
    raise ConfigurationError(
        f"a session is needed; got {type(session).__name__}: a mock is none, use FakeSession or FakeAsyncSession"
    )

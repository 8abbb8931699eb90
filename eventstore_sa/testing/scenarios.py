"""`given(events).when(...).then(...)`: what projectors, decisions, handlers and table projections make of events.

Nothing is published and no store is needed. `when` runs the code at once, so what it raises is tested by `pytest.raises`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from difflib import unified_diff
from functools import partial
from inspect import isawaitable
from itertools import zip_longest
from typing import Any, Final, Generic, TypeAlias, TypeGuard, TypeVar, cast, overload

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Table, create_engine, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.pool import StaticPool

from eventstore_sa.conditions import NoCondition
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection import Projector, TableProjection
from eventstore_sa.projection.table import mapped_class_of
from eventstore_sa.publishing import StreamPublication, as_read, own_copy, stored_events
from eventstore_sa.store.adapters.event_contract import belongs_to
from eventstore_sa.store.deciding import Publishes
from eventstore_sa.subscriptions import Subscription, SyncSubscription
from eventstore_sa.testing.matching import ExpectedEvent, described, json_text, matcher_of
from eventstore_sa.types import (
    AnyNewEvent,
    AnyStoredEvent,
    EventQuery,
    EventTypes,
    NewEvent,
    StoredEvent,
    StreamIdentifier,
    uuid7,
)
from eventstore_sa.types.event_declaration import declared

__all__ = ["Decided", "Given", "Result", "Rows", "given"]

State = TypeVar("State")
Value = TypeVar("Value")

AnyProjector: TypeAlias = Projector[Any, Any, Any]

_SINGLE: Final = ""
_STREAM: Final = StreamIdentifier("given", "given")


class Result(Struct, Generic[Value], frozen=True):
    """What came out: a state, or what a handler returned for each event.

    Attributes:
        value: The same.
    """

    value: Value

    def then(self, expected: Value) -> None:
        """Check that the value is equal to the expected one.

        Raises:
            AssertionError: If it is not; the message shows both as JSON, line by line.
        """
        __tracebackhide__ = True
        if self.value != expected:
            raise AssertionError(f"the result is not the expected one\n{_difference(expected, self.value)}")


class Decided(Struct, frozen=True):
    """What was decided: the events that would be published.

    Attributes:
        events: The same.
    """

    events: Sequence[AnyNewEvent]

    def then(self, expected: Sequence[ExpectedEvent]) -> None:
        """Check that exactly these events were decided, in this order.

        Args:
            expected: Names, `matching(...)`, events, whose names, payloads and metadata are compared, or objects of event
                types.

        Raises:
            AssertionError: If they are not; the message shows how they differ.
        """
        __tracebackhide__ = True
        matchers = [matcher_of(each) for each in expected]
        lines: list[str] = []
        for number, (matcher, event) in enumerate(zip_longest(matchers, self.events), start=1):
            if matcher is None:
                lines.append(f"  {number}. is not expected")
            elif event is None:
                lines.append(f"  {number}. is missing: {matcher!r}")
            else:
                lines += [f"  {number}. {difference}" for difference in matcher.differences(event)]
        if lines:
            raise AssertionError(
                "\n".join(["the events are not the expected ones:", *lines, "the events are:", described(self.events)])
            )


class Rows(Struct, frozen=True):
    """The rows of a table projection, by primary key.

    Attributes:
        rows: Each as a mapping of its mapped columns.
    """

    rows: Sequence[Mapping[str, Any]]

    def then(self, expected: Sequence[object]) -> None:
        """Check that there are exactly these rows, by primary key.

        Args:
            expected: New objects of the mapped class, or mappings; only what is set in them is compared.

        Raises:
            AssertionError: If there are others; the message shows the rows as JSON, line by line.
        """
        __tracebackhide__ = True
        wanted = [_columns_set(each) for each in expected]
        # What is not expected is not shown, so that every line of the difference counts.
        compared = [
            {key: row[key] for key in wanted[number] if key in row} if number < len(wanted) else dict(row)
            for number, row in enumerate(self.rows)
        ]
        if compared != wanted:
            raise AssertionError(f"the rows are not the expected ones\n{_difference(wanted, compared)}")


class Given(Struct, frozen=True):
    """Events that have happened.

    Attributes:
        events: The events, as a read returns them.
    """

    events: tuple[AnyStoredEvent, ...] = ()

    def given(
        self,
        events: Sequence[object] = (),
        *,
        stream: StreamIdentifier = _STREAM,
        types: EventTypes[Any] | None = None,
    ) -> Given:
        """Add events that happened later, perhaps in another stream; see the function `given`."""
        happened = list(self.events)
        for event in events:
            if isinstance(event, StoredEvent):
                happened.append(cast("AnyStoredEvent", event))  # type: ignore[redundant-cast] # for pyright
                continue
            stored = _stored(_new_event(event, types), stream, happened)
            read = stored if types is None else types.read(stored)
            if read is not None:
                happened.append(read)
        return Given(tuple(happened))

    @overload
    def when(self, subject: Projector[Any, State, Any]) -> Result[State]: ...
    @overload
    def when(self, subject: Projector[Any, State, Any], decide: Callable[[State], Sequence[object]]) -> Decided: ...
    @overload
    def when(self, subject: TableProjection, *, session: Session | None = None) -> Rows: ...
    @overload
    def when(self, subject: SyncSubscription, *, session: Session | None = None) -> Result[list[Any]]: ...
    @overload
    def when(self, subject: Callable[[AnyStoredEvent], Value]) -> Result[list[Value]]: ...
    def when(self, subject: Any, decide: Any = None, *, session: Session | None = None) -> Result[Any] | Decided | Rows:
        """Run what is tested.

        Args:
            subject: A projector: its state after the events. A table projection: its rows after them. Any other function:
                a handler, which is called with each event, in order. A subscription: its handler is called with those
                events, or lists of them, that its source would yield.
            decide: With a projector: a function of its state that returns new events, as for `stream.update`.
            session: With a table projection: the session to use, on a database with its tables. By default it is one on a
                new SQLite database in memory, with nothing but the table of the projection. With a subscription: the
                session that its handler gets.

        Returns:
            What came of it; call its `then` with what is expected.

        Raises:
            ConfigurationError: If a function is a coroutine function: use `when_async`.
            Exception: Whatever the code raises.
        """
        if isinstance(subject, TableProjection):
            return self._rows(subject, session)
        if isinstance(subject, Subscription | SyncSubscription):
            return Result([_at_once(call()) for call in self._handed_over(subject, session)])
        if _is_projector(subject):
            state, _ = subject.reduce_sync(events=self._copies(), **_beginning(subject))
            return Result(state) if decide is None else _decided(_at_once(decide(state)))
        return Result([_at_once(subject(event)) for event in self._copies()])

    @overload
    async def when_async(self, subject: Projector[Any, State, Any]) -> Result[State]: ...
    @overload
    async def when_async(
        self,
        subject: Projector[Any, State, Any],
        decide: Callable[[State], Sequence[object] | Awaitable[Sequence[object]]],
    ) -> Decided: ...
    @overload
    async def when_async(self, subject: Subscription, *, session: AsyncSession | None = None) -> Result[list[Any]]: ...
    @overload
    async def when_async(self, subject: Callable[[AnyStoredEvent], Awaitable[Value]]) -> Result[list[Value]]: ...
    async def when_async(
        self, subject: Any, decide: Any = None, *, session: AsyncSession | None = None
    ) -> Result[Any] | Decided:
        """Run what is tested and awaits something: the twin of `when` for coroutine functions."""
        if isinstance(subject, Subscription | SyncSubscription):
            return Result([await _awaited(call()) for call in self._handed_over(subject, session)])
        if _is_projector(subject):
            state, _ = await subject.reduce(events=self._copies(), **_beginning(subject))
            return Result(state) if decide is None else _decided(await _awaited(decide(state)))
        return Result([await _awaited(subject(event)) for event in self._copies()])

    @overload
    def when_deciding(self, query: EventQuery, projector: Projector[Any, State, Any]) -> Result[State]: ...
    @overload
    def when_deciding(
        self,
        query: EventQuery,
        projector: Projector[Any, State, Any],
        *,
        decide: Callable[[State], Publishes],
    ) -> Decided: ...
    @overload
    def when_deciding(self, query: Mapping[str, tuple[EventQuery, AnyProjector]]) -> Result[dict[str, Any]]: ...
    @overload
    def when_deciding(
        self,
        query: Mapping[str, tuple[EventQuery, AnyProjector]],
        *,
        decide: Callable[[dict[str, Any]], Publishes],
    ) -> Decided: ...
    def when_deciding(
        self,
        query: EventQuery | Mapping[str, tuple[EventQuery, AnyProjector]],
        projector: AnyProjector | None = None,
        *,
        decide: Any = None,
    ) -> Result[Any] | Decided:
        """Decide on the events that queries choose; takes what `store.update_decision` takes.

        Args:
            query: A query; or models by name, `{"course": (query, projector), ...}`.
            projector: With a single query: makes the state from its events.
            decide: Takes the state, or the dict of states, and returns the events for each stream, or a list of events
                whose types declare their streams. None: only the state is made.

        Returns:
            The decided events, in the order of their streams; without `decide`, the state.

        Raises:
            ConfigurationError: If it is not a query and a projector, or a dict of these.
            Exception: Whatever the code raises.
        """
        models, is_single = _models(query, projector)
        states = {
            name: each.reduce_sync(events=self._matching(of_model), **_beginning(each))[0]
            for name, (of_model, each) in models.items()
        }
        state = states[_SINGLE] if is_single else states
        return Result(state) if decide is None else _decided(_flattened(_at_once(decide(state))))

    async def when_deciding_async(
        self,
        query: EventQuery | Mapping[str, tuple[EventQuery, AnyProjector]],
        projector: AnyProjector | None = None,
        *,
        decide: Callable[[Any], Publishes | Awaitable[Publishes]],
    ) -> Decided:
        """Decide on the events that queries choose, where something is awaited: the twin of `when_deciding`."""
        models, is_single = _models(query, projector)
        states: dict[str, Any] = {}
        for name, (of_model, each) in models.items():
            states[name], _ = await each.reduce(events=self._matching(of_model), **_beginning(each))
        return _decided(_flattened(await _awaited(decide(states[_SINGLE] if is_single else states))))

    def _matching(self, query: EventQuery) -> list[AnyStoredEvent]:
        return [event for event in self._copies() if query.met_by(event=event)]

    def _handed_over(self, subscription: Subscription | SyncSubscription, session: object) -> list[Callable[[], Any]]:
        """Return the calls of a subscription's handler."""
        work, how = subscription.work, subscription.work.handling
        if how.needs_session and session is None:
            raise ConfigurationError(
                f"the handler of subscription {subscription.name!r} needs a session: pass session=, on a database with its "
                "tables"
            )
        target, constraints = work.source.part(0, 1)
        types = work.source.types
        events: list[AnyStoredEvent] = []
        for event in self._copies():
            if belongs_to(event, target) and all(each.met_by(event=event) for each in constraints):
                is_read = how.read is None or (types is not None and type(event.payload) in types.classes)
                read = event if is_read or how.read is None else how.read(event)
                if read is not None:
                    events.append(read)
        if how.per_batch:
            return [partial(how.call, events, session)] if events else []
        return [partial(how.call, event, session) for event in events]

    def _copies(self) -> list[AnyStoredEvent]:
        """Return the events for one consumer, which may change the payloads: what is given may be used again."""
        return [own_copy(event) for event in self.events]

    def _rows(self, projection: TableProjection, given: Session | None) -> Rows:
        kind = mapped_class_of(projection)
        if kind is Session:
            raise ConfigurationError(
                f"{type(projection).__name__} works on a session and not on rows: call its `apply` on a session with "
                "`given(...).events`, and look at what it has changed there"
            )
        mapper: Mapper[Any] = inspect(kind)
        with _database_of(mapper) if given is None else nullcontext(given) as session:
            projection.apply(session, self._copies())
            found = session.scalars(select(kind).order_by(*mapper.primary_key))
            return Rows([{key: getattr(row, key) for key in mapper.column_attrs.keys()} for row in found])  # noqa: SIM118


def given(
    events: Sequence[object] = (),
    *,
    stream: StreamIdentifier = _STREAM,
    types: EventTypes[Any] | None = None,
) -> Given:
    """Begin a test with events that have happened.

    Args:
        events: Oldest first. New events become events of `stream`, with the next position and sequence number, and
            with payload and metadata as JSON, as a read returns them. One that is given again gets another id. Stored events
            stay as they are.
        stream: The stream of the new events.
        types: The event types of the store. Then the events may be objects of their classes, and are read as a store with
            these types reads them. A new event whose payload is plain JSON stands for one that was stored long ago, in the
            version that it says: it is brought up to date.

    Returns:
        What has happened; call its `when`.

    Raises:
        ConfigurationError: If these are not events.
        SerialisationError: If an event could not be stored.
        UnreadableEventError: If an event cannot be read with these types.

    Examples:
        >>> from eventstore_sa import NewEvent
        >>> placed = NewEvent(name="order-placed", payload={"total": 12})
        >>> given([placed]).when(lambda event: event.payload["total"]).then([12])
    """
    return Given().given(events, stream=stream, types=types)


def _new_event(given: object, types: EventTypes[Any] | None) -> AnyNewEvent:
    if isinstance(given, NewEvent):
        new = cast("AnyNewEvent", given)  # type: ignore[redundant-cast] # for pyright
        # Otherwise it is as it was stored, perhaps by old code.
        return types.new_event(new) if types is not None and type(new.payload) in types.classes else new
    if types is not None:
        return types.new_event(given)
    raise ConfigurationError(
        f"what is given are NewEvents or StoredEvents; got {type(given).__name__}: pass types=EventTypes(...) for objects "
        "of event types"
    )


def _stored(event: AnyNewEvent, stream: StreamIdentifier, before: Sequence[AnyStoredEvent]) -> AnyStoredEvent:
    publication = StreamPublication(stream, (event,), NoCondition())
    positions = [each.position for each in before if (each.category, each.stream) == (stream.category, stream.stream)]
    number = max((each.sequence_number for each in before), default=0) + 1
    (stored,) = stored_events(publication, first_position=max(positions, default=-1) + 1, sequence_numbers=[number])
    read = as_read(stored, publication.prepared[0])
    return replace(read, id=uuid7()) if any(each.id == event.id for each in before) else read


def _is_projector(subject: Any) -> TypeGuard[Projector[Any, Any, Any]]:
    return isinstance(subject, Projector)


def _beginning(projector: Projector[Any, Any, Any]) -> dict[str, Any]:
    return {"state": projector.initial_state_factory(), "metadata": projector.initial_metadata_factory()}


def _decided(events: Iterable[object]) -> Decided:
    """Return decided events; objects of event types become events of their names."""
    declarations = [(event, declared(type(event))) for event in events]
    return Decided(
        tuple(
            event if declaration is None else NewEvent(name=declaration.name, payload=event)
            for event, declaration in cast("Any", declarations)
        )
    )


def _models(query: object, projector: object) -> tuple[Mapping[str, tuple[EventQuery, AnyProjector]], bool]:
    """Return models by name, and whether it is a single one.

    Raises:
        ConfigurationError: If they are not models.
    """
    is_single = isinstance(query, EventQuery)
    models: object = {_SINGLE: (query, projector)} if is_single else query
    if isinstance(models, Mapping) and models and (is_single or projector is None):
        given = cast("Mapping[str, Any]", models)
        if all(
            isinstance(each, tuple) and isinstance(each[0], EventQuery) and _is_projector(each[-1])
            for each in given.values()
        ):
            return given, is_single
    raise ConfigurationError(
        "a decision takes a query and a projector, or a dict of such pairs: {'course': (query, projector)}"
    )


def _flattened(decided: object) -> Sequence[object]:
    """Return the events of all streams, in their order."""
    if isinstance(decided, Mapping):
        streams = cast("Mapping[Any, Mapping[str, Any]]", decided)
        return [event for definition in streams.values() for event in definition["events"]]
    return cast("Sequence[object]", decided)


def _at_once(value: Any) -> Any:
    if not isawaitable(value):
        return value
    close = getattr(value, "close", None)
    if close is not None:
        close()
    raise ConfigurationError("a coroutine function cannot be run by `when`: write `(await given(...).when_async(...))`")


async def _awaited(value: Any) -> Any:
    return await value if isawaitable(value) else value


@contextmanager
def _database_of(mapper: Mapper[Any]) -> Generator[Session]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    for table in mapper.tables:
        if isinstance(table, Table):
            table.create(engine)
    try:
        with Session(engine) as session:
            yield session
    finally:
        engine.dispose()


def _columns_set(row: object) -> dict[str, Any]:
    if isinstance(row, Mapping):
        return dict(cast("Mapping[str, Any]", row))
    mapper: Mapper[Any] | None = inspect(type(row), raiseerr=False)
    if mapper is None:
        raise ConfigurationError(f"an expected row is an object of the mapped class or a mapping; got {row!r}")
    return {key: vars(row)[key] for key in mapper.column_attrs.keys() if key in vars(row)}  # noqa: SIM118


def _difference(expected: object, actual: object) -> str:
    """Return how two values differ as JSON, line by line."""
    before, after = (json_text(each, indent=2).splitlines() for each in (expected, actual))
    if before == after:
        return f"both are the same as JSON, but not equal: expected {expected!r}, got {actual!r}"
    return "\n".join(unified_diff(before, after, "expected", "actual", lineterm=""))

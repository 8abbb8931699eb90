"""The projector: state from events, with one handler method for each kind of event.

A projector reduces the events of a source to a state and returns it as a `Projection`. It has no state of its own,
reads only what it is given and stores nothing; stores for projections and snapshots build on it. `handlers.py` decides
which method handles which event.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from inspect import getattr_static, iscoroutinefunction, isfunction, signature
from types import CoroutineType
from typing import TYPE_CHECKING, Any, cast, final

from typing_extensions import TypeVar

from eventstore_sa.errors import ConfigurationError, SerialisationError
from eventstore_sa.projection.batches import Batch
from eventstore_sa.projection.definition import (
    MissingHandlerBehaviour,
    ProjectorDefinition,
    check_categories,
    check_storable,
)
from eventstore_sa.projection.handlers import HandlerTable, missing_handler, note_event
from eventstore_sa.projection.reading import ProjectableSource, SyncProjectableSource, check_source, closer
from eventstore_sa.projection.resuming import resumed, resumed_sync
from eventstore_sa.types import (
    AnyStoredEvent,
    EventSourceIdentifier,
    JsonValue,
    Projection,
    Snapshots,
    StreamIdentifier,
    SyncSnapshots,
    serialise_to_string,
)
from eventstore_sa.types.identifiers import check_name

if TYPE_CHECKING:
    from eventstore_sa.contracts.inline_projections import PublishPlace

__all__ = ["MissingHandlerBehaviour", "ProjectableSource", "Projector", "SyncProjectableSource"]

Identifier = TypeVar("Identifier", bound=EventSourceIdentifier, contravariant=True)
State = TypeVar("State")
Metadata = TypeVar("Metadata", default=JsonValue)


_FINAL = (
    "apply",
    "apply_inline",
    "check_inline",
    "coroutine_handlers",
    "depends_on",
    "id_of",
    "inline_id",
    "project",
    "project_sync",
    "projects_streams",
    "reduce",
    "reduce_sync",
    "takes",
)


class Projector(ProjectorDefinition[Identifier, State, Metadata]):
    """Reduces the events of a source to a state, with a method for each kind of event.

    Subclasses define the initial state and metadata, and the id of the result. Their handlers are public methods
    `(self, state, event) -> state`, named like the event in snake_case: `order_placed` handles "order-placed",
    "OrderPlaced" and "order placed" alike. A handler may change the state that it receives or create a new one; what it
    returns is the new state. It may be a coroutine function: then only `project` can run it.

    A handler whose annotation names event types, as in `placed: OrderPlaced` or `event: StoredEvent[str, OrderPlaced]`,
    handles the events of these types, whatever it is called, and receives the payload or the event.

    A handler is any method that can be called with a state and an event, whether it is an ordinary, static or class method,
    inherited from a plain mixin, or set on the class or an instance later on; give helpers that take two arguments a leading
    underscore. Properties, nested classes, generators, private names and whatever Projector itself defines are never called
    for an event. To handle an event with such a name, or with a name that no method can have, decorate a method of any name
    with `@handles("apply")`, or append an underscore: `apply_`, `import_`.

    Instances keep nothing between calls: one instance can serve any number of tasks and threads, if its handlers can.

    Attributes:
        name: The name of its projections; by default the name of the class without "Projector", in kebab-case.
        missing_handler_behaviour: What to do about events without a handler; `RAISE` by default.
        version: Distinguishes snapshots and rebuilds: increase it whenever the same events would give another state.
        categories: The categories whose events to take where events of all kinds arrive, as in publishes; None, the default:
            the events that have a handler, whatever their category.
        snapshot_every: After how many events since the last snapshot to take another, in calls with `snapshots`.
        state_type: The type that a stored state is converted to before handlers receive it; None, the default: it remains
            JSON.
        metadata_type: The same for stored metadata.

    Raises:
        ConfigurationError: When a subclass is defined: if two handlers claim the same event, a decorated method cannot be a
            handler, or a method that Projector defines is overridden in a way that cannot work.

    Examples:
        >>> from eventstore_sa.types import StoredEvent, StreamIdentifier
        >>> class AccountBalanceProjector(Projector[StreamIdentifier, int, None]):
        ...     def initial_state_factory(self) -> int:
        ...         return 0
        ...
        ...     def initial_metadata_factory(self) -> None:
        ...         return None
        ...
        ...     def id_factory(self, state: int, source: StreamIdentifier) -> str:
        ...         return source.stream
        ...
        ...     def money_deposited(self, state: int, event: StoredEvent[str, int]) -> int:
        ...         return state + event.payload
        >>> AccountBalanceProjector().name
        'account-balance'
        >>> from eventstore_sa.testing import StoredEventBuilder
        >>> event = StoredEventBuilder().with_name("money-deposited").with_payload(25).build()
        >>> AccountBalanceProjector().apply(event=event, state=100)
        125
    """

    needs_session: bool = False
    """False: its projections are stored as JSON, without a session."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_overrides(cls)
        cls._handlers = HandlerTable(cls, framework=Projector)

    @final
    def apply(self, *, event: AnyStoredEvent, state: State | None = None) -> State:
        """Return the state after one event.

        Args:
            event: The event.
            state: The state before it; None: the initial state. The handler receives this very object.

        Returns:
            What the handler returns, or `state` if the event has no handler and is ignored.

        Raises:
            MissingProjectionHandlerError: If the event has no handler and is not to be ignored.
            ConfigurationError: If the handler is a coroutine function.
        """
        try:
            before = self.initial_state_factory() if state is None else state
            after: State = self._at_once(self._handle(before, event), event)
        except Exception as error:
            self._note(error, event)
            raise
        return after

    @final
    async def project(
        self,
        *,
        source: ProjectableSource[Identifier],
        state: State | None = None,
        metadata: Metadata | None = None,
        snapshots: Snapshots | None = None,
    ) -> Projection[State, Metadata]:
        """Reduce all events of a source, one after another, in its order.

        An error of a handler propagates unchanged, with a note that names the projector, the event's name and id, its
        stream and its position; the iteration over the source is closed.

        Args:
            source: A stream, category or log of an `EventStore`, or any other asynchronous source.
            state: The state to start from; None: the initial state. Handlers receive this very object.
            metadata: The metadata to start from; None: the initial metadata.
            snapshots: A `SnapshotStore`: start from its snapshot of this source and read only the events after it; save
                another at the end if `snapshot_every` events have been read since.

        Returns:
            The projection with the final state; for an empty source, with the state and metadata it started from.

        Raises:
            MissingProjectionHandlerError: If an event has no handler and is not to be ignored.
            SerialisationError: If the snapshot is not of `state_type` or `metadata_type`.
            ConfigurationError: If the source is synchronous or not a source, or snapshots cannot be kept of it or of the
                state.
        """
        check_source(source, iterator="__aiter__")
        if snapshots is None:
            reached = await self._reduce_source(source, *self._begin(state, metadata))
        else:
            reached = await resumed(self, source, snapshots, given=(state, metadata), reduce=self._reduce_source)
        return self._wrapped_up(source.identifier, *reached)

    async def _reduce_source(self, source: Any, reached: Any, noted: Metadata) -> tuple[Any, Metadata]:
        events = aiter(source)
        close = closer(events, source, "aclose")
        try:
            async for event in events:
                try:
                    result = self._handle(reached, event)
                    reached = await cast("Any", result) if isinstance(result, CoroutineType) else result
                    noted = self.update_metadata(reached, noted, event)
                except Exception as error:
                    self._note(error, event)
                    raise
        finally:
            if close is not None:
                await close()
        return reached, noted

    @final
    def project_sync(
        self,
        *,
        source: SyncProjectableSource[Identifier],
        state: State | None = None,
        metadata: Metadata | None = None,
        snapshots: SyncSnapshots | None = None,
    ) -> Projection[State, Metadata]:
        """Reduce all events of a source without asyncio: the twin of `project`, for sources of a `SyncEventStore`.

        Args:
            source: A stream, category or log of a `SyncEventStore`, or any other synchronous source.
            state: As for `project`.
            metadata: As for `project`.
            snapshots: As for `project`, a `SyncSnapshotStore`.

        Returns:
            As `project`.

        Raises:
            EventStoreError: As for `project`; also a ConfigurationError if a handler is a coroutine function.
        """
        check_source(source, iterator="__iter__")
        if snapshots is None:
            reached = self._reduce_source_sync(source, *self._begin(state, metadata))
        else:
            reached = resumed_sync(self, source, snapshots, given=(state, metadata), reduce=self._reduce_source_sync)
        return self._wrapped_up(source.identifier, *reached)

    def _reduce_source_sync(self, source: Any, reached: Any, noted: Metadata) -> tuple[Any, Metadata]:
        events = iter(source)
        close = closer(events, source, "close")
        try:
            reached, noted = self.reduce_sync(events=events, state=reached, metadata=noted)
        finally:
            if close is not None:
                close()
        return reached, noted

    @final
    async def reduce(
        self, *, events: Iterable[AnyStoredEvent], state: State, metadata: Metadata
    ) -> tuple[State, Metadata]:
        """Apply events to a state, one after another; like `project`, but without a source and a projection.

        Args:
            events: The events, in their order.
            state: The state before them. Handlers receive this very object.
            metadata: The metadata before them.

        Returns:
            The state and the metadata after them.

        Raises:
            MissingProjectionHandlerError: If an event has no handler and is not to be ignored.
        """
        for event in events:
            try:
                result = self._handle(state, event)
                state = await cast("Any", result) if isinstance(result, CoroutineType) else result
                metadata = self.update_metadata(state, metadata, event)
            except Exception as error:
                self._note(error, event)
                raise
        return state, metadata

    @final
    def reduce_sync(
        self, *, events: Iterable[AnyStoredEvent], state: State, metadata: Metadata
    ) -> tuple[State, Metadata]:
        """Apply events without asyncio: the twin of `reduce`.

        Raises:
            MissingProjectionHandlerError: If an event has no handler and is not to be ignored.
            ConfigurationError: If a handler is a coroutine function.
        """
        for event in events:
            try:
                state = self._at_once(self._handle(state, event), event)
                metadata = self.update_metadata(state, metadata, event)
            except Exception as error:
                self._note(error, event)
                raise
        return state, metadata

    @final
    def check_inline(self) -> None:
        """Refuse to be updated inline if a handler is asynchronous, since a publish cannot wait; see `InlineProjection`.

        Raises:
            ConfigurationError: If a handler is a coroutine function, or `state_type` is missing.
        """
        check_storable(self)
        coroutines = self.coroutine_handlers
        if coroutines:
            raise ConfigurationError(
                f"{type(self).__name__}.{coroutines[0]} is a coroutine function, which cannot run in the transaction of a "
                "publish: make it an ordinary method, or apply the events afterwards by "
                "`await ProjectionStore(...).project(projector, events=...)`"
            )

    @final
    def inline_id(self, stream: StreamIdentifier, names: Collection[str]) -> str | None:
        """Return the id of the projection of a stream, if its events are taken; see `InlineProjection`."""
        if not self.projects_streams or not any(self._takes(stream.category, name) for name in names):
            return None
        try:
            return check_name("projection id's", self.id_of(stream))
        except (ConfigurationError, SerialisationError):
            # Raised again when the events are applied.
            return None

    @final
    def apply_inline(self, place: PublishPlace, events: Sequence[AnyStoredEvent]) -> None:
        """Update the projections that the events of a publish affect; see `InlineProjection`."""
        batch = Batch(self, events)
        if batch.ids:
            stored = place.load(self.name, batch.ids, guarded=not self.projects_streams)
            place.save(batch.reduced_sync(stored))

    def _begin(self, state: State | None, metadata: Metadata | None) -> tuple[Any, Metadata]:
        return (
            self.initial_state_factory() if state is None else state,
            self.initial_metadata_factory() if metadata is None else metadata,
        )

    def _handle(self, state: State, event: AnyStoredEvent) -> Any:
        """Return what the handler returns: the new state, or a coroutine that will."""
        handlers = self._handlers
        attribute = handlers.attribute_for(event.name) or handlers.added_later(self, event.name)
        if attribute is not None:
            argument = handlers.argument_for(attribute, event) if handlers.payload_types else event
            return getattr(self, attribute)(state, argument)
        if self.missing_handler_behaviour == MissingHandlerBehaviour.IGNORE:
            return state
        raise missing_handler(self, self.name, serialise_to_string(event.name), "state")

    def _at_once(self, result: Any, event: AnyStoredEvent) -> Any:
        if isinstance(result, CoroutineType):
            result.close()
            raise ConfigurationError(
                f"{type(self).__name__}.{self._handler_of(event.name)} is a coroutine function, which only an "
                "event loop can run: call `await projector.project(source=...)` with an asynchronous source, or make it "
                "an ordinary method"
            )
        return result

    def _wrapped_up(self, source: Any, state: State, metadata: Metadata) -> Projection[State, Metadata]:
        return Projection(
            id=self.id_factory(state, source), name=self.name, source=source, state=state, metadata=metadata
        )

    def _note(self, error: Exception, event: AnyStoredEvent) -> None:
        note_event(error, self.name, event)


def _check_overrides(projector: type[Projector[Any, Any, Any]]) -> None:
    """Refuse overrides of Projector's own attributes that cannot work; most are meant as handlers of such an event."""
    for attribute in _FINAL:
        if getattr(projector, attribute) is not getattr(Projector, attribute):
            raise ConfigurationError(
                f"{projector.__name__}.{attribute} overrides a method that must not be overridden; to handle events "
                f"called {attribute!r}, name it `{attribute}_`, or decorate another method with @handles({attribute!r})"
            )
    for attribute in (
        "name",
        "missing_handler_behaviour",
        "version",
        "snapshot_every",
        "categories",
        "state_type",
        "metadata_type",
        "needs_session",
    ):
        if isfunction(getattr_static(projector, attribute)):
            raise ConfigurationError(
                f"{projector.__name__}.{attribute} is a method, but must be a value or a property; to handle events "
                f"called {attribute!r}, name it `{attribute}_`, or decorate another method with @handles({attribute!r})"
            )
    check_categories(projector)
    for attribute in ("initial_state_factory", "initial_metadata_factory", "id_factory", "ids", "update_metadata"):
        if iscoroutinefunction(getattr(projector, attribute)):
            raise ConfigurationError(
                f"{projector.__name__}.{attribute} is a coroutine function, but must be an ordinary one: only handlers may "
                "be coroutine functions"
            )
    try:
        signature(cast("Any", projector).ids).bind(None, None)
    except TypeError:
        raise ConfigurationError(
            f"{projector.__name__}.ids takes an event alone, and returns the ids of its projections; to handle events "
            "called 'ids', name it `ids_`, or decorate another method with @handles('ids')"
        ) from None

"""What a projector defines: its name, its initial state, and which events affect which of its projections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from inspect import getattr_static, iscoroutinefunction
from typing import Any, ClassVar, Generic, TypeAlias, cast, final

from typing_extensions import TypeVar

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection.handlers import HandlerTable
from eventstore_sa.projection.naming import NameOfClass
from eventstore_sa.types import AnyStoredEvent, EventSourceIdentifier, JsonValue, StreamIdentifier, is_json_value

__all__ = ["MissingHandlerBehaviour", "ProjectorDefinition", "check_categories", "check_storable"]

Identifier = TypeVar("Identifier", bound=EventSourceIdentifier, contravariant=True)
State = TypeVar("State")
Metadata = TypeVar("Metadata", default=JsonValue)


class MissingHandlerBehaviour(StrEnum):
    """What a projector does with an event that it has no handler for."""

    RAISE = "raise"
    """Raise MissingProjectionHandlerError."""

    IGNORE = "ignore"
    """Leave the state unchanged; the metadata is updated all the same."""


class ProjectorDefinition(ABC, Generic[Identifier, State, Metadata]):
    """What subclasses of `Projector` define or override; see there."""

    # An instance or class attribute, or a property, may override any of these.
    name: str = cast("str", NameOfClass(lambda name: name.replace("Projector", "")))
    missing_handler_behaviour: MissingHandlerBehaviour = MissingHandlerBehaviour.RAISE
    version: int | str = 1
    snapshot_every: int | None = None
    categories: Collection[str] | None = None
    state_type: Any = None
    metadata_type: Any = None
    _handlers: ClassVar[HandlerTable]

    @abstractmethod
    def initial_state_factory(self) -> State:
        """Return the state before the first event: a new object on each call if handlers change it."""
        raise NotImplementedError

    @abstractmethod
    def initial_metadata_factory(self) -> Metadata:
        """Return the metadata before the first event."""
        raise NotImplementedError

    def id_factory(self, state: State, source: Identifier) -> str:
        """Return the id of the projection; by default the source as JSON, which is different for each.

        Args:
            state: The state after the last event.
            source: What was projected.
        """
        return source.json()

    def ids(self, event: AnyStoredEvent) -> Iterable[str]:
        """Return the ids of the stored projections that an event is applied to, inline or in batches.

        By default there is one projection for each stream, with the id that `id_factory` returns for the initial state.
        Override it if several streams feed a projection, or if an event affects several projections, or none. The source
        of such projections is the category if `categories` names exactly one, otherwise the log.

        Args:
            event: One that the projector takes.

        Raises:
            ConfigurationError: If `id_factory` needs more than the initial state.
        """
        return (self.id_of(StreamIdentifier(event.category, event.stream)),)

    @final
    def id_of(self, stream: StreamIdentifier) -> str:
        """Return the id of the projection of a stream, for the initial state.

        Raises:
            ConfigurationError: If `id_factory` needs more than the initial state.
        """
        source: Any = stream
        try:
            return self.id_factory(self.initial_state_factory(), source)
        except Exception as error:
            raise ConfigurationError(
                f"projector {self.name!r} cannot determine the projection of stream "
                f"{f'{stream.category}/{stream.stream}'!r}: id_factory fails for the initial state; override "
                f"`ids(self, event)` in {type(self).__name__}"
            ) from error

    def update_metadata(self, state: State, metadata: Metadata, event: AnyStoredEvent) -> Metadata:
        """Return the metadata after an event, even one without a handler; by default it does not change.

        Args:
            state: The state after the event.
            metadata: The metadata before it.
            event: The event.
        """
        return metadata

    @final
    def takes(self, event: AnyStoredEvent) -> bool:
        """Tell whether the projector takes an event where events of all kinds arrive, as in publishes.

        If `categories` is set, it takes all events of these, and `missing_handler_behaviour` decides about those without a
        handler. Otherwise it takes the events that have a handler, of any category.
        """
        return self._takes(event.category, event.name)

    def _takes(self, category: str, name: Any) -> bool:
        if self.categories is None:
            return self._handler_of(name) is not None
        return category in self.categories

    @final
    def depends_on(self, event_name: str) -> bool:
        """Tell whether state or metadata depend on events of a name: one has a handler, or the other takes all events."""
        here: Any = ProjectorDefinition
        noted = type(self).update_metadata is not here.update_metadata
        return noted or self._handler_of(event_name) is not None

    def _handler_of(self, event_name: object) -> str | None:
        """Return the name of the method that handles events of this name; None if there is none."""
        handlers = self._handlers
        return handlers.attribute_for(event_name) or handlers.added_later(self, event_name)

    @property
    @final
    def projects_streams(self) -> bool:
        """Whether there is one projection for each stream: whether `ids` is not overridden."""
        here: Any = ProjectorDefinition
        return type(self).ids is here.ids

    @property
    @final
    def coroutine_handlers(self) -> Sequence[str]:
        """The names of the handlers that are coroutine functions."""
        return sorted(each for each in self._handlers.attributes if iscoroutinefunction(getattr(self, each)))


AnyDefinition: TypeAlias = ProjectorDefinition[Any, Any, Any]


def check_categories(projection: type[Any]) -> None:
    """Refuse a string as `categories`: each of its letters would count as a category.

    Raises:
        ConfigurationError: If it is a string.
    """
    categories = getattr_static(projection, "categories")
    if isinstance(categories, str):
        raise ConfigurationError(
            f"{projection.__name__}.categories is text, but must be a collection of names: write ({categories!r},)"
        )


def check_storable(given: object) -> None:
    """Refuse what is not a projector, and projectors whose handlers would receive another kind of state than they return.

    This is checked before anything is read or written.

    Raises:
        ConfigurationError: If this is a class or not a projector, or if the initial state is not JSON and `state_type` does
            not say what it is (likewise for metadata).
    """
    if isinstance(given, type):
        raise ConfigurationError(f"{given.__name__} is a class: pass an instance, {given.__name__}()")
    kind: Any = ProjectorDefinition
    if not isinstance(given, kind):
        raise ConfigurationError(
            f"{type(given).__name__} is not a Projector, so the projection store cannot update its projections; a table "
            "projection updates its rows with `apply`"
        )
    projector = cast("AnyDefinition", given)
    if projector.state_type is None:
        _check_json(projector, "state", projector.initial_state_factory())
    if projector.metadata_type is None:
        _check_json(projector, "metadata", projector.initial_metadata_factory())


def _check_json(projector: AnyDefinition, what: str, initial: object) -> None:
    if not is_json_value(initial):
        kind = type(initial).__name__
        raise ConfigurationError(
            f"projector {projector.name!r} starts with {kind}, which is not JSON, so handlers would receive another type "
            f"once it has been stored: set {what}_type in {type(projector).__name__} to its type"
        )
